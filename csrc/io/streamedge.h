/* streamedge.h - whether a stream's socket is watched by levels or by edges.
 *
 * Promises: edges are asked for only where it is sure that what was not read is told of
 * again; failing to ask for them is no error. */
#ifndef FL_STREAMEDGE_H
#define FL_STREAMEDGE_H
#include "io/stream.h"

/* What the watcher is to ask for while there is nothing to wait for but data. */
static inline uint32_t
fl_streamedge_wanted(const FlStream *self)
{
    uint32_t edges = EPOLLET | EPOLLPRI;
    return (uint32_t)(EPOLLIN | EPOLLRDHUP) | (self->edges ? edges : 0);
}

/* Behind the reading that events, those that were told, have led to: self->emptied says
 * whether the last read emptied the socket. Returns rc, what the reading did, or -1
 * with an exception that must leave the loop. */
int fl_streamedge_settle(FlStream *self, uint32_t events, int rc);

#endif
