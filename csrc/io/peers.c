/* peers.c - the cache of peers and the conversion of literal addresses.
 *
 * Owns:   a reference to each address object it holds.
 * Thread: any that holds the GIL, one at a time. */
#include "io/peers.h"
#include <arpa/inet.h>

enum { PEERS_TABLE = 256 }; /* a power of two */

static void
peers_set(FlPeer *peer, PyObject *object, const FlPeerName *name)
{
    peer->name = *name;
    /* A tuple of strings and numbers: nothing runs when it goes. */
    Py_XSETREF(peer->object, Py_NewRef(object));
}

static unsigned
peers_hash(const FlPeerName *name)
{
    uint32_t words[sizeof(name->u) / sizeof(uint32_t)];
    uint32_t hash = 0;
    memcpy(words, &name->u, sizeof(words));
    for (size_t i = 0; i < name->length / sizeof(uint32_t); i++) {
        hash = (hash ^ words[i]) * 0x9E3779B1u;
        hash ^= hash >> 15;
    }
    return hash & (PEERS_TABLE - 1);
}

PyObject *
fl_peers_object(FlPeers *peers, const FlAddress *address, FlPeerName *name)
{
    sa_family_t family = address->length > 0 ? address->u.any.sa_family : AF_UNSPEC;
    *name = (FlPeerName){.length = 0};
    if ((family != AF_INET && family != AF_INET6) ||
        address->length > sizeof(name->u)) {
        return fl_addr_to_object(address);
    }
    memcpy(&name->u, &address->u, address->length);
    name->length = address->length;
    if (peers->seen.object != NULL && fl_peers_same(&peers->seen.name, name)) {
        return Py_NewRef(peers->seen.object);
    }
    if (peers->table == NULL) {
        peers->table = PyMem_Calloc(PEERS_TABLE, sizeof(FlPeer));
        if (peers->table == NULL) return PyErr_NoMemory();
    }
    FlPeer *peer = &peers->table[peers_hash(name)];
    if (peer->object != NULL && fl_peers_same(&peer->name, name)) {
        return Py_NewRef(peer->object);
    }
    PyObject *object = fl_addr_to_object(address);
    if (object != NULL) {
        peers_set(peer, object, name);
    }
    return object;
}

void
fl_peers_seen(FlPeers *peers, PyObject *object, const FlPeerName *name)
{
    if (name->length > 0 && peers->seen.object != object) {
        peers_set(&peers->seen, object, name);
    }
}

/* An exact int in a range. */
static bool
peers_number(PyObject *object, unsigned long most, uint32_t *value)
{
    if (!PyLong_CheckExact(object)) return false;
    unsigned long number = PyLong_AsUnsignedLong(object);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    *value = (uint32_t)number;
    return number <= most;
}

static bool
peers_host(PyObject *object, int family, void *out)
{
    if (!PyUnicode_CheckExact(object) || !PyUnicode_IS_ASCII(object)) return false;
    Py_ssize_t length = PyUnicode_GET_LENGTH(object);
    const char *host = (const char *)PyUnicode_1BYTE_DATA(object);
    /* An address with a scope is no literal for inet_pton(), so the socket module's. */
    return length < INET6_ADDRSTRLEN && strlen(host) == (size_t)length &&
           inet_pton(family, host, out) == 1;
}

bool
fl_peers_convert(int family, PyObject *object, FlPeerName *name)
{
    if (!PyTuple_CheckExact(object)) return false;
    Py_ssize_t size = PyTuple_GET_SIZE(object);
    uint32_t port, flowinfo = 0, scope = 0;
    if (size < 2 || !peers_number(PyTuple_GET_ITEM(object, 1), 0xFFFF, &port))
        return false;
    *name = (FlPeerName){.length = 0};
    if (family == AF_INET) {
        if (size != 2 ||
            !peers_host(PyTuple_GET_ITEM(object, 0), AF_INET, &name->u.v4.sin_addr)) {
            return false;
        }
        name->u.v4.sin_family = AF_INET;
        name->u.v4.sin_port = htons((uint16_t)port);
        name->length = sizeof(name->u.v4);
        return true;
    }
    if (family != AF_INET6 || size > 4 ||
        !peers_host(PyTuple_GET_ITEM(object, 0), AF_INET6, &name->u.v6.sin6_addr) ||
        (size > 2 && !peers_number(PyTuple_GET_ITEM(object, 2), 0xFFFFF, &flowinfo)) ||
        (size > 3 && !peers_number(PyTuple_GET_ITEM(object, 3), UINT32_MAX, &scope))) {
        return false;
    }
    name->u.v6.sin6_family = AF_INET6;
    name->u.v6.sin6_port = htons((uint16_t)port);
    name->u.v6.sin6_flowinfo = htonl(flowinfo);
    name->u.v6.sin6_scope_id = scope;
    name->length = sizeof(name->u.v6);
    return true;
}

bool
fl_peers_name(FlPeers *peers, int family, PyObject *object, FlPeerName *name)
{
    if (object == peers->seen.object) {
        *name = peers->seen.name;
        return true;
    }
    if (object == peers->sent.object) {
        *name = peers->sent.name;
        return true;
    }
    if (!fl_peers_convert(family, object, name)) return false;
    peers_set(&peers->sent, object, name);
    return true;
}

void
fl_peers_clear(FlPeers *peers)
{
    Py_CLEAR(peers->seen.object);
    Py_CLEAR(peers->sent.object);
    for (size_t i = 0; peers->table != NULL && i < PEERS_TABLE; i++) {
        Py_XDECREF(peers->table[i].object);
    }
    PyMem_Free(peers->table);
    peers->table = NULL;
}
