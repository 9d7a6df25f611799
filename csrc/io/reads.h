/* reads.h - what the read methods of asyncio's StreamReader do when nothing is unusual.
 *
 * fastloop/_streams.py has a StreamReader whose read(), readline(), readuntil() and
 * readexactly() ask here first. Either the bytes are there, or there is a future to
 * wait for; what is neither (an exception, the end inside of a message, a line above
 * the limit, a paused transport, arguments of another kind) is for asyncio's own
 * method. A reader gets that class when
 * data first reaches it (see feed.h), or with the pipe that it is for.
 *
 * Promises: the reader's attributes are all that is read and changed, and are as
 * asyncio's own methods would have left them. Nothing here is used where asyncio's
 * methods were replaced, in debug mode, or without a GIL. */
#ifndef FL_READS_H
#define FL_READS_H
#include "base/state.h"

/* Gives a reader the class of _streams.py, if it is an exact StreamReader. */
void fl_reads_adopt(FlState *st, PyObject *reader);

/* The attributes of a reader that has that class: a new reference. NULL without an
 * exception if it has another one, or if a method of asyncio's was replaced. */
PyObject *fl_reads_dict(FlState *st, PyObject *reader);

int fl_reads_register(PyObject *module, FlState *st);

#endif
