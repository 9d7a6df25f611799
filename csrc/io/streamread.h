/* streamread.h - what a stream transport does when its socket is readable.
 *
 * Promises: one recv() an event, in a flood a few; large reads land in the bytes object
 * that the protocol gets, or in the buffer of a BufferedProtocol, without a copy. */
#ifndef FL_STREAMREAD_H
#define FL_STREAMREAD_H
#include "io/stream.h"

/* Reads once and tells the protocol. events are those that were told. 0, or -1 with an
 * exception that must leave the loop. */
int fl_streamread_ready(FlStream *self, uint32_t events);

#endif
