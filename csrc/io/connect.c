/* connect.c - connections to literal addresses, and what they resolve to.
 *
 * Owns:   nothing: the socket is the caller's.
 * Thread: the loop's own.
 *
 * BaseEventLoop.create_connection() asks whether the host is a literal, resolves it
 * once more in sock_connect(), keeps lists of addresses and errors, and makes enums of
 * the socket's family and type: 60,000 instructions that a literal has no need of. */
#include "io/connect.h"
#include "io/peers.h"
#include <netdb.h>

bool
fl_connect_is_own(FlLoop *loop, PyObject *name, PyObject *function)
{
    PyObject *method = PyObject_GetAttr((PyObject *)loop, name);
    if (method == NULL) {
        PyErr_Clear();
        return false;
    }
    bool own = PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function &&
               PyMethod_GET_SELF(method) == (PyObject *)loop;
    Py_DECREF(method);
    return own;
}

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

/* loop._open_literal(host, port): (non-blocking socket, address) if create_connection()
 * would make exactly one such socket for them, else None. */
static PyObject *
connect_open_literal(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    FL_OWN((FlLoop *)op, NULL);
    FlLoop *loop = (FlLoop *)op;
    FlState *st = loop->st;
    FlPeerName name;
    if (nargs != 2) {
        return PyErr_Format(PyExc_TypeError, "_open_literal() takes host and port");
    }
    if (loop->debug) Py_RETURN_NONE; /* it logs */
    PyObject *address = connect_address(args[0], args[1], &name);
    if (address == NULL) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    if (!fl_connect_is_own(loop, st->str__ensure_resolved, st->ensure_resolved) ||
        !fl_connect_is_own(loop, st->str__connect_sock, st->connect_sock) ||
        !connect_has_sockets(st)) {
        Py_DECREF(address);
        Py_RETURN_NONE;
    }
    PyObject *sock =
        PyObject_CallFunction(st->socket_class, "iii", (int)name.u.any.sa_family,
                              SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP);
    PyObject *pair = sock == NULL ? NULL : PyTuple_Pack(2, sock, address);
    Py_XDECREF(sock);
    Py_DECREF(address);
    return pair;
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
    {"_open_literal", (PyCFunction)(void (*)(void))connect_open_literal, METH_FASTCALL,
     NULL},
    {NULL, NULL, 0, NULL},
};

int
fl_connect_register(PyObject *Py_UNUSED(module), FlState *st)
{
    return fl_loop_add_methods(st, connect_methods);
}
