/* addr.c - socket addresses as Python shows them.
 *
 * Owns:   nothing.
 * Thread: any that holds the GIL. */
#include "io/addr.h"
#include <arpa/inet.h>
#include <net/if.h>

bool
fl_addr_is_known(int family)
{
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

static PyObject *
addr_unix_path(const FlAddress *address)
{
    const char *path = address->u.un.sun_path;
    size_t length = address->length - offsetof(struct sockaddr_un, sun_path);
    if (address->length <= offsetof(struct sockaddr_un, sun_path)) length = 0;
    if (length > 0 && path[0] == '\0') { /* Linux's abstract names are bytes */
        return PyBytes_FromStringAndSize(path, (Py_ssize_t)length);
    }
    return PyUnicode_DecodeFSDefaultAndSize(path, (Py_ssize_t)strnlen(path, length));
}

PyObject *
fl_addr_to_object(const FlAddress *address)
{
    char host[INET6_ADDRSTRLEN];
    if (address->length == 0) Py_RETURN_NONE;
    switch (address->u.any.sa_family) {
    case AF_INET:
        if (inet_ntop(AF_INET, &address->u.v4.sin_addr, host, sizeof(host)) == NULL)
            break;
        return Py_BuildValue("(si)", host, ntohs(address->u.v4.sin_port));
    case AF_INET6:
        if (inet_ntop(AF_INET6, &address->u.v6.sin6_addr, host, sizeof(host)) == NULL) {
            break;
        }
        return Py_BuildValue("(siII)", host, ntohs(address->u.v6.sin6_port),
                             ntohl(address->u.v6.sin6_flowinfo),
                             address->u.v6.sin6_scope_id);
    case AF_UNIX:
        return addr_unix_path(address);
    default:
        Py_RETURN_NONE;
    }
    return PyErr_SetFromErrno(PyExc_OSError);
}

FlKeptAddress *
fl_addr_keep(const FlAddress *address)
{
    FlKeptAddress *kept = PyMem_Malloc(sizeof(*kept) + address->length);
    if (kept == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    kept->length = address->length;
    memcpy(kept->bytes, &address->u, address->length);
    return kept;
}

PyObject *
fl_addr_kept_to_object(const FlKeptAddress *kept)
{
    FlAddress address = {.length = kept->length};
    memcpy(&address.u, kept->bytes, kept->length);
    return fl_addr_to_object(&address);
}

int
fl_addr_socket_number(FlState *st, PyObject *sock, PyObject *name, int *value)
{
    PyObject *number = NULL;
    if (Py_IS_TYPE(sock, (PyTypeObject *)st->socket_class)) {
        PyObject *member = PyObject_GetAttr(st->native_socket, name);
        if (member == NULL) return -1;
        descrgetfunc get = Py_TYPE(member)->tp_descr_get;
        number = get == NULL ? PyObject_GetAttr(sock, name)
                             : get(member, sock, st->native_socket);
        Py_DECREF(member);
    }
    else {
        number = PyObject_GetAttr(sock, name);
    }
    if (number == NULL) return -1;
    *value = fl_compat_long_as_int(number);
    Py_DECREF(number);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

int
fl_addr_has_own_methods(FlState *st, PyObject *sock, const char *const *names)
{
    if (FL_LIKELY((PyObject *)Py_TYPE(sock) == st->socket_class)) return 0;
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)st->native_socket)) return 1;
    for (; *names != NULL; names++) {
        PyObject *method = PyObject_GetAttrString(sock, *names);
        if (method == NULL) return -1;
        bool native = PyCFunction_Check(method) && PyCFunction_GET_SELF(method) == sock;
        Py_DECREF(method);
        if (!native) return 1;
    }
    return 0;
}

void
fl_addr_detach_socket(FlState *st, PyObject *sock)
{
    PyObject *raised = fl_compat_take_exception();
    PyObject *number =
        PyObject_CallMethodOneArg(st->native_socket, st->str_detach, sock);
    if (number == NULL) {
        PyErr_Clear(); /* no memory for the number, which is none of the socket's */
    }
    Py_XDECREF(number);
    if (raised != NULL) {
        fl_compat_set_exception(raised);
    }
}

PyObject *
fl_addr_new_socket(FlState *st, int family, int type, int proto, int fd)
{
    PyTypeObject *cls = (PyTypeObject *)st->socket_class;
    PyObject *args = Py_BuildValue("(iiii)", family, type, proto, fd);
    PyObject *sock = args == NULL ? NULL : cls->tp_new(cls, args, NULL);
    if (sock != NULL && cls->tp_init(sock, args, NULL) < 0) {
        fl_addr_detach_socket(st, sock);
        Py_CLEAR(sock);
    }
    Py_XDECREF(args);
    return sock;
}
