/* step.h - what _asyncio itself schedules: steps of tasks, wake-ups, done callbacks.
 *
 * _asyncio throws the handle away that call_soon() gives it. So there need not be one:
 * callback, argument and context stand in a record of a fourth of a handle's size. Its
 * calls are known by the tuple of keyword names that they bring, which is the module's
 * own and no one else's; fl_step_register() finds out which it is.
 *
 * Promises: whoever looks into loop._ready, in debug mode or in the report of an
 * exception finds a handle there, made at that moment. Only where a GIL guards the
 * spare records. */
#ifndef FL_STEP_H
#define FL_STEP_H
#include "core/handle.h"

/* Invariants: context is exactly a contextvars.Context; arg may be NULL. A spare links
 * to the next by callback. */
struct FlStep {
    PyObject *callback;
    PyObject *arg;
    PyObject *context;
};

/* Entries of the ready queue are handles and, with the lowest bit set, steps. */
static inline FlStep *
fl_step_of(void *entry)
{
    uintptr_t bits = (uintptr_t)entry;
    return bits & 1 ? (FlStep *)(bits - 1) : NULL;
}

/* Whether a call of call_soon(callback, [arg,] context=) is _asyncio's own. */
static inline bool
fl_step_is_meant(FlState *st, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    return FL_HAVE_GIL && kwnames != NULL && kwnames == st->kw_asyncio && nargs >= 1 &&
           nargs <= 2 && PyContext_CheckExact(args[nargs]);
}

/* Puts a step behind what is ready. 0, or -1 with MemoryError. */
int fl_step_push(FlLoop *loop, PyObject *callback, PyObject *arg, PyObject *context);

/* Runs a step that was taken from the queue, and reports what it raises. 0, or -1 with
 * the exception that must leave the loop. */
int fl_step_run(FlLoop *loop, FlStep *step);

/* A handle in the place of a step, which is gone then. Calls nobody. NULL with an
 * exception and the step as it was. */
FlHandle *fl_step_handle(FlLoop *loop, FlStep *step);

/* Releases a step that was taken from the queue and not run. */
void fl_step_drop(FlState *st, FlStep *step);

int fl_step_visit(FlStep *step, visitproc visit, void *arg);

/* Frees the spare records of a module that goes away. */
void fl_step_free_spares(FlState *st);

int fl_step_register(PyObject *module, FlState *st);

#endif
