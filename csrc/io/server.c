/* server.c - FlListener, a listening socket on the loop, and the native accept.
 *
 * Owns:   what _start_serving() was given; the socket stays asyncio.Server's.
 * Thread: the loop's own. */
#include "io/server.h"
#include "base/errors.h"
#include "io/reader.h"
#include "io/tlstransport.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SERVER_RETRY_SECONDS = 1 }; /* asyncio.constants.ACCEPT_RETRY_DELAY */

typedef struct {
    PyObject_HEAD
    FlLoop *loop;
    FlWatcher watcher;
    PyObject *factory;
    PyObject *sock;
    PyObject *sslcontext; /* or NULL */
    PyObject *server;     /* or NULL */
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    PyObject *context; /* each connection runs in a copy of it */
    PyObject *local;   /* the address of every connection, unless it is a wildcard */
    long backlog;
    long limit; /* how many to accept at one event, as the last ones suggest */
    int family;
    int type;
    int protocol;
    bool listening; /* counted as such */
} FlListener;

/* Counted until it is stopped, also while it pauses. */
static void
listener_ended(FlListener *self)
{
    if (!self->listening) return;
    self->listening = false;
    self->loop->metrics.listening_ended++;
}

/* The exception that is set, about a client that could not be served; in the context of
 * its connection, if there is one. 0 or -1. */
static int
listener_report(FlListener *self, PyObject *protocol, PyObject *context)
{
    PyObject *raised = fl_compat_take_exception();
    bool entered = context != NULL && PyContext_Enter(context) == 0;
    if (!entered) {
        PyErr_Clear();
    }
    fl_compat_set_exception(raised);
    int rc =
        fl_errors_report_text(self->loop->st, (PyObject *)self->loop,
                              "Error on transport creation for incoming connection",
                              self->loop->st->str_protocol, protocol, NULL, NULL);
    PyObject *failed = rc < 0 ? fl_compat_take_exception() : NULL;
    if (entered && PyContext_Exit(context) < 0) {
        rc = -1;
    }
    if (failed != NULL) {
        fl_compat_set_exception(failed);
    }
    return rc;
}

/* The descriptor of a socket that nobody needs any more, or -1 where what saw the
 * socket has closed it: the number may be a stranger's by now. */
static int
listener_take_back(FlState *st, PyObject *sock)
{
    PyObject *raised = fl_compat_take_exception();
    int fd = PyObject_AsFileDescriptor(sock);
    PyErr_Clear();
    fl_addr_detach_socket(st, sock);
    if (raised != NULL) {
        fl_compat_set_exception(raised);
    }
    return fd;
}

/* Debug mode: logs the new connection, ahead of all that it leads to, with the socket
 * that its transport gets. New reference, or NULL with an exception; then *fd is still
 * the caller's, or -1. */
static PyObject *
listener_log(FlListener *self, int *fd, const FlAddress *peer)
{
    FlState *st = self->loop->st;
    PyObject *sock =
        fl_addr_new_socket(st, self->family, self->type, self->protocol, *fd);
    if (sock == NULL) return NULL;
    PyObject *result = NULL;
    PyObject *address = fl_addr_to_object(peer);
    PyObject *logger = address == NULL
                           ? NULL
                           : PyObject_GetAttr(st->asyncio_base_events, st->str_logger);
    if (logger != NULL) {
        result = PyObject_CallMethod(
            logger, "debug", "sOOO", "%r got a new connection from %r: %r",
            self->server != NULL ? self->server : Py_None, address, sock);
    }
    Py_XDECREF(logger);
    Py_XDECREF(address);
    PyObject *done =
        result == NULL ? NULL
                       : PyObject_CallMethodOneArg(sock, st->str_setblocking, Py_False);
    Py_XDECREF(result);
    if (done == NULL) {
        *fd = listener_take_back(st, sock);
        Py_CLEAR(sock);
    }
    Py_XDECREF(done);
    return sock;
}

/* factory() in the connection's context. New reference. */
static PyObject *
listener_make_protocol(FlListener *self, PyObject *context)
{
    if (PyContext_Enter(context) < 0) return NULL;
    PyObject *protocol = PyObject_CallNoArgs(self->factory);
    PyObject *raised = protocol == NULL ? fl_compat_take_exception() : NULL;
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(protocol);
        Py_XDECREF(raised);
        return NULL;
    }
    if (raised != NULL) {
        fl_compat_set_exception(raised);
    }
    return protocol;
}

static PyObject *
listener_make_tls(FlListener *self, int fd, PyObject *sock, const FlAddress *peer,
                  PyObject *protocol, PyObject *context)
{
    FlTlsOptions options = {
        .protocol = protocol,
        .sslcontext = self->sslcontext,
        .hostname = Py_None,
        .handshake_timeout = self->handshake_timeout,
        .shutdown_timeout = self->shutdown_timeout,
        .server_side = true,
    };
    return (PyObject *)fl_tlstransport_accepted(self->loop, &options, fd, sock,
                                                self->family, peer, self->local,
                                                context, self->server);
}

/* A connection: protocol and transport at once. Owns fd. 0 or -1. */
static int
listener_serve(FlListener *self, int fd, const FlAddress *peer)
{
    PyObject *transport = NULL;
    PyObject *protocol = NULL;
    PyObject *context = PyContext_Copy(self->context);
    PyObject *sock = NULL;
    bool logged = true;
    if (FL_UNLIKELY(self->loop->debug) && context != NULL) {
        sock = listener_log(self, &fd, peer);
        logged = sock != NULL;
    }
    if (context != NULL && logged) {
        protocol = listener_make_protocol(self, context);
    }
    if (protocol != NULL) {
        transport = self->sslcontext != NULL
                        ? listener_make_tls(self, fd, sock, peer, protocol, context)
                        : (PyObject *)fl_stream_accepted(
                              self->loop, fd, sock, self->family, peer, self->local,
                              protocol, context, self->server);
    }
    int rc = 0;
    if (transport == NULL) {
        fl_count_add(&self->loop->metrics.accept_failures, 1);
        if (sock != NULL) {
            fd = listener_take_back(self->loop->st, sock);
        }
        if (fd != -1) {
            close(fd);
        }
        rc = listener_report(self, protocol, context);
    }
    Py_XDECREF(sock);
    Py_XDECREF(context);
    Py_XDECREF(protocol);
    Py_XDECREF(transport);
    return rc;
}

/* Asks for clients; a reader that the program put on the socket meanwhile goes, as it
 * does in asyncio. 0 or an errno. */
static int
listener_watch(FlListener *self)
{
    FlLoop *loop = self->loop;
    int code = fl_poll_set(&loop->poll, &self->watcher, EPOLLIN);
    if (FL_LIKELY(code != EEXIST)) return code;
    fl_reader_forget(loop, self->watcher.fd);
    return fl_poll_set(&loop->poll, &self->watcher, EPOLLIN);
}

/* _restart(): watches again after the pause. */
static PyObject *
listener_restart(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlListener *self = (FlListener *)op;
    if (self->loop == NULL || self->loop->closed) Py_RETURN_NONE;
    /* Closed during the pause: its number may be a stranger's by now. */
    int fd = PyObject_AsFileDescriptor(self->sock);
    if (fd != self->watcher.fd) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    int code = listener_watch(self);
    if (code != 0) return fl_errors_from_uv(-code);
    Py_RETURN_NONE;
}

/* Out of descriptors or memory: reports, and tries again in a second. */
static int
listener_pause(FlListener *self, int code)
{
    FlState *st = self->loop->st;
    PyObject *loop = (PyObject *)self->loop;
    int rc = -1;
    (void)fl_poll_set(&self->loop->poll, &self->watcher, 0);
    PyObject *exc = fl_errors_new_os_error(code);
    PyObject *shown =
        exc == NULL ? NULL : PyObject_CallOneArg(st->transport_socket, self->sock);
    if (shown != NULL &&
        fl_errors_report_exception(st, loop, "socket.accept() out of system resource",
                                   exc, st->str_socket, shown, NULL, NULL) == 0) {
        PyObject *restart = PyObject_GetAttrString((PyObject *)self, "_restart");
        PyObject *timer = restart == NULL
                              ? NULL
                              : PyObject_CallMethod(loop, "call_later", "iO",
                                                    SERVER_RETRY_SECONDS, restart);
        rc = timer == NULL ? -1 : 0;
        Py_XDECREF(timer);
        Py_XDECREF(restart);
    }
    Py_XDECREF(shown);
    Py_XDECREF(exc);
    if (rc < 0 && !self->loop->closed) {
        (void)listener_watch(self); /* nobody would restart it */
    }
    return rc;
}

/* What accept() failed with. 0 or -1. */
static int
listener_accept_failed(FlListener *self, int code)
{
    switch (code) {
    case EAGAIN:
    case EINTR:
    case ECONNABORTED: /* that client went away */
        return 0;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        fl_count_add(&self->loop->metrics.accept_failures, 1);
        return listener_pause(self, code);
    default:
        fl_count_add(&self->loop->metrics.accept_failures, 1);
        fl_errors_from_uv(-code);
        return fl_errors_report_text(self->loop->st, (PyObject *)self->loop,
                                     "Exception in callback accept()", NULL, NULL, NULL,
                                     NULL);
    }
}

/* Whether the socket is still what it was. If what we called has closed it, or another
 * callback before the event was told of, its number may be a stranger's, and so would
 * the client be. */
static bool
listener_is_open(FlListener *self)
{
    if (PyObject_AsFileDescriptor(self->sock) == self->watcher.fd) return true;
    PyErr_Clear();
    listener_ended(self);
    (void)fl_poll_set(&self->loop->poll, &self->watcher, 0);
    return false;
}

/* One client an event costs no accept() in vain; if more were waiting, all are taken
 * the next time, up to the backlog. */
static int
listener_accept(FlListener *self)
{
    long taken = 0;
    for (; taken < self->limit; taken++) {
        if (!listener_is_open(self)) {
            return taken > 0 ? 0 : listener_accept_failed(self, EBADF);
        }
        if (self->watcher.events == 0) return 0; /* stopped by what we called */
        FlAddress peer = {.length = sizeof(peer.u)};
        int fd = accept4(self->watcher.fd, &peer.u.any, &peer.length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            self->limit = taken > 1 ? taken : 1;
            return listener_accept_failed(self, errno);
        }
        fl_count_add(&self->loop->metrics.accepts, 1);
        if (listener_serve(self, fd, &peer) < 0) return -1;
        if (self->watcher.events == 0) return 0;
    }
    long most = self->backlog + FL_ACCEPT_EXTRA;
    self->limit = most > 1 ? most : 1;
    return 0;
}

static int
on_connection(FlWatcher *watcher, uint32_t Py_UNUSED(events))
{
    return listener_accept((FlListener *)watcher->owner);
}

/* Learns the address that connections will have, and has the kernel hand TCP_NODELAY
 * down to them: two system calls here instead of two a connection. 0 or -1. */
static int
listener_prepare(FlListener *self)
{
    if (self->family != AF_INET && self->family != AF_INET6) return 0;
    int on = 1;
    (void)setsockopt(self->watcher.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    FlAddress address = {.length = sizeof(address.u)};
    if (getsockname(self->watcher.fd, &address.u.any, &address.length) < 0) return 0;
    bool wildcard = self->family == AF_INET
                        ? address.u.v4.sin_addr.s_addr == htonl(INADDR_ANY)
                        : IN6_IS_ADDR_UNSPECIFIED(&address.u.v6.sin6_addr);
    if (wildcard) return 0;
    self->local = fl_addr_to_object(&address);
    return self->local == NULL ? -1 : 0;
}

static int
listener_attribute(PyObject *sock, const char *name, int *value)
{
    PyObject *attribute = PyObject_GetAttrString(sock, name);
    if (attribute == NULL) return -1;
    *value = fl_compat_long_as_int(attribute);
    Py_DECREF(attribute);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* loop._start_serving(protocol_factory, sock, sslcontext=None, server=None,
 * backlog=100, ssl_handshake_timeout=…, ssl_shutdown_timeout=…, context=None) */
static PyObject *
server_start_serving(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN((FlLoop *)op, NULL);
    static char *names[] = {"protocol_factory",
                            "sock",
                            "sslcontext",
                            "server",
                            "backlog",
                            "ssl_handshake_timeout",
                            "ssl_shutdown_timeout",
                            "context",
                            NULL};
    FlLoop *loop = (FlLoop *)op;
    PyObject *factory, *sock;
    PyObject *sslcontext = Py_None, *server = Py_None, *handshake = Py_None,
             *shutdown_timeout = Py_None, *context = Py_None;
    long backlog = 100;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOlOOO:_start_serving", names,
                                     &factory, &sock, &sslcontext, &server, &backlog,
                                     &handshake, &shutdown_timeout, &context) ||
        fl_loop_check_closed(loop) < 0) {
        return NULL;
    }
    int fd;
    PyObject *number = PyObject_CallMethodNoArgs(sock, loop->st->str_fileno);
    int found = number == NULL ? -1 : fl_reader_fileno(loop, number, &fd);
    Py_XDECREF(number);
    if (found < 0) return NULL;

    PyTypeObject *type = loop->st->listener_type;
    FlListener *self = (FlListener *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->watcher =
        (FlWatcher){.fd = fd, .call = on_connection, .owner = (PyObject *)self};
    self->loop = (FlLoop *)Py_NewRef(op);
    self->factory = Py_NewRef(factory);
    self->sock = Py_NewRef(sock);
    self->sslcontext = sslcontext == Py_None ? NULL : Py_NewRef(sslcontext);
    self->server = server == Py_None ? NULL : Py_NewRef(server);
    self->handshake_timeout = Py_NewRef(handshake);
    self->shutdown_timeout = Py_NewRef(shutdown_timeout);
    self->backlog = backlog;
    self->limit = 1;
    self->context = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    int code = 0;
    if (self->context == NULL ||
        listener_attribute(sock, "family", &self->family) < 0 ||
        listener_attribute(sock, "type", &self->type) < 0 ||
        listener_attribute(sock, "proto", &self->protocol) < 0 ||
        listener_prepare(self) < 0) {
        goto error;
    }
    code = listener_watch(self);
    if (code != 0) {
        fl_errors_from_uv(-code);
        goto error;
    }
    self->listening = true;
    fl_count_add(&loop->metrics.listening_begun, 1);
    Py_DECREF((PyObject *)self); /* the poll set keeps it */
    Py_RETURN_NONE;

error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

/* loop._stop_listening(sock): the native half of _stop_serving(). */
static PyObject *
server_stop_listening(PyObject *op, PyObject *sock)
{
    FL_OWN((FlLoop *)op, NULL);
    FlLoop *loop = (FlLoop *)op;
    PyObject *number = PyObject_CallMethodNoArgs(sock, loop->st->str_fileno);
    if (number == NULL) return NULL;
    int fd = fl_compat_long_as_int(number);
    Py_DECREF(number);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    FlWatcher *watcher = fl_poll_find(&loop->poll, fd);
    if (watcher != NULL && watcher->call == on_connection) {
        listener_ended((FlListener *)watcher->owner);
        (void)fl_poll_set(&loop->poll, watcher, 0);
    }
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"_start_serving", (PyCFunction)(void (*)(void))server_start_serving,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {"_stop_listening", server_stop_listening, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int
listener_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlListener *self = (FlListener *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->factory);
    Py_VISIT(self->sock);
    Py_VISIT(self->sslcontext);
    Py_VISIT(self->server);
    Py_VISIT(self->handshake_timeout);
    Py_VISIT(self->shutdown_timeout);
    Py_VISIT(self->context);
    Py_VISIT(self->local);
    return 0;
}

static int
listener_clear(PyObject *op)
{
    FlListener *self = (FlListener *)op;
    if (self->loop != NULL) {
        listener_ended(self);
    }
    Py_CLEAR(self->loop);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->sslcontext);
    Py_CLEAR(self->server);
    Py_CLEAR(self->handshake_timeout);
    Py_CLEAR(self->shutdown_timeout);
    Py_CLEAR(self->context);
    Py_CLEAR(self->local);
    return 0;
}

static void
listener_dealloc(PyObject *op)
{
    PyTypeObject *tp = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)listener_clear(op);
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyMethodDef listener_methods[] = {
    {"_restart", listener_restart, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *
listener_get_factory(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *factory = ((FlListener *)op)->factory;
    return Py_NewRef(factory != NULL ? factory : Py_None);
}

static PyGetSetDef listener_getset[] = {
    {"_factory", listener_get_factory, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot listener_slots[] = {
    {Py_tp_dealloc, listener_dealloc}, {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},     {Py_tp_methods, listener_methods},
    {Py_tp_getset, listener_getset},   {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "fastloop._core.Listener",
    .basicsize = sizeof(FlListener),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = listener_slots,
};

int
fl_server_register(PyObject *module, FlState *st)
{
    st->listener_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &listener_spec, NULL);
    if (st->listener_type == NULL) return -1;
    return fl_loop_add_methods(st, loop_methods);
}
