/* payload.h - what a program hands to write() and writelines(), as bytes that can wait.
 *
 * Promises: bytes objects are never copied, anything else is, so that its owner may
 * change it; of several pieces either all become bytes or none. */
#ifndef FL_PAYLOAD_H
#define FL_PAYLOAD_H
#include "base/buffers.h"

/* Whether asyncio's write() takes it. */
static inline bool
fl_payload_is_fit(PyObject *data)
{
    return PyBytes_Check(data) || PyByteArray_Check(data) || PyMemoryView_Check(data);
}

/* Queues a copy of these bytes, or of those of an object. 0 or -1. */
int fl_payload_push_copy(FlBuffers *out, const char *data, size_t length);
int fl_payload_push_copy_of(FlBuffers *out, PyObject *data);

/* Queues an object's bytes. 0 or -1. */
static inline int
fl_payload_push(FlBuffers *out, PyObject *data)
{
    if (FL_UNLIKELY(!PyBytes_CheckExact(data))) {
        return fl_payload_push_copy_of(out, data);
    }
    return fl_buffers_push(out, data, PyBytes_AS_STRING(data),
                           (size_t)PyBytes_GET_SIZE(data));
}

/* A list of bytes objects, of what an iterable brings, and how many bytes they are.
 * NULL with TypeError for what has none: of bytes.join() or of memoryview(), as asyncio
 * would use. */
PyObject *fl_payload_lines(PyObject *lines, bool joined, Py_ssize_t *total);

/* Queues them. 0 or -1. */
int fl_payload_push_lines(FlBuffers *out, PyObject *list);

#endif
