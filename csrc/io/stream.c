/* stream.c - FlStream, the transport over a connected stream socket.
 *
 * Owns:   the protocol's bound methods.
 * Thread: the loop's own.
 *
 * Our own recv() and sendmsg() under a watched descriptor: a plain C echo server costs
 * the same with them as with uv_tcp_t, and ownership of the descriptor, half-close,
 * partial writes and errors are then exactly asyncio's. */
#include "io/stream.h"
#include "core/turn.h"
#include "io/flow.h"
#include "io/streamedge.h"
#include "io/streaminfo.h"
#include "io/streamlend.h"
#include "io/streamread.h"
#include "io/streamwrite.h"
#include <netinet/tcp.h>
#include <sys/socket.h>

static inline FlStream *
stream_of(FlTransport *base)
{
    return (FlStream *)base;
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

/* -- the end ----------------------------------------------------------------------- */

int
fl_stream_abort(FlStream *self, PyObject *exc)
{
    Py_INCREF((PyObject *)self);
    int rc = fl_streamwrite_settle(self);
    if (rc == 0) {
        rc = fl_transport_force_close(&self->base, exc);
    }
    Py_DECREF((PyObject *)self);
    return rc;
}

static PyObject *
stream_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "close"));
    FlStream *self = (FlStream *)op;
    if (fl_streamwrite_settle(self) < 0) return NULL;
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
        rc = fl_streamwrite_flush(self);
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
        .buffered = fl_streamwrite_buffered,                                           \
        .discard = fl_streamwrite_discard,                                             \
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
    self->flush = (FlFlush){.call = fl_streamwrite_due, .owner = (PyObject *)self};
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
    {"write", (PyCFunction)(void (*)(void))fl_streamwrite_write,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write($self, data)\n--\n\nWrite bytes; never blocks.")},
    {"writelines", (PyCFunction)(void (*)(void))fl_streamwrite_writelines,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("writelines($self, list_of_data)\n--\n\n"
               "Write an iterable of bytes-like objects.")},
    {"write_eof", fl_streamwrite_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self)\n--\n\nClose the writing half behind what waits.")},
    {"can_write_eof", fl_streamwrite_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self)\n--\n\nReturn True.")},
    {"get_write_buffer_size", fl_streamwrite_get_size, METH_NOARGS,
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
