/* udpsend.h - the sending half of the datagram transport.
 *
 * Promises: what asyncio would have sent before close(), abort() or a question for the
 * buffer's size is sent before them here, too. */
#ifndef FL_UDPSEND_H
#define FL_UDPSEND_H
#include "io/udp.h"

/* transport.sendto(data, addr=None) */
PyObject *fl_udpsend_sendto(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames);

/* Sends what waits. Exceptions of error_received() are reported, and the rest goes on.
 * 0, or -1 with one that must leave the loop; what waits then leaves in the next turn.
 */
int fl_udpsend_flush(FlDatagramTransport *self);

/* The same for what waits for the end of the turn alone. 0 or -1. */
int fl_udpsend_settle(FlDatagramTransport *self);

/* The call of the transport's flush. */
int fl_udpsend_on_flush(FlFlush *flush);

/* protocol.error_received(OSError). 0, or -1 with the protocol's exception. */
int fl_udpsend_error(FlDatagramTransport *self, int code);

/* True, with the exception gone, if a call of the socket's has to be made again later.
 */
bool fl_udpsend_would_block(void);

/* The socket object's call failed, other than for a while: as asyncio sorts it. 0, or
 * -1 with the protocol's exception or one that must leave the loop. */
int fl_udpsend_sort_error(FlDatagramTransport *self, const char *message);

#endif
