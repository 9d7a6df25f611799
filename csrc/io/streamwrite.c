/* streamwrite.c - the writing half of a stream transport.
 *
 * Owns:   the queue of what is to be sent, and when it leaves.
 * Thread: the loop's own. */
#include "io/streamwrite.h"
#include "core/turn.h"
#include "io/flow.h"
#include "io/payload.h"
#include <errno.h>
#include <sys/socket.h>

enum {
    STREAMWRITE_VECTORS = 256, /* buffers a sendmsg() takes */
    STREAMWRITE_JOINED = 4096, /* so few bytes are sent as one buffer, see below */
};

size_t
fl_streamwrite_buffered(FlTransport *base)
{
    return ((FlStream *)base)->out.size;
}

void
fl_streamwrite_discard(FlTransport *base)
{
    FlStream *self = (FlStream *)base;
    fl_buffers_clear(&self->out);
    self->writing = false;
}

/* Fails where the peer is gone, which connection_lost() will tell. */
static void
streamwrite_shut_down(FlTransport *base)
{
    (void)shutdown(base->watcher.fd, SHUT_WR);
    fl_turn_look_soon(base->loop);
}

int
fl_streamwrite_drained(FlStream *self)
{
    FlTransport *base = &self->base;
    if (base->flags & FL_TRANSPORT_PROTOCOL_PAUSED) {
        if (fl_flow_maybe_resume_within(base) < 0) return -1;
        if (self->out.size > 0) return 0; /* it wrote at once */
    }
    if (self->empty_waiter != NULL) {
        PyObject *waiter = Py_NewRef(self->empty_waiter);
        FlState *st = base->loop->st;
        PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
        int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
        Py_XDECREF(done);
        PyObject *result =
            is_done != 0
                ? NULL
                : PyObject_CallMethodOneArg(waiter, st->str_set_result, Py_None);
        Py_XDECREF(result);
        Py_DECREF(waiter);
        if (is_done < 0 || (is_done == 0 && result == NULL)) return -1;
    }
    if (base->flags & FL_TRANSPORT_CLOSING) return fl_transport_lose(base, NULL);
    if (base->flags & FL_TRANSPORT_EOF) {
        streamwrite_shut_down(base);
    }
    if (self->sink == NULL) return 0;
    PyObject *protocol = Py_NewRef(base->protocol);
    int rc = self->sink->drained(protocol);
    Py_DECREF(protocol);
    return rc;
}

static void
streamwrite_sent(FlStream *self, size_t size)
{
    fl_traffic_out(self->base.traffic, size);
    if (size >= FL_SERIES_LARGE) {
        fl_series_count(&self->series, &self->base, size);
    }
}

/* One system call for what waits, or for the first of it. To copy a head and a short
 * body is cheaper than to have the kernel read a list of two: 2 to 3% of the call. */
static ssize_t
streamwrite_offer_some(FlStream *self, int *count)
{
    int fd = self->base.watcher.fd;
    if (self->out.count > 1 && self->out.size <= STREAMWRITE_JOINED) {
        char joined[STREAMWRITE_JOINED];
        fl_buffers_copy(&self->out, joined);
        *count = 1;
        return send(fd, joined, self->out.size, MSG_NOSIGNAL);
    }
    struct iovec vectors[STREAMWRITE_VECTORS];
    *count = fl_buffers_vectors(&self->out, vectors, STREAMWRITE_VECTORS);
    if (*count == 1) {
        return send(fd, vectors[0].iov_base, vectors[0].iov_len, MSG_NOSIGNAL);
    }
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)*count};
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Sends what the socket takes. 0; 1 if it takes no more just now; or an errno, negated.
 * In a forked child nothing leaves: what waited at the fork is the parent's to send. */
static int
streamwrite_offer(FlStream *self)
{
    if (FL_UNLIKELY(fl_poll_is_foreign(&self->base.loop->poll))) return 1;
    fl_turn_look_soon(self->base.loop);
    while (self->out.size > 0) {
        int count;
        ssize_t n = streamwrite_offer_some(self, &count);
        if (n < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN || errno == EWOULDBLOCK ? 1 : -errno;
        }
        streamwrite_sent(self, (size_t)n);
        fl_buffers_consume(&self->out, (size_t)n);
        /* Less than was offered: it is full, another call would only say so. */
        if (self->out.size > 0 && count < STREAMWRITE_VECTORS) return 1;
    }
    return 0;
}

static int
streamwrite_fatal(FlStream *self, int code)
{
    return fl_transport_fatal_errno(&self->base, code,
                                    "Fatal write error on socket transport");
}

int
fl_streamwrite_flush(FlStream *self)
{
    FlTransport *base = &self->base;
    if (base->conn_lost > 0 || self->out.size == 0) return 0;
    int code = streamwrite_offer(self);
    if (FL_UNLIKELY(code < 0)) return streamwrite_fatal(self, -code);
    bool waits = code > 0;
    if (waits != self->writing) {
        self->writing = waits;
        if (fl_transport_watch(base) < 0) {
            return fl_transport_fatal(base, "Fatal write error on socket transport");
        }
    }
    if (!waits) return fl_streamwrite_drained(self);
    if (base->flags & FL_TRANSPORT_PROTOCOL_PAUSED) {
        return fl_flow_maybe_resume_within(base);
    }
    return fl_flow_maybe_pause(base);
}

int
fl_streamwrite_queue(FlStream *self, PyObject *data)
{
    if (self->base.conn_lost > 0) return 0;
    self->flood = 0;
    return fl_payload_push(&self->out, data);
}

int
fl_streamwrite_send(FlStream *self)
{
    if (self->writing) return fl_flow_maybe_pause(&self->base);
    return fl_streamwrite_flush(self);
}

int
fl_streamwrite_settle(FlStream *self)
{
    return self->flush.queued && !self->writing ? fl_streamwrite_flush(self) : 0;
}

int
fl_streamwrite_due(FlFlush *flush)
{
    FlStream *self = (FlStream *)((char *)flush - offsetof(FlStream, flush));
    if (FL_UNLIKELY(self->writing)) return 0;
    if (FL_LIKELY(self->out.size <= self->base.high_water)) {
        return fl_streamwrite_flush(self);
    }
    /* Many large writes may pause the protocol, and nobody's callback runs now. */
    bool entered = fl_transport_enter(&self->base);
    int rc = fl_streamwrite_flush(self);
    return fl_transport_left(&self->base, entered, rc);
}

/* Something was queued: now, or at the end of the turn? 0 or -1. */
static int
streamwrite_queued(FlStream *self)
{
    self->flood = 0;
    if (self->writing) return fl_flow_maybe_pause(&self->base);
    if (fl_series_is_long(&self->series, &self->base, self->out.size)) {
        fl_turn_flush_at_end(self->base.loop, &self->flush);
        return fl_flow_maybe_pause(&self->base);
    }
    if (fl_series_may_wait(&self->series, &self->base, self->out.size)) {
        fl_series_wait(&self->base, &self->flush, self->out.size);
        return 0;
    }
    int rc = fl_streamwrite_flush(self);
    fl_series_sent(&self->series, &self->base);
    return rc;
}

/* Sends a large buffer that is not a bytes object as far as it goes, and queues a copy
 * of the rest: in a forked child, of all. 0 or -1. */
static int
streamwrite_write_through(FlStream *self, const char *data, size_t length)
{
    FlTransport *base = &self->base;
    size_t sent = 0;
    fl_turn_look_soon(base->loop);
    while (sent < length && FL_LIKELY(!fl_poll_is_foreign(&base->loop->poll))) {
        ssize_t n = send(base->watcher.fd, data + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) break;
            return streamwrite_fatal(self, errno);
        }
        streamwrite_sent(self, (size_t)n);
        sent += (size_t)n;
    }
    if (sent == length) return 0;
    if (fl_payload_push_copy(&self->out, data + sent, length - sent) < 0) return -1;
    return fl_streamwrite_flush(self);
}

/* asyncio's TypeError for what has no bytes; returns NULL. */
static PyObject *
streamwrite_refuse(PyObject *data)
{
    PyObject *name = PyType_GetName(Py_TYPE(data));
    if (name == NULL) return NULL;
    PyErr_Format(PyExc_TypeError, FL_WRITE_TYPE_ERROR, name);
    Py_DECREF(name);
    return NULL;
}

static int
streamwrite_check_write(FlStream *self, const char *method)
{
    if (FL_UNLIKELY(self->base.flags & FL_TRANSPORT_EOF)) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return -1;
    }
    if (FL_UNLIKELY(self->empty_waiter != NULL)) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress",
                     method);
        return -1;
    }
    return 0;
}

/* What is neither bytes nor small. 0 or -1. */
static int
streamwrite_write_other(FlStream *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        /* Not contiguous: a copy is, and then it is a bytes object. */
        if (!PyErr_ExceptionMatches(PyExc_BufferError)) return -1;
        PyErr_Clear();
        if (fl_payload_push(&self->out, data) < 0) return -1;
        return self->out.size > 0 ? streamwrite_queued(self) : 0;
    }
    int rc = 0;
    bool large = view.len >= FL_SERIES_LARGE &&
                 !fl_series_is_long(&self->series, &self->base, 0);
    /* What waits goes first. The protocol hears of that behind this write: what it
     * writes from there comes behind it, too. */
    bool offered = large && self->flush.queued && !self->writing && self->out.size > 0;
    if (offered) {
        int code = streamwrite_offer(self);
        if (FL_UNLIKELY(code < 0)) {
            rc = streamwrite_fatal(self, -code);
        }
    }
    /* What waited before it, or its own __buffer__(), may have ended the connection. */
    bool lost = rc < 0 || self->base.conn_lost > 0;
    if (!lost && large && self->out.size == 0) {
        rc = streamwrite_write_through(self, view.buf, (size_t)view.len);
        lost = rc < 0 || self->base.conn_lost > 0;
        if (!lost && offered && self->out.size == 0) {
            rc = fl_streamwrite_drained(self);
        }
    }
    else if (!lost && view.len > 0) {
        rc = fl_payload_push(&self->out, data);
        if (rc == 0) {
            rc = offered ? fl_streamwrite_flush(self) : streamwrite_queued(self);
        }
    }
    PyBuffer_Release(&view);
    return rc;
}

PyObject *
fl_streamwrite_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    PyObject *data = fl_callargs_one("write", "data", args, nargs, kwnames);
    if (FL_UNLIKELY(data == NULL)) return NULL;
    bool is_bytes = PyBytes_CheckExact(data);
    if (FL_UNLIKELY(!is_bytes && !fl_payload_is_fit(data)))
        return streamwrite_refuse(data);
    if (streamwrite_check_write(self, "write") < 0) return NULL;
    Py_ssize_t length = is_bytes ? PyBytes_GET_SIZE(data) : PyObject_Size(data);
    if (length < 0) return NULL;
    if (length == 0) Py_RETURN_NONE;
    if (FL_UNLIKELY(self->base.conn_lost > 0)) {
        if (fl_flow_write_lost(&self->base, "socket.send() raised exception.") < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    int rc;
    if (FL_LIKELY(is_bytes)) {
        rc = fl_payload_push(&self->out, data);
        if (rc == 0) {
            rc = streamwrite_queued(self);
        }
    }
    else {
        rc = streamwrite_write_other(self, data);
    }
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *
fl_streamwrite_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    PyObject *lines =
        fl_callargs_one("writelines", "list_of_data", args, nargs, kwnames);
    if (lines == NULL) return NULL;
    if (!FL_WRITELINES_JOINS && streamwrite_check_write(self, FL_WRITELINES_NAME) < 0) {
        return NULL;
    }
    Py_ssize_t total;
    PyObject *list = fl_payload_lines(lines, FL_WRITELINES_JOINS, &total);
    if (list == NULL) return NULL;
    if (FL_WRITELINES_JOINS && streamwrite_check_write(self, FL_WRITELINES_NAME) < 0) {
        goto error;
    }
    if (total == 0) goto done;
    if (self->base.conn_lost > 0) {
        if (fl_flow_write_lost(&self->base, "socket.send() raised exception.") < 0) {
            goto error;
        }
        goto done;
    }
    if (fl_payload_push_lines(&self->out, list) < 0 || streamwrite_queued(self) < 0) {
        goto error;
    }
done:
    Py_DECREF(list);
    Py_RETURN_NONE;

error:
    Py_DECREF(list);
    return NULL;
}

PyObject *
fl_streamwrite_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    FlTransport *base = &self->base;
    if (base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_EOF)) Py_RETURN_NONE;
    base->flags |= FL_TRANSPORT_EOF;
    if (self->out.size > 0) {
        /* Shuts down behind it, at once or when the socket has taken the rest. */
        if (!self->writing && fl_streamwrite_flush(self) < 0) return NULL;
    }
    else {
        streamwrite_shut_down(base);
    }
    Py_RETURN_NONE;
}

PyObject *
fl_streamwrite_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

PyObject *
fl_streamwrite_get_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    /* What counts is what the socket did not take, so offer it first. */
    if (fl_streamwrite_settle(self) < 0) return NULL;
    return PyLong_FromSize_t(self->out.size);
}
