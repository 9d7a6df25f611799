/* udp.h - transports over datagram sockets: UDP, Unix datagrams and others.
 *
 * Promises: datagrams that wait come in by one system call, and those that a turn sends
 * behind its first leave by one; borders and order stay. What datagram_received()
 * schedules runs before the next datagram, as in asyncio. Addresses are converted as
 * the socket module does, and by it where they are no plain literals. */
#ifndef FL_UDP_H
#define FL_UDP_H
#include "io/datagrams.h"
#include "io/transport.h"

/* Invariants: while the inbox is not empty, nothing is received, and deliver_due tells
 * whether _read_ready() is scheduled for it. writing is true exactly while the watcher
 * waits for the socket to take more. */
typedef struct {
    FlTransport base;
    FlFlush flush;
    FlPeers peers;
    PyObject *address; /* remote_addr of the endpoint, or NULL */
    FlInbox in;
    FlOutbox out;
    int family;
    bool foreign; /* the socket's methods are not those of the socket module */
    bool connected;
    bool nameless_peer; /* connected, to a Unix socket without a path */
    bool deliver_due;
    bool stopped; /* the loop was stopped before the rest of in was delivered */
    bool writing;
    bool flushing; /* fl_udpsend_flush() is at work further up the stack */
} FlDatagramTransport;

int fl_udp_register(PyObject *module, FlState *st);

#endif
