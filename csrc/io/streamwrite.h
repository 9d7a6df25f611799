/* streamwrite.h - the writing half of a stream transport.
 *
 * Promises: small writes leave as one system call at the end of the turn, large ones at
 * once, but for those that follow another at once, which leave together; bytes objects
 * are never copied, of anything else only what the socket does not take or what waits;
 * what was written before write_eof() is sent before the end is. */
#ifndef FL_STREAMWRITE_H
#define FL_STREAMWRITE_H
#include "io/stream.h"

/* Queues a bytes object, unless the connection is lost; fl_streamwrite_send() sends
 * what was queued, unless it waits for the socket already. 0 or -1. */
int fl_streamwrite_queue(FlStream *self, PyObject *data);
int fl_streamwrite_send(FlStream *self);

/* Offers what waits to the socket, and sees to what follows from that. 0 or -1. */
int fl_streamwrite_flush(FlStream *self);

/* The same of what waits for the end of the turn alone: where the socket is known to be
 * full, it is not asked again. 0 or -1. */
int fl_streamwrite_settle(FlStream *self);

/* That, at the end of a turn. */
int fl_streamwrite_due(FlFlush *flush);

/* Everything has left: whoever waited for that has a turn. 0 or -1. */
int fl_streamwrite_drained(FlStream *self);

/* How many bytes wait; drops them. */
size_t fl_streamwrite_buffered(FlTransport *base);
void fl_streamwrite_discard(FlTransport *base);

/* The methods of a transport that write. */
PyObject *fl_streamwrite_write(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *fl_streamwrite_writelines(PyObject *, PyObject *const *, Py_ssize_t,
                                    PyObject *);
PyObject *fl_streamwrite_write_eof(PyObject *, PyObject *);
PyObject *fl_streamwrite_can_write_eof(PyObject *, PyObject *);
PyObject *fl_streamwrite_get_size(PyObject *, PyObject *);

#endif
