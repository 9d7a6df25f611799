/* connect.c - connections to literal addresses, and what they resolve to.
 *
 * Owns:   a connection's descriptor until its transport does.
 * Thread: the loop's own.
 *
 * BaseEventLoop.create_connection() asks whether the host is a literal, resolves it
 * once more in sock_connect(), keeps lists of addresses and errors, and makes a socket
 * object and enums of its family and type: most of what a connection costs, and nothing
 * that a literal has need of. */
#include "io/connect.h"
#include "base/stock.h"
#include "core/tasks.h"
#include "io/peers.h"
#include "io/sockop.h"
#include "io/stream.h"
#include <errno.h>
#include <netdb.h>
#include <unistd.h>

/* Where a connection stands: FlSockOp.phase. asyncio takes two turns at least until it
 * makes the protocol, in which a program may cancel the connection without a word to
 * anybody. */
enum { LITERAL_START, LITERAL_TURN, LITERAL_CHECK, LITERAL_WAITED, LITERAL_MADE };

/* Its arguments: the factory, then the protocol; the address; and, where there is one,
 * who has the descriptor: a socket, then the transport. */
enum { LITERAL_PROTOCOL, LITERAL_ADDRESS, LITERAL_OWNER };

/* Whether base_events.socket.socket is the class that everybody else has, too. */
static bool
connect_has_sockets(FlState *st)
{
    PyObject *module = PyObject_GetAttr(st->asyncio_base_events, st->str_socket);
    PyObject *class = module == NULL ? NULL : PyObject_GetAttr(module, st->str_socket);
    bool same = class == st->socket_class;
    Py_XDECREF(class);
    Py_XDECREF(module);
    PyErr_Clear();
    return same;
}

/* The address that asyncio makes of a literal: new reference, or NULL, without an
 * exception unless memory is short. */
static PyObject *
connect_address(PyObject *host, PyObject *port, FlPeerName *name)
{
    if (!PyUnicode_CheckExact(host) || !PyLong_CheckExact(port)) return NULL;
    PyObject *address = PyTuple_Pack(2, host, port);
    if (address == NULL || fl_peers_convert(AF_INET, address, name)) return address;
    Py_DECREF(address);
    address = Py_BuildValue("(OOii)", host, port, 0, 0);
    if (address == NULL || fl_peers_convert(AF_INET6, address, name)) return address;
    Py_DECREF(address);
    return NULL;
}

bool
fl_connect_is_native(FlState *st)
{
    PyObject *connect = PyObject_GetAttr(st->socket_class, st->str_connect);
    bool native = connect != NULL && Py_IS_TYPE(connect, &PyMethodDescr_Type);
    Py_XDECREF(connect);
    PyErr_Clear();
    return native;
}

bool
fl_connect_stands(int fd, FlAddress *peer)
{
    peer->length = sizeof(peer->u);
    return getpeername(fd, &peer->u.any, &peer->length) == 0;
}

void
fl_connect_failed(PyObject *error, PyObject *address)
{
    PyObject *message = PyUnicode_FromFormat("Connect call failed %S", address);
    PyObject *exc = message == NULL ? NULL
                                    : PyObject_CallFunctionObjArgs(PyExc_OSError, error,
                                                                   message, NULL);
    Py_XDECREF(message);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
}

/* What a program may have replaced of create_connection()'s way, in a class of loops or
 * in a loop. */
enum { CONNECT_STEPS = 6 };

static void
connect_steps(FlState *st, PyObject *names[CONNECT_STEPS])
{
    PyObject *all[CONNECT_STEPS] = {
        st->str__ensure_resolved,
        st->str__connect_sock,
        st->str__create_connection_transport, /* these three are not native */
        st->str_sock_connect,
        st->str__make_socket_transport,
        st->str_create_future,
    };
    memcpy(names, all, sizeof(all));
}

/* Whether a class of loops has the steps that it came with; the last one written in
 * Python is last_step. Its version says so next time. */
static bool
connect_is_stock_class(FlState *st, PyTypeObject *type, PyObject *last_step)
{
    if (FL_LIKELY(fl_stock_is_version(type, st->connect_version))) return true;
    PyObject *names[CONNECT_STEPS];
    PyObject *originals[CONNECT_STEPS] = {st->ensure_resolved, st->connect_sock,
                                          last_step}; /* the others are native */
    connect_steps(st, names);
    return type->tp_getattro == PyObject_GenericGetAttr &&
           fl_stock_look_up(type, names, originals, CONNECT_STEPS,
                            &st->connect_version);
}

/* Whether nobody sees the difference if asyncio's way is not taken. */
static bool
connect_is_stock(FlLoop *loop, PyObject *last_step)
{
    FlState *st = loop->st;
    if (!connect_is_stock_class(st, Py_TYPE(loop), last_step) ||
        !connect_has_sockets(st) || !fl_connect_is_native(st)) {
        return false;
    }
    PyObject *names[CONNECT_STEPS];
    connect_steps(st, names);
    PyObject *dict = PyObject_GenericGetDict((PyObject *)loop, NULL);
    bool stock = dict != NULL && fl_stock_dict(dict, names, CONNECT_STEPS);
    Py_XDECREF(dict);
    PyErr_Clear();
    return stock;
}

static int
literal_family(FlSockOp *self)
{
    bool has_two = PyTuple_GET_SIZE(self->args[LITERAL_ADDRESS]) == 2;
    return has_two ? AF_INET : AF_INET6;
}

/* The socket object that an audit hook is shown: made only where there is one. It has
 * the descriptor from then on. */
static PyObject *
literal_show(void *op)
{
    FlSockOp *self = op;
    PyObject *sock = fl_addr_new_socket(self->loop->st, literal_family(self),
                                        SOCK_STREAM, IPPROTO_TCP, self->fd);
    self->args[LITERAL_OWNER] = Py_XNewRef(sock);
    return sock;
}

/* connect(2), as sock_connect() begins it. 0 or -1. */
static int
literal_connect(FlSockOp *self)
{
    FlPeerName name;
    PyObject *address = self->args[LITERAL_ADDRESS];
    int family = literal_family(self);
    (void)fl_peers_convert(family, address, &name); /* connect_literal() tried it */
    self->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (self->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (PySys_Audit("socket.connect", "O&O", literal_show, self, address) < 0) {
        return -1;
    }
    PyObject *sock = self->args[LITERAL_OWNER];
    if (FL_UNLIKELY(sock != NULL)) {
        /* A hook is Python code, which may have closed it: then it has no number. */
        int fd = PyObject_AsFileDescriptor(sock);
        if (fd < 0 && !PyErr_ExceptionMatches(PyExc_ValueError)) return -1;
        PyErr_Clear();
        self->fd = fd;
    }
    /* After EINTR, too, it goes on by itself. */
    if (connect(self->fd, &name.u.any, name.length) == 0 || errno == EINPROGRESS ||
        errno == EAGAIN || errno == EINTR) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* OSError and -1 if the connection that was waited for has failed. */
static int
literal_check(FlSockOp *self)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (error == 0) return 0;
    PyObject *number = PyLong_FromLong(error);
    if (number != NULL) {
        fl_connect_failed(number, self->args[LITERAL_ADDRESS]);
        Py_DECREF(number);
    }
    return -1;
}

/* The protocol, and the transport that tells it of the connection. */
static FlSockOutcome
literal_make(FlSockOp *self, const FlAddress *peer)
{
    FlLoop *loop = self->loop;
    PyObject *sock = self->args[LITERAL_OWNER];
    PyObject *context = NULL, *protocol = NULL, *waiter = NULL;
    FlSockOutcome outcome = FL_SOCKOP_FAILED;
    if (FL_CONTEXT_FIRST) {
        context = PyContext_CopyCurrent();
        if (context == NULL) goto done;
    }
    protocol = PyObject_CallNoArgs(self->args[LITERAL_PROTOCOL]);
    if (protocol == NULL) goto done;
    waiter = fl_tasks_new_future(loop);
    if (waiter == NULL || fl_transport_check_free(loop, self->fd) < 0) goto done;
    PyObject *made =
        (PyObject *)fl_stream_new(loop, self->fd, sock, literal_family(self), peer,
                                  protocol, NULL, context, NULL, waiter);
    if (made == NULL) goto done;
    self->phase = LITERAL_MADE;
    Py_XSETREF(self->args[LITERAL_OWNER], made);
    Py_SETREF(self->args[LITERAL_PROTOCOL], Py_NewRef(protocol));
    outcome = fl_sockop_await(self, waiter);
done:
    Py_XDECREF(waiter);
    Py_XDECREF(protocol);
    Py_XDECREF(context);
    return outcome;
}

static FlSockOutcome
attempt_literal(FlSockOp *self, PyObject **result)
{
    if (self->phase == LITERAL_MADE) {
        self->fd = -1; /* the transport's alone */
        *result =
            PyTuple_Pack(2, self->args[LITERAL_OWNER], self->args[LITERAL_PROTOCOL]);
        return *result == NULL ? FL_SOCKOP_FAILED : FL_SOCKOP_DONE;
    }
    if (self->phase < LITERAL_CHECK) {
        if (self->phase == LITERAL_START && literal_connect(self) < 0) {
            return FL_SOCKOP_FAILED;
        }
        self->phase++;
        return FL_SOCKOP_YIELDS;
    }
    if (self->phase == LITERAL_WAITED && literal_check(self) < 0) {
        return FL_SOCKOP_FAILED;
    }
    FlAddress peer;
    if (!fl_connect_stands(self->fd, &peer)) {
        if (self->phase == LITERAL_CHECK) {
            self->phase = LITERAL_WAITED;
            return FL_SOCKOP_BLOCKED;
        }
        peer.length = 0; /* it has gone meanwhile */
    }
    return literal_make(self, &peer);
}

/* connection_made() is over. */
static int
received_literal(FlSockOp *Py_UNUSED(self), PyObject *Py_UNUSED(value))
{
    return 0;
}

/* Nobody gets the connection: it ends. */
static void
ended_literal(FlSockOp *self)
{
    FlLoop *loop = self->loop;
    PyObject *owner = self->args[LITERAL_OWNER];
    int fd = self->fd;
    self->fd = -1;
    if (owner != NULL) {
        PyObject *closed = PyObject_CallMethodNoArgs(owner, loop->st->str_close);
        if (closed == NULL) {
            PyErr_WriteUnraisable(owner);
        }
        Py_XDECREF(closed);
    }
    else if (!fl_poll_has_transport(&loop->poll, fd)) {
        (void)close(fd);
    }
}

static const FlSockKind kind_literal = {
    .name = "create_connection",
    .side = FL_READER_WRITE,
    .count = 3,
    .attempt = attempt_literal,
    .received = received_literal,
    .ended = ended_literal,
};

/* loop._connect_literal(factory, host, port, last_step): what create_connection() has
 * to await, if these are a literal address and nobody replaced a step of its way; else
 * None. */
static PyObject *
connect_literal(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    FL_OWN((FlLoop *)op, NULL);
    FlLoop *loop = (FlLoop *)op;
    FlPeerName name;
    if (nargs != 4) {
        return PyErr_Format(PyExc_TypeError, "_connect_literal() takes 4 arguments");
    }
    if (loop->debug) Py_RETURN_NONE; /* it logs */
    PyObject *address = connect_address(args[1], args[2], &name);
    if (address == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *connecting = NULL;
    if (connect_is_stock(loop, args[3])) {
        PyObject *own[] = {args[0], address, NULL};
        connecting = fl_sockop_new(loop, &kind_literal, own, 3, NULL);
    }
    else {
        connecting = Py_NewRef(Py_None);
    }
    Py_DECREF(address);
    return connecting;
}

/* The enum's member for a number, as socket.getaddrinfo() shows it. New reference. */
static PyObject *
connect_member(PyObject *members, int number)
{
    PyObject *key = PyLong_FromLong(number);
    if (key == NULL) return NULL;
    PyObject *member = PyObject_GetItem(members, key);
    if (member == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
        PyErr_Clear();
        return key;
    }
    Py_DECREF(key);
    return member;
}

/* One entry of socket.getaddrinfo()'s list. New reference. */
static PyObject *
connect_info(FlState *st, const struct addrinfo *info)
{
    FlAddress address = {.length = info->ai_addrlen};
    memcpy(&address.u, info->ai_addr, info->ai_addrlen);
    PyObject *family = connect_member(st->address_families, info->ai_family);
    PyObject *type = connect_member(st->socket_kinds, info->ai_socktype);
    PyObject *shown = fl_addr_to_object(&address);
    PyObject *entry = NULL;
    if (family != NULL && type != NULL && shown != NULL) {
        const char *name = info->ai_canonname;
        entry = Py_BuildValue("(OOisO)", family, type, info->ai_protocol,
                              name == NULL ? "" : name, shown);
    }
    Py_XDECREF(shown);
    Py_XDECREF(type);
    Py_XDECREF(family);
    return entry;
}

/* loop._resolve_literal(host, port, family, type, proto, flags): what
 * socket.getaddrinfo() returns for a literal address, which asks nobody for it; None
 * for all else and for errors, which are the socket module's to raise. */
static PyObject *
connect_resolve_literal(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    FlPeerName name;
    int numbers[4];
    char service[8];
    if (nargs != 6) {
        return PyErr_Format(PyExc_TypeError, "_resolve_literal() takes 6 arguments");
    }
    if (fl_loop_check_closed((FlLoop *)op) < 0) return NULL;
    PyObject *host = args[0], *port = args[1];
    PyObject *address = connect_address(host, port, &name);
    if (address == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    Py_DECREF(address);
    for (int i = 0; i < 4; i++) {
        numbers[i] =
            PyLong_Check(args[2 + i]) ? fl_compat_long_as_int(args[2 + i]) : -1;
        if (numbers[i] < 0) {
            PyErr_Clear();
            Py_RETURN_NONE;
        }
    }
    struct addrinfo *infos = NULL;
    struct addrinfo hints = {.ai_family = numbers[0],
                             .ai_socktype = numbers[1],
                             .ai_protocol = numbers[2],
                             .ai_flags = numbers[3]};
    (void)snprintf(service, sizeof(service), "%ld", PyLong_AsLong(port));
    if (getaddrinfo(PyUnicode_AsUTF8(host), service, &hints, &infos) != 0) {
        Py_RETURN_NONE;
    }
    /* Behind the call, which asked nobody: an error is for the socket module to tell.
     */
    int audited = PySys_Audit("socket.getaddrinfo", "OOiii", host, port, numbers[0],
                              numbers[1], numbers[2]);
    PyObject *list = audited < 0 ? NULL : PyList_New(0);
    for (struct addrinfo *info = infos; list != NULL && info != NULL;
         info = info->ai_next) {
        PyObject *entry = connect_info(((FlLoop *)op)->st, info);
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
    }
    freeaddrinfo(infos);
    return list;
}

static PyMethodDef connect_methods[] = {
    {"_resolve_literal", (PyCFunction)(void (*)(void))connect_resolve_literal,
     METH_FASTCALL, NULL},
    {"_connect_literal", (PyCFunction)(void (*)(void))connect_literal, METH_FASTCALL,
     NULL},
    {NULL, NULL, 0, NULL},
};

int
fl_connect_register(PyObject *Py_UNUSED(module), FlState *st)
{
    return fl_loop_add_methods(st, connect_methods);
}
