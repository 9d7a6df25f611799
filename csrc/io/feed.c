/* feed.c - what StreamReaderProtocol.data_received() does, in C.
 *
 * Owns:   nothing: all that it changes is the reader's.
 * Thread: the loop's own. */
#include "io/feed.h"
#include <string.h>

/* The function of a class, if it is the one of asyncio's source file. New reference, or
 * NULL without an exception. */
static PyObject *
feed_original(PyObject *cls, PyObject *name, PyObject *file)
{
    PyObject *function = PyObject_GetAttr(cls, name);
    if (function == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (PyFunction_Check(function)) {
        PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(function);
        if (PyUnicode_Compare(code->co_filename, file) == 0) return function;
    }
    Py_DECREF(function);
    return NULL;
}

/* Whether an attribute is a bound method of just this function. */
static bool
feed_is_bound(PyObject *op, PyObject *name, PyObject *function)
{
    PyObject *method = PyObject_GetAttr(op, name);
    if (FL_UNLIKELY(method == NULL)) {
        PyErr_Clear();
        return false;
    }
    bool is_bound = PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function;
    Py_DECREF(method);
    return is_bound;
}

bool
fl_feed_is_meant(FlState *st, PyObject *protocol, PyObject *data_received)
{
    if (!Py_IS_TYPE(protocol, (PyTypeObject *)st->stream_reader_protocol) ||
        st->data_received_function == NULL || !PyMethod_Check(data_received) ||
        PyMethod_GET_FUNCTION(data_received) != st->data_received_function) {
        return false;
    }
    PyObject *property =
        PyObject_GetAttr(st->stream_reader_protocol, st->str__stream_reader);
    if (property == NULL) {
        PyErr_Clear();
        return false;
    }
    bool same = property == st->stream_reader_property;
    Py_DECREF(property);
    return same;
}

/* The protocol's reader, if it is one to feed: a new reference. NULL without an
 * exception if it is not. */
static PyObject *
feed_reader(FlState *st, PyObject *protocol)
{
    PyObject *reader = NULL;
    PyObject *reference = PyObject_GetAttr(protocol, st->str__stream_reader_wr);
    if (reference != NULL && PyWeakref_CheckRefExact(reference)) {
        reader = fl_compat_weakref_get(reference);
    }
    Py_XDECREF(reference);
    if (reader == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (FL_LIKELY(Py_IS_TYPE(reader, (PyTypeObject *)st->stream_reader) &&
                  feed_is_bound(reader, st->str_feed_data, st->feed_data_function) &&
                  feed_is_bound(reader, st->str__wakeup_waiter,
                                st->wakeup_waiter_function))) {
        return reader;
    }
    Py_DECREF(reader);
    return NULL;
}

/* What reader._wakeup_waiter() does. 0 or -1. */
static int
feed_wake(FlState *st, PyObject *reader)
{
    PyObject *waiter = PyObject_GetAttr(reader, st->str__waiter);
    if (waiter == NULL) return -1;
    int rc = 0;
    if (waiter != Py_None) {
        rc = PyObject_SetAttr(reader, st->str__waiter, Py_None);
        PyObject *cancelled =
            rc < 0 ? NULL : PyObject_CallMethodNoArgs(waiter, st->str_cancelled);
        rc = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
        Py_XDECREF(cancelled);
        if (rc == 0) {
            PyObject *result =
                PyObject_CallMethodOneArg(waiter, st->str_set_result, Py_None);
            Py_XDECREF(result);
            rc = result == NULL ? -1 : 0;
        }
    }
    Py_DECREF(waiter);
    return rc < 0 ? -1 : 0;
}

/* The buffer is above twice the limit: pauses, unless that was done. 0 or -1. */
static int
feed_pause(FlState *st, PyObject *reader, PyObject *transport)
{
    PyObject *paused = PyObject_GetAttr(reader, st->str__paused);
    int is_paused = paused == NULL ? -1 : PyObject_IsTrue(paused);
    Py_XDECREF(paused);
    if (is_paused != 0) return is_paused < 0 ? -1 : 0;
    PyObject *result = PyObject_CallMethodNoArgs(transport, st->str_pause_reading);
    if (result != NULL) {
        Py_DECREF(result);
        return PyObject_SetAttr(reader, st->str__paused, Py_True);
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) return -1;
    PyErr_Clear();
    return PyObject_SetAttr(reader, st->str__transport, Py_None);
}

/* reader._limit, or -1 without an exception if that is no sensible int. */
static Py_ssize_t
feed_limit(FlState *st, PyObject *reader)
{
    PyObject *value = PyObject_GetAttr(reader, st->str__limit);
    Py_ssize_t limit = -1;
    if (value != NULL && PyLong_CheckExact(value)) {
        limit = PyLong_AsSsize_t(value);
    }
    Py_XDECREF(value);
    PyErr_Clear();
    return limit;
}

int
fl_feed_data(FlState *st, PyObject *protocol, const char *data, Py_ssize_t length)
{
    int rc = 0;
    PyObject *eof = NULL, *buffer = NULL, *transport = NULL;
    PyObject *reader = feed_reader(st, protocol);
    if (reader == NULL) return 0;
    Py_ssize_t limit = feed_limit(st, reader);
    eof = PyObject_GetAttr(reader, st->str__eof);
    buffer = eof == NULL ? NULL : PyObject_GetAttr(reader, st->str__buffer);
    if (limit < 0 || eof != Py_False || buffer == NULL ||
        !PyByteArray_CheckExact(buffer)) {
        PyErr_Clear();
        goto done;
    }
    rc = -1;
    Py_ssize_t before = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, before + length) < 0) goto done;
    memcpy(PyByteArray_AS_STRING(buffer) + before, data, (size_t)length);
    if (feed_wake(st, reader) < 0) goto done;
    rc = 1;
    if (FL_UNLIKELY(PyByteArray_GET_SIZE(buffer) / 2 >= limit)) {
        transport = PyObject_GetAttr(reader, st->str__transport);
        bool above = (size_t)PyByteArray_GET_SIZE(buffer) > 2 * (size_t)limit;
        if (transport == NULL ||
            (transport != Py_None && above && feed_pause(st, reader, transport) < 0)) {
            rc = -1;
        }
    }
done:
    Py_XDECREF(transport);
    Py_XDECREF(buffer);
    Py_XDECREF(eof);
    Py_DECREF(reader);
    return rc;
}

int
fl_feed_register(PyObject *Py_UNUSED(module), FlState *st)
{
    PyObject *file = PyObject_GetAttrString(st->asyncio_streams, "__file__");
    if (file == NULL || !PyUnicode_Check(file)) {
        PyErr_Clear(); /* frozen: then the ordinary path serves */
        Py_XDECREF(file);
        return 0;
    }
    PyObject *protocol = st->stream_reader_protocol;
    PyObject *receive = feed_original(protocol, st->str_data_received, file);
    st->feed_data_function = feed_original(st->stream_reader, st->str_feed_data, file);
    st->wakeup_waiter_function =
        feed_original(st->stream_reader, st->str__wakeup_waiter, file);
    st->stream_reader_property = PyObject_GetAttr(protocol, st->str__stream_reader);
    Py_DECREF(file);
    if (st->stream_reader_property == NULL) {
        PyErr_Clear();
    }
    if (st->feed_data_function == NULL || st->wakeup_waiter_function == NULL ||
        st->stream_reader_property == NULL) {
        Py_CLEAR(receive);
    }
    st->data_received_function = receive;
    return 0;
}
