/* connect.h - outgoing connections to literal addresses, without the general way.
 *
 * Promises: whoever overrides or patches a step of the general way is asked. */
#ifndef FL_CONNECT_H
#define FL_CONNECT_H
#include "core/loop.h"
#include "io/addr.h"

/* Whether nobody put a function of his own in the place of socket.socket's connect().
 */
bool fl_connect_is_native(FlState *st);

/* Whether a connection that was begun stands already, and with whom. A peer on this
 * machine has answered by now, mostly before connect() returned, which only says that
 * it does not wait for that. Whoever has a peer is connected: to find that out costs a
 * fifth of a wait. */
bool fl_connect_stands(int fd, FlAddress *peer);

/* Sets asyncio's OSError for a connection that has failed with this errno, an int. */
void fl_connect_failed(PyObject *error, PyObject *address);

int fl_connect_register(PyObject *module, FlState *st);

#endif
