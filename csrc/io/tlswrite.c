/* tlswrite.c - the writing half of a TLS connection.
 *
 * Owns:   plain bytes that wait to be encrypted.
 * Thread: the loop's own. */
#include "io/tlswrite.h"
#include "base/errors.h"
#include "core/turn.h"
#include "io/flow.h"
#include "io/payload.h"
#include "io/streamwrite.h"

enum {
    TLS_VECTORS = 32, /* small writes that become one record */
    TLS_BATCH = 256 * 1024,
    TLS_LARGE_BATCH = FL_SERIES_LIMIT,
};

/* What was encrypted and not sent yet, and how much is sent together: at first little,
 * for what the socket does not take waits, then as much as a series has. See
 * architecture.md. */
typedef struct {
    size_t size;
    size_t limit;
} TlsBatch;

static FlState *
tls_state(FlTls *self)
{
    return self->base.loop->st;
}

/* -- to the transport below -------------------------------------------------------- */

/* Encrypts one record's worth from the front of what waits. */
static FlTlsResult
tls_encrypt(FlTls *self)
{
    FlBuffers *out = &self->out;
    struct iovec vectors[TLS_VECTORS];
    char gathered[FL_TLS_RECORD];
    int count = fl_buffers_vectors(out, vectors, TLS_VECTORS);
    const char *data = vectors[0].iov_base;
    size_t size = vectors[0].iov_len;
    if (size > FL_TLS_RECORD) {
        size = FL_TLS_RECORD;
    }
    else if (count > 1) {
        /* Small writes share a record. */
        size = 0;
        for (int i = 0; i < count && size < sizeof(gathered); i++) {
            size_t part = sizeof(gathered) - size < vectors[i].iov_len
                              ? sizeof(gathered) - size
                              : vectors[i].iov_len;
            memcpy(gathered + size, vectors[i].iov_base, part);
            size += part;
        }
        data = gathered;
    }
    PyObject *owner = Py_NewRef(fl_buffers_owner(out));
    size_t written;
    self->busy = true;
    FlTlsResult rc =
        fl_tlsengine_write(&self->engine, tls_state(self), data, size, &written);
    self->busy = false;
    /* A callback of the program may have aborted the connection meanwhile. */
    if (rc == FL_TLS_DONE && out->size >= written) {
        fl_traffic_out(self->base.traffic, written);
        fl_buffers_consume(out, written);
    }
    Py_DECREF(owner);
    return rc;
}

/* Hands down what OpenSSL has for the peer. Returns how many bytes, or -1. */
static Py_ssize_t
tls_hand_down(FlTls *self)
{
    if (self->below == NULL || self->over || self->below_full) return 0;
    PyObject *data = fl_tlsengine_take(&self->engine, tls_state(self));
    if (data == NULL) return -1;
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    int rc = 0;
    if (size > 0 && self->stream != NULL) {
        rc = fl_streamwrite_queue(self->stream, data);
    }
    else if (size > 0) {
        rc = fl_tls_below_call(self, tls_state(self)->str_write, data);
    }
    Py_DECREF(data);
    return rc < 0 ? -1 : size;
}

/* Sends what was handed down. */
static int
tls_send(FlTls *self)
{
    if (self->stream == NULL) return 0;
    FlStream *stream = (FlStream *)Py_NewRef((PyObject *)self->stream);
    bool sending = self->sending;
    self->sending = true;
    int rc = fl_streamwrite_send(stream);
    self->sending = sending;
    Py_DECREF((PyObject *)stream);
    return rc;
}

int
fl_tlswrite_send(FlTls *self)
{
    return tls_hand_down(self) < 0 ? -1 : tls_send(self);
}

/* A large batch is many small blocks of the C library's, freed together behind the
 * send. glibc gives as much back to the kernel, to be faulted in again for the next
 * batch, unless a block of that size was freed before: by that it knows what the
 * program's blocks are like. */
static void
tls_expect_large(FlTls *self)
{
    if (self->bulky) return;
    self->bulky = true;
    PyMem_RawFree(PyMem_RawMalloc(TLS_LARGE_BATCH));
}

static TlsBatch
tls_first_batch(FlTls *self)
{
    if (!fl_series_goes_on(&self->series, &self->base)) return (TlsBatch){0, TLS_BATCH};
    tls_expect_large(self);
    return (TlsBatch){0, TLS_LARGE_BATCH};
}

/* Adds to a batch what was handed down, and sends a full one. The next is twice as
 * large. 0 or -1. */
static int
tls_batched(FlTls *self, TlsBatch *batch, Py_ssize_t size)
{
    batch->size += (size_t)size;
    fl_series_count(&self->series, &self->base, 2 * (size_t)size);
    if (batch->size < batch->limit) return 0;
    tls_expect_large(self);
    batch->size = 0;
    batch->limit =
        batch->limit < TLS_LARGE_BATCH / 2 ? batch->limit * 2 : TLS_LARGE_BATCH;
    return tls_send(self);
}

int
fl_tls_flush(FlTls *self)
{
    if (self->busy) {
        fl_turn_flush_later(self->base.loop, &self->flush);
        return 0;
    }
    TlsBatch batch = tls_first_batch(self);
    FlTlsResult rc = FL_TLS_DONE;
    while (self->out.size > 0 && !self->below_full && rc == FL_TLS_DONE &&
           (self->state == FL_TLS_WRAPPED || self->state == FL_TLS_FLUSHING)) {
        rc = tls_encrypt(self);
        if (rc == FL_TLS_ERROR) goto error;
        Py_ssize_t size = tls_hand_down(self);
        if (size < 0) goto error;
        if (tls_batched(self, &batch, size) < 0) return -1;
    }
    if (batch.size == 0 && tls_hand_down(self) < 0) goto error;
    if (tls_send(self) < 0) return -1;
    return fl_tls_control_writing(self);

error:
    return fl_tls_fatal(self, "Fatal error on SSL protocol");
}

/* Encrypts and sends of data what the transport below takes, where nothing waits before
 * it. Returns how much that was, or -1. */
static Py_ssize_t
tls_write_through(FlTls *self, const char *data, size_t size)
{
    size_t done = 0;
    TlsBatch batch = tls_first_batch(self);
    while (done < size && !self->below_full && !self->busy && self->out.size == 0 &&
           self->state == FL_TLS_WRAPPED) {
        size_t part = size - done < FL_TLS_RECORD ? size - done : FL_TLS_RECORD;
        size_t written;
        self->busy = true;
        FlTlsResult rc = fl_tlsengine_write(&self->engine, tls_state(self), data + done,
                                            part, &written);
        self->busy = false;
        fl_traffic_out(self->base.traffic, written);
        done += written;
        Py_ssize_t down = rc == FL_TLS_ERROR ? -1 : tls_hand_down(self);
        if (down < 0) {
            if (fl_tls_fatal(self, "Fatal error on SSL protocol") < 0) return -1;
            return (Py_ssize_t)size;
        }
        if (tls_batched(self, &batch, down) < 0) return -1;
        if (rc == FL_TLS_AGAIN) break;
    }
    return tls_send(self) < 0 ? -1 : (Py_ssize_t)done;
}

/* -- the program's protocol -------------------------------------------------------- */

int
fl_tls_control_writing(FlTls *self)
{
    size_t size = fl_tls_waiting(self);
    unsigned paused = self->base.flags & FL_TRANSPORT_PROTOCOL_PAUSED;
    if (FL_LIKELY(size == 0 && !paused)) return 0;
    if (size >= self->base.high_water && size > 0 && !paused) {
        return fl_flow_pause(&self->base, (PyObject *)self);
    }
    if (size <= self->base.low_water && paused) {
        return fl_flow_resume(&self->base, (PyObject *)self);
    }
    return 0;
}

/* -- write() and writelines() -------------------------------------------------------
 */

static PyObject *
tlswrite_none(int rc)
{
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

/* Something was queued: now, or at the end of the turn? */
static int
tls_queued(FlTls *self)
{
    if (self->state != FL_TLS_WRAPPED || self->below_full) {
        return fl_tls_control_writing(self);
    }
    if (fl_series_is_long(&self->series, &self->base, self->out.size)) {
        fl_turn_flush_at_end(self->base.loop, &self->flush);
        return fl_tls_control_writing(self);
    }
    if (fl_series_may_wait(&self->series, &self->base, self->out.size)) {
        fl_series_wait(&self->base, &self->flush, self->out.size);
        return 0;
    }
    int rc = fl_tls_flush(self);
    fl_series_sent(&self->series, &self->base);
    return rc;
}

/* A large buffer that is not a bytes object: only what cannot be sent is copied. */
static int
tls_write_other(FlTls *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        /* Not contiguous: a copy is, and then it is a bytes object. */
        if (!PyErr_ExceptionMatches(PyExc_BufferError)) return -1;
        PyErr_Clear();
        return fl_payload_push(&self->out, data) < 0 ? -1 : tls_queued(self);
    }
    Py_ssize_t done = tls_write_through(self, view.buf, (size_t)view.len);
    int rc = done < 0 ? -1 : 0;
    if (rc == 0 && done < view.len && self->state == FL_TLS_WRAPPED) {
        rc = fl_payload_push_copy(&self->out, (const char *)view.buf + done,
                                  (size_t)(view.len - done));
        if (rc == 0) {
            rc = tls_queued(self);
        }
    }
    else if (rc == 0 && self->state == FL_TLS_WRAPPED) {
        rc = fl_tls_control_writing(self);
    }
    PyBuffer_Release(&view);
    return rc;
}

/* 1 if a write goes nowhere, which was noted; -1 with an exception. */
static int
tls_write_refused(FlTls *self)
{
    if (FL_LIKELY(self->state == FL_TLS_WRAPPED || self->state == FL_TLS_HANDSHAKE)) {
        int closing = fl_tls_below_closing(self);
        if (FL_LIKELY(closing <= 0)) return closing;
    }
    return fl_flow_write_lost(&self->base, "SSL connection is closed") < 0 ? -1 : 1;
}

PyObject *
fl_tlswrite_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    PyObject *data = fl_callargs_one("write", "data", args, nargs, kwnames);
    if (data == NULL) return NULL;
    if (!fl_payload_is_fit(data)) {
        PyObject *name = PyType_GetName(Py_TYPE(data));
        if (name != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "data: expecting a bytes-like instance, got %U", name);
            Py_DECREF(name);
        }
        return NULL;
    }
    Py_ssize_t length = PyObject_Size(data);
    if (length < 0) return NULL;
    if (length == 0) Py_RETURN_NONE;
    int refused = tls_write_refused(self);
    if (refused != 0) {
        if (refused < 0) return NULL;
        Py_RETURN_NONE;
    }
    if (!PyBytes_CheckExact(data) && length >= FL_SERIES_LARGE &&
        self->state == FL_TLS_WRAPPED && self->out.size == 0 &&
        !fl_series_is_long(&self->series, &self->base, 0)) {
        return tlswrite_none(tls_write_other(self, data));
    }
    if (fl_payload_push(&self->out, data) < 0) return NULL;
    return tlswrite_none(tls_queued(self));
}

PyObject *
fl_tlswrite_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    PyObject *lines =
        fl_callargs_one("writelines", "list_of_data", args, nargs, kwnames);
    if (lines == NULL) return NULL;
    Py_ssize_t total;
    PyObject *list = fl_payload_lines(lines, true, &total);
    if (list == NULL) return NULL;
    int rc = tls_write_refused(self);
    if (rc == 0) {
        rc = fl_payload_push_lines(&self->out, list);
        if (rc == 0) {
            rc = tls_queued(self);
        }
    }
    Py_DECREF(list);
    return tlswrite_none(rc);
}

PyObject *
fl_tlswrite_append(PyObject *op, PyObject *data)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tlswrite_none(fl_payload_push(&((FlTls *)op)->out, data));
}
