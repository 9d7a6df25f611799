/* stream.c - FlStream, the transport over a connected stream socket.
 *
 * Owns:   the queue of writes, the protocol's bound methods.
 * Thread: the loop's own.
 *
 * Our own recv() and sendmsg() under a watched descriptor: a plain C echo server costs
 * the same with them as with uv_tcp_t, and ownership of the descriptor, half-close,
 * partial writes and errors are then exactly asyncio's. */
#include "io/stream.h"
#include "core/turn.h"
#include "base/errors.h"
#include "io/flow.h"
#include "io/streamedge.h"
#include "io/streaminfo.h"
#include "io/streamlend.h"
#include "io/streamread.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

enum {
    STREAM_SMALL_WRITE = FL_SERIES_LARGE, /* below, writes wait for the turn's end */
    STREAM_SERIES = 1024 * 1024,          /* of large writes in a row */
    STREAM_VECTORS = 256,                 /* buffers a sendmsg() takes */
    STREAM_JOINED = 4096, /* so few bytes are sent as one buffer, see below */
};

static inline FlStream *
stream_of(FlTransport *base)
{
    return (FlStream *)base;
}

static size_t
stream_buffered(FlTransport *base)
{
    return stream_of(base)->out.size;
}

static void
stream_discard(FlTransport *base)
{
    FlStream *self = stream_of(base);
    fl_buffers_clear(&self->out);
    self->writing = false;
}

static void
stream_unbind(FlTransport *base)
{
    FlStream *self = stream_of(base);
    fl_bound_clear(&self->bound);
    self->sink = NULL;
}

static uint32_t
stream_wanted(FlTransport *base)
{
    FlStream *self = stream_of(base);
    unsigned idle = FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED | FL_TRANSPORT_READ_EOF;
    bool reading =
        (base->flags & (FL_TRANSPORT_STARTED | idle)) == FL_TRANSPORT_STARTED;
    if (self->writing) return (uint32_t)EPOLLOUT | (reading ? (uint32_t)EPOLLIN : 0);
    return reading ? fl_streamedge_wanted(self) : 0;
}

/* -- writing ---------------------------------------------------------------------- */

/* Fails where the peer is gone, which connection_lost() will tell. */
static void
stream_shut_down(FlTransport *base)
{
    (void)shutdown(base->watcher.fd, SHUT_WR);
    fl_turn_look_soon(base->loop);
}

int
fl_stream_drained(FlStream *self)
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
        stream_shut_down(base);
    }
    if (self->sink == NULL) return 0;
    PyObject *protocol = Py_NewRef(base->protocol);
    int rc = self->sink->drained(protocol);
    Py_DECREF(protocol);
    return rc;
}

/* One system call for what waits, or for the first of it. To copy a head and a short
 * body is cheaper than to have the kernel read a list of two: 2 to 3% of the call. */
static ssize_t
stream_send_some(FlStream *self, int *count)
{
    int fd = self->base.watcher.fd;
    if (self->out.count > 1 && self->out.size <= STREAM_JOINED) {
        char joined[STREAM_JOINED];
        fl_buffers_copy(&self->out, joined);
        *count = 1;
        return send(fd, joined, self->out.size, MSG_NOSIGNAL);
    }
    struct iovec vectors[STREAM_VECTORS];
    *count = fl_buffers_vectors(&self->out, vectors, STREAM_VECTORS);
    if (*count == 1) {
        return send(fd, vectors[0].iov_base, vectors[0].iov_len, MSG_NOSIGNAL);
    }
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)*count};
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/* Sends what the socket takes. 0; 1 if it takes no more just now; or an errno, negated.
 * In a forked child nothing leaves: what waited at the fork is the parent's to send. */
static int
stream_send(FlStream *self)
{
    if (FL_UNLIKELY(fl_poll_is_foreign(&self->base.loop->poll))) return 1;
    fl_turn_look_soon(self->base.loop);
    while (self->out.size > 0) {
        int count;
        ssize_t n = stream_send_some(self, &count);
        if (n < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN || errno == EWOULDBLOCK ? 1 : -errno;
        }
        fl_traffic_out(self->base.traffic, (size_t)n);
        fl_buffers_consume(&self->out, (size_t)n);
        /* Less than was offered: it is full, another call would only say so. */
        if (self->out.size > 0 && count < STREAM_VECTORS) return 1;
    }
    return 0;
}

/* Sends, and sees to what follows from it. 0 or -1. */
static int
stream_flush(FlStream *self)
{
    FlTransport *base = &self->base;
    if (base->conn_lost > 0 || self->out.size == 0) return 0;
    int code = stream_send(self);
    if (FL_UNLIKELY(code < 0)) {
        return fl_transport_fatal_errno(base, -code,
                                        "Fatal write error on socket transport");
    }
    bool waits = code > 0;
    if (waits != self->writing) {
        self->writing = waits;
        if (fl_transport_watch(base) < 0) {
            return fl_transport_fatal(base, "Fatal write error on socket transport");
        }
    }
    if (!waits) return fl_stream_drained(self);
    if (base->flags & FL_TRANSPORT_PROTOCOL_PAUSED) {
        return fl_flow_maybe_resume_within(base);
    }
    return fl_flow_maybe_pause(base);
}

int
fl_stream_queue(FlStream *self, PyObject *data)
{
    if (self->base.conn_lost > 0) return 0;
    self->flood = 0;
    return fl_buffers_push(&self->out, data, PyBytes_AS_STRING(data),
                           (size_t)PyBytes_GET_SIZE(data));
}

int
fl_stream_flush(FlStream *self)
{
    if (self->writing) return fl_flow_maybe_pause(&self->base);
    return stream_flush(self);
}

int
fl_stream_abort(FlStream *self, PyObject *exc)
{
    Py_INCREF((PyObject *)self);
    int rc = self->flush.queued ? stream_flush(self) : 0;
    if (rc == 0) {
        rc = fl_transport_force_close(&self->base, exc);
    }
    Py_DECREF((PyObject *)self);
    return rc;
}

static int
on_flush(FlFlush *flush)
{
    FlStream *self = (FlStream *)((char *)flush - offsetof(FlStream, flush));
    if (FL_LIKELY(self->out.size <= self->base.high_water)) return stream_flush(self);
    /* Many large writes may pause the protocol, and nobody's callback runs now. */
    bool entered = fl_transport_enter(&self->base);
    int rc = stream_flush(self);
    return fl_transport_left(&self->base, entered, rc);
}

/* Whether what is queued waits for the end of the turn, and for what may follow. */
static bool
stream_may_wait(FlStream *self)
{
    FlLoop *loop = self->base.loop;
    if (loop->thread == 0) return false;
    size_t size = self->out.size;
    if (size < STREAM_SMALL_WRITE && size <= self->base.high_water) return true;
    return size < STREAM_SERIES &&
           fl_series_goes_on(&self->series, loop, self->base.high_water, uv_hrtime());
}

static int
stream_send_now(FlStream *self)
{
    bool large = self->out.size >= STREAM_SMALL_WRITE;
    int rc = stream_flush(self);
    if (large) {
        fl_series_sent(&self->series, self->base.loop);
    }
    return rc;
}

/* Something was queued: now, or at the end of the turn? 0 or -1. */
static int
stream_queued(FlStream *self)
{
    self->flood = 0;
    if (self->writing) return fl_flow_maybe_pause(&self->base);
    if (!stream_may_wait(self)) return stream_send_now(self);
    fl_turn_flush_later(self->base.loop, &self->flush);
    return 0;
}

/* Sends a large buffer that is not a bytes object as far as it goes, and queues a copy
 * of the rest: in a forked child, of all. 0 or -1. */
static int
stream_write_through(FlStream *self, const char *data, size_t length)
{
    FlTransport *base = &self->base;
    size_t sent = 0;
    fl_turn_look_soon(base->loop);
    while (sent < length && FL_LIKELY(!fl_poll_is_foreign(&base->loop->poll))) {
        ssize_t n = send(base->watcher.fd, data + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) break;
            return fl_transport_fatal_errno(base, errno,
                                            "Fatal write error on socket transport");
        }
        fl_traffic_out(base->traffic, (size_t)n);
        sent += (size_t)n;
    }
    if (sent == length) return 0;
    PyObject *rest =
        PyBytes_FromStringAndSize(data + sent, (Py_ssize_t)(length - sent));
    if (rest == NULL) return -1;
    int rc = fl_buffers_push(&self->out, rest, PyBytes_AS_STRING(rest), length - sent);
    Py_DECREF(rest);
    return rc < 0 ? -1 : stream_flush(self);
}

/* Queues the bytes of data: a reference to a bytes object, a copy of anything else. */
static int
stream_push(FlStream *self, PyObject *data)
{
    if (FL_LIKELY(PyBytes_CheckExact(data))) {
        return fl_buffers_push(&self->out, data, PyBytes_AS_STRING(data),
                               (size_t)PyBytes_GET_SIZE(data));
    }
    PyObject *copy = PyBytes_FromObject(data);
    if (copy == NULL) return -1;
    int rc = fl_buffers_push(&self->out, copy, PyBytes_AS_STRING(copy),
                             (size_t)PyBytes_GET_SIZE(copy));
    Py_DECREF(copy);
    return rc;
}

static bool
stream_is_data(PyObject *data)
{
    return PyBytes_Check(data) || PyByteArray_Check(data) || PyMemoryView_Check(data);
}

/* asyncio's TypeError for anything else; returns NULL. */
static PyObject *
stream_refuse(PyObject *data)
{
    PyObject *name = PyType_GetName(Py_TYPE(data));
    if (name == NULL) return NULL;
    PyErr_Format(PyExc_TypeError, FL_WRITE_TYPE_ERROR, name);
    Py_DECREF(name);
    return NULL;
}

static int
stream_check_write(FlStream *self, const char *method)
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
stream_write_other(FlStream *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        /* Not contiguous: a copy is, and then it is a bytes object. */
        if (!PyErr_ExceptionMatches(PyExc_BufferError)) return -1;
        PyErr_Clear();
        if (stream_push(self, data) < 0) return -1;
        return self->out.size > 0 ? stream_queued(self) : 0;
    }
    int rc = 0;
    bool large = view.len >= STREAM_SMALL_WRITE;
    if (large && self->flush.queued) {
        rc = stream_flush(self);
    }
    /* What waited before it, or its own __buffer__(), may have ended the connection. */
    bool lost = rc < 0 || self->base.conn_lost > 0;
    if (!lost && large && self->out.size == 0) {
        rc = stream_write_through(self, view.buf, (size_t)view.len);
    }
    else if (!lost && view.len > 0) {
        rc = stream_push(self, data);
        if (rc == 0) {
            rc = stream_queued(self);
        }
    }
    PyBuffer_Release(&view);
    return rc;
}

static PyObject *
stream_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    PyObject *data = fl_callargs_one("write", "data", args, nargs, kwnames);
    if (FL_UNLIKELY(data == NULL)) return NULL;
    bool is_bytes = PyBytes_CheckExact(data);
    if (FL_UNLIKELY(!is_bytes && !stream_is_data(data))) return stream_refuse(data);
    if (stream_check_write(self, "write") < 0) return NULL;
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
        rc = stream_push(self, data);
        if (rc == 0) {
            rc = stream_queued(self);
        }
    }
    else {
        rc = stream_write_other(self, data);
    }
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

/* TypeError for a line that has no bytes, in asyncio's words. */
static void
stream_refuse_line(PyObject *line, Py_ssize_t index)
{
    const char *found = Py_TYPE(line)->tp_name;
    if (FL_WRITELINES_JOINS) {
        PyErr_Format(PyExc_TypeError,
                     "sequence item %zd: expected a bytes-like object, %.80s found",
                     index, found);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "memoryview: a bytes-like object is required, not '%.200s'",
                     found);
    }
}

static PyObject *
stream_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    PyObject *lines =
        fl_callargs_one("writelines", "list_of_data", args, nargs, kwnames);
    if (lines == NULL) return NULL;
    if (!FL_WRITELINES_JOINS && stream_check_write(self, FL_WRITELINES_NAME) < 0) {
        return NULL;
    }
    /* All of them become bytes first: an unfit one must not leave half a message. */
    PyObject *list = PySequence_List(lines);
    if (list == NULL) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(list);
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *line = PyList_GET_ITEM(list, i);
        if (!PyBytes_CheckExact(line)) {
            if (!PyObject_CheckBuffer(line)) {
                stream_refuse_line(line, i);
                goto error;
            }
            PyObject *copy = PyBytes_FromObject(line);
            if (copy == NULL) goto error;
            PyList_SetItem(list, i, copy);
        }
        total += PyBytes_GET_SIZE(PyList_GET_ITEM(list, i));
    }
    if (FL_WRITELINES_JOINS && stream_check_write(self, FL_WRITELINES_NAME) < 0) {
        goto error;
    }
    if (total == 0) goto done;
    if (self->base.conn_lost > 0) {
        if (fl_flow_write_lost(&self->base, "socket.send() raised exception.") < 0) {
            goto error;
        }
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (stream_push(self, PyList_GET_ITEM(list, i)) < 0) goto error;
    }
    if (stream_queued(self) < 0) goto error;
done:
    Py_DECREF(list);
    Py_RETURN_NONE;

error:
    Py_DECREF(list);
    return NULL;
}

static PyObject *
stream_write_eof(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    FlTransport *base = &self->base;
    if (base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_EOF)) Py_RETURN_NONE;
    base->flags |= FL_TRANSPORT_EOF;
    if (self->out.size > 0) {
        /* Shuts down behind it, at once or when the socket has taken the rest. */
        if (stream_flush(self) < 0) return NULL;
    }
    else {
        stream_shut_down(base);
    }
    Py_RETURN_NONE;
}

static PyObject *
stream_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
stream_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    /* What counts is what the socket did not take, so offer it first. */
    if (self->flush.queued && stream_flush(self) < 0) return NULL;
    return PyLong_FromSize_t(self->out.size);
}

static PyObject *
stream_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "close"));
    FlStream *self = (FlStream *)op;
    if (self->flush.queued && stream_flush(self) < 0) return NULL;
    if (fl_transport_close(&self->base) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
stream_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "abort"));
    if (fl_stream_abort((FlStream *)op, NULL) < 0) return NULL;
    Py_RETURN_NONE;
}

/* -- events ----------------------------------------------------------------------- */

static int
on_stream_event(FlWatcher *watcher, uint32_t events)
{
    FlStream *self = (FlStream *)watcher->owner;
    FlTransport *base = &self->base;
    bool entered = fl_transport_enter(base);
    int rc = 0;
    if ((events & ~(uint32_t)EPOLLOUT) && (watcher->events & EPOLLIN)) {
        rc = fl_streamread_ready(self, events);
        if (events & (EPOLLRDHUP | EPOLLHUP)) {
            fl_turn_look_soon(base->loop); /* the end stands behind the data */
        }
    }
    if (rc == 0 && (events & ~(uint32_t)EPOLLIN) && self->writing) {
        rc = stream_flush(self);
    }
    return fl_transport_left(base, entered, rc);
}

static PyObject *
stream_repr(PyObject *op)
{
    FlStream *self = (FlStream *)op;
    FlTransport *base = &self->base;
    const char *state = base->flags & FL_TRANSPORT_CLOSED    ? " closed"
                        : base->flags & FL_TRANSPORT_CLOSING ? " closing"
                                                             : "";
    PyObject *name = PyType_GetName(Py_TYPE(op));
    if (name == NULL) return NULL;
    PyObject *shown;
    if (base->flags & FL_TRANSPORT_CLOSED) {
        shown = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, base->watcher.fd);
    }
    else {
        uint32_t events = fl_shared_peek(&base->watcher.events);
        shown = PyUnicode_FromFormat(
            "<%U%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state,
            base->watcher.fd, events & EPOLLIN ? "polling" : "idle",
            events & EPOLLOUT ? "polling" : "idle", fl_shared_peek(&self->out.size));
    }
    Py_DECREF(name);
    return shown;
}

/* -- making ----------------------------------------------------------------------- */

#define STREAM_KIND(counts_as)                                                         \
    {                                                                                  \
        .noun = "socket transport",                                                    \
        .traffic = (counts_as),                                                        \
        .buffered = stream_buffered,                                                   \
        .discard = stream_discard,                                                     \
        .unbind = stream_unbind,                                                       \
        .wanted = stream_wanted,                                                       \
        .lost = fl_streamlend_lost,                                                    \
        .release = fl_streaminfo_keep,                                                 \
        .make_extra = fl_streaminfo_make,                                              \
    }
static const FlTransportKind stream_kinds[2] = {STREAM_KIND(FL_TRAFFIC_TCP),
                                                STREAM_KIND(FL_TRAFFIC_UNIX)};

static FlStream *
stream_make(FlLoop *loop, int fd, PyObject *sock, int family, const FlAddress *peer,
            PyObject *protocol, PyObject *extra, PyObject *context, PyObject *server,
            PyObject *local, PyObject *waiter)
{
    FlStream *self = (FlStream *)fl_transport_alloc(loop->st->socket_transport_type);
    if (self == NULL) return NULL;
    FlTransport *base = &self->base;
    self->family = family;
    self->flush = (FlFlush){.call = on_flush, .owner = (PyObject *)self};
    const FlTransportKind *kind = &stream_kinds[family == AF_UNIX];
    if (fl_transport_init(base, loop, kind, on_stream_event, fd, sock, protocol,
                          context, server) < 0) {
        goto error;
    }
    base->extra = Py_XNewRef(extra);
    self->local = Py_XNewRef(local);
    if (peer != NULL && peer->length > 0) {
        base->peer = fl_addr_keep(peer);
        if (base->peer == NULL) goto undo;
    }
    if (fl_transport_start(base, waiter) < 0) goto undo;
    return self;

undo:
    fl_transport_abandon(base);
error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

FlStream *
fl_stream_new(FlLoop *loop, int fd, PyObject *sock, int family, const FlAddress *peer,
              PyObject *protocol, PyObject *extra, PyObject *context, PyObject *server,
              PyObject *waiter)
{
    if (family == AF_INET || family == AF_INET6) {
        /* Small writes go out without waiting for the peer's acknowledgement. */
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    return stream_make(loop, fd, sock, family, peer, protocol, extra, context, server,
                       NULL, waiter);
}

FlStream *
fl_stream_accepted(FlLoop *loop, int fd, PyObject *sock, int family,
                   const FlAddress *peer, PyObject *local, PyObject *protocol,
                   PyObject *context, PyObject *server)
{
    return stream_make(loop, fd, sock, family, peer, protocol, NULL, context, server,
                       local, NULL);
}

static PyObject *
stream_make_foreign(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *make =
        PyObject_GetAttr(op, ((FlLoop *)op)->st->str__make_foreign_transport);
    PyObject *result = make == NULL ? NULL : PyObject_Call(make, args, kwargs);
    Py_XDECREF(make);
    return result;
}

/* loop._make_socket_transport(sock, protocol, waiter=None, *, extra, server, context)
 */
static PyObject *
stream_make_socket_transport(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN((FlLoop *)op, NULL);
    static char *names[] = {"sock",   "protocol", "waiter", "extra",
                            "server", "context",  NULL};
    FlLoop *loop = (FlLoop *)op;
    FlState *st = loop->st;
    PyObject *sock, *protocol;
    PyObject *waiter = Py_None, *extra = Py_None, *server = Py_None, *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OO|O$O&OO:_make_socket_transport", names, &sock, &protocol,
            &waiter, fl_transport_convert_extra, &extra, &server, &context)) {
        return NULL;
    }
    static const char *const called[] = {"recv", "send", NULL};
    int foreign = fl_addr_has_own_methods(st, sock, called);
    if (foreign < 0) return NULL;
    if (FL_UNLIKELY(foreign)) return stream_make_foreign(op, args, kwargs);
    int fd = PyObject_AsFileDescriptor(sock);
    int family;
    if (fd < 0 || fl_addr_socket_number(st, sock, st->str_family, &family) < 0) {
        return NULL;
    }
    if (fl_transport_check_free(loop, fd) < 0) return NULL;

    FlAddress peer = {.length = sizeof(peer.u)};
    if (!fl_addr_is_known(family) || getpeername(fd, &peer.u.any, &peer.length) < 0) {
        peer.length = 0;
    }
    FlStream *self = fl_stream_new(
        loop, fd, sock, family, &peer, protocol, extra == Py_None ? NULL : extra,
        context == Py_None ? NULL : context, server == Py_None ? NULL : server, waiter);
    if (self == NULL) return NULL;
    /* The socket object is the one that was given, whatever extra says. */
    if (extra != Py_None) {
        PyObject *shown = fl_streaminfo_make(&self->base, st->str_socket);
        if (shown == NULL || PyDict_SetItem(extra, st->str_socket, shown) < 0) {
            PyErr_Clear();
        }
        Py_XDECREF(shown);
    }
    if (peer.length == 0 && !fl_addr_is_known(family)) {
        /* Known now or never: the peer may be gone when somebody asks. */
        PyObject *name = fl_streaminfo_make(&self->base, st->str_peername);
        PyObject *known = name == NULL ? NULL : fl_transport_extra(&self->base);
        if (known == NULL || PyDict_SetDefault(known, st->str_peername, name) == NULL) {
            PyErr_Clear();
        }
        Py_XDECREF(name);
    }
    return (PyObject *)self;
}

/* loop._has_transport(fd): whether a transport has the descriptor, also a closing one.
 */
static PyObject *
stream_has_transport(PyObject *op, PyObject *fd)
{
    FL_OWN((FlLoop *)op, NULL);
    int number = fl_compat_long_as_int(fd);
    if (number == -1 && PyErr_Occurred()) return NULL;
    return PyBool_FromLong(fl_poll_has_transport(&((FlLoop *)op)->poll, number));
}

static PyMethodDef loop_methods[] = {
    {"_has_transport", stream_has_transport, METH_O, NULL},
    {"_make_socket_transport",
     (PyCFunction)(void (*)(void))stream_make_socket_transport,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
stream_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlStream *self = (FlStream *)op;
    Py_VISIT(self->local);
    Py_VISIT(self->empty_waiter);
    int rc = fl_bound_traverse(&self->bound, visit, arg);
    return rc == 0 ? fl_transport_traverse(op, visit, arg) : rc;
}

static int
stream_clear(PyObject *op)
{
    FlStream *self = (FlStream *)op;
    fl_buffers_clear(&self->out);
    stream_unbind(&self->base);
    Py_CLEAR(self->local);
    Py_CLEAR(self->empty_waiter);
    return fl_transport_clear(op);
}

static void
stream_dealloc(PyObject *op)
{
    fl_transport_dealloc(op, stream_clear);
}

static PyMethodDef stream_methods[] = {
    FL_TRANSPORT_METHODS,
    FL_TRANSPORT_READ_METHODS,
    FL_FLOW_METHODS,
    {"write", (PyCFunction)(void (*)(void))stream_write, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write($self, data)\n--\n\nWrite bytes; never blocks.")},
    {"writelines", (PyCFunction)(void (*)(void))stream_writelines,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("writelines($self, list_of_data)\n--\n\n"
               "Write an iterable of bytes-like objects.")},
    {"write_eof", stream_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self)\n--\n\nClose the writing half behind what waits.")},
    {"can_write_eof", stream_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self)\n--\n\nReturn True.")},
    {"get_write_buffer_size", stream_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self)\n--\n\nReturn how many bytes wait.")},
    {"close", stream_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nClose the connection behind what waits.")},
    {"abort", stream_abort, METH_NOARGS,
     PyDoc_STR("abort($self)\n--\n\nClose the connection at once.")},
    {"_make_empty_waiter", fl_streamlend_make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", fl_streamlend_reset_empty_waiter, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    FL_TRANSPORT_GETSET,
    {"_sock", fl_streaminfo_get_sock, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, "A transport over a connected stream socket."},
    {Py_tp_dealloc, stream_dealloc},
    {Py_tp_finalize, fl_transport_finalize},
    {Py_tp_traverse, stream_traverse},
    {Py_tp_clear, stream_clear},
    {Py_tp_repr, stream_repr},
    {Py_tp_methods, stream_methods},
    {Py_tp_members, fl_transport_members},
    {Py_tp_getset, stream_getset},
    {0, NULL},
};

static PyType_Spec stream_spec = {
    .name = "fastloop.SocketTransport",
    .basicsize = sizeof(FlStream),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_slots,
};

int
fl_stream_register(PyObject *module, FlState *st)
{
    st->socket_transport_type =
        fl_transport_make_type(module, &stream_spec, st->transport_base);
    if (st->socket_transport_type == NULL) return -1;
    PyObject *type = (PyObject *)st->socket_transport_type;
    PyObject *mode = PyObject_GetAttrString(st->sendfile_mode, "TRY_NATIVE");
    if (mode == NULL) return -1;
    int rc = PyObject_SetAttrString(type, "_sendfile_compatible", mode);
    Py_DECREF(mode);
    if (rc < 0 || PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) < 0)
        return -1;
    return fl_loop_add_methods(st, loop_methods);
}
