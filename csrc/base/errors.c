/* errors.c - exceptions on their way to the loop's exception handler.
 *
 * Owns:   nothing.
 * Thread: any that holds the GIL. */
#include "base/errors.h"
#include <stdarg.h>
#include <string.h>

bool
fl_errors_fatal(void)
{
    return PyErr_ExceptionMatches(PyExc_SystemExit) ||
           PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

/* asyncio does that where it handles the exception: sys.exc_info() and what asks for
 * it, such as logging.exception(), find it, and what the handler raises has it as
 * context. */
static int
errors_call_handler(FlState *st, PyObject *loop, PyObject *context, PyObject *exc)
{
    /* _fatal_error() and its like are given anything. */
    if (exc != NULL && !PyExceptionInstance_Check(exc)) {
        exc = NULL;
    }
    /* As it is, NULL or None included: PyErr_GetHandledException() would look further,
     * and leave what it finds with a coroutine that we are called in. */
    PyObject *outer = NULL;
    if (exc != NULL) {
        outer = Py_XNewRef(PyThreadState_Get()->exc_info->exc_value);
        PyErr_SetHandledException(exc);
    }
    PyObject *result =
        PyObject_CallMethodOneArg(loop, st->str_call_exception_handler, context);
    if (exc != NULL) {
        PyErr_SetHandledException(outer);
        Py_XDECREF(outer);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_errors_report(FlState *st, PyObject *loop, PyObject *message, ...)
{
    if (fl_errors_fatal()) return -1;
    PyObject *exc = fl_compat_take_exception();
    PyObject *context = PyDict_New();
    int rc = -1;
    if (context == NULL || PyDict_SetItem(context, st->str_message, message) < 0 ||
        (exc != NULL && PyDict_SetItem(context, st->str_exception, exc) < 0)) {
        goto done;
    }
    va_list pairs;
    va_start(pairs, message);
    PyObject *key;
    rc = 0;
    while (rc == 0 && (key = va_arg(pairs, PyObject *)) != NULL) {
        PyObject *value = va_arg(pairs, PyObject *);
        if (value != NULL) {
            rc = PyDict_SetItem(context, key, value);
        }
    }
    va_end(pairs);
    if (rc == 0) {
        rc = errors_call_handler(st, loop, context, exc);
    }
done:
    Py_XDECREF(context);
    Py_XDECREF(exc);
    return rc;
}

int
fl_errors_report_text(FlState *st, PyObject *loop, const char *message, PyObject *key,
                      PyObject *value, PyObject *key2, PyObject *value2)
{
    if (fl_errors_fatal()) return -1;
    PyObject *exc = fl_compat_take_exception();
    int rc =
        fl_errors_report_exception(st, loop, message, exc, key, value, key2, value2);
    Py_XDECREF(exc);
    return rc;
}

int
fl_errors_report_exception(FlState *st, PyObject *loop, const char *message,
                           PyObject *exc, PyObject *key, PyObject *value,
                           PyObject *key2, PyObject *value2)
{
    int rc = -1;
    PyObject *text = PyUnicode_FromString(message);
    PyObject *context = text == NULL ? NULL : PyDict_New();
    if (context == NULL || PyDict_SetItem(context, st->str_message, text) < 0)
        goto done;
    if (exc != NULL && PyDict_SetItem(context, st->str_exception, exc) < 0) goto done;
    if (value != NULL && PyDict_SetItem(context, key, value) < 0) goto done;
    if (value2 != NULL && PyDict_SetItem(context, key2, value2) < 0) goto done;
    rc = errors_call_handler(st, loop, context, exc);
done:
    Py_XDECREF(context);
    Py_XDECREF(text);
    return rc;
}

PyObject *
fl_errors_from_uv(int code)
{
    /* libuv's codes are negated errno on every POSIX system. */
    PyObject *exc = fl_errors_new_os_error(-code);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return NULL;
}

PyObject *
fl_errors_new_os_error(int code)
{
    const char *text = strerror(code); /* in the words and letters of the locale */
    PyObject *shown = PyUnicode_DecodeLocale(text, "surrogateescape");
    if (shown == NULL) return NULL;
    return PyObject_CallFunction(PyExc_OSError, "iN", code, shown);
}
