/* tlstransport.h - the Python face of a TLS connection.
 *
 * Promises: every method and getter of asyncio's TLS transport, and those of a protocol
 * for the transport below. */
#ifndef FL_TLSTRANSPORT_H
#define FL_TLSTRANSPORT_H
#include "io/tls.h"

/* What makes a connection; borrowed. */
typedef struct {
    PyObject *protocol;
    PyObject *sslcontext;
    PyObject *waiter;   /* or NULL */
    PyObject *hostname; /* or None */
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout; /* None for asyncio's own limits */
    bool server_side;
    bool connected; /* the protocol has heard connection_made() already */
} FlTlsOptions;

/* A connection that waits for the transport below. New reference or NULL. */
FlTls *fl_tlstransport_new(FlLoop *loop, const FlTlsOptions *options);

/* The transport of a connection that a server accepted, started. As
 * fl_stream_accepted(): on NULL with an exception fd is still the caller's. */
FlTls *fl_tlstransport_accepted(FlLoop *loop, const FlTlsOptions *options, int fd,
                                PyObject *sock, int family, const FlAddress *peer,
                                PyObject *local, PyObject *context, PyObject *server);

int fl_tlstransport_register(PyObject *module, FlState *st);

#endif
