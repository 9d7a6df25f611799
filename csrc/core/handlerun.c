/* handlerun.c - what a handle's turn is: its callback runs, in its context, and what it
 * raises is reported.
 *
 * Owns:   what it runs, while it does.
 * Thread: the loop's own; fl_handle_failed() any.
 *
 * A batch comes through here once for each callback, and everything that can stand from
 * one to the next does; see FlStay in context.h. */
#include "core/handle.h"
#include "core/context.h"
#include "core/handleinfo.h"
#include "core/loop.h"
#include "base/errors.h"

static PyObject *
handle_callback_source(FlState *st, FlHandle *self)
{
    PyObject *args = fl_handleinfo_args(self);
    if (args == NULL) return NULL;
    PyObject *callback = fl_handle_callback(self);
    if (callback == NULL) {
        callback = Py_NewRef(Py_None);
    }
#if FL_CALLBACK_SOURCE_DEBUG
    PyObject *kwargs =
        Py_BuildValue("{s:O}", "debug", self->loop->debug ? Py_True : Py_False);
    PyObject *both = kwargs == NULL ? NULL : PyTuple_Pack(2, callback, args);
    PyObject *source =
        both == NULL ? NULL : PyObject_Call(st->format_callback_source, both, kwargs);
    Py_XDECREF(both);
    Py_XDECREF(kwargs);
#else
    PyObject *source =
        PyObject_CallFunctionObjArgs(st->format_callback_source, callback, args, NULL);
#endif
    Py_DECREF(callback);
    Py_DECREF(args);
    return source;
}

/* The callback raised. As asyncio's Handle._run(). Where memory is out, Python may lose
 * the exception of a function as it takes its frame down. */
int
fl_handle_failed(FlHandle *self)
{
    FlState *st = self->loop->st;
    if (FL_UNLIKELY(PyErr_Occurred() == NULL)) {
        PyErr_SetString(PyExc_SystemError,
                        "a callback returned NULL without setting an exception");
    }
    if (fl_errors_fatal()) return -1;
    PyObject *exc = fl_compat_take_exception();
    PyObject *source = handle_callback_source(st, self);
    PyObject *message = source == NULL
                            ? NULL
                            : PyUnicode_FromFormat("Exception in callback %U", source);
    Py_XDECREF(source);
    if (message == NULL) {
        Py_DECREF(exc);
        return -1;
    }
    fl_compat_set_exception(exc);
    PyObject *traceback = fl_handleinfo_note(self, FL_HANDLEINFO_TRACEBACK);
    int rc = fl_errors_report(st, (PyObject *)self->loop, message, st->str_handle, self,
                              st->str_source_traceback,
                              traceback == Py_None ? NULL : traceback, NULL);
    Py_XDECREF(traceback);
    Py_DECREF(message);
    return rc;
}

/* PyObject_Vectorcall(), which looks up how a callable is called, and checks what C
 * code returned: nothing that what is written in Python has need of. */
static inline PyObject *
handle_vectorcall(PyObject *callback, PyObject *const *args, size_t nargsf)
{
    vectorcallfunc call = NULL;
    if (PyFunction_Check(callback)) {
        call = ((PyFunctionObject *)callback)->vectorcall;
    }
    else if (PyMethod_Check(callback)) {
        call = ((PyMethodObject *)callback)->vectorcall;
    }
    if (FL_LIKELY(call != NULL)) return call(callback, args, nargsf, NULL);
    return PyObject_Vectorcall(callback, args, nargsf, NULL);
}

/* The callback has cancelled its own handle, whose call nobody holds any more but the
 * one that is over: it goes when the context is left, as out of asyncio's call of
 * context.run(). A new reference, or NULL where there is no memory. */
static FL_NEVER_INLINE PyObject *
handle_outlive(PyObject *callback, PyObject *const *args, int nargs)
{
    PyObject *raised = PyErr_Occurred() ? fl_compat_take_exception() : NULL;
    PyObject *call = PyTuple_New(1 + nargs);
    if (call == NULL) {
        PyErr_Clear();
    }
    else {
        PyTuple_SET_ITEM(call, 0, Py_NewRef(callback));
        for (int i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(call, 1 + i, Py_NewRef(args[i]));
        }
    }
    if (raised != NULL) {
        fl_compat_set_exception(raised);
    }
    return call;
}

/* *call is for the caller to release outside of the context, or NULL. */
static inline PyObject *
handle_call(FlHandle *self, PyObject **call)
{
    /* The callback may cancel its own handle, which empties the slots: own them. */
    PyObject *result;
    PyObject *args[1 + FL_HANDLE_INLINE_ARGS];
    *call = NULL;
    fl_lock_acquire(&self->lock);
    PyObject *callback = self->callback;
    int nargs = self->nargs;
    /* Cancelled in this moment: by another thread, or by a destructor that ran when the
     * context was made. */
    if (FL_UNLIKELY(callback == NULL)) {
        fl_lock_release(&self->lock);
        Py_RETURN_NONE;
    }
    Py_INCREF(callback);
    for (int i = 0; i < nargs && nargs <= FL_HANDLE_INLINE_ARGS; i++) {
        args[i + 1] = Py_NewRef(self->args[i]);
    }
    fl_lock_release(&self->lock);
    if (FL_LIKELY(nargs <= FL_HANDLE_INLINE_ARGS)) {
        result = handle_vectorcall(callback, args + 1,
                                   (size_t)nargs | PY_VECTORCALL_ARGUMENTS_OFFSET);
        if (FL_UNLIKELY(!fl_handle_is_live(self))) {
            *call = handle_outlive(callback, args + 1, nargs);
        }
        for (int i = 0; i < nargs; i++) {
            Py_DECREF(args[i + 1]);
        }
    }
    else {
        PyObject *all = fl_handleinfo_args(self);
        result = all == NULL ? NULL : PyObject_CallObject(callback, all);
        if (FL_UNLIKELY(all != NULL && !fl_handle_is_live(self))) {
            *call = handle_outlive(callback, &all, 1);
        }
        Py_XDECREF(all);
    }
    Py_DECREF(callback);
    return result;
}

/* asyncio calls context.run(), so anything with a run() will do. */
static PyObject *
handle_call_foreign_context(FlHandle *self)
{
    PyObject *context = Py_NewRef(self->context);
    PyObject *run = PyObject_GetAttrString(context, "run");
    PyObject *callback = run == NULL ? NULL : fl_handle_callback(self);
    PyObject *args = callback == NULL ? NULL : fl_handleinfo_args(self);
    PyObject *first = args == NULL ? NULL : PyTuple_Pack(1, callback);
    PyObject *all = first == NULL ? NULL : PySequence_Concat(first, args);
    PyObject *result = all == NULL ? NULL : PyObject_CallObject(run, all);
    if (run != NULL && callback == NULL) {
        result = Py_NewRef(Py_None); /* cancelled in this moment */
    }
    Py_XDECREF(all);
    Py_XDECREF(first);
    Py_XDECREF(callback);
    Py_XDECREF(args);
    Py_XDECREF(run);
    Py_DECREF(context);
    return result;
}

/* Goes into a context with the variables of the pristine one, which the handle shows
 * and holds while it runs. 0, or -1 with an exception. */
static inline int
handle_enter(FlHandle *self, FlStay *stay)
{
    if (FL_UNLIKELY(fl_context_stay(&self->loop->contexts, stay, self->context) < 0)) {
        return -1;
    }
    self->context = stay->scratch;
    fl_shared_drop(&self->flags, FL_HANDLE_SHARED);
    return 0;
}

/* What came of the callback, whose context was left. 0, or -1 with the exception that
 * must leave the loop. */
static inline int
handle_ran(FlHandle *self, PyObject *result, PyObject *call)
{
    Py_XDECREF(call);
    if (FL_UNLIKELY(result == NULL)) return fl_handle_failed(self);
    Py_DECREF(result);
    return 0;
}

/* The same out of the context that handle_enter() went into, and which the handle keeps
 * if the callback left a trace. */
static int
handle_left(FlHandle *self, FlStay *stay, PyObject *pristine, PyObject *result,
            PyObject *call)
{
    PyObject *scratch = stay->scratch;
    PyObject *other = NULL;
    stay->scratch = NULL;
    if (FL_UNLIKELY(PyContext_Exit(scratch) < 0)) {
        Py_CLEAR(result);
    }
    if (fl_context_give(&self->loop->contexts, pristine, scratch, &other)) {
        self->context = pristine;
        self->flags |= FL_HANDLE_SHARED;
        Py_XDECREF(other);
    }
    else {
        Py_DECREF(pristine);
    }
    return handle_ran(self, result, call);
}

static inline int
handle_run_in_context(FlHandle *self)
{
    PyObject *context = self->context;
    PyObject *result = NULL;
    PyObject *call = NULL;
    if (self->flags & FL_HANDLE_SHARED) {
        FlStay stay = {.scratch = NULL};
        if (handle_enter(self, &stay) < 0) return fl_handle_failed(self);
        result = handle_call(self, &call);
        return handle_left(self, &stay, context, result, call);
    }
    if (FL_UNLIKELY(!PyContext_CheckExact(context))) {
        return handle_ran(self, handle_call_foreign_context(self), NULL);
    }
    Py_INCREF(context);
    if (FL_LIKELY(PyContext_Enter(context) == 0) ||
        (self->loop->depth > 1 && fl_context_enter_copy(&context) == 0)) {
        result = handle_call(self, &call);
        if (FL_UNLIKELY(PyContext_Exit(context) < 0)) {
            Py_CLEAR(result);
        }
    }
    Py_DECREF(context);
    return handle_ran(self, result, call);
}

int
fl_handle_run(FlHandle *self)
{
    if (!FL_HANDLE_GATED || FL_LIKELY(!(self->flags & FL_HANDLE_THREADSAFE))) {
        return handle_run_in_context(self);
    }
    if (!fl_gate_enter(self->loop, self)) return 0;
    FlLoop *loop = (FlLoop *)Py_NewRef((PyObject *)self->loop);
    int rc = handle_run_in_context(self);
    fl_gate_leave(loop, self);
    Py_DECREF((PyObject *)loop);
    return rc;
}

/* Whether no code runs as the loop lets go of a handle: because somebody else has it,
 * or because all its parts have other holders. */
static inline bool
handle_goes_quietly(FlHandle *self)
{
    PyObject *callback = self->callback;
    Py_ssize_t few = 1 + self->nargs; /* all may be one object */
    if (Py_REFCNT(self) > 1) return true;
    if (self->weakrefs != NULL || self->notes != NULL || callback == NULL ||
        few > 1 + FL_HANDLE_INLINE_ARGS || Py_REFCNT(callback) <= few ||
        Py_REFCNT(self->context) <= 1 || Py_REFCNT(self->loop) <= 1) {
        return false;
    }
    for (int i = 0; i < self->nargs; i++) {
        if (Py_REFCNT(self->args[i]) <= few) return false;
    }
    return true;
}

/* The loop lets go of one that goes quietly, which may be a spare before it is empty.
 */
static inline void
handle_retire(FlHandle *self, bool seen)
{
#if FL_HAVE_GIL
    FlLoop *loop = self->loop;
    PyObject *context = self->context;
    PyTypeObject *type = Py_TYPE(self);
    const unsigned others = FL_HANDLE_TRACKED | FL_HANDLE_CROWD;
    if (FL_LIKELY(!seen && Py_REFCNT(self) == 1 && !(self->flags & others) &&
                  fl_handle_spare(loop->st, self))) {
        FL_ASSUME(self->nargs <= FL_HANDLE_INLINE_ARGS);
        Py_CLEAR(self->callback);
        for (int i = 0; i < self->nargs; i++) {
            Py_DECREF(self->args[i]);
        }
        self->nargs = 0;
        Py_DECREF(context);
        self->loop = NULL;
        Py_DECREF(loop);
        Py_DECREF(type);
        return;
    }
#else
    (void)seen;
#endif
    fl_handle_track(self);
    Py_DECREF((PyObject *)self);
}

int
fl_handle_run_staying(FlHandle *self, FlStay *stay)
{
    FlContexts *contexts = &self->loop->contexts;
    PyObject *pristine = self->context;
    int rc = 0;
    if (FL_UNLIKELY(!(self->flags & FL_HANDLE_SHARED))) {
        fl_context_leave(contexts, stay);
        rc = fl_handle_run(self);
        goto ran;
    }
    if (FL_UNLIKELY(handle_enter(self, stay) < 0)) {
        rc = fl_handle_failed(self);
        goto ran;
    }
    PyObject *call;
    PyObject *result = handle_call(self, &call);
    if (FL_LIKELY(result != NULL && Py_REFCNT(result) > 1 && call == NULL &&
                  fl_context_is_clean(stay, pristine))) {
        Py_DECREF(result);
        self->context = pristine;
        self->flags |= FL_HANDLE_SHARED;
        if (FL_UNLIKELY(!handle_goes_quietly(self))) {
            fl_context_leave_always(contexts, stay);
            goto ran;
        }
        handle_retire(self, stay->seen);
        return 0;
    }
    rc = handle_left(self, stay, pristine, result, call);
ran:
    fl_handle_track(self);
    Py_DECREF((PyObject *)self);
    return rc;
}
