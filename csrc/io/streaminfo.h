/* streaminfo.h - what get_extra_info() tells of a stream transport.
 *
 * Promises: addresses and the socket object are made when somebody asks; after close
 * the addresses are still known. */
#ifndef FL_STREAMINFO_H
#define FL_STREAMINFO_H
#include "io/stream.h"

/* The value of "socket", "sockname" or "peername": a new reference, or NULL without an
 * exception for any other name. */
PyObject *fl_streaminfo_make(FlTransport *base, PyObject *name);

/* Notes what only the descriptor can tell, before it goes. */
void fl_streaminfo_keep(FlTransport *base);

/* The Python socket over the descriptor, made when somebody asks; it owns the
 * descriptor from then on. New reference. */
PyObject *fl_streaminfo_socket(FlStream *self);

/* A getter: the same, or None once the connection is closed. Any thread. */
PyObject *fl_streaminfo_get_sock(PyObject *op, void *closure);

#endif
