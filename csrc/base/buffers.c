/* buffers.c - the queue of byte ranges.
 *
 * Owns:   the ring of ranges and a reference to each range's owner.
 * Thread: whichever holds the queue, with the GIL. */
#include "base/buffers.h"
#include "base/shared.h"

/* Kept by each connection that has ever written: most have one or two at a time. */
enum { BUFFERS_FIRST_CAPACITY = 2 };

static bool
buffers_grow(FlBuffers *buffers)
{
    size_t capacity =
        buffers->capacity ? buffers->capacity * 2 : BUFFERS_FIRST_CAPACITY;
    if (capacity > SIZE_MAX / sizeof(FlRange)) return false;
    FlRange *ranges = PyMem_Malloc(capacity * sizeof(FlRange));
    if (ranges == NULL) return false;
    for (size_t i = 0; i < buffers->count; i++) {
        ranges[i] = buffers->ranges[(buffers->head + i) & (buffers->capacity - 1)];
    }
    PyMem_Free(buffers->ranges);
    buffers->ranges = ranges;
    buffers->capacity = capacity;
    buffers->head = 0;
    return true;
}

int
fl_buffers_push(FlBuffers *buffers, PyObject *owner, const char *data, size_t length)
{
    if (length == 0) return 0;
    if (buffers->count == buffers->capacity && !buffers_grow(buffers)) {
        PyErr_NoMemory();
        return -1;
    }
    size_t at = (buffers->head + buffers->count) & (buffers->capacity - 1);
    buffers->ranges[at] = (FlRange){Py_NewRef(owner), data, length};
    buffers->count++;
    fl_shared_put(&buffers->size, buffers->size + length);
    return 0;
}

int
fl_buffers_vectors(const FlBuffers *buffers, struct iovec *vectors, int limit)
{
    size_t count = buffers->count < (size_t)limit ? buffers->count : (size_t)limit;
    for (size_t i = 0; i < count; i++) {
        FlRange *range =
            &buffers->ranges[(buffers->head + i) & (buffers->capacity - 1)];
        vectors[i].iov_base = (void *)(uintptr_t)range->data;
        vectors[i].iov_len = range->length;
    }
    return (int)count;
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
