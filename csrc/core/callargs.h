/* callargs.h - the one argument record of call_soon() and its kin.
 *
 * Promises: (callback, *args, context=None) is read as Python would read it, with
 * asyncio's TypeErrors, and without a tuple or dict. */
#ifndef FL_CALLARGS_H
#define FL_CALLARGS_H
#include "base/state.h"

/* All borrowed from the caller's arguments. */
typedef struct {
    PyObject *first; /* when or delay, for the methods that have one */
    PyObject *callback;
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context; /* NULL for None */
} FlCallArgs;

/* Where there are names, or too little. */
int fl_callargs_parse_named(FlState *st, const char *method, const char *first,
                            PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                            FlCallArgs *out);

/* first is the name of the argument before callback, or NULL. 0, or -1 with TypeError.
 */
static inline int
fl_callargs_parse(FlState *st, const char *method, const char *first,
                  PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                  FlCallArgs *out)
{
    const Py_ssize_t lead = first != NULL;
    if (FL_UNLIKELY(kwnames != NULL || nargs <= lead)) {
        return fl_callargs_parse_named(st, method, first, args, nargs, kwnames, out);
    }
    *out = (FlCallArgs){args[0], args[lead], args + lead + 1, nargs - lead - 1, NULL};
    return 0;
}

/* The general form of fl_callargs_one(). */
PyObject *fl_callargs_one_slow(const char *method, const char *name,
                               PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);

/* The argument of a method that takes just one, by position or as name=. Borrowed, or
 * NULL with TypeError. */
static inline PyObject *
fl_callargs_one(const char *method, const char *name, PyObject *const *args,
                Py_ssize_t nargs, PyObject *kwnames)
{
    if (FL_LIKELY(nargs == 1 && kwnames == NULL)) return args[0];
    return fl_callargs_one_slow(method, name, args, nargs, kwnames);
}

#endif
