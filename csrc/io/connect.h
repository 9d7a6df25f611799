/* connect.h - outgoing connections to literal addresses, without the general way.
 *
 * Promises: whoever overrides or patches a step of the general way is asked. */
#ifndef FL_CONNECT_H
#define FL_CONNECT_H
#include "core/loop.h"

/* Whether nobody put a function of his own in the place of socket.socket's connect().
 */
bool fl_connect_is_native(FlState *st);

int fl_connect_register(PyObject *module, FlState *st);

#endif
