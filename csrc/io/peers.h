/* peers.h - addresses of the peers that datagrams come from and go to.
 *
 * Promises: a peer that writes again is shown as the same tuple, without a conversion;
 * a literal address is converted as the socket module does, and what is none is left to
 * it. One user at a time. */
#ifndef FL_PEERS_H
#define FL_PEERS_H
#include "io/addr.h"

/* A socket address of IPv4 or IPv6; length is 0 for none. */
typedef struct {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } u;
    socklen_t length;
} FlPeerName;

static inline bool
fl_peers_same(const FlPeerName *a, const FlPeerName *b)
{
    return a->length == b->length && memcmp(&a->u, &b->u, a->length) == 0;
}

/* Invariants: object is NULL, or an exact tuple of exact str and int objects, which
 * nobody can change: whoever passes the same object means the same address. */
typedef struct {
    PyObject *object;
    FlPeerName name;
} FlPeer;

typedef struct {
    FlPeer seen;   /* who sent the datagram that is being delivered */
    FlPeer sent;   /* the last address that was converted for sending */
    FlPeer *table; /* peers by a hash of their name, made when needed */
} FlPeers;

/* The object for an address that came from the kernel: new reference, or NULL. *name is
 * a copy of the address, or empty for a family other than IPv4 and IPv6. */
PyObject *fl_peers_object(FlPeers *peers, const FlAddress *address, FlPeerName *name);

/* Remembers both as seen: an answer is likely. */
void fl_peers_seen(FlPeers *peers, PyObject *object, const FlPeerName *name);

/* Converts a literal address for a socket of the family. False, without an exception,
 * for everything that the socket module should look at. */
bool fl_peers_name(FlPeers *peers, int family, PyObject *object, FlPeerName *name);

/* The same without a memory. */
bool fl_peers_convert(int family, PyObject *object, FlPeerName *name);

void fl_peers_clear(FlPeers *peers);

#endif
