/* transporterrors.c - what goes wrong on a transport, and who is told: the log, the
 * loop's exception handler, the protocol by the end of the connection.
 *
 * Owns:   nothing.
 * Thread: the loop's own. */
#include "io/transport.h"
#include "base/errors.h"

int
fl_transport_warn(FlTransport *self, const char *text)
{
    FlState *st = self->loop->st;
    PyObject *logger = PyObject_GetAttr(st->asyncio_base_events, st->str_logger);
    if (logger == NULL) return -1;
    PyObject *result = PyObject_CallMethod(logger, "warning", "s", text);
    Py_DECREF(logger);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_transport_debug(FlTransport *self, const char *format)
{
    if (FL_LIKELY(!self->loop->debug)) return 0;
    PyObject *logger = PyObject_GetAttr(self->loop->st->asyncio_base_events,
                                        self->loop->st->str_logger);
    if (logger == NULL) return -1;
    PyObject *result = PyObject_CallMethod(logger, "debug", "sO", format, self);
    Py_DECREF(logger);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_transport_debug_error(FlTransport *self, const char *message, PyObject *exc)
{
    FlState *st = self->loop->st;
    int rc = -1;
    PyObject *logger = PyObject_GetAttr(st->asyncio_base_events, st->str_logger);
    PyObject *method = logger == NULL ? NULL : PyObject_GetAttrString(logger, "debug");
    PyObject *args = Py_BuildValue("(sOs)", "%r: %s", self, message);
    PyObject *kwargs = Py_BuildValue("{s:O}", "exc_info", exc);
    if (method != NULL && args != NULL && kwargs != NULL) {
        PyObject *result = PyObject_Call(method, args, kwargs);
        rc = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(method);
    Py_XDECREF(logger);
    return rc;
}

static int
transport_fatal_exception(FlTransport *self, PyObject *exc, const char *message)
{
    FlState *st = self->loop->st;
    int rc = 0;
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        PyObject *protocol = Py_XNewRef(self->protocol);
        rc = fl_errors_report_exception(st, (PyObject *)self->loop, message, exc,
                                        st->str_transport, (PyObject *)self,
                                        st->str_protocol, protocol);
        Py_XDECREF(protocol);
    }
    else if (self->loop->debug) {
        rc = fl_transport_debug_error(self, message, exc);
    }
    if (rc == 0) return fl_transport_force_close(self, exc);
    /* What the handler raised leaves the loop, and the connection ends all the same. */
    PyObject *raised = fl_compat_take_exception();
    if (fl_transport_force_close(self, exc) < 0) {
        PyErr_Clear();
    }
    fl_compat_set_exception(raised);
    return -1;
}

int
fl_transport_fatal(FlTransport *self, const char *message)
{
    if (fl_errors_fatal()) return -1;
    PyObject *exc = fl_compat_take_exception();
    int rc = transport_fatal_exception(self, exc, message);
    Py_DECREF(exc);
    return rc;
}

int
fl_transport_fatal_errno(FlTransport *self, int code, const char *message)
{
    PyObject *exc = fl_errors_new_os_error(code);
    if (exc == NULL) return -1;
    int rc = transport_fatal_exception(self, exc, message);
    Py_DECREF(exc);
    return rc;
}

/* Exception in callback <method>, and the handle that would have run it. */
static int
transport_report_callback(FlTransport *self, PyObject *name, PyObject *exc)
{
    FlState *st = self->loop->st;
    PyObject *source = NULL, *message = NULL, *traceback = NULL;
    FlHandle *handle = NULL;
    int rc = -1;
    PyObject *method = PyObject_GetAttr((PyObject *)self, name);
    if (method == NULL) return -1;
    handle = fl_loop_make_handle(self->loop, method, NULL, 0, self->context);
    if (handle == NULL) goto done;
    if (self->loop->debug) {
        traceback = PyObject_GetAttrString((PyObject *)handle, "_source_traceback");
        if (traceback == NULL) goto done;
    }
    source = PyObject_CallFunctionObjArgs(st->format_callback_source, method,
                                          st->empty_tuple, NULL);
    if (source == NULL) goto done;
    message = PyUnicode_FromFormat("Exception in callback %U", source);
    if (message == NULL) goto done;
    fl_compat_set_exception(Py_NewRef(exc));
    rc = fl_errors_report(st, (PyObject *)self->loop, message, st->str_handle, handle,
                          st->str_source_traceback, traceback, NULL);
done:
    Py_XDECREF(message);
    Py_XDECREF(source);
    Py_XDECREF(traceback);
    Py_XDECREF((PyObject *)handle);
    Py_DECREF(method);
    return rc;
}

int
fl_transport_callback_failed(FlTransport *self, PyObject *name)
{
    if (fl_errors_fatal()) return -1;
    PyObject *exc = fl_compat_take_exception();
    int rc = transport_report_callback(self, name, exc);
    Py_DECREF(exc);
    return rc;
}

PyObject *
fl_transport_fatal_error(PyObject *op, PyObject *args)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    PyObject *exc;
    const char *message = "Fatal error on transport";
    if (!PyArg_ParseTuple(args, "O|s:_fatal_error", &exc, &message)) return NULL;
    if (transport_fatal_exception((FlTransport *)op, exc, message) < 0) return NULL;
    Py_RETURN_NONE;
}
