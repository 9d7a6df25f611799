/* callargs.c - reading the arguments of call_soon() and its kin.
 *
 * Owns:   nothing.
 * Thread: any that holds the GIL. */
#include "core/callargs.h"

/* The general form, for keywords other than a lone context= and for errors. */
static int
callargs_parse_slow(FlState *st, const char *method, const char *first,
                    PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                    FlCallArgs *out)
{
    PyObject *named[2] = {NULL, NULL}; /* first, callback */
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        PyObject *value = args[nargs + i];
        if (PyUnicode_Compare(name, st->str_context) == 0) {
            out->context = value == Py_None ? NULL : value;
        }
        else if (PyUnicode_Compare(name, st->str_callback) == 0) {
            named[1] = value;
        }
        else if (first != NULL && PyUnicode_CompareWithASCIIString(name, first) == 0) {
            named[0] = value;
        }
        else {
            PyErr_Format(PyExc_TypeError,
                         "BaseEventLoop.%s() got an unexpected keyword argument '%U'",
                         method, name);
            return -1;
        }
    }
    const char *names[2] = {first, "callback"};
    PyObject **outs[2] = {&out->first, &out->callback};
    for (int i = first == NULL; i < 2; i++) {
        if (nargs > 0) {
            if (named[i] != NULL) {
                PyErr_Format(PyExc_TypeError,
                             "BaseEventLoop.%s() got multiple values for argument '%s'",
                             method, names[i]);
                return -1;
            }
            *outs[i] = *args++;
            nargs--;
        }
        else if (named[i] != NULL) {
            *outs[i] = named[i];
        }
        else if (i == 0 && named[1] == NULL) {
            PyErr_Format(PyExc_TypeError,
                         "BaseEventLoop.%s() missing 2 required positional arguments: "
                         "'%s' and 'callback'",
                         method, first);
            return -1;
        }
        else {
            PyErr_Format(PyExc_TypeError,
                         "BaseEventLoop.%s() missing 1 required positional argument: "
                         "'%s'",
                         method, names[i]);
            return -1;
        }
    }
    out->args = args;
    out->nargs = nargs;
    return 0;
}

int
fl_callargs_parse_named(FlState *st, const char *method, const char *first,
                        PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                        FlCallArgs *out)
{
    Py_ssize_t lead = first != NULL;
    out->context = NULL;
    /* By identity: names in source code are interned, and _asyncio's are known. */
    bool lone_context =
        kwnames != NULL && (kwnames == st->kw_asyncio ||
                            (PyTuple_GET_SIZE(kwnames) == 1 &&
                             PyTuple_GET_ITEM(kwnames, 0) == st->str_context));
    if (FL_UNLIKELY(nargs <= lead || (kwnames != NULL && !lone_context))) {
        return callargs_parse_slow(st, method, first, args, nargs, kwnames, out);
    }
    if (lone_context && args[nargs] != Py_None) {
        out->context = args[nargs];
    }
    out->first = args[0];
    out->callback = args[lead];
    out->args = args + lead + 1;
    out->nargs = nargs - lead - 1;
    return 0;
}

PyObject *
fl_callargs_one_slow(const char *method, const char *name, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *given = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(given, name) != 0) {
            PyErr_Format(PyExc_TypeError,
                         "%s() got an unexpected keyword argument '%U'", method, given);
            return NULL;
        }
    }
    if (nargs + count == 1) return args[0];
    if (nargs + count == 0) {
        PyErr_Format(PyExc_TypeError,
                     "%s() missing 1 required positional argument: '%s'", method, name);
    }
    else if (count > 0) {
        PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'",
                     method, name);
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s() takes 1 argument but %zd were given",
                     method, nargs);
    }
    return NULL;
}
