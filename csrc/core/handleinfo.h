/* handleinfo.h - what a handle tells of itself.
 *
 * Promises: the words and the order of asyncio's own handles, whose functions are run
 * on the attributes that are shown here. */
#ifndef FL_HANDLEINFO_H
#define FL_HANDLEINFO_H
#include "core/handle.h"

/* The arguments as a tuple: new reference or NULL. */
PyObject *fl_handleinfo_args(FlHandle *self);

/* What was noted: a new reference, None where it was not. */
enum { FL_HANDLEINFO_TRACEBACK, FL_HANDLEINFO_REPR, FL_HANDLEINFO_WHEN };
PyObject *fl_handleinfo_note(FlHandle *self, int which);

/* Steals value. 0 or -1. */
int fl_handleinfo_set_note(FlHandle *self, int which, PyObject *value);

/* Slots and methods of the types. */
PyObject *fl_handleinfo_repr(PyObject *op);
PyObject *fl_handleinfo_repr_info(PyObject *op, PyObject *ignored);
PyObject *fl_handleinfo_compare(PyObject *op, PyObject *other, int how);
Py_hash_t fl_handleinfo_hash(PyObject *op);
PyObject *fl_handleinfo_when(PyObject *op, PyObject *ignored);
#if FL_HANDLE_GET_CONTEXT
PyObject *fl_handleinfo_get_context(PyObject *op, PyObject *ignored);
#endif
extern PyGetSetDef fl_handleinfo_getset[];
extern PyGetSetDef fl_handleinfo_timer_getset[];

#endif
