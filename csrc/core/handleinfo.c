/* handleinfo.c - what a handle tells of itself: repr, order, asyncio's private names.
 *
 * Owns:   nothing: what is noted belongs to the handle.
 * Thread: any. */
#include "core/handleinfo.h"
#include "core/loop.h"

PyObject *
fl_handleinfo_args(FlHandle *self)
{
    fl_lock_acquire(&self->lock);
    PyObject *tuple = PyTuple_New(self->nargs);
    for (int i = 0; tuple != NULL && i < self->nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(fl_handle_args(self)[i]));
    }
    fl_lock_release(&self->lock);
    return tuple;
}

/* A new reference, None where it is not known. */
PyObject *
fl_handleinfo_note(FlHandle *self, int which)
{
    fl_lock_acquire(&self->lock);
    PyObject *notes = self->notes; /* stays as long as the handle */
    fl_lock_release(&self->lock);
    return notes == NULL ? Py_NewRef(Py_None) : fl_compat_list_get(notes, which);
}

/* Steals value. 0 or -1. */
int
fl_handleinfo_set_note(FlHandle *self, int which, PyObject *value)
{
    if (value == NULL) return -1;
    PyObject *made = Py_BuildValue("[OOO]", Py_None, Py_None, Py_None);
    if (made == NULL) {
        Py_DECREF(value);
        return -1;
    }
    fl_lock_acquire(&self->lock);
    if (self->notes == NULL) {
        self->notes = made;
        made = NULL;
    }
    PyObject *notes = self->notes;
    fl_lock_release(&self->lock);
    Py_XDECREF(made);
    return PyList_SetItem(notes, which, value);
}

/* Whoever sees the context may enter or keep it, so it must be the handle's own. */
static PyObject *
handle_get_context(PyObject *op, void *Py_UNUSED(closure))
{
    FlHandle *self = (FlHandle *)op;
    if (self->context == NULL) Py_RETURN_NONE;
    if (self->flags & FL_HANDLE_SHARED) {
        PyObject *own = PyContext_Copy(self->context);
        if (own == NULL) return NULL;
        self->flags &= ~(unsigned)FL_HANDLE_SHARED;
        Py_SETREF(self->context, own);
    }
    return Py_NewRef(self->context);
}

#if FL_HANDLE_GET_CONTEXT
PyObject *
fl_handleinfo_get_context(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return handle_get_context(op, NULL);
}
#endif

static PyObject *
handle_get_callback(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *callback = fl_handle_callback((FlHandle *)op);
    return callback != NULL ? callback : Py_NewRef(Py_None);
}

static PyObject *
handle_get_args(PyObject *op, void *Py_UNUSED(closure))
{
    FlHandle *self = (FlHandle *)op;
    PyObject *args = fl_handleinfo_args(self);
    /* There is no call: then there was none, or it went meanwhile. */
    PyObject *callback = fl_handle_callback(self);
    if (args != NULL && callback == NULL) {
        Py_SETREF(args, Py_NewRef(Py_None));
    }
    Py_XDECREF(callback);
    return args;
}

static PyObject *
handle_get_loop(PyObject *op, void *Py_UNUSED(closure))
{
    FlLoop *loop = ((FlHandle *)op)->loop;
    return Py_NewRef(loop != NULL ? (PyObject *)loop : Py_None);
}

static PyObject *
handle_get_note(PyObject *op, void *closure)
{
    return fl_handleinfo_note((FlHandle *)op, (int)(uintptr_t)closure);
}

static PyObject *
handle_get_flag(PyObject *op, void *closure)
{
    return PyBool_FromLong(((FlHandle *)op)->flags & (unsigned)(uintptr_t)closure);
}

/* isinstance(handle, asyncio.Handle) asks for this where the type says no. */
static PyObject *
handle_get_class(PyObject *op, void *Py_UNUSED(closure))
{
    FlHandle *self = (FlHandle *)op;
    FlState *st = fl_state_of_type(Py_TYPE(op));
    if (st == NULL) return NULL;
#if FL_THREADSAFE_HANDLE
    if (self->flags & FL_HANDLE_THREADSAFE) {
        return PyObject_GetAttr(st->asyncio_events, st->str__ThreadSafeHandle);
    }
#endif
    return Py_NewRef(self->flags & FL_HANDLE_TIMER ? st->asyncio_timer_handle
                                                   : st->asyncio_handle);
}

/* asyncio's own function on our handle: it reads the attributes above. */
static PyObject *
handle_borrow(PyObject *op, const char *name, PyObject *other)
{
    PyObject *cls = handle_get_class(op, NULL);
    if (cls == NULL) return NULL;
    PyObject *function = PyObject_GetAttrString(cls, name);
    Py_DECREF(cls);
    if (function == NULL) return NULL;
    PyObject *result = PyObject_CallFunctionObjArgs(function, op, other, NULL);
    Py_DECREF(function);
    return result;
}

PyObject *
fl_handleinfo_repr(PyObject *op)
{
    return handle_borrow(op, "__repr__", NULL);
}

PyObject *
fl_handleinfo_repr_info(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return handle_borrow(op, "_repr_info", NULL);
}

PyObject *
fl_handleinfo_compare(PyObject *op, PyObject *other, int how)
{
    static const char *const names[] = {"__lt__", "__le__", "__eq__",
                                        "__ne__", "__gt__", "__ge__"};
    if (!(((FlHandle *)op)->flags & FL_HANDLE_TIMER)) Py_RETURN_NOTIMPLEMENTED;
    if (how != Py_NE) return handle_borrow(op, names[how], other);

    PyObject *equal = handle_borrow(op, "__eq__", other);
    if (equal == NULL || equal == Py_NotImplemented) return equal;
    int truth = PyObject_IsTrue(equal);
    Py_DECREF(equal);
    return truth < 0 ? NULL : PyBool_FromLong(!truth);
}

/* asyncio keeps what call_at() was given. */
PyObject *
fl_handleinfo_when(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlHandle *self = (FlHandle *)op;
    double when = ((FlTimerHandle *)op)->when;
    if (FL_UNLIKELY(self->notes != NULL)) {
        PyObject *given = fl_handleinfo_note(self, FL_HANDLEINFO_WHEN);
        if (given != Py_None) return given;
        Py_DECREF(given);
    }
    if (self->flags & FL_HANDLE_WHOLE) return PyLong_FromDouble(when);
    return PyFloat_FromDouble(when);
}

static PyObject *
handle_get_when(PyObject *op, void *Py_UNUSED(closure))
{
    return fl_handleinfo_when(op, NULL);
}

Py_hash_t
fl_handleinfo_hash(PyObject *op)
{
    if (!(((FlHandle *)op)->flags & FL_HANDLE_TIMER)) return fl_compat_hash_pointer(op);
    PyObject *when = fl_handleinfo_when(op, NULL);
    Py_hash_t hash = when == NULL ? -1 : PyObject_Hash(when);
    Py_XDECREF(when);
    return hash;
}

PyGetSetDef fl_handleinfo_getset[] = {
    {"__class__", handle_get_class, NULL, NULL, NULL},
    {"_callback", handle_get_callback, NULL, NULL, NULL},
    {"_args", handle_get_args, NULL, NULL, NULL},
    {"_loop", handle_get_loop, NULL, NULL, NULL},
    {"_context", handle_get_context, NULL, NULL, NULL},
    {"_source_traceback", handle_get_note, NULL, NULL, (void *)FL_HANDLEINFO_TRACEBACK},
    {"_repr", handle_get_note, NULL, NULL, (void *)FL_HANDLEINFO_REPR},
    {"_cancelled", handle_get_flag, NULL, NULL, (void *)FL_HANDLE_CANCELLED},
    {NULL, NULL, NULL, NULL, NULL},
};

PyGetSetDef fl_handleinfo_timer_getset[] = {
    {"_when", handle_get_when, NULL, NULL, NULL},
    {"_scheduled", handle_get_flag, NULL, NULL,
     (void *)(FL_HANDLE_SCHEDULED | FL_HANDLE_HANDED)},
    {NULL, NULL, NULL, NULL, NULL},
};
