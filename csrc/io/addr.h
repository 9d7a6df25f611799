/* addr.h - socket addresses as Python shows them.
 *
 * Promises: the same objects that the socket module makes. */
#ifndef FL_ADDR_H
#define FL_ADDR_H
#include "base/state.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } u;
    socklen_t length;
} FlAddress;

/* True for the families that fl_addr_to_object() knows: INET, INET6 and UNIX. */
bool fl_addr_is_known(int family);

/* A new (host, port), (host, port, flowinfo, scope_id), or path: str, or bytes for an
 * abstract one. None for an address of no length in a family other than UNIX. */
PyObject *fl_addr_to_object(const FlAddress *address);

/* An address in as few bytes as it has: thousands of connections keep one each. */
typedef struct {
    socklen_t length;
    char bytes[];
} FlKeptAddress;

/* For PyMem_Free(); NULL with MemoryError. */
FlKeptAddress *fl_addr_keep(const FlAddress *address);
PyObject *fl_addr_kept_to_object(const FlKeptAddress *kept);

/* sock.family or sock.type as a number. socket.socket makes an enum of it, which costs
 * 6,900 instructions; its base class does not, which costs 150. 0 or -1. */
int fl_addr_socket_number(FlState *st, PyObject *sock, PyObject *name, int *value);

/* Whether one of the methods with these names, NULL at the end, is not the socket
 * module's: then a transport has to call them. 1, 0 or -1 with an exception. */
int fl_addr_has_own_methods(FlState *st, PyObject *sock, const char *const *names);

/* A socket.socket over fd, which is its own then. New reference; on NULL with an
 * exception fd is still the caller's, as it is not for whoever calls the class: that
 * closes fd where __init__() is interrupted. */
PyObject *fl_addr_new_socket(FlState *st, int family, int type, int proto, int fd);

/* Takes the descriptor from a socket, without its Python methods. Raises nothing. */
void fl_addr_detach_socket(FlState *st, PyObject *sock);

#endif
