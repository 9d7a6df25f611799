/* buffers.c - the queue of byte ranges.
 *
 * Owns:   the ring of ranges and a reference to each range's owner.
 * Thread: whichever holds the queue, with the GIL. */
#include "base/buffers.h"
#include "base/shared.h"

/* Kept by each connection that has ever written: most have one or two at a time. */
enum { BUFFERS_FIRST_CAPACITY = 2 };

/* Behind so many ranges, small ones share chunks: a byte that waits would otherwise
 * take a range of 24 and be one of the few buffers that a system call takes. */
enum {
    BUFFERS_GATHER_BEHIND = 16,
    BUFFERS_GATHER_BELOW = 512,
    BUFFERS_CHUNK = 4000,
};

/* The range that stands i behind the front. */
static inline FlRange *
buffers_at(const FlBuffers *buffers, size_t i)
{
    return &buffers->ranges[(buffers->head + i) & (buffers->capacity - 1)];
}

static bool
buffers_grow(FlBuffers *buffers)
{
    size_t capacity =
        buffers->capacity ? buffers->capacity * 2 : BUFFERS_FIRST_CAPACITY;
    if (capacity > SIZE_MAX / sizeof(FlRange)) return false;
    FlRange *ranges = PyMem_Malloc(capacity * sizeof(FlRange));
    if (ranges == NULL) return false;
    for (size_t i = 0; i < buffers->count; i++) {
        ranges[i] = *buffers_at(buffers, i);
    }
    PyMem_Free(buffers->ranges);
    buffers->ranges = ranges;
    buffers->capacity = capacity;
    buffers->head = 0;
    return true;
}

static int
buffers_append(FlBuffers *buffers, PyObject *owner, const char *data, size_t length)
{
    if (buffers->count == buffers->capacity && !buffers_grow(buffers)) {
        PyErr_NoMemory();
        return -1;
    }
    *buffers_at(buffers, buffers->count) = (FlRange){Py_NewRef(owner), data, length};
    buffers->count++;
    fl_shared_put(&buffers->size, buffers->size + length);
    return 0;
}

/* Copies data behind what the chunk has. 0, or -1 with MemoryError. */
static int
buffers_gather(FlBuffers *buffers, const char *data, size_t length)
{
    if (buffers->chunk == NULL || BUFFERS_CHUNK - buffers->gathered < length) {
        PyObject *chunk = PyBytes_FromStringAndSize(NULL, BUFFERS_CHUNK);
        if (chunk == NULL) return -1;
        Py_XSETREF(buffers->chunk, chunk);
        buffers->gathered = 0;
    }
    char *at = PyBytes_AS_STRING(buffers->chunk) + buffers->gathered;
    FlRange *range = buffers_at(buffers, buffers->count - 1);
    memcpy(at, data, length);
    if (range->owner == buffers->chunk && range->data + range->length == at) {
        range->length += length;
        fl_shared_put(&buffers->size, buffers->size + length);
    }
    else if (buffers_append(buffers, buffers->chunk, at, length) < 0) {
        return -1;
    }
    buffers->gathered += length;
    return 0;
}

int
fl_buffers_push(FlBuffers *buffers, PyObject *owner, const char *data, size_t length)
{
    if (length == 0) return 0;
    if (FL_UNLIKELY(buffers->count >= BUFFERS_GATHER_BEHIND) &&
        length < BUFFERS_GATHER_BELOW) {
        return buffers_gather(buffers, data, length);
    }
    return buffers_append(buffers, owner, data, length);
}

int
fl_buffers_vectors(const FlBuffers *buffers, struct iovec *vectors, int limit)
{
    size_t count = buffers->count < (size_t)limit ? buffers->count : (size_t)limit;
    for (size_t i = 0; i < count; i++) {
        const FlRange *range = buffers_at(buffers, i);
        vectors[i].iov_base = (void *)(uintptr_t)range->data;
        vectors[i].iov_len = range->length;
    }
    return (int)count;
}

void
fl_buffers_copy(const FlBuffers *buffers, char *to)
{
    for (size_t i = 0; i < buffers->count; i++) {
        const FlRange *range = buffers_at(buffers, i);
        memcpy(to, range->data, range->length);
        to += range->length;
    }
}

void
fl_buffers_consume(FlBuffers *buffers, size_t length)
{
    fl_shared_put(&buffers->size, buffers->size - length);
    while (length > 0) {
        FlRange *range = &buffers->ranges[buffers->head];
        if (length < range->length) {
            range->data += length;
            range->length -= length;
            return;
        }
        length -= range->length;
        PyObject *owner = range->owner;
        buffers->head = (buffers->head + 1) & (buffers->capacity - 1);
        buffers->count--;
        /* A bytes object: nothing runs when it goes. */
        Py_DECREF(owner);
    }
    if (buffers->count == 0) {
        Py_CLEAR(buffers->chunk);
    }
}

void
fl_buffers_clear(FlBuffers *buffers)
{
    if (buffers->size > 0) {
        fl_buffers_consume(buffers, buffers->size);
    }
    PyMem_Free(buffers->ranges);
    buffers->ranges = NULL;
    buffers->head = buffers->capacity = 0; /* count and size are */
}
