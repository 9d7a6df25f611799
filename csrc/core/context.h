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

/* Where a batch of callbacks stays between two of them: in the scratch context,
 * entered, while the next is to run with the same variables and the one before left no
 * trace. To enter and exit anew was a tenth of what a callback costs.
 *
 * Invariants: scratch is NULL, or entered, the thread's current one, and the batch's
 * own reference but while a handle shows it; count is its references then. Nobody's
 * code may run in it but the callbacks': where some might, the batch leaves first. */
typedef struct {
    PyObject *scratch;
    Py_ssize_t count;
    PyThreadState *thread;
    bool seen; /* somebody watches how objects come and go */
} FlStay;

/* Sets st->contexts_shareable. 0, or -1 with an exception. */
int fl_context_self_test(FlState *st);

/* The head of CPython's context object, 3.11 to 3.15. */
typedef struct {
    PyObject_HEAD
    PyObject *previous;
    void *vars;
} FlContextHead;

static inline void *
fl_context_vars(PyObject *context)
{
    return ((FlContextHead *)context)->vars;
}

PyObject *fl_context_capture_anew(FlState *st, FlContexts *contexts, bool *shared);

/* A new reference to a context with the current variables; *shared tells whether it
 * is the pristine one, to be run by fl_context_stay(). NULL with an exception. */
static inline PyObject *
fl_context_capture(FlState *st, FlContexts *contexts, bool *shared)
{
    if (FL_LIKELY(contexts->pristine != NULL)) {
        PyObject *current = PyThreadState_Get()->context; /* borrowed */
        if (FL_LIKELY(current != NULL && fl_context_vars(current) == contexts->vars)) {
            *shared = true;
            return Py_NewRef(contexts->pristine);
        }
    }
    return fl_context_capture_anew(st, contexts, shared);
}

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

int fl_context_come(FlContexts *contexts, FlStay *stay, PyObject *pristine);
void fl_context_leave_always(FlContexts *contexts, FlStay *stay);

/* Sees that a context with the variables of pristine is entered. 0, or -1 with an
 * exception, and then none is. */
static inline int
fl_context_stay(FlContexts *contexts, FlStay *stay, PyObject *pristine)
{
    if (FL_LIKELY(stay->scratch != NULL &&
                  fl_context_vars(stay->scratch) == fl_context_vars(pristine))) {
        return 0;
    }
    return fl_context_come(contexts, stay, pristine);
}

/* Whether the callback that ran in it left no trace. */
static inline bool
fl_context_is_clean(const FlStay *stay, PyObject *pristine)
{
    PyObject *scratch = stay->scratch;
    return Py_REFCNT(scratch) == stay->count && stay->thread->context == scratch &&
           fl_context_vars(scratch) == fl_context_vars(pristine);
}

static inline void
fl_context_leave(FlContexts *contexts, FlStay *stay)
{
    if (stay->scratch != NULL) {
        fl_context_leave_always(contexts, stay);
    }
}

void fl_context_clear(FlContexts *contexts);

/* The loop comes to rest: what no waiting handle keeps, nor the current context, is not
 * kept by the contexts of callbacks that have run. */
void fl_context_rest(FlContexts *contexts);

#endif
