/* buffers.h - a queue of byte ranges that wait to be written.
 *
 * Promises: ranges leave in the order they came, any number of them a call; each keeps
 * its owner alive until its last byte has left. No policy: what is copied, when it is
 * sent and how much may wait is the writer's business. One thread at a time. */
#ifndef FL_BUFFERS_H
#define FL_BUFFERS_H
#include "base/compat.h"
#include <sys/uio.h>

/* Invariants: ranges[head .. head + count) modulo the capacity are waiting, none of
 * them empty; size is the sum of their lengths. owner is a bytes object. chunk is one
 * of ours, of which the first gathered bytes are parts of ranges, or NULL; none waits
 * where nothing does. */
typedef struct {
    PyObject *owner;
    const char *data;
    size_t length;
} FlRange;

typedef struct {
    FlRange *ranges;
    size_t head;
    size_t count;
    size_t capacity; /* a power of two, or 0 */
    size_t size;
    PyObject *chunk;
    size_t gathered;
} FlBuffers;

/* Takes a reference to owner, which keeps data in place; or copies data that is small
 * where many ranges wait. 0, or -1 with MemoryError. */
int fl_buffers_push(FlBuffers *buffers, PyObject *owner, const char *data,
                    size_t length);

/* Fills at most limit vectors from the front; returns how many. */
int fl_buffers_vectors(const FlBuffers *buffers, struct iovec *vectors, int limit);

/* Copies all that waits, buffers->size bytes, to a place that has room for it. */
void fl_buffers_copy(const FlBuffers *buffers, char *to);

/* What keeps the first range in place, borrowed; there is one. */
static inline PyObject *
fl_buffers_owner(const FlBuffers *buffers)
{
    return buffers->ranges[buffers->head].owner;
}

/* Drops length bytes from the front; length <= size. */
void fl_buffers_consume(FlBuffers *buffers, size_t length);

/* Drops everything; the memory goes, too. */
void fl_buffers_clear(FlBuffers *buffers);

#endif
