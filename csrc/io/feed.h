/* feed.h - asyncio's own streams, fed without a call into them.
 *
 * If a transport's protocol is exactly an asyncio.StreamReaderProtocol with an exact
 * StreamReader, and nobody has replaced their methods, received bytes go straight into
 * the reader's buffer and the one who waits for them is woken from here: what
 * data_received(), feed_data() and _wakeup_waiter() do, without the bytes object and
 * three Python calls.
 *
 * Promises: nobody can tell the difference; the transport pauses above twice the
 * reader's limit, exactly as asyncio has it. */
#ifndef FL_FEED_H
#define FL_FEED_H
#include "core/loop.h"

/* Whether the protocol, whose bound data_received is given, is one to feed. */
bool fl_feed_is_meant(FlState *st, PyObject *protocol, PyObject *data_received);

/* Gives length > 0 bytes to the protocol's reader. 1; 0 if they must go through
 * data_received() after all, nothing has happened then; or -1 with the exception that
 * data_received() would have raised. */
int fl_feed_data(FlLoop *loop, PyObject *protocol, const char *data, Py_ssize_t length);

/* The same protocol on a transport that does not feed it: its reads are quicker all the
 * same, see reads.h. */
void fl_feed_adopt(FlLoop *loop, PyObject *protocol);

int fl_feed_register(PyObject *module, FlState *st);

#endif
