/* streaminfo.c - names and socket object of a stream transport.
 *
 * Owns:   nothing: what it makes belongs to the transport.
 * Thread: the loop's own. */
#include "io/streaminfo.h"
#include <errno.h>
#include <sys/socket.h>

/* Asked for too late: one that is closed, as the connection is. */
static PyObject *
stream_closed_socket(FlStream *self)
{
    FlState *st = self->base.loop->st;
    bool tcp = self->family == AF_INET || self->family == AF_INET6;
    PyObject *sock = PyObject_CallFunction(st->socket_class, "iii", self->family,
                                           SOCK_STREAM, tcp ? IPPROTO_TCP : 0);
    PyObject *closed =
        sock == NULL ? NULL : PyObject_CallMethodNoArgs(sock, st->str_close);
    if (closed == NULL) {
        Py_CLEAR(sock);
    }
    Py_XDECREF(closed);
    return sock;
}

PyObject *
fl_streaminfo_socket(FlStream *self)
{
    FlTransport *base = &self->base;
    if (base->sock != NULL) return Py_NewRef(base->sock);
    FlState *st = base->loop->st;
    PyObject *sock;
    if (base->flags & FL_TRANSPORT_CLOSED) return stream_closed_socket(self);
    int protocol = 0;
    socklen_t length = sizeof(protocol);
    (void)getsockopt(base->watcher.fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length);
    /* Given with the type, the mode of the descriptor needs no system call. */
    sock = fl_addr_new_socket(st, self->family, SOCK_STREAM | SOCK_NONBLOCK, protocol,
                              base->watcher.fd);
    if (sock == NULL) return NULL;
    if (base->sock != NULL || (base->flags & FL_TRANSPORT_CLOSED)) {
        /* While it was made: the descriptor is not this one's to close. */
        fl_addr_detach_socket(st, sock);
        Py_DECREF(sock);
        return base->sock != NULL ? Py_NewRef(base->sock) : stream_closed_socket(self);
    }
    base->sock = Py_NewRef(sock);
    return sock;
}

PyObject *
fl_streaminfo_get_sock(PyObject *op, void *Py_UNUSED(closure))
{
    if (((FlTransport *)op)->flags & FL_TRANSPORT_CLOSED) Py_RETURN_NONE;
    PyObject *sock;
    FL_BEGIN_CRITICAL(op);
    sock = fl_streaminfo_socket((FlStream *)op);
    FL_END_CRITICAL();
    return sock;
}

/* Of a family that addr.c does not know: the socket module's own conversion. */
static PyObject *
stream_foreign_name(FlStream *self, PyObject *method)
{
    PyObject *sock = fl_streaminfo_socket(self);
    if (sock == NULL) return NULL;
    PyObject *name = PyObject_CallMethodNoArgs(sock, method);
    Py_DECREF(sock);
    if (name == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return name;
}

/* The address of the descriptor, which is of a family that addr.c knows. */
static bool
stream_own_name(FlStream *self, FlAddress *address)
{
    address->length = sizeof(address->u);
    return getsockname(self->base.watcher.fd, &address->u.any, &address->length) == 0;
}

static void
stream_keep_name(FlTransport *base)
{
    FlStream *self = (FlStream *)base;
    FlAddress address;
    if (self->local != NULL || base->own_name != NULL) return;
    if (base->sock != NULL &&
        PyObject_AsFileDescriptor(base->sock) != base->watcher.fd) {
        PyErr_Clear();
        return; /* closed behind our back: the number may be a stranger's */
    }
    if (!fl_addr_is_known(self->family)) {
        self->local = stream_foreign_name(self, base->loop->st->str_getsockname);
    }
    else if (stream_own_name(self, &address)) {
        base->own_name = fl_addr_keep(&address);
    }
    PyErr_Clear();
}

void
fl_streaminfo_keep(FlTransport *base)
{
    FL_BEGIN_CRITICAL((PyObject *)base);
    stream_keep_name(base);
    FL_END_CRITICAL();
}

PyObject *
fl_streaminfo_make(FlTransport *base, PyObject *name)
{
    FlStream *self = (FlStream *)base;
    FlState *st = base->loop->st;
    bool closed = base->flags & FL_TRANSPORT_CLOSED;
    if (PyUnicode_Compare(name, st->str_peername) == 0) {
        if (!closed && !fl_addr_is_known(self->family)) {
            return stream_foreign_name(self, st->str_getpeername);
        }
        if (base->peer == NULL) Py_RETURN_NONE;
        return fl_addr_kept_to_object(base->peer);
    }
    if (PyUnicode_Compare(name, st->str_sockname) == 0) {
        if (self->local != NULL) return Py_NewRef(self->local);
        if (base->own_name != NULL) return fl_addr_kept_to_object(base->own_name);
        if (closed) Py_RETURN_NONE;
        if (!fl_addr_is_known(self->family)) {
            return stream_foreign_name(self, st->str_getsockname);
        }
        FlAddress address;
        if (!stream_own_name(self, &address)) Py_RETURN_NONE;
        return fl_addr_to_object(&address);
    }
    if (PyUnicode_Compare(name, st->str_socket) == 0) {
        PyObject *sock = fl_streaminfo_socket(self);
        if (sock == NULL) return NULL;
        PyObject *shown = PyObject_CallMethodObjArgs((PyObject *)base->loop,
                                                     st->str__make_transport_socket,
                                                     sock, (PyObject *)base, NULL);
        Py_DECREF(sock);
        return shown;
    }
    return NULL;
}
