/* step.c - FlStep, the record of a callback that nobody has a handle of.
 *
 * Owns:   callback, argument and context of each step; the spare records.
 * Thread: any that holds the GIL. */
#include "core/step.h"
#include "core/loop.h"
#include "base/errors.h"

enum { STEP_FREE_MAX = 4096, STEP_REFILL = 64 };

/* Makes a few spare records at once. 0 or -1. */
static int
step_refill(FlState *st)
{
    for (int made = 0; made < STEP_REFILL; made++) {
        FlStep *spare = PyMem_Malloc(sizeof(*spare));
        if (spare == NULL) {
            if (made > 0) break;
            PyErr_NoMemory();
            return -1;
        }
        spare->callback = (PyObject *)st->free_steps;
        st->free_steps = spare;
        st->free_step_count++;
    }
    return 0;
}

static inline void
step_free(FlState *st, FlStep *step)
{
    if (FL_UNLIKELY(st->free_step_count >= STEP_FREE_MAX)) {
        PyMem_Free(step);
        return;
    }
    step->callback = (PyObject *)st->free_steps;
    st->free_steps = step;
    st->free_step_count++;
}

int
fl_step_push(FlLoop *loop, PyObject *callback, PyObject *arg, PyObject *context)
{
    FlState *st = loop->st;
    if (FL_UNLIKELY(st->free_steps == NULL) && step_refill(st) < 0) return -1;
    FlStep *step = st->free_steps;
    if (FL_UNLIKELY(!fl_ring_push(&loop->ready, (char *)step + 1))) {
        PyErr_NoMemory();
        return -1;
    }
    st->free_steps = (FlStep *)step->callback;
    st->free_step_count--;
    step->callback = Py_NewRef(callback);
    step->arg = Py_XNewRef(arg);
    step->context = Py_NewRef(context);
    return 0;
}

void
fl_step_drop(FlState *st, FlStep *step)
{
    FlStep held = *step;
    step_free(st, step);
    Py_DECREF(held.callback);
    Py_XDECREF(held.arg);
    Py_DECREF(held.context);
}

FlHandle *
fl_step_handle(FlLoop *loop, FlStep *step)
{
    FlHandle *handle = fl_handle_new(loop, loop->st->handle_type, step->callback,
                                     &step->arg, step->arg != NULL, step->context);
    if (handle != NULL) {
        fl_step_drop(loop->st, step);
    }
    return handle;
}

static inline PyObject *
step_call(FlState *st, PyObject *callback, PyObject *arg)
{
    if (arg == NULL) {
        /* A task's step has no vectorcall: this is what would happen in the end. */
        PyTypeObject *type = Py_TYPE(callback);
        if (FL_LIKELY(!PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL) &&
                      type->tp_call != NULL)) {
            return type->tp_call(callback, st->empty_tuple, NULL);
        }
        return PyObject_CallNoArgs(callback);
    }
    PyObject *args[2] = {NULL, arg};
    return PyObject_Vectorcall(callback, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                               NULL);
}

int
fl_step_run(FlLoop *loop, FlStep *step)
{
    FlState *st = loop->st;
    PyObject *callback = step->callback;
    PyObject *arg = step->arg;
    PyObject *context = step->context;
    PyObject *result = NULL;
    step_free(st, step);
    if (FL_LIKELY(PyContext_Enter(context) == 0) ||
        (loop->depth > 1 && fl_context_enter_copy(&context) == 0)) {
        result = step_call(st, callback, arg);
        if (FL_UNLIKELY(PyContext_Exit(context) < 0)) {
            Py_CLEAR(result);
        }
    }
    int rc = 0;
    if (FL_UNLIKELY(result == NULL)) {
        PyObject *exc = fl_compat_take_exception();
        FlHandle *handle =
            fl_handle_new(loop, st->handle_type, callback, &arg, arg != NULL, context);
        if (handle == NULL) {
            Py_DECREF(exc);
            rc = -1;
        }
        else {
            fl_compat_set_exception(exc);
            rc = fl_handle_failed(handle);
            fl_handle_track(handle);
            Py_DECREF((PyObject *)handle);
        }
    }
    Py_XDECREF(result);
    Py_DECREF(callback);
    Py_XDECREF(arg);
    Py_DECREF(context);
    return rc;
}

int
fl_step_visit(FlStep *step, visitproc visit, void *arg)
{
    Py_VISIT(step->callback);
    Py_VISIT(step->arg);
    Py_VISIT(step->context);
    return 0;
}

void
fl_step_free_spares(FlState *st)
{
    FlStep *step = st->free_steps;
    st->free_steps = NULL;
    st->free_step_count = STEP_FREE_MAX; /* nothing comes back */
    while (step != NULL) {
        FlStep *next = (FlStep *)step->callback;
        PyMem_Free(step);
        step = next;
    }
}

/* -- whose call it is ------------------------------------------------------------- */

/* The call_soon() of a loop that is none: notes the names that it is called with. */
static PyObject *
step_probe(PyObject *list, PyObject *const *Py_UNUSED(args),
           Py_ssize_t Py_UNUSED(nargs), PyObject *kwnames)
{
    if (kwnames != NULL && PyList_Append(list, kwnames) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef step_probe_def = {"call_soon",
                                     (PyCFunction)(void (*)(void))step_probe,
                                     METH_FASTCALL | METH_KEYWORDS, NULL};

/* Has a future of _asyncio's schedule a callback with step_probe(). 0 or -1. */
static int
step_ask_asyncio(FlState *st, PyObject *list)
{
    int rc = -1;
    PyObject *probe = NULL, *loop = NULL, *future = NULL, *result = NULL;
    PyObject *kwargs = NULL;
    probe = PyCFunction_New(&step_probe_def, list);
    if (probe == NULL) goto done;
    kwargs = Py_BuildValue("{sOsO}", "call_soon", probe, "get_debug", &PyBool_Type);
    if (kwargs == NULL) goto done;
    loop = PyObject_Call(st->simple_namespace, st->empty_tuple, kwargs);
    if (loop == NULL) goto done;
    PyObject *args[2] = {NULL, loop};
    future = PyObject_Vectorcall(st->c_future, args + 1,
                                 0 | PY_VECTORCALL_ARGUMENTS_OFFSET, st->kw_loop);
    if (future == NULL) goto done;
    result = PyObject_CallMethod(future, "add_done_callback", "O", Py_None);
    if (result == NULL) goto done;
    Py_DECREF(result);
    result = PyObject_CallMethodOneArg(future, st->str_set_result, Py_None);
    rc = result == NULL ? -1 : 0;
done:
    Py_XDECREF(result);
    Py_XDECREF(future);
    Py_XDECREF(loop);
    Py_XDECREF(kwargs);
    Py_XDECREF(probe);
    return rc;
}

int
fl_step_register(PyObject *Py_UNUSED(module), FlState *st)
{
    PyObject *list = PyList_New(0);
    if (list == NULL) return -1;
    int rc = step_ask_asyncio(st, list);
    if (rc == 0 && PyList_GET_SIZE(list) == 1) {
        PyObject *names = PyList_GET_ITEM(list, 0);
        if (PyTuple_GET_SIZE(names) == 1 &&
            PyUnicode_Compare(PyTuple_GET_ITEM(names, 0), st->str_context) == 0) {
            st->kw_asyncio = Py_NewRef(names);
        }
    }
    Py_DECREF(list);
    return rc;
}
