/* context.c - one pristine and one scratch context for all plain callbacks.
 *
 * Owns:   the two contexts of each loop.
 * Thread: any that holds the GIL; without a GIL nothing is shared.
 *
 * Measured on CPython 3.11: a copy for each of 200,000 callbacks makes the batch 2.4
 * times slower than sharing. */
#include "core/context.h"

PyObject *
fl_context_capture_anew(FlState *st, FlContexts *contexts, bool *shared)
{
    *shared = st->contexts_shareable;
    if (!st->contexts_shareable) return PyContext_CopyCurrent();
    PyObject *copy = PyContext_CopyCurrent();
    if (copy == NULL) return NULL;
    contexts->vars = fl_context_vars(copy);
    Py_XSETREF(contexts->pristine, Py_NewRef(copy));
    return copy;
}

/* A context with the variables of pristine to run callbacks in; new reference. */
static PyObject *
context_take(FlContexts *contexts, PyObject *pristine)
{
    PyObject *scratch = contexts->scratch;
    contexts->scratch = NULL;
    if (FL_LIKELY(scratch != NULL &&
                  fl_context_vars(scratch) == fl_context_vars(pristine))) {
        return scratch;
    }
    Py_XDECREF(scratch);
    return PyContext_Copy(pristine);
}

bool
fl_context_give(FlContexts *contexts, PyObject *pristine, PyObject *scratch,
                PyObject **other)
{
    if (Py_REFCNT(scratch) != 1 ||
        fl_context_vars(scratch) != fl_context_vars(pristine)) {
        return false;
    }
    *other = contexts->scratch;
    contexts->scratch = scratch;
    return true;
}

int
fl_context_come(FlContexts *contexts, FlStay *stay, PyObject *pristine)
{
    fl_context_leave(contexts, stay);
    PyObject *scratch = context_take(contexts, pristine);
    if (scratch == NULL) return -1;
    if (PyContext_Enter(scratch) < 0) {
        Py_DECREF(scratch);
        return -1;
    }
    stay->scratch = scratch;
    stay->count = Py_REFCNT(scratch);
    stay->thread = PyThreadState_Get();
    stay->seen = fl_compat_refs_are_seen();
    return 0;
}

void
fl_context_leave_always(FlContexts *contexts, FlStay *stay)
{
    PyObject *scratch = stay->scratch;
    stay->scratch = NULL;
    if (FL_UNLIKELY(PyContext_Exit(scratch) < 0)) {
        PyErr_Clear(); /* it is the current one: that cannot be */
    }
    PyObject *other = contexts->scratch; /* of a turn within */
    contexts->scratch = scratch;
    Py_XDECREF(other);
}

int
fl_context_enter_copy(PyObject **context)
{
    /* That the context is entered already; or what a signal's handler raised as the
     * text of that was made. */
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError)) return -1;
    PyErr_Clear();
    PyObject *copy = PyContext_Copy(*context);
    if (copy == NULL) return -1;
    Py_SETREF(*context, copy);
    return PyContext_Enter(copy);
}

void
fl_context_clear(FlContexts *contexts)
{
    contexts->vars = NULL;
    Py_CLEAR(contexts->pristine);
    Py_CLEAR(contexts->scratch);
}

void
fl_context_rest(FlContexts *contexts)
{
    PyObject *pristine = contexts->pristine;
    PyObject *scratch = contexts->scratch;
    PyObject *current = PyThreadState_Get()->context; /* borrowed */
    void *vars = current == NULL ? NULL : fl_context_vars(current);
    if (pristine != NULL && Py_REFCNT(pristine) == 1 && contexts->vars != vars) {
        fl_context_clear(contexts);
    }
    else if (scratch != NULL && fl_context_vars(scratch) != vars &&
             fl_context_vars(scratch) != contexts->vars) {
        Py_CLEAR(contexts->scratch);
    }
}

#if FL_HAVE_GIL
/* True if the word after ctx_prev is shared by copies, replaced by set(), and the
 * same again nowhere else: exactly what the functions above rely on. */
static int
context_layout_holds(PyObject *variable, bool *holds)
{
    int rc = -1;
    PyObject *outer = NULL, *one = NULL, *two = NULL, *token = NULL;
    *holds = false;
    outer = PyContext_New();
    if (outer == NULL || PyContext_Enter(outer) < 0) goto done;
    token = PyContextVar_Set(variable, Py_None);
    if (token == NULL) goto exit;
    one = PyContext_CopyCurrent();
    two = one == NULL ? NULL : PyContext_Copy(one);
    if (two == NULL) goto exit;
    bool current_is_outer = PyThreadState_Get()->context == outer;
    bool copies_share = fl_context_vars(one) == fl_context_vars(outer) &&
                        fl_context_vars(two) == fl_context_vars(one) &&
                        fl_context_vars(one) != NULL;
    Py_CLEAR(token);
    token = PyContextVar_Set(variable, Py_True);
    if (token == NULL) goto exit;
    bool set_replaces = fl_context_vars(outer) != fl_context_vars(one) &&
                        fl_context_vars(two) == fl_context_vars(one);
    *holds = current_is_outer && copies_share && set_replaces &&
             ((FlContextHead *)outer)->previous != outer;
    rc = 0;
exit:
    if (PyContext_Exit(outer) < 0) {
        rc = -1;
    }
done:
    Py_XDECREF(token);
    Py_XDECREF(two);
    Py_XDECREF(one);
    Py_XDECREF(outer);
    return rc;
}
#endif

int
fl_context_self_test(FlState *st)
{
    st->contexts_shareable = false;
#if FL_HAVE_GIL
    /* A context must be at least as large as what is read of it. */
    if ((size_t)PyContext_Type.tp_basicsize < sizeof(FlContextHead)) return 0;
    PyObject *variable = PyContextVar_New("fastloop.self_test", NULL);
    if (variable == NULL) return -1;
    int rc = context_layout_holds(variable, &st->contexts_shareable);
    Py_DECREF(variable);
    return rc;
#else
    return 0;
#endif
}
