/* context.h - contextvars for callbacks, without a copy for each.
 *
 * asyncio gives every callback that is scheduled without context= a copy of the
 * current context. A context's variables are one immutable mapping that copies share
 * and ContextVar.set() replaces, so as long as that mapping is the same, handles may
 * share one pristine copy (never entered, never shown to anyone), and their callbacks
 * run one after the other in one scratch copy. The scratch is given up as soon as its
 * mapping changed or somebody else came to hold it, so nobody can tell the
 * difference. The layout behind this is private: a self-test at import proves it on
 * the running interpreter, and where it fails every handle gets its own copy. */
#ifndef FL_CONTEXT_H
#define FL_CONTEXT_H
#include "base/state.h"

/* Invariants: pristine has never been entered; vars is its mapping, kept alive by it;
 * scratch is not entered and nobody else holds it. All may be NULL. */
typedef struct {
    PyObject *pristine;
    void *vars;
    PyObject *scratch;
} FlContexts;

/* Sets st->contexts_shareable. 0, or -1 with an exception. */
int fl_context_self_test(FlState *st);

/* A new reference to a context with the current variables; *shared tells whether it
 * is the pristine one, to be run through take and give. NULL with an exception. */
PyObject *fl_context_capture(FlState *st, FlContexts *contexts, bool *shared);

/* A context with the variables of pristine to run one callback in; new reference. */
PyObject *fl_context_take(FlContexts *contexts, PyObject *pristine);

/* True if the callback that ran in scratch left no trace: same variables as pristine
 * and nobody else holds it. Then the reference goes back to contexts, and *other, which
 * the caller releases once it has forgotten scratch, is what a turn within has put
 * there, or NULL. Else the caller keeps it. */
bool fl_context_give(FlContexts *contexts, PyObject *pristine, PyObject *scratch,
                     PyObject **other);

/* For a callback of a turn within a callback that is in the same context: clears the
 * exception that says so, and enters a copy, which takes the context's place in
 * *context, an owned reference. 0, or -1 with an exception. */
int fl_context_enter_copy(PyObject **context);

void fl_context_clear(FlContexts *contexts);

#endif
