/* stock.c - the looks at classes and objects that a program may have changed.
 *
 * Owns:   nothing.
 * Thread: any that holds the GIL. */
#include "base/stock.h"

PyObject *
fl_stock_function(PyObject *cls, PyObject *name, PyObject *file)
{
    PyObject *function = PyObject_GetAttr(cls, name);
    if (function == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (PyFunction_Check(function)) {
        PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(function);
        if (PyUnicode_Compare(code->co_filename, file) == 0) return function;
    }
    Py_DECREF(function);
    return NULL;
}

bool
fl_stock_method(PyObject *op, PyObject *name, PyObject *function)
{
    PyObject *method = PyObject_GetAttr(op, name);
    if (FL_UNLIKELY(method == NULL)) {
        PyErr_Clear();
        return false;
    }
    bool stock = PyMethod_Check(method) && PyMethod_GET_FUNCTION(method) == function &&
                 PyMethod_GET_SELF(method) == op;
    Py_DECREF(method);
    return stock;
}

bool
fl_stock_dict(PyObject *dict, PyObject *const *names, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        int has = PyDict_Contains(dict, names[i]);
        if (has != 0) {
            PyErr_Clear();
            return false;
        }
    }
    return true;
}

bool
fl_stock_look_up(PyTypeObject *type, PyObject *const *names, PyObject *const *originals,
                 Py_ssize_t count, unsigned int *version)
{
    bool stock = true;
    for (Py_ssize_t i = 0; i < count && stock; i++) {
        PyObject *now = PyObject_GetAttr((PyObject *)type, names[i]);
        stock = originals[i] != NULL
                    ? now == originals[i]
                    : now != NULL && Py_IS_TYPE(now, &PyMethodDescr_Type);
        Py_XDECREF(now);
    }
    PyErr_Clear();
    if (FL_HAVE_GIL && stock) {
        *version = type->tp_version_tag;
    }
    return stock;
}
