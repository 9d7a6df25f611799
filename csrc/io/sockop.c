/* sockop.c - FlSockOp, which steps like a coroutine and waits for its socket.
 *
 * Owns:   the arguments, the buffer that is being sent, and the wait for the socket.
 * Thread: the loop's own. */
#include "io/sockop.h"
#include "core/tasks.h"
#include "base/errors.h"

/* The iterator that await would step. New reference or NULL. */
static PyObject *
sockop_iterator(PyObject *awaitable)
{
    if (PyCoro_CheckExact(awaitable)) return Py_NewRef(awaitable);
    PyAsyncMethods *slots = Py_TYPE(awaitable)->tp_as_async;
    if (slots == NULL || slots->am_await == NULL) {
        PyErr_Format(PyExc_TypeError,
                     "object %.100s can't be used in 'await' expression",
                     Py_TYPE(awaitable)->tp_name);
        return NULL;
    }
    return slots->am_await(awaitable);
}

FlSockOutcome
fl_sockop_await(FlSockOp *self, PyObject *awaitable)
{
    self->awaiting = sockop_iterator(awaitable);
    return self->awaiting == NULL ? FL_SOCKOP_FAILED : FL_SOCKOP_AWAITS;
}

/* What asyncio checks before the first attempt. 0 or -1. */
static int
sockop_begin(FlSockOp *self)
{
    FlState *st = self->loop->st;
    PyObject *sock = self->args[0];
    if (self->kind->ended != NULL) return 0;
    self->direct = Py_IS_TYPE(sock, (PyTypeObject *)st->socket_class);
    if (!self->direct) {
        PyObject *result = PyObject_CallOneArg(st->check_ssl_socket, sock);
        if (result == NULL) return -1;
        Py_DECREF(result);
    }
    if (FL_LIKELY(!self->loop->debug)) return 0;
    PyObject *timeout = PyObject_CallMethodNoArgs(sock, st->str_gettimeout);
    PyObject *zero = timeout == NULL ? NULL : PyLong_FromLong(0);
    int blocking = zero == NULL ? -1 : PyObject_RichCompareBool(timeout, zero, Py_NE);
    Py_XDECREF(zero);
    Py_XDECREF(timeout);
    if (blocking > 0) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    }
    return blocking == 0 ? 0 : -1;
}

static void
sockop_forget(FlSockOp *self, PyObject *future)
{
    FL_OWN_ELSE(self->loop, return);
    fl_reader_unwait(self->loop, self->fd, self->kind->side, future);
}

/* Ends the wait for the socket, if there is one. Where another thread has the loop, as
 * when the collector comes from there, the loop sets the result of a future that nobody
 * waits for. */
static void
sockop_unwait(FlSockOp *self)
{
    PyObject *future = self->future;
    if (future == NULL) return;
    self->future = NULL;
    sockop_forget(self, future);
    Py_DECREF(future);
}

/* Begins to wait for the socket. 0 or -1. */
static int
sockop_wait(FlSockOp *self)
{
    FlLoop *loop = self->loop;
    PyObject *file = NULL;
    int rc = -1;
    if (self->fd < 0 || fl_poll_has_transport(&loop->poll, self->fd)) {
        file = self->kind->ended != NULL
                   ? PyLong_FromLong(self->fd)
                   : PyObject_CallMethodNoArgs(self->args[0], loop->st->str_fileno);
        if (file == NULL || fl_reader_fileno(loop, file, &self->fd) < 0 ||
            fl_reader_check_transport(loop, file, self->fd) < 0) {
            goto done;
        }
    }
    self->future = fl_tasks_new_future(loop);
    if (self->future == NULL) goto done;
    if (fl_reader_wait(loop, self->fd, self->kind->side, self->future) < 0) goto done;
    self->awaiting = sockop_iterator(self->future);
    rc = self->awaiting == NULL ? -1 : 0;
done:
    Py_XDECREF(file);
    return rc;
}

static void
sockop_finish(FlSockOp *self)
{
    self->state = FL_SOCKOP_CLOSED;
    sockop_unwait(self);
    Py_CLEAR(self->awaiting);
    if (self->kind->ended != NULL && self->fd >= 0) {
        self->kind->ended(self);
    }
    if (self->exported) {
        self->exported = false;
        PyBuffer_Release(&self->buffer);
    }
    for (int i = 0; i < 3; i++) {
        Py_CLEAR(self->args[i]);
    }
}

/* The exception that is set leaves the coroutine. */
static PySendResult
sockop_fail(FlSockOp *self)
{
    PyObject *exc = fl_compat_take_exception();
    sockop_finish(self);
    if (PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        /* It would pass for a result. */
        PyErr_SetString(PyExc_RuntimeError, "coroutine raised StopIteration");
        PyObject *error = fl_compat_take_exception();
        PyException_SetCause(error, Py_NewRef(exc));
        PyException_SetContext(error, exc);
        exc = error;
    }
    fl_compat_set_exception(exc);
    return PYGEN_ERROR;
}

/* Makes attempts until one has a result or must wait; value is what the wait before it
 * brought, a stolen reference, or NULL at first. */
static PySendResult
sockop_run(FlSockOp *self, PyObject *value, PyObject **result)
{
    for (;;) {
        if (value != NULL) {
            int rc = 0;
            bool awaited = self->awaiting != NULL;
            Py_CLEAR(self->awaiting);
            if (self->future != NULL) {
                sockop_unwait(self);
            }
            else if (awaited) {
                rc = self->kind->received(self, value);
            }
            Py_DECREF(value);
            if (rc < 0) return sockop_fail(self);
        }
        if (self->kind->ended == NULL) {
            self->fd = -1;
        }
        FlSockOutcome outcome = self->kind->attempt(self, result);
        if (outcome == FL_SOCKOP_DONE) {
            sockop_finish(self);
            return PYGEN_RETURN;
        }
        if (outcome == FL_SOCKOP_YIELDS) {
            *result = Py_NewRef(Py_None);
            self->state = FL_SOCKOP_SUSPENDED;
            return PYGEN_NEXT;
        }
        if (outcome == FL_SOCKOP_FAILED ||
            (outcome == FL_SOCKOP_BLOCKED && sockop_wait(self) < 0)) {
            return sockop_fail(self);
        }
        PySendResult sent = PyIter_Send(self->awaiting, Py_None, &value);
        if (sent == PYGEN_ERROR) return sockop_fail(self);
        if (sent == PYGEN_NEXT) {
            *result = value;
            self->state = FL_SOCKOP_SUSPENDED;
            return PYGEN_NEXT;
        }
    }
}

/* False, with an exception, where the coroutine cannot be stepped now. */
static bool
sockop_may_step(FlSockOp *self)
{
    if (self->state == FL_SOCKOP_RUNNING) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return false;
    }
    if (self->state == FL_SOCKOP_CLOSED) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return false;
    }
    return true;
}

static PySendResult
sockop_am_send(PyObject *op, PyObject *arg, PyObject **result)
{
    FlSockOp *self = (FlSockOp *)op;
    *result = NULL;
    FL_OWN(self->loop, PYGEN_ERROR);
    if (!sockop_may_step(self)) return PYGEN_ERROR;
    PyObject *value = NULL;
    if (self->state == FL_SOCKOP_CREATED) {
        if (arg != Py_None) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        self->state = FL_SOCKOP_RUNNING;
        if (sockop_begin(self) < 0) return sockop_fail(self);
    }
    else if (self->awaiting == NULL) {
        self->state = FL_SOCKOP_RUNNING;
        value = Py_NewRef(Py_None);
    }
    else {
        self->state = FL_SOCKOP_RUNNING;
        PySendResult sent = PyIter_Send(self->awaiting, arg, &value);
        if (sent == PYGEN_ERROR) return sockop_fail(self);
        if (sent == PYGEN_NEXT) {
            *result = value;
            self->state = FL_SOCKOP_SUSPENDED;
            return PYGEN_NEXT;
        }
    }
    return sockop_run(self, value, result);
}

/* A step's outcome as a method has it: a result leaves as StopIteration. */
static PyObject *
sockop_stepped(FlLoop *loop, PySendResult sent, PyObject *result)
{
    if (sent == PYGEN_NEXT) return result;
    if (sent == PYGEN_RETURN) {
        PyObject *stop = fl_loop_stop(loop, result);
        Py_DECREF(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
    }
    return NULL;
}

static PyObject *
sockop_send(PyObject *op, PyObject *arg)
{
    FlLoop *loop = ((FlSockOp *)op)->loop;
    PyObject *result;
    FL_OWN(loop, NULL);
    PySendResult sent = sockop_am_send(op, arg, &result);
    return sockop_stepped(loop, sent, result);
}

static PyObject *
sockop_iternext(PyObject *op)
{
    return sockop_send(op, Py_None);
}

static PyObject *
sockop_am_await(PyObject *op)
{
    FlSockOp *self = (FlSockOp *)op;
    if (self->state == FL_SOCKOP_SUSPENDED) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(op);
}

/* Calls close() of what is awaited, if it has one. 0 or -1. */
static int
sockop_close_awaiting(FlSockOp *self)
{
    PyObject *close;
    if (self->awaiting == NULL) return 0;
    if (fl_compat_get_optional(self->awaiting, self->loop->st->str_close, &close) < 0) {
        return -1;
    }
    if (close == NULL) return 0;
    PyObject *result = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* throw(exc), throw(type), throw(type, value), throw(type, value, traceback) as one
 * exception. New reference or NULL. */
static PyObject *
sockop_exception(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type = args[0];
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    PyObject *traceback = nargs > 2 && args[2] != Py_None ? args[2] : NULL;
    PyObject *exc;
    if (traceback != NULL && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError,
                        "throw() third argument must be a traceback object");
        return NULL;
    }
    if (PyExceptionClass_Check(type)) {
        PyErr_SetObject(type, value);
        exc = fl_compat_take_exception();
        if (value != NULL && exc == value) {
            PyException_SetTraceback(exc, Py_None); /* it is the third argument's */
        }
    }
    else if (!PyExceptionInstance_Check(type)) {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from "
                     "BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return NULL;
    }
    else if (value != NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "instance exception may not have a separate value");
        return NULL;
    }
    else {
        exc = Py_NewRef(type);
    }
    if (exc != NULL && traceback != NULL) {
        PyException_SetTraceback(exc, traceback);
    }
    return exc;
}

/* The value of the StopIteration that is set, which is cleared; else NULL. */
static PyObject *
sockop_stop_value(void)
{
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) return NULL;
    PyObject *exc = fl_compat_take_exception();
    PyObject *value = Py_NewRef(((PyStopIterationObject *)exc)->value);
    Py_DECREF(exc);
    return value;
}

static PyObject *
sockop_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    FlSockOp *self = (FlSockOp *)op;
    FL_OWN(self->loop, NULL);
    if (nargs < 1 || nargs > 3) {
        return PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd",
                            nargs);
    }
    PyObject *exc = sockop_exception(args, nargs);
    if (exc == NULL) return NULL;
    if (!sockop_may_step(self)) {
        Py_DECREF(exc);
        return NULL;
    }
    FlSockState state = self->state;
    self->state = FL_SOCKOP_RUNNING;
    PyObject *got = NULL;
    if (state == FL_SOCKOP_SUSPENDED && self->awaiting != NULL) {
        if (!PyErr_GivenExceptionMatches(exc, PyExc_GeneratorExit)) {
            got = PyObject_CallMethodOneArg(self->awaiting, self->loop->st->str_throw,
                                            exc);
            Py_CLEAR(exc);
            if (got != NULL) {
                self->state = FL_SOCKOP_SUSPENDED;
                return got;
            }
            got = sockop_stop_value();
            if (got != NULL) {
                PyObject *result = NULL;
                PySendResult sent = sockop_run(self, got, &result);
                return sockop_stepped(self->loop, sent, result);
            }
        }
        else if (sockop_close_awaiting(self) < 0) {
            Py_CLEAR(exc);
        }
    }
    if (exc != NULL) {
        fl_compat_set_exception(exc);
    }
    sockop_fail(self);
    return NULL;
}

/* 0 or -1. Nobody else has it, or the loop is the caller's. */
static int
sockop_end(FlSockOp *self)
{
    if (self->state == FL_SOCKOP_CLOSED) return 0;
    if (!sockop_may_step(self)) return -1;
    bool suspended = self->state == FL_SOCKOP_SUSPENDED;
    self->state = FL_SOCKOP_RUNNING;
    if (suspended && sockop_close_awaiting(self) < 0) {
        sockop_fail(self);
        return -1;
    }
    sockop_finish(self);
    return 0;
}

static PyObject *
sockop_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlSockOp *self = (FlSockOp *)op;
    FL_OWN(self->loop, NULL);
    if (sockop_end(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
sockop_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((FlSockOp *)op)->kind->name);
}

static PyObject *
sockop_get_qualname(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromFormat("Loop.%s", ((FlSockOp *)op)->kind->name);
}

static PyObject *
sockop_get_running(PyObject *op, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((FlSockOp *)op)->state == FL_SOCKOP_RUNNING);
}

static PyObject *
sockop_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<coroutine object Loop.%s at %p>",
                                ((FlSockOp *)op)->kind->name, op);
}

static void
sockop_finalize(PyObject *op)
{
    FlSockOp *self = (FlSockOp *)op;
    if (self->state != FL_SOCKOP_CREATED && self->state != FL_SOCKOP_SUSPENDED) return;
    PyObject *raised = fl_compat_take_exception();
    if (self->state == FL_SOCKOP_CREATED) {
        PyObject *result =
            PyObject_CallOneArg(self->loop->st->warn_unawaited_coroutine, op);
        if (result == NULL) {
            PyErr_WriteUnraisable(op);
        }
        Py_XDECREF(result);
    }
    else if (sockop_end(self) < 0) {
        PyErr_WriteUnraisable(op);
    }
    if (raised != NULL) {
        fl_compat_set_exception(raised);
    }
}

static int
sockop_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlSockOp *self = (FlSockOp *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->loop);
    for (int i = 0; i < 3; i++) {
        Py_VISIT(self->args[i]);
    }
    Py_VISIT(self->awaiting);
    Py_VISIT(self->future);
    Py_VISIT(self->origin);
    if (self->exported) {
        Py_VISIT(self->buffer.obj);
    }
    return 0;
}

static int
sockop_clear(PyObject *op)
{
    FlSockOp *self = (FlSockOp *)op;
    sockop_finish(self);
    Py_CLEAR(self->origin);
    return 0; /* the loop, which the end above needs, stays to the last */
}

static void
sockop_dealloc(PyObject *op)
{
    FlSockOp *self = (FlSockOp *)op;
    PyTypeObject *tp = Py_TYPE(op);
    if (self->state != FL_SOCKOP_CLOSED && PyObject_CallFinalizerFromDealloc(op) < 0)
        return;
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)sockop_clear(op);
    Py_DECREF((PyObject *)self->loop);
    PyObject_GC_Del(op);
    Py_DECREF(tp);
}

/* In debug mode: where the coroutine was made, as
 * sys.set_coroutine_origin_tracking_depth() asks for. 0 or -1. */
static int
sockop_trace_origin(FlSockOp *self)
{
    PyObject *limit = PyObject_CallNoArgs(self->loop->st->origin_tracking_depth);
    if (limit == NULL) return -1;
    long depth = PyLong_AsLong(limit);
    Py_DECREF(limit);
    if (depth <= 0) return PyErr_Occurred() ? -1 : 0;

    PyObject *list = PyList_New(0);
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (list != NULL && frame != NULL && PyList_GET_SIZE(list) < depth) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        PyObject *entry = Py_BuildValue("(OiO)", code->co_filename,
                                        PyFrame_GetLineNumber(frame), code->co_name);
        Py_DECREF(code);
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    if (list == NULL) return -1;
    self->origin = PyList_AsTuple(list);
    Py_DECREF(list);
    return self->origin == NULL ? -1 : 0;
}

/* TypeError, in Python's words, and -1 where an argument is missing; else 0. */
static int
sockop_check_missing(const FlSockKind *kind, PyObject *const *args)
{
    const char *missing[3];
    int count = 0;
    FL_ASSUME(kind->required <= 3);
    for (int i = 0; i < kind->required; i++) {
        if (args[i] == NULL) {
            missing[count++] = kind->parameters[i];
        }
    }
    static const char *const formats[] = {
        "Loop.%s() missing 1 required positional argument: '%s'",
        "Loop.%s() missing 2 required positional arguments: '%s' and '%s'",
        "Loop.%s() missing 3 required positional arguments: '%s', '%s', and '%s'",
    };
    if (count == 0) return 0;
    PyErr_Format(PyExc_TypeError, formats[count - 1], kind->name, missing[0],
                 count > 1 ? missing[1] : "", count > 2 ? missing[2] : "");
    return -1;
}

/* The arguments that come by name. 0 or -1 with TypeError. */
static int
sockop_parse_keywords(const FlSockKind *kind, PyObject *const *values,
                      PyObject *kwnames, PyObject **out)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        int i = 0;
        while (i < kind->count &&
               PyUnicode_CompareWithASCIIString(name, kind->parameters[i]) != 0) {
            i++;
        }
        if (i == kind->count) {
            PyErr_Format(PyExc_TypeError,
                         "Loop.%s() got an unexpected keyword argument '%U'",
                         kind->name, name);
            return -1;
        }
        if (out[i] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "Loop.%s() got multiple values for argument '%U'", kind->name,
                         name);
            return -1;
        }
        out[i] = values[k];
    }
    return 0;
}

/* The general form of the call, for keywords and errors, which are found in Python's
 * order. 0 or -1 with TypeError. */
static int
sockop_parse_slow(const FlSockKind *kind, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames, PyObject **out)
{
    for (Py_ssize_t i = 0; i < nargs && i < kind->count; i++) {
        out[i] = args[i];
    }
    if (sockop_parse_keywords(kind, args + nargs, kwnames, out) < 0) return -1;
    if (nargs <= kind->count) return sockop_check_missing(kind, out);
    char least[32] = ""; /* these count self, as Python does */
    if (kind->required < kind->count) {
        PyOS_snprintf(least, sizeof(least), "from %d to ", kind->required + 1);
    }
    PyErr_Format(PyExc_TypeError,
                 "Loop.%s() takes %s%d positional arguments but %zd were given",
                 kind->name, least, kind->count + 1, nargs + 1);
    return -1;
}

PyObject *
fl_sockop_new(FlLoop *loop, const FlSockKind *kind, PyObject *const *args,
              Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *parsed[3] = {NULL, NULL, NULL};
    if (FL_UNLIKELY(kwnames != NULL || nargs != kind->count)) {
        if (sockop_parse_slow(kind, args, nargs, kwnames, parsed) < 0) return NULL;
        args = parsed;
    }
    FlSockOp *self = PyObject_GC_New(FlSockOp, loop->st->sock_op_type);
    if (self == NULL) return NULL;
    memset((char *)self + offsetof(FlSockOp, weakrefs), 0,
           sizeof(FlSockOp) - offsetof(FlSockOp, weakrefs));
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->kind = kind;
    for (int i = 0; i < kind->count; i++) {
        self->args[i] = Py_XNewRef(args[i]);
    }
    self->fd = -1;
    PyObject_GC_Track((PyObject *)self);
    if (FL_UNLIKELY(loop->debug) && sockop_trace_origin(self) < 0) {
        self->state = FL_SOCKOP_CLOSED;
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyMethodDef sockop_methods[] = {
    {"send", sockop_send, METH_O,
     PyDoc_STR("Resume the coroutine; its result leaves as StopIteration.")},
    {"throw", (PyCFunction)(void (*)(void))sockop_throw, METH_FASTCALL,
     PyDoc_STR("Raise an exception in the coroutine.")},
    {"close", sockop_close, METH_NOARGS, PyDoc_STR("End the coroutine.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef sockop_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlSockOp, weakrefs), READONLY, NULL},
    {"cr_origin", T_OBJECT, offsetof(FlSockOp, origin), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef sockop_getset[] = {
    {"__name__", sockop_get_name, NULL, NULL, NULL},
    {"__qualname__", sockop_get_qualname, NULL, NULL, NULL},
    {"cr_running", sockop_get_running, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot sockop_slots[] = {
    {Py_tp_doc, "The coroutine of a socket operation."},
    {Py_tp_dealloc, sockop_dealloc},
    {Py_tp_finalize, sockop_finalize},
    {Py_tp_traverse, sockop_traverse},
    {Py_tp_clear, sockop_clear},
    {Py_tp_repr, sockop_repr},
    {Py_tp_iter, PyObject_SelfIter}, /* for yield from op.__await__() */
    {Py_tp_iternext, sockop_iternext},
    {Py_tp_methods, sockop_methods},
    {Py_tp_members, sockop_members},
    {Py_tp_getset, sockop_getset},
    {Py_am_await, sockop_am_await},
    {Py_am_send, sockop_am_send},
    {0, NULL},
};

static PyType_Spec sockop_spec = {
    .name = "fastloop._core.SockOp",
    .basicsize = sizeof(FlSockOp),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sockop_slots,
};

int
fl_sockop_register(PyObject *module, FlState *st)
{
    st->sock_op_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &sockop_spec, NULL);
    return st->sock_op_type == NULL ? -1 : 0;
}
