/* view.c - the loop's inside under the names that asyncio's own code has for it.
 *
 * Owns:   nothing.
 * Thread: any; what is made for the looker is the loop's own thread's only. */
#include "core/view.h"
#include "core/loop.h"
#include "core/step.h"

static PyObject *
view_get_bool(PyObject *op, void *closure)
{
    return PyBool_FromLong(*(FL_SHARED bool *)((char *)op + (uintptr_t)closure));
}

static int
view_set_bool(PyObject *op, PyObject *value, void *closure)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) return -1;
    *(FL_SHARED bool *)((char *)op + (uintptr_t)closure) = truth;
    return 0;
}

/* BaseEventLoop's code may mark a loop closed; only _release() makes it so. */
static int
view_set_closed(PyObject *op, PyObject *value, void *closure)
{
    FlLoop *self = (FlLoop *)op;
    if (!self->poll.made) return 0;
    return view_set_bool(op, value, closure);
}

static PyObject *
view_get_thread_id(PyObject *op, void *Py_UNUSED(closure))
{
    unsigned long thread = ((FlLoop *)op)->thread;
    if (thread == 0) Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(thread);
}

static int
view_set_thread_id(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    FlLoop *self = (FlLoop *)op;
    if (value == NULL || value == Py_None) {
        /* Who came second, below, ends a run that never was. */
        if (!fl_loop_is_elsewhere(self)) {
            self->thread = 0;
        }
        return 0;
    }
    unsigned long thread = PyLong_AsUnsignedLong(value);
    if (thread == (unsigned long)-1 && PyErr_Occurred()) return -1;
    if (!fl_owner_claim(self, thread)) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
        return -1;
    }
    /* What was handed over so far is before what the run makes ready. */
    return fl_wakeup_has_work(&self->wakeup) ? fl_wakeup_drain(self) : 0;
}

/* What _add_callback() took in is shown as itself. A new reference; NULL with an
 * exception. */
static PyObject *
view_ready_item(FlState *st, FlHandle *handle)
{
    PyObject *item = Py_NewRef((PyObject *)handle);
    PyObject *callback = fl_handle_callback(handle);
    if (callback != NULL && PyMethod_Check(callback)) {
        PyObject *self = PyMethod_GET_SELF(callback);
        int is_handle = PyObject_IsInstance(self, st->asyncio_handle);
        if (is_handle > 0) {
            Py_SETREF(item, Py_NewRef(self));
        }
        else if (is_handle < 0) {
            Py_CLEAR(item);
        }
    }
    Py_XDECREF(callback);
    return item;
}

static PyObject *
view_get_ready(PyObject *op, void *Py_UNUSED(closure))
{
    FlLoop *self = (FlLoop *)op;
    FlRing *ready = &self->ready;
    FL_OWN(self, NULL);
    PyObject *list = PyList_New(0);
    if (list == NULL) return NULL;
    for (size_t i = 0; i < fl_ring_len(ready); i++) {
        FlStep *step = fl_step_of(fl_ring_at(ready, i));
        if (step != NULL) {
            FlHandle *made = fl_step_handle(self, step);
            if (made == NULL) goto error;
            fl_ring_set(ready, i, made);
        }
        if (PyList_Append(list, fl_ring_at(ready, i)) < 0) goto error;
    }
    if (fl_wakeup_list(&self->wakeup, list, false) < 0) goto error;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        FlHandle *handle = (FlHandle *)PyList_GET_ITEM(list, i);
        PyObject *item = view_ready_item(self->st, handle);
        if (item == NULL || PyList_SetItem(list, i, item) < 0) goto error;
    }
    return list;

error:
    Py_DECREF(list);
    return NULL;
}

static int
view_set_ignored(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(value),
                 void *Py_UNUSED(closure))
{
    return 0;
}

PyObject *
fl_view_get_object(PyObject *op, void *closure)
{
    PyObject *value;
    FL_BEGIN_CRITICAL(op);
    value = *(PyObject **)((char *)op + (uintptr_t)closure);
    value = Py_NewRef(value != NULL ? value : Py_None);
    FL_END_CRITICAL();
    return value;
}

static int
view_set_object(PyObject *op, PyObject *value, void *closure)
{
    PyObject **slot = (PyObject **)((char *)op + (uintptr_t)closure);
    PyObject *old;
    FL_BEGIN_CRITICAL(op);
    old = *slot;
    *slot = value == Py_None ? NULL : Py_XNewRef(value);
    FL_END_CRITICAL();
    Py_XDECREF(old);
    return 0;
}

#define VIEW_FIELD(field) (void *)offsetof(FlLoop, field)
PyGetSetDef fl_view_getset[] = {
    {"_closed", view_get_bool, view_set_closed, NULL, VIEW_FIELD(closed)},
    {"_stopping", view_get_bool, view_set_bool, NULL, VIEW_FIELD(stopping)},
    {"_debug", view_get_bool, view_set_bool, NULL, VIEW_FIELD(debug)},
    {"_thread_id", view_get_thread_id, view_set_thread_id, NULL, NULL},
    {"_ready", view_get_ready, view_set_ignored,
     PyDoc_STR("The handles that are ready to run, as a list."), NULL},
    {"_task_factory", fl_view_get_object, view_set_object, NULL,
     VIEW_FIELD(task_factory)},
    {"_current_handle", fl_view_get_object, view_set_object, NULL,
     VIEW_FIELD(current_handle)},
    {NULL, NULL, NULL, NULL, NULL},
};
