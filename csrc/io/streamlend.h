/* streamlend.h - a stream transport steps aside while sendfile() writes to its socket.
 *
 * Promises: what was written before has left when the waiter is done; a connection that
 * is lost meanwhile ends the wait. */
#ifndef FL_STREAMLEND_H
#define FL_STREAMLEND_H
#include "io/stream.h"

/* transport._make_empty_waiter(), transport._reset_empty_waiter(). */
PyObject *fl_streamlend_make_empty_waiter(PyObject *op, PyObject *ignored);
PyObject *fl_streamlend_reset_empty_waiter(PyObject *op, PyObject *ignored);

/* Behind connection_lost(). 0 or -1. */
int fl_streamlend_lost(FlTransport *base, PyObject *exc);

#endif
