/* feed.c - what StreamReaderProtocol.data_received() does, in C.
 *
 * Owns:   nothing: all that it changes is the reader's.
 * Thread: the loop's own. */
#include "io/feed.h"
#include "base/stock.h"
#include "io/reads.h"
#include <string.h>

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

/* A reader that is fed. dict is its own, or NULL where each attribute must be asked
 * for; both are owned. */
typedef struct {
    FlState *st;
    PyObject *reader;
    PyObject *dict;
} FlFeed;

/* Whether nobody stands between the data and the reader's buffer. */
static bool
feed_is_plain(FlFeed *self)
{
    FlState *st = self->st;
    self->dict = fl_reads_dict(st, self->reader);
    if (FL_LIKELY(self->dict != NULL)) return true;
    return Py_IS_TYPE(self->reader, (PyTypeObject *)st->stream_reader) &&
           fl_stock_method(self->reader, st->str_feed_data, st->feed_data_function) &&
           fl_stock_method(self->reader, st->str__wakeup_waiter,
                           st->wakeup_waiter_function);
}

/* The protocol's reader: a new reference, or NULL without an exception. */
static PyObject *
feed_find(FlState *st, PyObject *protocol)
{
    PyObject *reader = NULL;
    PyObject *reference = PyObject_GetAttr(protocol, st->str__stream_reader_wr);
    if (FL_LIKELY(reference != NULL && PyWeakref_CheckRefExact(reference))) {
        reader = fl_compat_weakref_get(reference);
    }
    Py_XDECREF(reference);
    if (FL_UNLIKELY(reader == NULL)) {
        PyErr_Clear();
    }
    return reader;
}

/* Finds the reader that is to be fed. False, and there is none, if it is not one. */
static bool
feed_begin(FlFeed *self, FlState *st, PyObject *protocol)
{
    *self = (FlFeed){.st = st, .reader = feed_find(st, protocol)};
    if (FL_UNLIKELY(self->reader == NULL)) return false;
    if (FL_LIKELY(feed_is_plain(self))) return true;
    Py_DECREF(self->reader);
    return false;
}

static void
feed_end(FlFeed *self)
{
    Py_XDECREF(self->dict);
    Py_DECREF(self->reader);
}

/* An attribute of the reader: a new reference, or NULL with an exception. */
static inline PyObject *
feed_get(const FlFeed *self, PyObject *name)
{
    if (FL_LIKELY(self->dict != NULL)) {
        PyObject *value = PyDict_GetItemWithError(self->dict, name);
        if (FL_LIKELY(value != NULL)) return Py_NewRef(value);
        if (PyErr_Occurred()) return NULL;
    }
    return PyObject_GetAttr(self->reader, name);
}

static inline int
feed_set(const FlFeed *self, PyObject *name, PyObject *value)
{
    if (FL_LIKELY(self->dict != NULL)) return PyDict_SetItem(self->dict, name, value);
    return PyObject_SetAttr(self->reader, name, value);
}

/* What reader._wakeup_waiter() does. 0 or -1. */
static int
feed_wake(const FlFeed *self)
{
    FlState *st = self->st;
    PyObject *waiter = feed_get(self, st->str__waiter);
    if (waiter == NULL) return -1;
    int rc = 0;
    if (waiter != Py_None) {
        rc = feed_set(self, st->str__waiter, Py_None);
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
feed_pause(const FlFeed *self, PyObject *transport)
{
    FlState *st = self->st;
    PyObject *paused = feed_get(self, st->str__paused);
    int is_paused = paused == NULL ? -1 : PyObject_IsTrue(paused);
    Py_XDECREF(paused);
    if (is_paused != 0) return is_paused < 0 ? -1 : 0;
    PyObject *result = PyObject_CallMethodNoArgs(transport, st->str_pause_reading);
    if (result != NULL) {
        Py_DECREF(result);
        return feed_set(self, st->str__paused, Py_True);
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError)) return -1;
    PyErr_Clear();
    return feed_set(self, st->str__transport, Py_None);
}

/* reader._limit, or -1 without an exception if that is no sensible int. */
static Py_ssize_t
feed_limit(const FlFeed *self)
{
    PyObject *value = feed_get(self, self->st->str__limit);
    Py_ssize_t limit = -1;
    if (FL_LIKELY(value != NULL && PyLong_CheckExact(value))) {
        limit = PyLong_AsSsize_t(value);
    }
    Py_XDECREF(value);
    if (FL_UNLIKELY(limit < 0)) {
        PyErr_Clear();
    }
    return limit;
}

int
fl_feed_data(FlLoop *loop, PyObject *protocol, const char *data, Py_ssize_t length)
{
    int rc = 0;
    FlFeed self;
    FlState *st = loop->st;
    PyObject *eof = NULL, *buffer = NULL, *transport = NULL;
    if (!feed_begin(&self, st, protocol)) return 0;
    Py_ssize_t limit = feed_limit(&self);
    eof = feed_get(&self, st->str__eof);
    buffer = eof == NULL ? NULL : feed_get(&self, st->str__buffer);
    if (limit < 0 || eof != Py_False || buffer == NULL ||
        !PyByteArray_CheckExact(buffer)) {
        PyErr_Clear();
        goto done;
    }
    rc = -1;
    Py_ssize_t before = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, before + length) < 0) goto done;
    memcpy(PyByteArray_AS_STRING(buffer) + before, data, (size_t)length);
    if (feed_wake(&self) < 0) goto done;
    rc = 1;
    if (FL_UNLIKELY(self.dict == NULL && !loop->debug)) {
        fl_reads_adopt(st, self.reader);
    }
    if (FL_UNLIKELY(PyByteArray_GET_SIZE(buffer) / 2 >= limit)) {
        transport = feed_get(&self, st->str__transport);
        bool above = (size_t)PyByteArray_GET_SIZE(buffer) > 2 * (size_t)limit;
        if (transport == NULL ||
            (transport != Py_None && above && feed_pause(&self, transport) < 0)) {
            rc = -1;
        }
    }
done:
    Py_XDECREF(transport);
    Py_XDECREF(buffer);
    Py_XDECREF(eof);
    feed_end(&self);
    return rc;
}

void
fl_feed_adopt(FlLoop *loop, PyObject *protocol)
{
    FlState *st = loop->st;
    if (loop->debug ||
        !Py_IS_TYPE(protocol, (PyTypeObject *)st->stream_reader_protocol))
        return;
    PyObject *reader = feed_find(st, protocol);
    if (reader == NULL) return;
    fl_reads_adopt(st, reader);
    Py_DECREF(reader);
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
    PyObject *receive = fl_stock_function(protocol, st->str_data_received, file);
    st->feed_data_function =
        fl_stock_function(st->stream_reader, st->str_feed_data, file);
    st->wakeup_waiter_function =
        fl_stock_function(st->stream_reader, st->str__wakeup_waiter, file);
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
