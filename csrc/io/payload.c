/* payload.c - copies of what may change, and pieces that are no bytes objects.
 *
 * Owns:   nothing: what was queued is the queue's.
 * Thread: that of the queue. */
#include "io/payload.h"

int
fl_payload_push_copy(FlBuffers *out, const char *data, size_t length)
{
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    if (copy == NULL) return -1;
    int rc = fl_payload_push(out, copy);
    Py_DECREF(copy);
    return rc;
}

int
fl_payload_push_copy_of(FlBuffers *out, PyObject *data)
{
    PyObject *copy = PyBytes_FromObject(data);
    if (copy == NULL) return -1;
    int rc = fl_payload_push(out, copy);
    Py_DECREF(copy);
    return rc;
}

/* TypeError for a line that has no bytes. */
static void
payload_refuse_line(PyObject *line, Py_ssize_t index, bool joined)
{
    const char *found = Py_TYPE(line)->tp_name;
    if (joined) {
        PyErr_Format(PyExc_TypeError,
                     "sequence item %zd: expected a bytes-like object, %.80s found",
                     index, found);
    }
    else {
        PyErr_Format(PyExc_TypeError,
                     "memoryview: a bytes-like object is required, not '%.200s'",
                     found);
    }
}

PyObject *
fl_payload_lines(PyObject *lines, bool joined, Py_ssize_t *total)
{
    PyObject *list = PySequence_List(lines);
    if (list == NULL) return NULL;
    *total = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *line = PyList_GET_ITEM(list, i);
        if (!PyBytes_CheckExact(line)) {
            if (!PyObject_CheckBuffer(line)) {
                payload_refuse_line(line, i, joined);
                goto error;
            }
            line = PyBytes_FromObject(line);
            if (line == NULL || PyList_SetItem(list, i, line) < 0) goto error;
        }
        *total += PyBytes_GET_SIZE(line);
    }
    return list;

error:
    Py_DECREF(list);
    return NULL;
}

int
fl_payload_push_lines(FlBuffers *out, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (fl_payload_push(out, PyList_GET_ITEM(list, i)) < 0) return -1;
    }
    return 0;
}
