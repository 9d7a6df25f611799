/* writepipe.h - transports over the writing ends of pipes.
 *
 * Promises connect_write_pipe(): small writes leave as one system call at the end of
 * the turn, large ones at once; what asyncio would have written before close(), abort()
 * or write_eof() is written before them here, too; the reader's end is noticed without
 * a write. */
#ifndef FL_WRITEPIPE_H
#define FL_WRITEPIPE_H
#include "base/state.h"

int fl_writepipe_register(PyObject *module, FlState *st);

#endif
