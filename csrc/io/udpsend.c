/* udpsend.c - the sending half of the datagram transport.
 *
 * Owns:   nothing beside what the transport does.
 * Thread: the loop's own.
 *
 * The first datagram of a turn goes at once, as an answer should; those behind it leave
 * together at the end of the turn, FL_DATAGRAMS_BATCH of them at most. */
#include "io/udpsend.h"
#include "core/turn.h"
#include "base/errors.h"
#include "io/flow.h"
#include <errno.h>
#include <sys/socket.h>

static const char WRITE_FAILED[] = "Fatal write error on datagram transport";

static int
udpsend_call_error(FlDatagramTransport *self, PyObject *exc)
{
    FlTransport *base = &self->base;
    if (base->protocol == NULL) return 0; /* what raised took turns that closed us */
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *result =
        PyObject_CallMethodOneArg(protocol, base->loop->st->str_error_received, exc);
    Py_DECREF(protocol);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_udpsend_error(FlDatagramTransport *self, int code)
{
    PyObject *exc = fl_errors_new_os_error(code);
    if (exc == NULL) return -1;
    int rc = udpsend_call_error(self, exc);
    Py_DECREF(exc);
    return rc;
}

bool
fl_udpsend_would_block(void)
{
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
        !PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        return false;
    }
    PyErr_Clear();
    return true;
}

int
fl_udpsend_sort_error(FlDatagramTransport *self, const char *message)
{
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        return fl_transport_fatal(&self->base, message);
    }
    PyObject *exc = fl_compat_take_exception();
    int rc = udpsend_call_error(self, exc);
    Py_DECREF(exc);
    return rc;
}

/* By the socket object, whose conversion of addresses is the reference. 0; 1 to try
 * again later; -1 with the exception. */
static int
udpsend_foreign(FlDatagramTransport *self, PyObject *data, PyObject *address)
{
    FlTransport *base = &self->base;
    FlState *st = base->loop->st;
    bool connected = self->connected || (self->nameless_peer && address == Py_None);
    PyObject *args[3] = {Py_NewRef(base->sock), data, address};
    PyObject *result = PyObject_VectorcallMethod(
        connected ? st->str_send : st->str_sendto, args,
        (connected ? 2 : 3) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[0]);
    Py_XDECREF(result);
    if (result != NULL) {
        Py_ssize_t length = PyObject_Size(data);
        fl_traffic_out(base->traffic, length > 0 ? (size_t)length : 0);
        return 0;
    }
    return fl_udpsend_would_block() ? 1 : -1;
}

/* Sends the first datagrams. 0; 1 if the socket takes no more just now; -1 with the
 * protocol's exception or one that must leave the loop. */
static int
udpsend_first(FlDatagramTransport *self)
{
    FlDatagram *first = fl_outbox_first(&self->out);
    if (FL_LIKELY(first->address == NULL)) {
        size_t before = self->out.size;
        int n = fl_outbox_send(&self->out, self->base.watcher.fd);
        if (n >= 0) {
            size_t headers = (size_t)n * FL_UDP_HEADER_SIZE;
            fl_count_add(&self->base.traffic->writes, (uint64_t)n);
            fl_count_add(&self->base.traffic->bytes_out,
                         before - self->out.size - headers);
            return 0;
        }
        if (n == -EAGAIN || n == -EWOULDBLOCK) return 1;
        fl_outbox_drop_first(&self->out);
        return fl_udpsend_error(self, -n);
    }
    PyObject *data = Py_NewRef(first->data), *address = Py_NewRef(first->address);
    int rc = udpsend_foreign(self, data, address);
    Py_DECREF(data);
    Py_DECREF(address);
    if (rc == 1) return 1;
    if (self->out.count > 0) { /* else the socket's Python code closed us */
        fl_outbox_drop_first(&self->out);
    }
    return rc == 0 ? 0 : fl_udpsend_sort_error(self, WRITE_FAILED);
}

/* Everything has left, or the socket takes no more: what follows from it. 0 or -1. */
static int
udpsend_flushed(FlDatagramTransport *self, bool waits)
{
    FlTransport *base = &self->base;
    if (base->conn_lost > 0) return 0;
    if (waits != self->writing) {
        self->writing = waits;
        if (fl_transport_watch(base) < 0) {
            return fl_transport_fatal(base, WRITE_FAILED);
        }
    }
    if (base->flags & FL_TRANSPORT_PROTOCOL_PAUSED) {
        if (fl_flow_maybe_resume(base) < 0) return -1;
    }
    else if (waits && fl_flow_maybe_pause(base) < 0) {
        return -1;
    }
    if (self->out.count == 0 && (base->flags & FL_TRANSPORT_CLOSING)) {
        return fl_transport_lose(base, NULL);
    }
    return 0;
}

int
fl_udpsend_flush(FlDatagramTransport *self)
{
    FlTransport *base = &self->base;
    if (self->flushing || self->out.count == 0 || base->conn_lost > 0 ||
        (base->flags & FL_TRANSPORT_CLOSED) || fl_poll_is_foreign(&base->loop->poll)) {
        return 0; /* a forked child sends nothing that its parent will send */
    }
    bool entered = fl_transport_enter(base);
    int rc = 0;
    self->flushing = true;
    while (rc == 0 && self->out.count > 0 && base->conn_lost == 0) {
        rc = udpsend_first(self);
        if (FL_UNLIKELY(rc < 0)) {
            rc = fl_transport_callback_failed(base, base->loop->st->str__sendto_ready);
        }
    }
    self->flushing = false;
    if (rc >= 0) {
        rc = udpsend_flushed(self, rc == 1);
    }
    else if (!self->writing && self->out.count > 0) {
        fl_turn_flush_later(base->loop, &self->flush);
    }
    fl_transport_leave(base, entered);
    return rc;
}

int
fl_udpsend_on_flush(FlFlush *flush)
{
    size_t offset = offsetof(FlDatagramTransport, flush);
    FlDatagramTransport *self = (FlDatagramTransport *)((char *)flush - offset);
    return self->writing ? 0 : fl_udpsend_flush(self);
}

/* Behind the first datagram of a turn, in the loop's thread. */
static bool
udpsend_batches(FlDatagramTransport *self)
{
    return self->flush.queued && !(self->base.flags & FL_TRANSPORT_CLOSING) &&
           fl_loop_runs_here(self->base.loop);
}

/* A datagram has to wait. 0 or -1. */
static int
udpsend_queue(FlDatagramTransport *self, PyObject *data, PyObject *address,
              const FlPeerName *name)
{
    FlTransport *base = &self->base;
    if (fl_outbox_push(&self->out, data, address, name) < 0) return -1;
    if (self->writing) return fl_flow_maybe_pause(base);
    if (self->out.count < FL_DATAGRAMS_BATCH && self->out.size <= base->high_water)
        return 0;
    return fl_udpsend_flush(self);
}

/* Sends at once. 0; 1 if the socket takes no more just now; or an errno, negated. */
static int
udpsend_now(FlDatagramTransport *self, const char *data, size_t length,
            const FlPeerName *name)
{
    ssize_t n;
    do {
        n = sendto(self->base.watcher.fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL,
                   name->length > 0 ? &name->u.any : NULL, name->length);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        fl_traffic_out(self->base.traffic, length);
        return 0;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK ? 1 : -errno;
}

/* Tries to send at once. 0; 1 if the datagram has to wait; -1 with an exception. */
static int
udpsend_through(FlDatagramTransport *self, PyObject *data, PyObject *address,
                const FlPeerName *name)
{
    FlTransport *base = &self->base;
    int rc;
    if (address != NULL) {
        rc = udpsend_foreign(self, data, address);
        return rc < 0 ? fl_udpsend_sort_error(self, WRITE_FAILED) : rc;
    }
    if (FL_LIKELY(PyBytes_CheckExact(data))) {
        rc = udpsend_now(self, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data),
                         name);
    }
    else {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            return fl_transport_fatal(base, WRITE_FAILED);
        }
        /* The data's own __buffer__() may have taken turns that closed it. */
        rc = FL_LIKELY(!(base->flags & FL_TRANSPORT_CLOSED))
                 ? udpsend_now(self, view.buf, (size_t)view.len, name)
                 : 0;
        PyBuffer_Release(&view);
    }
    return rc < 0 ? fl_udpsend_error(self, -rc) : rc;
}

/* The transport is open, and where the datagram goes is known. 0 or -1. */
static int
udpsend_send(FlDatagramTransport *self, PyObject *data, PyObject *address,
             const FlPeerName *name)
{
    FlTransport *base = &self->base;
    if (address != NULL && !self->writing) {
        if (fl_udpsend_flush(self) < 0) return -1;
        if (base->flags & FL_TRANSPORT_CLOSED) return 0; /* by error_received() */
    }
    if (self->out.count > 0 || (address == NULL && udpsend_batches(self))) {
        return udpsend_queue(self, data, address, name);
    }
    int rc = udpsend_through(self, data, address, name);
    if (rc < 0) return -1;
    if (FL_UNLIKELY(rc == 1)) {
        if (fl_outbox_push(&self->out, data, address, name) < 0) return -1;
        self->writing = true;
        if (fl_transport_watch(base) < 0) {
            return fl_transport_fatal(base, WRITE_FAILED);
        }
        return fl_flow_maybe_pause(base);
    }
    /* The first of the turn went at once; those behind it leave together. */
    if (!(base->flags & FL_TRANSPORT_CLOSING) && fl_loop_runs_here(base->loop)) {
        fl_turn_flush_later(base->loop, &self->flush);
    }
    return 0;
}

/* The arguments of sendto(data, addr=None), borrowed. 0 or -1 with TypeError. */
static int
udpsend_parse_sendto(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                     PyObject **data, PyObject **address)
{
    static const char *const names[2] = {"data", "addr"};
    PyObject *values[2] = {NULL, NULL};
    if (nargs > 2) {
        PyErr_Format(PyExc_TypeError, "sendto() takes at most 2 arguments (%zd given)",
                     nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) {
        values[i] = args[i];
    }
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int which = PyUnicode_CompareWithASCIIString(name, names[0]) == 0   ? 0
                    : PyUnicode_CompareWithASCIIString(name, names[1]) == 0 ? 1
                                                                            : -1;
        if (which < 0 || values[which] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         which < 0 ? "sendto() got an unexpected keyword argument '%U'"
                                   : "sendto() got multiple values for argument '%U'",
                         name);
            return -1;
        }
        values[which] = args[nargs + i];
    }
    if (values[0] == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "sendto() missing 1 required positional argument: 'data'");
        return -1;
    }
    *data = values[0];
    *address = values[1] != NULL ? values[1] : Py_None;
    return 0;
}

/* The address of an endpoint that has one is that one. 0 or -1. */
static int
udpsend_check_address(FlDatagramTransport *self, PyObject **address)
{
    if (self->address == NULL) return 0;
    if (*address != Py_None && *address != self->address) {
        int same = PyObject_RichCompareBool(*address, self->address, Py_EQ);
        if (same < 0) return -1;
        if (!same) {
            PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S",
                         self->address);
            return -1;
        }
    }
    *address = self->address;
    return 0;
}

/* What is sent in data's place: a copy where it is not contiguous, which no call could
 * send, but which a datagram that waits for the end of the turn would be. New reference
 * or NULL. */
static PyObject *
udpsend_data(PyObject *data)
{
    if (PyMemoryView_Check(data) &&
        !PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(data), 'C')) {
        return PyBytes_FromObject(data);
    }
    return Py_NewRef(data);
}

PyObject *
fl_udpsend_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    FlTransport *base = &self->base;
    PyObject *data, *address;
    if (udpsend_parse_sendto(args, nargs, kwnames, &data, &address) < 0) return NULL;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyObject *name = PyType_GetName(Py_TYPE(data));
        if (name == NULL) return NULL;
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not %R", name);
        Py_DECREF(name);
        return NULL;
    }
    if (!FL_UDP_SENDS_EMPTY) {
        Py_ssize_t length = PyObject_Size(data);
        if (length < 0) return NULL;
        if (length == 0) Py_RETURN_NONE;
    }
    if (udpsend_check_address(self, &address) < 0) return NULL;
    if (FL_UNLIKELY((base->conn_lost > 0 && self->address != NULL) ||
                    (base->flags & FL_TRANSPORT_CLOSED))) {
        if (fl_flow_write_lost(base, "socket.send() raised exception.") < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    FlPeerName name = {.length = 0};
    bool native = !self->foreign &&
                  (self->connected || (self->nameless_peer && address == Py_None));
    if (!native && !self->foreign &&
        fl_peers_name(&self->peers, self->family, address, &name)) {
        native = true;
        if (PySys_Audit("socket.sendto", "OO", base->sock, address) < 0) {
            /* A hook that says that the socket would block is asked again later, by the
             * socket's own method. */
            native = !fl_udpsend_would_block();
            name.length = 0;
            if (native && fl_udpsend_sort_error(self, WRITE_FAILED) < 0) return NULL;
            if (native) Py_RETURN_NONE;
        }
        if (FL_UNLIKELY(base->flags & FL_TRANSPORT_CLOSED)) Py_RETURN_NONE;
    }
    data = udpsend_data(data);
    if (data == NULL) {
        if (fl_transport_fatal(base, WRITE_FAILED) < 0) return NULL;
        Py_RETURN_NONE;
    }
    Py_INCREF(address);
    int rc = udpsend_send(self, data, native ? NULL : address, &name);
    Py_DECREF(address);
    Py_DECREF(data);
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

int
fl_udpsend_settle(FlDatagramTransport *self)
{
    return self->writing ? 0 : fl_udpsend_flush(self);
}
