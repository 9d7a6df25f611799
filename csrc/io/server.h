/* server.h - listening sockets.
 *
 * Promises: accepts until nobody waits or the backlog is met; out of descriptors it
 * reports, pauses for a second and loses nobody; a protocol factory that raises closes
 * that client's socket, is reported and harms no other client. */
#ifndef FL_SERVER_H
#define FL_SERVER_H
#include "core/loop.h"

int fl_server_register(PyObject *module, FlState *st);

#endif
