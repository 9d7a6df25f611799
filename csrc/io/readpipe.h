/* readpipe.h - transports over the reading ends of pipes.
 *
 * Promises connect_read_pipe(): each read() of up to 256 KiB is one data_received(),
 * the end one eof_received(); devices that no poll takes are read, too. */
#ifndef FL_READPIPE_H
#define FL_READPIPE_H
#include "base/state.h"

int fl_readpipe_register(PyObject *module, FlState *st);

#endif
