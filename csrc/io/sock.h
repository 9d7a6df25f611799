/* sock.h - sock_recv() and its kin: coroutines on sockets that the program owns.
 *
 * Promises: what asyncio's coroutines return and raise, without a frame, and without a
 * future where the socket is ready at once. Nothing is read, sent or accepted before
 * the first step, nor once cancelled: an operation that ends in CancelledError took
 * nothing that the next one misses. */
#ifndef FL_SOCK_H
#define FL_SOCK_H
#include "core/loop.h"

int fl_sock_register(PyObject *module, FlState *st);

#endif
