/* tasks.c - create_future() and create_task().
 *
 * Owns:   the dicts of keywords that futures and tasks share; the loop frees them.
 * Thread: the loop's own. */
#include "core/tasks.h"

/* {"loop": self}, and for tasks that start at once "eager_start": True, too; borrowed.
 * Only for _asyncio's own types, which take a dict of keywords as it is: making one for
 * each call took a fifth of create_future(). */
static PyObject *
tasks_kwargs(FlLoop *self, bool eager)
{
    PyObject **kept = eager ? &self->eager_kwargs : &self->loop_kwargs;
    if (FL_UNLIKELY(*kept == NULL)) {
        FlState *st = self->st;
        PyObject *kwargs = PyDict_New();
        if (kwargs == NULL) return NULL;
        if (PyDict_SetItem(kwargs, st->str_loop, (PyObject *)self) < 0 ||
            (eager && PyDict_SetItem(kwargs, st->str_eager_start, Py_True) < 0)) {
            Py_DECREF(kwargs);
            return NULL;
        }
        *kept = kwargs;
    }
    return *kept;
}

/* asyncio.futures.Future is looked up at each call, since tracers replace it. */
PyObject *
fl_tasks_new_future(FlLoop *loop)
{
    FlState *st = loop->st;
    PyObject *cls = PyObject_GetAttr(st->asyncio_futures, st->str_Future);
    if (cls == NULL) return NULL;
    PyObject *future = NULL;
    if (FL_LIKELY(cls == st->c_future && !loop->closed && fl_loop_is_own(loop))) {
        PyObject *kwargs = tasks_kwargs(loop, false);
        if (kwargs != NULL) {
            future = PyObject_Call(cls, st->empty_tuple, kwargs);
        }
    }
    else {
        PyObject *args[2] = {NULL, (PyObject *)loop};
        future = PyObject_Vectorcall(cls, args + 1, 0 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     st->kw_loop);
    }
    Py_DECREF(cls);
    return future;
}

static PyObject *
tasks_create_future(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return fl_tasks_new_future((FlLoop *)op);
}

/* Whether there are keywords that not every Python's create_task() takes. */
static bool
tasks_has_unusual(FlState *st, PyObject *kwnames)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        bool usual = name == st->str_name || name == st->str_context ||
                     (FL_CREATE_TASK_EAGER && name == st->str_eager_start);
        if (!usual) return true;
    }
    return false;
}

/* Whether the keywords come to no more than eager_start, which *eager tells. None is
 * what is not given. */
static bool
tasks_are_plain(FlState *st, PyObject *kwnames, PyObject *const *values, bool *eager)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    *eager = false;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (values[i] == Py_None) continue;
        bool starts = PyTuple_GET_ITEM(kwnames, i) == st->str_eager_start;
        if (!starts || !PyBool_Check(values[i])) return false;
        *eager = values[i] == Py_True;
    }
    return true;
}

static PyObject *
tasks_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    enum { MOST_KEYWORDS = 2 + FL_CREATE_TASK_EAGER };
    FlLoop *self = (FlLoop *)op;
    FlState *st = self->st;
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    if (FL_UNLIKELY(self->debug || self->closed || self->task_factory != NULL ||
                    nargs != 1 || tasks_has_unusual(st, kwnames))) {
        /* With a task factory, in debug mode and for keywords that some Pythons take
         * and others refuse, asyncio's own code does the work. */
        return fl_loop_call_base(self, st->str_create_task, args, nargs, kwnames);
    }
    /* Task(coro, loop=self, **kwargs): exactly the keywords that were given. */
    PyObject *cls = PyObject_GetAttr(st->asyncio_tasks, st->str_Task);
    if (cls == NULL) return NULL;
    PyObject *result = NULL;
    bool eager;
    if (FL_LIKELY(cls == st->c_task && fl_loop_is_own(self)) &&
        tasks_are_plain(st, kwnames, args + 1, &eager)) {
        PyObject *kwargs = tasks_kwargs(self, eager);
        PyObject *coro = kwargs == NULL ? NULL : PyTuple_Pack(1, args[0]);
        if (coro != NULL) {
            result = PyObject_Call(cls, coro, kwargs);
            Py_DECREF(coro);
        }
        goto done;
    }
    PyObject *names = st->kw_loop;
    PyObject *stack[3 + MOST_KEYWORDS] = {NULL, args[0], op};
    if (count > 0) {
        names = PySequence_Concat(st->kw_loop, kwnames);
        if (names == NULL) goto done;
        memcpy(stack + 3, args + 1, (size_t)count * sizeof(PyObject *));
    }
    result =
        PyObject_Vectorcall(cls, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
    if (count > 0) {
        Py_DECREF(names);
    }
done:
    Py_DECREF(cls);
    return result;
}

PyMethodDef fl_tasks_methods[] = {
    {"create_future", tasks_create_future, METH_NOARGS,
     PyDoc_STR(
         "create_future($self)\n--\n\nReturn a new asyncio.Future of this loop.")},
    {"create_task", (PyCFunction)(void (*)(void))tasks_create_task,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("create_task" FL_CREATE_TASK_SIGNATURE "\n--\n\n"
               "Schedule a coroutine. Return an asyncio.Task.")},
    {NULL, NULL, 0, NULL},
};
