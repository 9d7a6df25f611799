/* udp.c - the transport over a datagram socket, and its receiving half.
 *
 * Owns:   datagrams that were received and not yet delivered, those that wait to be
 *         sent, and the cache of peers.
 * Thread: the loop's own. */
#include "io/udp.h"
#include "io/flow.h"
#include "io/reader.h"
#include "io/udpsend.h"
#include <errno.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

static const char READ_FAILED[] = "Fatal read error on datagram transport";

/* -- receiving --------------------------------------------------------------------- */

/* Schedules the delivery of what was received: behind all that is ready. 0 or -1. */
static int
udp_deliver_later(FlDatagramTransport *self)
{
    FlTransport *base = &self->base;
    if (self->deliver_due || fl_inbox_is_empty(&self->in) ||
        (base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED))) {
        return 0;
    }
    PyObject *method =
        PyObject_GetAttr((PyObject *)self, base->loop->st->str__read_ready);
    if (method == NULL) return -1;
    int rc = fl_loop_call_soon(base->loop, method, NULL, 0, base->context);
    Py_DECREF(method);
    self->deliver_due = rc == 0;
    return rc;
}

/* Delivers what was received, until the protocol closes or pauses the transport, stops
 * the loop or schedules something: in asyncio each datagram has a turn of its own, so
 * that this runs before the next. Of a rest that had to wait, one datagram a turn while
 * anything is ready. 0, or -1 with the protocol's exception. */
static int
udp_deliver(FlDatagramTransport *self, bool is_rest)
{
    FlTransport *base = &self->base;
    FlLoop *loop = base->loop;
    while (!fl_inbox_is_empty(&self->in)) {
        if (base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED)) {
            if (base->flags & FL_TRANSPORT_CLOSING) {
                fl_inbox_clear(&self->in);
            }
            return 0;
        }
        FlDatagram datagram = fl_inbox_pop(&self->in);
        fl_peers_seen(&self->peers, datagram.address, &datagram.name);
        /* A socket of somebody else's class may have brought anything. */
        fl_traffic_in(base->traffic, FL_LIKELY(PyBytes_CheckExact(datagram.data))
                                         ? (size_t)PyBytes_GET_SIZE(datagram.data)
                                         : 0);
        size_t ready = is_rest ? 0 : fl_ring_len(&loop->ready);
        PyObject *args[3] = {Py_NewRef(base->protocol), datagram.data,
                             datagram.address};
        PyObject *result =
            PyObject_VectorcallMethod(loop->st->str_datagram_received, args,
                                      3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        for (int i = 0; i < 3; i++) {
            Py_DECREF(args[i]);
        }
        if (FL_UNLIKELY(result == NULL)) return -1;
        Py_DECREF(result);
        if (fl_ring_len(&loop->ready) != ready || loop->stopping) {
            self->stopped = loop->stopping;
            return udp_deliver_later(self);
        }
    }
    return 0;
}

/* data, address = pair: new references. 0 or -1. */
static int
udp_unpack(PyObject *pair, PyObject *items[2])
{
    int count = 0;
    PyObject *iterator = PyObject_GetIter(pair);
    if (iterator == NULL) return -1;
    while (count < 2 && (items[count] = PyIter_Next(iterator)) != NULL) {
        count++;
    }
    PyObject *third = count < 2 ? NULL : PyIter_Next(iterator);
    if (third != NULL) {
        PyErr_SetString(PyExc_ValueError, "too many values to unpack (expected 2)");
    }
    else if (count < 2 && !PyErr_Occurred()) {
        PyErr_Format(PyExc_ValueError,
                     "not enough values to unpack (expected 2, got %d)", count);
    }
    Py_XDECREF(third);
    Py_DECREF(iterator);
    if (!PyErr_Occurred()) return 0;
    while (count > 0) {
        Py_DECREF(items[--count]);
    }
    return -1;
}

/* By the socket object: families that addr.c does not know, and sockets with methods of
 * their own. 0 or -1. */
static int
udp_receive_foreign(FlDatagramTransport *self)
{
    FlTransport *base = &self->base;
    PyObject *pair =
        PyObject_CallMethod(base->sock, "recvfrom", "i", (int)FL_SLAB_SIZE);
    PyObject *items[2];
    int rc = pair == NULL ? -1 : udp_unpack(pair, items);
    Py_XDECREF(pair);
    if (rc < 0) {
        if (fl_udpsend_would_block()) return 0;
        return fl_udpsend_sort_error(self, READ_FAILED);
    }
    rc = fl_inbox_push(&self->in, items[0], items[1]);
    Py_DECREF(items[0]);
    Py_DECREF(items[1]);
    return rc < 0 ? -1 : udp_deliver(self, false);
}

/* Receives and delivers, some FL_DATAGRAMS_BATCH at most. 0, or -1 with an exception.
 */
static int
udp_read(FlDatagramTransport *self)
{
    FlTransport *base = &self->base;
    if (!fl_inbox_is_empty(&self->in)) return udp_deliver_later(self);
    if (self->foreign || !fl_addr_is_known(self->family)) {
        return udp_receive_foreign(self);
    }
    char *slab = fl_loop_slab(base->loop);
    if (slab == NULL) return -1;
    bool more = true;
    for (int total = 0; more && total < FL_DATAGRAMS_BATCH;) {
        int code;
        int n = fl_inbox_receive(&self->in, &self->peers, base->watcher.fd,
                                 self->family, slab, &more, &code);
        if (n < 0) {
            if (code == 0) return -1;
            if (code == EAGAIN || code == EWOULDBLOCK) return 0;
            return fl_udpsend_error(self, code);
        }
        total += n;
        if (udp_deliver(self, false) < 0) return -1;
        if (!fl_inbox_is_empty(&self->in) || !(base->watcher.events & EPOLLIN))
            return 0;
    }
    return 0;
}

/* The protocol raised: what came behind that datagram is still to be delivered. Returns
 * rc, or -1 with another exception. */
static int
udp_read_failed(FlDatagramTransport *self, int rc)
{
    if (FL_LIKELY(rc == 0)) return 0;
    PyObject *raised = fl_compat_take_exception();
    if (udp_deliver_later(self) < 0) {
        Py_DECREF(raised);
        return -1;
    }
    fl_compat_set_exception(raised);
    return -1;
}

/* What asyncio's reader callback does, and the rest of a batch that was interrupted. */
static PyObject *
udp_read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    self->deliver_due = false;
    if (self->base.flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED)) Py_RETURN_NONE;
    int rc;
    bool still_stopping = self->stopped && self->base.loop->stopping;
    self->stopped = false;
    if (still_stopping) { /* in the very turn: the rest is for the next run */
        rc = udp_deliver_later(self);
    }
    else {
        rc = udp_read_failed(self, !fl_inbox_is_empty(&self->in)
                                       ? udp_deliver(self, true)
                                       : udp_read(self));
    }
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
udp_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    PyObject *result = fl_transport_resume_reading(op, NULL);
    if (result != NULL && udp_deliver_later((FlDatagramTransport *)op) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* -- the transport ----------------------------------------------------------------- */

static PyObject *
udp_sendto_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    if (fl_udpsend_flush((FlDatagramTransport *)op) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
udp_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    if (fl_udpsend_settle(self) < 0) return NULL;
    return PyLong_FromSize_t(self->out.size);
}

static PyObject *
udp_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "close"));
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    if (fl_udpsend_settle(self) < 0 || fl_transport_close(&self->base) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
udp_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "abort"));
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    if (fl_udpsend_settle(self) < 0 ||
        fl_transport_force_close(&self->base, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
on_udp_event(FlWatcher *watcher, uint32_t events)
{
    FlDatagramTransport *self = (FlDatagramTransport *)watcher->owner;
    FlTransport *base = &self->base;
    int rc = 0;
    if ((events & ~(uint32_t)EPOLLOUT) && (watcher->events & EPOLLIN)) {
        bool entered = fl_transport_enter(base);
        rc = udp_read_failed(self, udp_read(self));
        fl_transport_leave(base, entered);
        if (FL_UNLIKELY(rc < 0)) {
            rc = fl_transport_callback_failed(base, base->loop->st->str__read_ready);
        }
    }
    if (rc == 0 && (events & ~(uint32_t)EPOLLIN) && self->writing) {
        rc = fl_udpsend_flush(self);
    }
    return rc;
}

static size_t
udp_buffered(FlTransport *base)
{
    return ((FlDatagramTransport *)base)->out.size;
}

static void
udp_discard(FlTransport *base)
{
    FlDatagramTransport *self = (FlDatagramTransport *)base;
    fl_outbox_clear(&self->out);
    self->writing = false;
}

static void
udp_unbind(FlTransport *Py_UNUSED(base))
{
    /* Methods are looked up at each call. */
}

static uint32_t
udp_wanted(FlTransport *base)
{
    bool reading = (base->flags & FL_TRANSPORT_STARTED) &&
                   !(base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED));
    bool writing = ((FlDatagramTransport *)base)->writing;
    return (reading ? (uint32_t)EPOLLIN : 0) | (writing ? (uint32_t)EPOLLOUT : 0);
}

static int
udp_lost(FlTransport *base, PyObject *Py_UNUSED(exc))
{
    fl_inbox_clear(&((FlDatagramTransport *)base)->in);
    return 0;
}

/* How many datagrams the kernel had no room for. */
static uint32_t
udp_drops(int fd)
{
#ifdef SO_MEMINFO
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof(info);
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) == 0 &&
        length > SK_MEMINFO_DROPS * sizeof(uint32_t)) {
        return info[SK_MEMINFO_DROPS];
    }
#endif
    return 0;
}

/* Whether the descriptor is the transport's still, and not closed by the program. */
static bool
udp_has_socket(FlTransport *base)
{
    bool has = PyObject_AsFileDescriptor(base->sock) == base->watcher.fd;
    PyErr_Clear();
    return has;
}

static void
udp_release(FlTransport *base)
{
    if (base->sock != NULL && udp_has_socket(base)) {
        base->loop->metrics.udp_dropped += udp_drops(base->watcher.fd);
    }
}

/* loop._udp_drops(): of the sockets that are open. */
static PyObject *
udp_open_drops(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlLoop *loop = (FlLoop *)op;
    uint64_t drops = 0;
    FL_OWN_ELSE(loop, return PyLong_FromLong(0)); /* its slots may change */
    for (size_t fd = 0; fd < loop->poll.slot_count; fd++) {
        PyObject *transport = fl_poll_transport(&loop->poll, (int)fd);
        if (transport == NULL) continue;
        if (Py_IS_TYPE(transport, loop->st->datagram_transport_type) &&
            udp_has_socket((FlTransport *)transport)) {
            drops += udp_drops((int)fd);
        }
        Py_DECREF(transport);
    }
    return PyLong_FromUnsignedLongLong(drops);
}

static const FlTransportKind udp_kind = {
    .noun = "datagram transport",
    .traffic = FL_TRAFFIC_UDP,
    .buffered = udp_buffered,
    .discard = udp_discard,
    .unbind = udp_unbind,
    .wanted = udp_wanted,
    .lost = udp_lost,
    .release = udp_release,
};

static PyObject *
udp_repr(PyObject *op)
{
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    FlTransport *base = &self->base;
    const char *state = base->flags & FL_TRANSPORT_CLOSED    ? " closed"
                        : base->flags & FL_TRANSPORT_CLOSING ? " closing"
                                                             : "";
    PyObject *name = PyType_GetName(Py_TYPE(op));
    if (name == NULL) return NULL;
    PyObject *shown;
    if ((base->flags & FL_TRANSPORT_CLOSED) || base->loop->closed) {
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

/* sock.getsockname() or sock.getpeername(); None for an OSError. */
static PyObject *
udp_name_of(PyObject *sock, PyObject *method)
{
    PyObject *name = PyObject_CallMethodNoArgs(sock, method);
    if (name != NULL || !PyErr_ExceptionMatches(PyExc_OSError)) return name;
    PyErr_Clear();
    Py_RETURN_NONE;
}

/* Stores what get_extra_info() tells; all of it outlives the socket. 0 or -1. */
static int
udp_fill_extra(FlDatagramTransport *self, PyObject *sock)
{
    FlState *st = self->base.loop->st;
    PyObject *extra = self->base.extra;
    int rc = -1;
    PyObject *shown = PyObject_CallMethodObjArgs((PyObject *)self->base.loop,
                                                 st->str__make_transport_socket, sock,
                                                 (PyObject *)self, NULL);
    PyObject *sockname = shown == NULL ? NULL : udp_name_of(sock, st->str_getsockname);
    PyObject *peername = NULL;
    if (sockname == NULL || PyDict_SetItem(extra, st->str_socket, shown) < 0 ||
        PyDict_SetItem(extra, st->str_sockname, sockname) < 0) {
        goto done;
    }
    int found = fl_compat_dict_get(extra, st->str_peername, &peername);
    if (found < 0) goto done;
    if (!found) {
        peername = udp_name_of(sock, st->str_getpeername);
        if (peername == NULL || PyDict_SetItem(extra, st->str_peername, peername) < 0) {
            goto done;
        }
    }
    int truth = PyObject_IsTrue(peername);
    self->connected = truth > 0;
    self->nameless_peer = truth == 0 && peername != Py_None;
    rc = truth < 0 ? -1 : 0;
done:
    Py_XDECREF(shown);
    Py_XDECREF(sockname);
    Py_XDECREF(peername);
    return rc;
}

/* loop._make_datagram_transport(sock, protocol, address=None, waiter=None, extra=None)
 */
static PyObject *
udp_make_transport(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN((FlLoop *)op, NULL);
    static char *names[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    FlLoop *loop = (FlLoop *)op;
    PyObject *sock, *protocol;
    PyObject *address = Py_None, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO&:_make_datagram_transport",
                                     names, &sock, &protocol, &address, &waiter,
                                     fl_transport_convert_extra, &extra)) {
        return NULL;
    }
    int fd;
    if (fl_reader_fileno(loop, sock, &fd) < 0 ||
        fl_reader_check_transport(loop, sock, fd) < 0) {
        return NULL;
    }
    if (fd < 0) { /* closed, be it by the protocol's factory */
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return NULL;
    }
    PyObject *family = PyObject_GetAttr(sock, loop->st->str_family);
    if (family == NULL) return NULL;
    int family_number = fl_compat_long_as_int(family);
    Py_DECREF(family);
    int has_address = PyObject_IsTrue(address);
    if (has_address < 0 || (family_number == -1 && PyErr_Occurred())) return NULL;
    static const char *const called[] = {"recvfrom", "send", "sendto", NULL};
    int foreign = fl_addr_has_own_methods(loop->st, sock, called);
    if (foreign < 0) return NULL;

    FlDatagramTransport *self =
        (FlDatagramTransport *)fl_transport_alloc(loop->st->datagram_transport_type);
    if (self == NULL) return NULL;
    FlTransport *base = &self->base;
    self->family = family_number;
    self->foreign = foreign > 0;
    self->out.segment_size = -1;
    self->flush = (FlFlush){.call = fl_udpsend_on_flush, .owner = (PyObject *)self};
    if (fl_transport_init(base, loop, &udp_kind, on_udp_event, fd, sock, protocol, NULL,
                          NULL) < 0) {
        goto error;
    }
    self->address = has_address ? Py_NewRef(address) : NULL;
    base->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
    if (base->extra == NULL || udp_fill_extra(self, sock) < 0 ||
        fl_transport_start(base, waiter) < 0) {
        fl_transport_abandon(base);
        goto error;
    }
    return (PyObject *)self;

error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

static int
udp_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    Py_VISIT(self->address);
    int rc = fl_inbox_traverse(&self->in, visit, arg);
    if (rc == 0) rc = fl_outbox_traverse(&self->out, visit, arg);
    if (rc != 0) return rc;
    return fl_transport_traverse(op, visit, arg);
}

static int
udp_clear(PyObject *op)
{
    FlDatagramTransport *self = (FlDatagramTransport *)op;
    fl_inbox_clear(&self->in);
    fl_inbox_free(&self->in);
    fl_outbox_clear(&self->out);
    fl_outbox_free(&self->out);
    fl_peers_clear(&self->peers);
    Py_CLEAR(self->address);
    return fl_transport_clear(op);
}

static void
udp_dealloc(PyObject *op)
{
    fl_transport_dealloc(op, udp_clear);
}

static PyMethodDef udp_methods[] = {
    FL_TRANSPORT_METHODS,
    FL_FLOW_METHODS,
    {"pause_reading", fl_transport_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self)\n--\n\nPause the receiving end.")},
    {"resume_reading", udp_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self)\n--\n\nResume the receiving end.")},
    {"is_reading", fl_transport_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self)\n--\n\nReturn True if it is receiving.")},
    {"sendto", (PyCFunction)(void (*)(void))fl_udpsend_sendto,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("sendto($self, data, addr=None)\n--\n\n"
               "Send bytes as one datagram; never blocks.")},
    {"get_write_buffer_size", udp_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self)\n--\n\nReturn how many bytes wait.")},
    {"close", udp_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nClose the socket behind what waits.")},
    {"abort", udp_abort, METH_NOARGS,
     PyDoc_STR("abort($self)\n--\n\nClose the socket at once.")},
    {"_read_ready", udp_read_ready, METH_NOARGS, NULL},
    {"_sendto_ready", udp_sendto_ready, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef udp_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlTransport, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(FlTransport, dict), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(FlTransport, loop), READONLY, NULL},
    {"_address", T_OBJECT, offsetof(FlDatagramTransport, address), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef udp_getset[] = {
    FL_TRANSPORT_GETSET,
    {"_sock", fl_view_get_object, NULL, NULL, (void *)offsetof(FlTransport, sock)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot udp_slots[] = {
    {Py_tp_doc, "A transport over a datagram socket."},
    {Py_tp_dealloc, udp_dealloc},
    {Py_tp_finalize, fl_transport_finalize},
    {Py_tp_traverse, udp_traverse},
    {Py_tp_clear, udp_clear},
    {Py_tp_repr, udp_repr},
    {Py_tp_methods, udp_methods},
    {Py_tp_members, udp_members},
    {Py_tp_getset, udp_getset},
    {0, NULL},
};

static PyType_Spec udp_spec = {
    .name = "fastloop.DatagramTransport",
    .basicsize = sizeof(FlDatagramTransport),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = udp_slots,
};

static PyMethodDef loop_methods[] = {
    {"_udp_drops", udp_open_drops, METH_NOARGS, NULL},
    {"_make_datagram_transport", (PyCFunction)(void (*)(void))udp_make_transport,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

int
fl_udp_register(PyObject *module, FlState *st)
{
    PyObject *bases = PyTuple_Pack(2, st->transport_base, st->datagram_transport_base);
    if (bases == NULL) return -1;
    st->datagram_transport_type = fl_transport_make_type(module, &udp_spec, bases);
    Py_DECREF(bases);
    if (st->datagram_transport_type == NULL) return -1;
    return fl_loop_add_methods(st, loop_methods);
}
