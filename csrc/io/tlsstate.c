/* tlsstate.c - the two ends of a TLS connection: handshake and close.
 *
 * Owns:   nothing: timers and waiter are the connection's.
 * Thread: the loop's own. */
#include "base/errors.h"
#include "core/turn.h"
#include "io/tls.h"

/* How long a peer that owes us nothing may take to answer the closing alert. asyncio
 * waits for the whole shutdown timeout, 30 seconds, which holds up whoever awaits
 * wait_closed(). */
static const double TLS_LINGER = 0.25;

static FlState *
tls_state(FlTls *self)
{
    return self->base.loop->st;
}

/* -- handshake --------------------------------------------------------------------- */

/* A server's connection has nobody who waits; in debug mode asyncio tells of those that
 * fail. */
static int
tls_report_accepted(FlTls *self, PyObject *exc)
{
    FlState *st = tls_state(self);
    self->accepted = false;
    if (exc == NULL || !self->base.loop->debug) return 0;
    return fl_errors_report_exception(
        st, (PyObject *)self->base.loop,
        "Error on transport creation for incoming connection", exc, st->str_protocol,
        self->base.protocol, st->str_transport, (PyObject *)self);
}

int
fl_tls_wake(FlTls *self, PyObject *exc)
{
    FlState *st = tls_state(self);
    if (self->accepted) return tls_report_accepted(self, exc);
    PyObject *waiter = self->waiter;
    self->waiter = NULL;
    if (waiter == NULL) return 0;
    PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    PyObject *result = NULL;
    if (is_done == 0) {
        result = exc == NULL
                     ? PyObject_CallMethodOneArg(waiter, st->str_set_result, Py_None)
                     : PyObject_CallMethodOneArg(waiter, st->str_set_exception, exc);
    }
    Py_DECREF(waiter);
    Py_XDECREF(result);
    return is_done < 0 || (is_done == 0 && result == NULL) ? -1 : 0;
}

int
fl_tls_handshake_failed(FlTls *self)
{
    if (fl_errors_fatal()) return -1;
    fl_count_add(&self->base.loop->metrics.handshake_failures, 1);
    PyObject *exc = fl_compat_take_exception();
    /* The alert that tells the peer what is wrong. */
    if (!self->eof && fl_tls_flush(self) < 0) {
        PyErr_Clear();
    }
    fl_shared_put(&self->state, FL_TLS_UNWRAPPED);
    bool certificate =
        PyErr_GivenExceptionMatches(exc, tls_state(self)->ssl_certificate_error);
    /* Before the loss is told: it wakes whoever waits, too. */
    int rc = fl_tls_wake(self, exc);
    if (rc == 0) {
        fl_compat_set_exception(Py_NewRef(exc));
        rc = fl_tls_fatal(
            self, certificate ? "SSL handshake failed on verifying the certificate"
                              : "SSL handshake failed");
    }
    Py_DECREF(exc);
    return rc;
}

/* logger.debug("%r: SSL handshake took %.1f ms") */
static int
tls_log_handshake(FlTls *self)
{
    FlState *st = tls_state(self);
    double ms = (double)(uv_hrtime() - self->started) / 1e6;
    PyObject *logger = PyObject_GetAttr(st->asyncio_base_events, st->str_logger);
    if (logger == NULL) return -1;
    PyObject *result = PyObject_CallMethod(
        logger, "debug", "sOd", "%r: SSL handshake took %.1f ms", (PyObject *)self, ms);
    Py_DECREF(logger);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
tls_handshake_done(FlTls *self)
{
    FlState *st = tls_state(self);
    PyObject *op = (PyObject *)self;
    fl_shared_put(&self->state, FL_TLS_WRAPPED);
    self->secured = true;
    fl_count_add(&self->base.loop->metrics.handshakes, 1);
    if (fl_tls_unschedule(&self->timer) < 0) return -1;
    if (FL_UNLIKELY(self->started != 0) && tls_log_handshake(self) < 0) return -1;
    /* OpenSSL's last words of the handshake leave with the program's first. */
    fl_turn_flush_later(self->base.loop, &self->flush);
    bool upgraded = self->app != FL_TLS_APP_INIT;
    if (!upgraded) {
        self->app = FL_TLS_APP_MADE;
        PyObject *protocol = Py_NewRef(self->base.protocol);
        PyObject *result =
            PyObject_CallMethodOneArg(protocol, st->str_connection_made, op);
        Py_DECREF(protocol);
        if (result == NULL) return -1;
        Py_DECREF(result);
    }
    if (fl_tls_wake(self, NULL) < 0) return -1;
    if (self->state != FL_TLS_WRAPPED) return 0;
    /* Behind the step of whoever awaits start_tls(): StreamWriter.start_tls() tells the
     * reader there whom to pause. Before, that would be the transport below, which
     * nobody would resume. */
    return upgraded ? fl_tls_resume_later(self) : fl_tls_read(self, NULL, 0);
}

int
fl_tls_handshake(FlTls *self)
{
    if (self->busy) return fl_tls_resume_later(self);
    self->busy = true;
    FlTlsResult rc = fl_tlsengine_handshake(&self->engine, tls_state(self));
    self->busy = false;
    if (rc == FL_TLS_ERROR && fl_errors_fatal()) return -1;
    if (self->state != FL_TLS_HANDSHAKE) { /* a callback of the program closed it */
        PyErr_Clear();
        return 0;
    }
    if (rc == FL_TLS_DONE) return tls_handshake_done(self);
    if (rc == FL_TLS_AGAIN) return fl_tls_flush(self);
    if (!PyErr_ExceptionMatches(tls_state(self)->ssl_error)) return -1;
    return fl_tls_handshake_failed(self);
}

static int
on_received(PyObject *protocol, const char *data, size_t size)
{
    return fl_tls_received((FlTls *)protocol, data, size);
}

static int
on_drained(PyObject *protocol)
{
    return fl_tls_drained((FlTls *)protocol);
}

static const FlSink tls_sink = {.received = on_received, .drained = on_drained};

int
fl_tls_connection_made(FlTls *self, PyObject *below)
{
    FlState *st = tls_state(self);
    PyObject *old;
    FL_BEGIN_CRITICAL((PyObject *)self);
    old = self->below;
    self->stream = NULL;
    self->below = Py_NewRef(below);
    FL_END_CRITICAL();
    Py_XDECREF(old);
    if (Py_TYPE(below) == st->socket_transport_type) {
        FlStream *stream = (FlStream *)below;
        if (stream->base.protocol == (PyObject *)self) {
            self->stream = stream;
            stream->sink = &tls_sink;
            Py_XSETREF(self->base.context, Py_NewRef(stream->base.context));
        }
        if (stream->base.flags & FL_TRANSPORT_CLOSED) {
            /* Lost before we came: nobody else would tell. */
            PyObject *exc = PyObject_CallNoArgs(PyExc_ConnectionResetError);
            int rc = exc == NULL ? -1 : fl_tls_connection_lost(self, exc);
            Py_XDECREF(exc);
            return rc;
        }
    }
    /* Closed before it began: whoever waited was cancelled. */
    if (self->base.flags & FL_TRANSPORT_CLOSING) return fl_tls_abort(self, NULL);
    if (fl_transport_debug(&self->base, "%r starts SSL handshake") < 0) return -1;
    self->started = self->base.loop->debug ? uv_hrtime() : 0;
    fl_shared_put(&self->state, FL_TLS_HANDSHAKE);
    if (fl_tls_schedule(self, &self->timer, self->handshake_timeout,
                        st->str__check_handshake_timeout) < 0) {
        return -1;
    }
    return fl_tls_handshake(self);
}

int
fl_tls_handshake_late(FlTls *self)
{
    if (self->state != FL_TLS_HANDSHAKE) return 0;
    fl_count_add(&self->base.loop->metrics.handshake_failures, 1);
    PyObject *message = PyUnicode_FromFormat(
        "SSL handshake is taking longer than %S seconds: aborting the connection",
        self->handshake_timeout);
    if (message == NULL) return -1;
    PyErr_SetObject(PyExc_ConnectionAbortedError, message);
    Py_DECREF(message);
    return fl_tls_fatal(self, "Fatal error on transport");
}

/* -- close ------------------------------------------------------------------------- */

int
fl_tls_abort(FlTls *self, PyObject *exc)
{
    FlState *st = tls_state(self);
    /* A handshake that ran into its limit is one to connection_lost(), too. */
    if (self->state != FL_TLS_HANDSHAKE || exc == NULL) {
        fl_shared_put(&self->state, FL_TLS_UNWRAPPED);
    }
    self->base.flags |= FL_TRANSPORT_CLOSING;
    fl_buffers_clear(&self->out);
    if (self->below == NULL || self->over) return 0;
    if (self->stream != NULL) return fl_stream_abort(self->stream, exc);
    PyObject *method;
    if (fl_compat_get_optional(self->below, st->str__force_close, &method) < 0)
        return -1;
    if (method == NULL) return fl_tls_below_call(self, st->str_abort, NULL);
    PyObject *result = PyObject_CallOneArg(method, exc != NULL ? exc : Py_None);
    Py_DECREF(method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_tls_close(FlTls *self)
{
    FlState *st = tls_state(self);
    self->base.flags |= FL_TRANSPORT_CLOSING;
    if (self->state == FL_TLS_HANDSHAKE) return fl_tls_abort(self, NULL);
    if (self->state != FL_TLS_WRAPPED) return 0;
    fl_shared_put(&self->state, FL_TLS_FLUSHING);
    if (fl_tls_schedule(self, &self->timer, self->shutdown_timeout,
                        st->str__check_shutdown_timeout) < 0) {
        return -1;
    }
    return fl_tls_shut(self);
}

/* What the peer has sent is for nobody any more: OpenSSL would take it for a mistake of
 * the peer's, which it is only behind our closing alert. 0 or -1. */
static int
tls_discard_received(FlTls *self)
{
    FlTlsResult rc = FL_TLS_MORE;
    self->busy = true;
    while (rc == FL_TLS_MORE) {
        PyObject *plain;
        rc = fl_tlsengine_decrypt(&self->engine, tls_state(self), NULL, 0, &plain);
        if (rc == FL_TLS_DONE && plain != NULL && self->engine.opaque) {
            rc = FL_TLS_MORE;
        }
        Py_XDECREF(plain);
    }
    self->busy = false;
    self->notified |= rc == FL_TLS_EOF;
    return rc == FL_TLS_ERROR ? -1 : 0;
}

/* Is anything on its way down? */
static int
tls_below_waits(FlTls *self)
{
    if (self->stream != NULL) return self->stream->out.size > 0;
    if (self->below == NULL || self->over) return 0;
    PyObject *size = PyObject_CallMethodNoArgs(
        self->below, tls_state(self)->str_get_write_buffer_size);
    int rc = size == NULL ? -1 : PyObject_IsTrue(size);
    Py_XDECREF(size);
    return rc < 0 ? fl_tls_below_cannot_tell() : rc;
}

int
fl_tls_wait_for_peer(FlTls *self)
{
    if (self->linger != NULL) return 0;
    int waits = tls_below_waits(self);
    if (waits < 0) return -1;
    /* A stream of ours tells when all has left; others are asked again. */
    if (waits && self->stream != NULL) return 0;
    PyObject *delay = PyFloat_FromDouble(TLS_LINGER);
    if (delay == NULL) return -1;
    int rc =
        fl_tls_schedule(self, &self->linger, delay, tls_state(self)->str__check_linger);
    Py_DECREF(delay);
    return rc;
}

int
fl_tls_lingered(FlTls *self)
{
    Py_CLEAR(self->linger);
    if (self->state != FL_TLS_SHUTDOWN) return 0;
    int waits = tls_below_waits(self);
    if (waits < 0) return -1;
    if (waits) return fl_tls_wait_for_peer(self);
    return fl_tls_below_call(self, tls_state(self)->str_close, NULL);
}

int
fl_tls_shutdown_late(FlTls *self)
{
    Py_CLEAR(self->timer);
    if (self->over || self->state == FL_TLS_UNWRAPPED) return 0;
    PyObject *exc =
        PyObject_CallFunction(PyExc_TimeoutError, "s", "SSL shutdown timed out");
    if (exc == NULL) return -1;
    int rc = fl_tls_abort(self, exc);
    Py_DECREF(exc);
    return rc;
}

/* Both alerts are through, or nothing more can come. */
static int
tls_shut_down(FlTls *self)
{
    if (fl_tls_flush(self) < 0) return -1;
    if (self->state != FL_TLS_SHUTDOWN) return 0;
    if (self->app == FL_TLS_APP_MADE && fl_tls_call_eof_received(self) < 0) return -1;
    if (self->state != FL_TLS_SHUTDOWN) return 0;
    /* The limit stays: closing waits for what is still to be sent. */
    return fl_tls_below_call(self, tls_state(self)->str_close, NULL);
}

int
fl_tls_shut(FlTls *self)
{
    if (self->busy) {
        fl_turn_flush_later(self->base.loop, &self->flush);
        return 0;
    }
    FlState *st = tls_state(self);
    if (self->state == FL_TLS_FLUSHING) {
        if (fl_tls_flush(self) < 0) return -1;
        if (self->state != FL_TLS_FLUSHING) return 0;
        if (self->out.size > 0) {
            /* resume_writing() goes on; meanwhile nothing is downloaded in vain. */
            if (self->below_paused || self->eof) return 0;
            self->below_paused = true;
            return fl_tls_below_call(self, st->str_pause_reading, NULL);
        }
        fl_shared_put(&self->state, FL_TLS_SHUTDOWN);
        if (!self->eof && tls_discard_received(self) < 0) {
            return fl_tls_fatal(self, "Fatal error on transport");
        }
        if (self->below_paused) {
            self->below_paused = false;
            if (fl_tls_below_call(self, st->str_resume_reading, NULL) < 0) return -1;
        }
    }
    if (self->state != FL_TLS_SHUTDOWN) return 0;
    if (self->eof) return tls_shut_down(self);
    self->busy = true;
    FlTlsResult rc = fl_tlsengine_shutdown(&self->engine, st);
    self->busy = false;
    if (rc == FL_TLS_ERROR && fl_errors_fatal()) return -1;
    if (self->state != FL_TLS_SHUTDOWN) {
        PyErr_Clear();
        return 0;
    }
    if (rc == FL_TLS_ERROR) return fl_tls_fatal(self, "Fatal error on transport");
    if (rc == FL_TLS_DONE) {
        self->notified = true;
        return tls_shut_down(self);
    }
    if (fl_tls_flush(self) < 0) return -1;
    return self->state == FL_TLS_SHUTDOWN ? fl_tls_wait_for_peer(self) : 0;
}
