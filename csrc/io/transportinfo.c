/* transportinfo.c - what a transport tells of itself: get_extra_info() and the private
 * attributes of asyncio's transports.
 *
 * Owns:   nothing.
 * Thread: any. */
#include "io/transport.h"

PyObject *
fl_transport_extra(FlTransport *self)
{
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    return self->extra;
}

int
fl_transport_convert_extra(PyObject *arg, void *extra)
{
    if (arg != Py_None && !PyDict_Check(arg)) {
        PyErr_Format(PyExc_TypeError,
                     "'%.200s' object does not support item assignment",
                     Py_TYPE(arg)->tp_name);
        return 0;
    }
    *(PyObject **)extra = arg;
    return 1;
}

static PyObject *
transport_get_extra_info(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    FlTransport *self = (FlTransport *)op;
    PyObject *name, *fallback = Py_None, *value;
    if (kwargs == NULL && PyTuple_GET_SIZE(args) == 1) {
        name = PyTuple_GET_ITEM(args, 0);
    }
    else if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names,
                                          &name, &fallback)) {
        return NULL;
    }
    PyObject *extra = fl_transport_extra(self);
    if (extra == NULL) return NULL;
    int found = fl_compat_dict_get(extra, name, &value);
    if (found < 0) return NULL;
    if (found) return value;
    if (self->kind->make_extra != NULL && PyUnicode_CheckExact(name)) {
        value = self->kind->make_extra(self, name);
        if (value == NULL && PyErr_Occurred()) return NULL;
        if (value != NULL) {
            if (PyDict_SetItem(extra, name, value) == 0) return value;
            Py_DECREF(value);
            return NULL;
        }
    }
    return Py_NewRef(fallback);
}

/* What is made here for the first time, another thread may be asking for, too. */
PyObject *
fl_transport_get_extra_info(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *value;
    FL_BEGIN_CRITICAL(op);
    value = transport_get_extra_info(op, args, kwargs);
    FL_END_CRITICAL();
    return value;
}

PyMemberDef fl_transport_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlTransport, weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(FlTransport, dict), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(FlTransport, loop), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyObject *
fl_transport_get_flag(PyObject *op, void *closure)
{
    return PyBool_FromLong(((FlTransport *)op)->flags & (unsigned)(uintptr_t)closure);
}

PyObject *
fl_transport_get_fd(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((FlTransport *)op)->watcher.fd);
}

PyObject *
fl_transport_get_conn_lost(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(fl_shared_peek(&((FlTransport *)op)->conn_lost));
}

PyObject *
fl_transport_get_size(PyObject *op, void *closure)
{
    return PyLong_FromSize_t(
        fl_shared_peek((size_t *)((char *)op + (uintptr_t)closure)));
}

int
fl_transport_parse_size(PyObject *value, size_t *size)
{
    PyObject *whole = value == NULL ? NULL : PyNumber_Long(value); /* rounded down */
    *size = whole == NULL ? (size_t)-1 : PyLong_AsSize_t(whole);
    Py_XDECREF(whole);
    if (*size > PY_SSIZE_T_MAX) {
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
        PyErr_Clear();
        *size = PY_SSIZE_T_MAX;
    }
    return 0;
}

int
fl_transport_set_size(PyObject *op, PyObject *value, void *closure)
{
    size_t number;
    if (fl_transport_parse_size(value, &number) < 0) return -1;
    fl_shared_put((size_t *)((char *)op + (uintptr_t)closure), number);
    return 0;
}

PyObject *
fl_transport_get_extra(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *extra;
    FL_BEGIN_CRITICAL(op);
    extra = Py_XNewRef(fl_transport_extra((FlTransport *)op));
    FL_END_CRITICAL();
    return extra;
}
