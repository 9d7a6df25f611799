/* tls.c - FlTls and the transport below: bytes in, and the loss.
 *
 * Owns:   the timers.
 * Thread: the loop's own. */
#include "io/tls.h"
#include "base/errors.h"
#include "core/turn.h"
#include "io/feed.h"
#include "io/tlswrite.h"

static FlState *
tls_state(FlTls *self)
{
    return self->base.loop->st;
}

/* -- the transport below ----------------------------------------------------------- */

int
fl_tls_below_call(FlTls *self, PyObject *name, PyObject *arg)
{
    if (self->below == NULL || self->over) return 0;
    PyObject *below = Py_NewRef(self->below);
    PyObject *result = arg == NULL ? PyObject_CallMethodNoArgs(below, name)
                                   : PyObject_CallMethodOneArg(below, name, arg);
    Py_DECREF(below);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_tls_below_cannot_tell(void)
{
    if (!PyErr_ExceptionMatches(PyExc_AttributeError) &&
        !PyErr_ExceptionMatches(PyExc_NotImplementedError)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

int
fl_tls_below_closing(FlTls *self)
{
    if (self->stream != NULL) {
        return (self->stream->base.flags & FL_TRANSPORT_CLOSING) != 0;
    }
    if (self->over) return 1;
    if (self->below == NULL) return 0;
    PyObject *closing =
        PyObject_CallMethodNoArgs(self->below, tls_state(self)->str_is_closing);
    int rc = closing == NULL ? -1 : PyObject_IsTrue(closing);
    Py_XDECREF(closing);
    return rc < 0 ? fl_tls_below_cannot_tell() : rc;
}

int
fl_tls_schedule(FlTls *self, PyObject **handle, PyObject *delay, PyObject *name)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, name);
    if (method == NULL) return -1;
    PyObject *made = PyObject_CallMethodObjArgs((PyObject *)self->base.loop,
                                                tls_state(self)->str_call_later, delay,
                                                method, NULL);
    Py_DECREF(method);
    if (made == NULL) return -1;
    Py_XSETREF(*handle, made);
    return 0;
}

int
fl_tls_unschedule(PyObject **handle)
{
    PyObject *timer = *handle;
    *handle = NULL;
    if (timer == NULL) return 0;
    PyObject *result = PyObject_CallMethod(timer, "cancel", NULL);
    Py_DECREF(timer);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* -- errors ------------------------------------------------------------------------ */

int
fl_tls_fatal(FlTls *self, const char *message)
{
    if (fl_errors_fatal()) return -1;
    FlState *st = tls_state(self);
    PyObject *exc = fl_compat_take_exception();
    int rc = fl_tls_abort(self, exc);
    if (rc == 0 && PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        if (self->base.loop->debug) {
            rc = fl_transport_debug_error(&self->base, message, exc);
        }
    }
    else if (rc == 0 && !PyErr_GivenExceptionMatches(exc, st->cancelled_error)) {
        rc = fl_errors_report_exception(st, (PyObject *)self->base.loop, message, exc,
                                        st->str_transport, self->below,
                                        st->str_protocol, (PyObject *)self);
    }
    Py_DECREF(exc);
    return rc;
}

int
fl_tls_drained(FlTls *self)
{
    /* Who sends sees to the marks when all of it has gone below. */
    if (!self->sending && fl_tls_control_writing(self) < 0) return -1;
    /* The closing alert has left: from now on the peer has to answer. */
    return self->state == FL_TLS_SHUTDOWN ? fl_tls_wait_for_peer(self) : 0;
}

/* -- reading ----------------------------------------------------------------------- */

int
fl_tls_control_reading(FlTls *self)
{
    if (!self->below_paused && !(self->base.flags & FL_TRANSPORT_PAUSED)) return 0;
    FlState *st = tls_state(self);
    if (self->over || self->below == NULL) return 0;
    Py_ssize_t size = fl_tlsengine_pending(st, self->engine.incoming);
    if (size < 0) return -1;
    if ((size_t)size >= self->read_high && size > 0 && !self->below_paused) {
        self->below_paused = true;
        return fl_tls_below_call(self, st->str_pause_reading, NULL);
    }
    if ((size_t)size <= self->read_low && self->below_paused) {
        self->below_paused = false;
        return fl_tls_below_call(self, st->str_resume_reading, NULL);
    }
    return 0;
}

int
fl_tls_call_eof_received(FlTls *self)
{
    if (self->app != FL_TLS_APP_MADE || self->base.protocol == NULL) return 0;
    self->app = FL_TLS_APP_EOF;
    FlState *st = tls_state(self);
    PyObject *protocol = Py_NewRef(self->base.protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, st->str_eof_received);
    Py_DECREF(protocol);
    int keep_open = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep_open > 0) {
        keep_open =
            fl_transport_warn(&self->base, "returning true from eof_received() has no "
                                           "effect when using ssl");
    }
    if (keep_open < 0) return fl_tls_fatal(self, "Error calling eof_received()");
    return 0;
}

/* data_received(plain), or what it would do. 0, or -1 with an exception. */
static int
tls_deliver(FlTls *self, PyObject *plain)
{
    FlState *st = tls_state(self);
    PyObject *receive = NULL;
    if (self->base.protocol == NULL) return 0;
    if (FL_UNLIKELY(self->bound.receive == NULL)) {
        receive = fl_bound_look_up(&self->base, &self->bound, &self->bound.receive,
                                   st->str_data_received);
        if (receive == NULL) return -1;
    }
    if (self->bound.feeds) {
        PyObject *protocol = Py_NewRef(self->base.protocol);
        int fed = fl_feed_data(self->base.loop, protocol, PyBytes_AS_STRING(plain),
                               PyBytes_GET_SIZE(plain));
        Py_DECREF(protocol);
        if (FL_LIKELY(fed != 0)) {
            Py_XDECREF(receive);
            return fed < 0 ? -1 : 0;
        }
    }
    if (receive == NULL) {
        receive = Py_XNewRef(self->bound.receive);
        if (receive == NULL) return 0; /* a patched reader took the protocol away */
    }
    PyObject *result = PyObject_CallOneArg(receive, plain);
    Py_DECREF(receive);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static FlTlsResult
tls_read_copied(FlTls *self, const char *data, size_t size)
{
    PyObject *plain;
    self->busy = true;
    FlTlsResult rc =
        fl_tlsengine_decrypt(&self->engine, tls_state(self), data, size, &plain);
    self->busy = false;
    if (plain != NULL) {
        fl_traffic_in(self->base.traffic, (size_t)Py_SIZE(plain));
        if (rc == FL_TLS_DONE && self->engine.opaque) {
            rc = FL_TLS_MORE;
        }
        if (tls_deliver(self, plain) < 0) {
            rc = FL_TLS_ERROR;
        }
        Py_DECREF(plain);
    }
    return rc;
}

/* The protocol's buffer, exported for writing. 0 or -1. */
static int
tls_get_buffer(FlTls *self, Py_ssize_t hint, Py_buffer *view)
{
    FlState *st = tls_state(self);
    PyObject *get_buffer = fl_bound_get(&self->base, &self->bound, &self->bound.receive,
                                        st->str_get_buffer);
    if (get_buffer == NULL) return -1;
    PyObject *size = PyLong_FromSsize_t(hint);
    PyObject *buffer = size == NULL ? NULL : PyObject_CallOneArg(get_buffer, size);
    Py_XDECREF(size);
    Py_DECREF(get_buffer);
    if (buffer == NULL) return -1;
    int rc = PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE);
    Py_DECREF(buffer);
    if (rc == 0 && view->len == 0) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        rc = -1;
    }
    return rc;
}

/* Into the protocol's own buffer, as much as it has room for. */
static FlTlsResult
tls_read_buffered(FlTls *self)
{
    FlState *st = tls_state(self);
    Py_ssize_t ready = fl_tlsengine_ready(&self->engine, st);
    if (ready <= 0) return ready < 0 ? FL_TLS_ERROR : FL_TLS_DONE;
    PyObject *protocol = self->base.protocol; /* for comparison alone */
    Py_buffer view;
    if (tls_get_buffer(self, ready, &view) < 0) return FL_TLS_ERROR;
    if (self->base.protocol != protocol || self->state != FL_TLS_WRAPPED) {
        PyBuffer_Release(&view); /* not for this buffer any more */
        return FL_TLS_MORE;
    }
    Py_ssize_t at = 0, count;
    FlTlsResult rc = FL_TLS_DONE;
    self->busy = true;
    while (at < view.len && ready > 0 && rc == FL_TLS_DONE) {
        rc = fl_tlsengine_read(&self->engine, st, (char *)view.buf + at, view.len - at,
                               &count);
        at += count;
        ready = fl_tlsengine_ready(&self->engine, st);
    }
    bool full = at == view.len;
    self->busy = false;
    PyBuffer_Release(&view);
    if (ready < 0) return FL_TLS_ERROR;
    if (rc == FL_TLS_AGAIN) {
        rc = FL_TLS_DONE;
    }
    if (at == 0) return rc;
    fl_traffic_in(self->base.traffic, (size_t)at);
    if (self->base.protocol != protocol) return rc; /* a callback of OpenSSL's did it */
    PyObject *updated = fl_bound_get(&self->base, &self->bound, &self->bound.updated,
                                     st->str_buffer_updated);
    if (updated == NULL) return FL_TLS_ERROR;
    PyObject *number = PyLong_FromSsize_t(at);
    PyObject *result = number == NULL ? NULL : PyObject_CallOneArg(updated, number);
    Py_XDECREF(number);
    Py_DECREF(updated);
    Py_XDECREF(result);
    if (result == NULL) return FL_TLS_ERROR;
    return full && rc == FL_TLS_DONE ? FL_TLS_MORE : rc;
}

int
fl_tls_resume_later(FlTls *self)
{
    if (self->resume_pending || self->over) return 0;
    PyObject *method = PyObject_GetAttr((PyObject *)self, tls_state(self)->str__resume);
    if (method == NULL) return -1;
    int rc = fl_loop_call_soon(self->base.loop, method, NULL, 0, self->base.context);
    self->resume_pending = rc == 0;
    Py_DECREF(method);
    return rc;
}

/* With the exception of a read or of the protocol set. */
static int
tls_read_failed(FlTls *self)
{
    /* CancelledError and its like are the transport's below to report, as in asyncio.
     */
    if (!PyErr_ExceptionMatches(PyExc_Exception)) return -1;
    /* OpenSSL may have an alert for the peer. */
    PyObject *exc = fl_compat_take_exception();
    if (fl_tlswrite_send(self) < 0) {
        PyErr_Clear();
    }
    fl_compat_set_exception(exc);
    return fl_tls_fatal(self, "Fatal error on SSL protocol");
}

int
fl_tls_read(FlTls *self, const char *data, size_t size)
{
    FlTlsResult rc = FL_TLS_MORE;
    while (rc == FL_TLS_MORE) {
        unsigned flags = self->base.flags;
        bool copies = !(flags & (FL_TRANSPORT_PAUSED | FL_TRANSPORT_BUFFERED));
        if (size > 0 && (!copies || self->busy || self->state != FL_TLS_WRAPPED)) {
            if (fl_tlsengine_feed(&self->engine, tls_state(self), data, size) < 0) {
                return tls_read_failed(self);
            }
            size = 0;
        }
        if (FL_UNLIKELY(self->busy)) return fl_tls_resume_later(self);
        if (self->state != FL_TLS_WRAPPED ||
            (flags & (FL_TRANSPORT_PAUSED | FL_TRANSPORT_CLOSING))) {
            break;
        }
        rc = copies ? tls_read_copied(self, data, size) : tls_read_buffered(self);
        size = 0;
    }
    if (rc == FL_TLS_ERROR) return tls_read_failed(self);
    if (rc == FL_TLS_EOF && self->state != FL_TLS_UNWRAPPED) {
        self->notified = true;
        if (fl_tls_call_eof_received(self) < 0) return -1;
        return fl_tls_close(self);
    }
    if (self->eof && rc == FL_TLS_DONE && self->state == FL_TLS_WRAPPED) {
        return fl_tls_close(self);
    }
    /* Answers of OpenSSL's own leave now, the program's at the end of the turn. */
    if (!self->flush.queued && self->state == FL_TLS_WRAPPED && !self->busy) {
        Py_ssize_t waiting =
            fl_tlsengine_pending(tls_state(self), self->engine.outgoing);
        if (waiting < 0) return -1;
        if ((waiting > 0 || self->out.size > 0) && fl_tls_flush(self) < 0) return -1;
    }
    return fl_tls_control_reading(self);
}

int
fl_tls_eof_received(FlTls *self)
{
    FlState *st = tls_state(self);
    self->eof = true;
    if (fl_transport_debug(&self->base, "%r received EOF") < 0) return -1;
    switch (self->state) {
    case FL_TLS_HANDSHAKE:
        PyErr_SetNone(PyExc_ConnectionResetError);
        return fl_tls_handshake_failed(self);
    case FL_TLS_WRAPPED:
        /* What came before is the program's first. */
        return self->base.flags & FL_TRANSPORT_PAUSED ? 0 : fl_tls_read(self, NULL, 0);
    case FL_TLS_FLUSHING:
    case FL_TLS_SHUTDOWN:
        return fl_tls_shut(self);
    default:
        return fl_tls_below_call(self, st->str_close, NULL);
    }
}

int
fl_tls_received(FlTls *self, const char *data, size_t size)
{
    FlState *st = tls_state(self);
    switch (self->state) {
    case FL_TLS_WRAPPED:
        return fl_tls_read(self, data, size);
    case FL_TLS_HANDSHAKE:
        if (self->base.flags & FL_TRANSPORT_CLOSING) return 0; /* it was too slow */
        if (fl_tlsengine_feed(&self->engine, st, data, size) < 0) return -1;
        return fl_tls_handshake(self);
    case FL_TLS_FLUSHING:
    case FL_TLS_SHUTDOWN:
        if (fl_tlsengine_feed(&self->engine, st, data, size) < 0) return -1;
        return fl_tls_shut(self);
    default:
        return 0;
    }
}

/* -- the loss ---------------------------------------------------------------------- */

/* Has the protocol's connection_lost() called. 0 or -1. */
static int
tls_schedule_lost(FlTls *self, PyObject *exc)
{
    PyObject *lost =
        PyObject_GetAttr(self->base.protocol, tls_state(self)->str_connection_lost);
    if (lost == NULL) return -1;
    int rc = fl_loop_call_soon(self->base.loop, lost, &exc, 1, self->base.context);
    Py_DECREF(lost);
    return rc;
}

int
fl_tls_lost_overdue(FlTls *self)
{
    if (self->base.protocol == NULL) return 0;
    (void)PyErr_NoMemory(); /* Python keeps a few of them ready */
    PyObject *exc = fl_compat_take_exception();
    int rc = tls_schedule_lost(self, exc);
    Py_DECREF(exc);
    if (rc < 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        fl_turn_flush_later(self->base.loop, &self->flush);
        return 0;
    }
    self->base.flags &= ~(unsigned)FL_TRANSPORT_OVERDUE;
    fl_transport_put_protocol(&self->base, NULL);
    return rc;
}

/* As fl_overdue_add(), for what has no descriptor. */
static void
tls_lost_later(FlTls *self)
{
    self->base.flags |= FL_TRANSPORT_OVERDUE;
    fl_turn_flush_later(self->base.loop, &self->flush);
}

/* raised, or else what is set if rc says so. */
static PyObject *
tls_first_raised(PyObject *raised, int rc)
{
    if (FL_LIKELY(rc == 0)) return raised;
    PyObject *exc = fl_compat_take_exception();
    if (raised == NULL) return exc;
    Py_DECREF(exc);
    return raised;
}

int
fl_tls_connection_lost(FlTls *self, PyObject *exc)
{
    PyObject *raised = NULL;
    if (self->over) return 0;
    fl_buffers_clear(&self->out);
    fl_shared_put(&self->base.conn_lost, self->base.conn_lost + 1);
    self->base.flags |= FL_TRANSPORT_CLOSING;
    if (self->state != FL_TLS_HANDSHAKE && self->base.protocol != NULL &&
        (self->app == FL_TLS_APP_MADE || self->app == FL_TLS_APP_EOF)) {
        self->app = FL_TLS_APP_LOST;
        int rc = tls_schedule_lost(self, exc);
        if (FL_UNLIKELY(rc < 0) && PyErr_ExceptionMatches(PyExc_MemoryError)) {
            tls_lost_later(self);
        }
        raised = tls_first_raised(raised, rc);
    }
    fl_shared_put(&self->state, FL_TLS_UNWRAPPED);
    fl_shared_put(&self->over, true);
    fl_tls_uncount(self);
    self->stream = NULL;
    raised = tls_first_raised(raised, fl_tls_unschedule(&self->timer));
    raised = tls_first_raised(raised, fl_tls_unschedule(&self->linger));
    /* Who waits may be told of the protocol. */
    raised = tls_first_raised(raised, fl_tls_wake(self, exc == Py_None ? NULL : exc));
    if (!(self->base.flags & FL_TRANSPORT_OVERDUE)) {
        fl_transport_put_protocol(&self->base, NULL);
    }
    if (FL_LIKELY(raised == NULL)) return 0;
    fl_compat_set_exception(raised);
    return -1;
}
