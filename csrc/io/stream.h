/* stream.h - transports over connected stream sockets, TCP and Unix.
 *
 * Promises: the descriptor is watched for what the transport waits for, and for nothing
 * else; what asyncio would have sent before close() or abort() is sent before them
 * here, too. What is written leaves as streamwrite.h says, what is read comes as
 * streamread.h does. */
#ifndef FL_STREAM_H
#define FL_STREAM_H
#include "base/buffers.h"
#include "io/bound.h"
#include "io/series.h"

/* A protocol of our own that takes bytes without a call into Python. */
typedef struct {
    /* data is the loop's slab, good until the next read. 0, or -1 with an exception,
     * which is the connection's end. */
    int (*received)(PyObject *protocol, const char *data, size_t size);
    /* All that was written has left. 0, or -1 with one that must leave the loop. */
    int (*drained)(PyObject *protocol);
} FlSink;

/* Invariants: writing is true exactly while the watcher waits for the socket to take
 * more; then no flush is queued. The watcher asks for edges only while it waits for
 * nothing but data, of a TCP socket. */
typedef struct {
    FlTransport base;
    FlFlush flush;
    FlBuffers out;
    FlBound bound;
    const FlSink *sink;     /* of the current protocol, or NULL */
    PyObject *local;        /* the socket's own address, where known without asking */
    PyObject *empty_waiter; /* sendfile waits for an empty queue */
    Py_ssize_t predicted;   /* how much the next read is likely to bring */
    FlSeries series;
    int family;
    int16_t calm;  /* reads in a row that emptied the socket: see streamedge.c */
    uint8_t flood; /* large reads since the last write, up to a few */
    bool emptied;  /* by the last read */
    bool edges;    /* reading asks for edges */
    bool writing;
} FlStream;

/* A started transport over a connected, non-blocking socket. sock owns the descriptor
 * and may be NULL: then the transport owns fd. peer, extra (a dict, taken over),
 * context, server and waiter may be NULL. New reference; on NULL with an exception the
 * descriptor is still the caller's. */
FlStream *fl_stream_new(FlLoop *loop, int fd, PyObject *sock, int family,
                        const FlAddress *peer, PyObject *protocol, PyObject *extra,
                        PyObject *context, PyObject *server, PyObject *waiter);

/* The same for a socket that was accepted: TCP_NODELAY is inherited, local is the
 * address that it is known to have, or NULL. sock is NULL but in debug mode. */
FlStream *fl_stream_accepted(FlLoop *loop, int fd, PyObject *sock, int family,
                             const FlAddress *peer, PyObject *local, PyObject *protocol,
                             PyObject *context, PyObject *server);

/* Ends the connection at once; what waits for the end of the turn is sent first. 0 or
 * -1. */
int fl_stream_abort(FlStream *self, PyObject *exc);

int fl_stream_register(PyObject *module, FlState *st);

#endif
