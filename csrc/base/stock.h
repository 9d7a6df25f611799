/* stock.h - whether what a class or an object came with is still in its place.
 *
 * A native way past asyncio's methods is taken only while nobody has put another one in
 * the place of one of them, for the class or for an object.
 *
 * Promises: an answer about this moment, and no exception: what cannot be told is not
 * stock. */
#ifndef FL_STOCK_H
#define FL_STOCK_H
#include "base/compat.h"

/* The function of a class, if it is written in this source file. New reference, or NULL
 * without an exception. */
PyObject *fl_stock_function(PyObject *cls, PyObject *name, PyObject *file);

/* Whether an object's attribute is its own method, made of just this function. */
bool fl_stock_method(PyObject *op, PyObject *name, PyObject *function);

/* Whether an object's attributes hide none of its class's that have these names. */
bool fl_stock_dict(PyObject *dict, PyObject *const *names, Py_ssize_t count);

/* Whether a class has these attributes: the originals, or, in the place of NULL, any
 * method written in C. Sets *version if it has. */
bool fl_stock_look_up(PyTypeObject *type, PyObject *const *names,
                      PyObject *const *originals, Py_ssize_t count,
                      unsigned int *version);

/* Whether a class is as it was when fl_stock_look_up() set version, at first 0: each
 * change of a class, or of one that it inherits from, gives it another one. */
static inline bool
fl_stock_is_version(PyTypeObject *type, unsigned int version)
{
    return FL_HAVE_GIL && type->tp_version_tag == version && version != 0;
}

#endif
