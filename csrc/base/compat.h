/* compat.h - the one place that asks which Python or libuv this is.
 *
 * Promises: FL_* names with one meaning on CPython 3.11 to 3.15, with and
 * without the GIL, and on libuv 1.44 and newer. */
#ifndef FL_COMPAT_H
#define FL_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <structmember.h>
#include <uv.h>

#if PY_VERSION_HEX < 0x030B0000
#error "fastloop needs CPython 3.11 or newer"
#endif
#if UV_VERSION_HEX < 0x012C00
#error "fastloop needs libuv 1.44 or newer"
#endif

/* Free lists and shared scratch contexts rely on the GIL's exclusion. */
#ifdef Py_GIL_DISABLED
#define FL_HAVE_GIL 0
#else
#define FL_HAVE_GIL 1
#endif

/* format_helpers._format_callback_source() takes debug= since 3.13. */
#define FL_CALLBACK_SOURCE_DEBUG (PY_VERSION_HEX >= 0x030D0000)

/* call_soon_threadsafe() returns an events._ThreadSafeHandle since 3.14. */
#define FL_THREADSAFE_HANDLE (PY_VERSION_HEX >= 0x030E0000)

/* Its cancel() waits for the end of a callback that runs in another thread. */
#define FL_HANDLE_GATED FL_THREADSAFE_HANDLE

/* What help() shows of create_task(); any keyword goes on to the task all the same. */
#if PY_VERSION_HEX >= 0x030E0000
#define FL_CREATE_TASK_SIGNATURE "($self, coro, **kwargs)"
#elif PY_VERSION_HEX >= 0x030D0300
#define FL_CREATE_TASK_SIGNATURE "($self, coro, *, name=None, context=None, **kwargs)"
#else
#define FL_CREATE_TASK_SIGNATURE "($self, coro, *, name=None, context=None)"
#endif

/* create_task() has the task started at once, if asked, since 3.14. */
#define FL_CREATE_TASK_EAGER (PY_VERSION_HEX >= 0x030E0000)

/* Handle.get_context() since 3.12. */
#define FL_HANDLE_GET_CONTEXT (PY_VERSION_HEX >= 0x030C0000)

/* Server._attach(transport) takes the transport since 3.13. */
#define FL_SERVER_ATTACH_TRANSPORT (PY_VERSION_HEX >= 0x030D0000)

/* A connection's context is older than its protocol since 3.15. */
#define FL_CONTEXT_FIRST (PY_VERSION_HEX >= 0x030F0000)

/* The accept loop takes one client more than the backlog since 3.14. */
#define FL_ACCEPT_EXTRA (PY_VERSION_HEX >= 0x030E0000)

/* What transport.write() says to a str; %U is the type's name. */
#if PY_VERSION_HEX >= 0x030E0000
#define FL_WRITE_TYPE_ERROR                                                            \
    "data argument must be a bytes, bytearray, or memoryview object, not '%U'"
#else
#define FL_WRITE_TYPE_ERROR "data argument must be a bytes-like object, not '%U'"
#endif

/* writelines() is a method of its own, by name, since 3.12; before, it joins what it
 * was given, and then writes. */
#define FL_WRITELINES_JOINS (PY_VERSION_HEX < 0x030C0000)
#define FL_WRITELINES_NAME (FL_WRITELINES_JOINS ? "write" : "writelines")

/* Empty datagrams are sent since 3.13. */
#define FL_UDP_SENDS_EMPTY (PY_VERSION_HEX >= 0x030D0000)

/* Eight bytes for each buffered datagram count toward the limit since 3.13. */
#define FL_UDP_HEADER_SIZE (PY_VERSION_HEX >= 0x030D0000 ? 8 : 0)

#if PY_VERSION_HEX < 0x030C0000
/* Takes the exception that is set, normalised and with its traceback. */
static inline PyObject *
fl_compat_take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == NULL) return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Sets exc, a stolen reference, as the current exception. */
static inline void
fl_compat_set_exception(PyObject *exc)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exc)), exc,
                  PyException_GetTraceback(exc));
}
#else
#define fl_compat_take_exception PyErr_GetRaisedException
#define fl_compat_set_exception PyErr_SetRaisedException
#endif

#if PY_VERSION_HEX < 0x030D0000
/* What a weak reference leads to: a new reference, or NULL without an exception. */
static inline PyObject *
fl_compat_weakref_get(PyObject *reference)
{
    PyObject *op = PyWeakref_GET_OBJECT(reference);
    return op == Py_None ? NULL : Py_NewRef(op);
}

/* A new reference, or NULL with IndexError. */
static inline PyObject *
fl_compat_list_get(PyObject *list, Py_ssize_t at)
{
    return Py_XNewRef(PyList_GetItem(list, at));
}

static inline int
fl_compat_dict_get(PyObject *dict, PyObject *key, PyObject **value)
{
    *value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    if (*value != NULL) return 1;
    return PyErr_Occurred() ? -1 : 0;
}

static inline int
fl_compat_get_optional(PyObject *op, PyObject *name, PyObject **value)
{
    return _PyObject_LookupAttr(op, name, value);
}
#define fl_compat_long_as_int _PyLong_AsInt
#define fl_compat_hash_pointer _Py_HashPointer
#else
#define fl_compat_hash_pointer Py_HashPointer
#define fl_compat_list_get PyList_GetItemRef
#define fl_compat_long_as_int PyLong_AsInt
static inline PyObject *
fl_compat_weakref_get(PyObject *reference)
{
    PyObject *op;
    if (PyWeakref_GetRef(reference, &op) < 0) {
        PyErr_Clear();
    }
    return op;
}
#define fl_compat_dict_get PyDict_GetItemRef
#define fl_compat_get_optional PyObject_GetOptionalAttr
#endif

/* A block in which the caller has the object to itself, until it waits for something;
 * with a GIL that is so anyway. */
#if FL_HAVE_GIL
#define FL_BEGIN_CRITICAL(op) {
#define FL_END_CRITICAL() }
#else
#define FL_BEGIN_CRITICAL(op) Py_BEGIN_CRITICAL_SECTION(op)
#define FL_END_CRITICAL() Py_END_CRITICAL_SECTION()
#endif

/* Each interpreter may have the module, one with a GIL of its own, too: state belongs
 * to the module. Before 3.12 that needs no word, and the list of slots ends there. */
#if PY_VERSION_HEX >= 0x030C0000
#define FL_SLOT_INTERPRETERS                                                           \
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}
#else
#define FL_SLOT_INTERPRETERS {0, NULL}
#endif

/* The slot behind it: no GIL is needed. Before 3.13 nobody asks. */
#ifdef Py_mod_gil
#define FL_SLOT_GIL {Py_mod_gil, Py_MOD_GIL_NOT_USED}
#else
#define FL_SLOT_GIL {0, NULL}
#endif

/* What all threads use all the time, types and what they are asked for, lives as long
 * as the process where there is no GIL: to count who uses it would have the processors
 * wait for each other at each callback. From 3.14 on Python counts the users of types
 * apart for each thread. */
static inline void
fl_compat_keep(PyObject *op)
{
    if (FL_HAVE_GIL || (PyType_Check(op) && PY_VERSION_HEX >= 0x030E0000)) return;
    /* More than it can count: then nobody counts any more. */
    Py_SET_REFCNT(op, (Py_ssize_t)UINT32_MAX + 1);
}

#define FL_LIKELY(x) __builtin_expect(!!(x), 1)
#define FL_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* An invariant that the compiler and the analyzers cannot see for themselves. */
#define FL_ASSUME(condition)                                                           \
    do {                                                                               \
        assert(condition);                                                             \
        if (!(condition)) __builtin_unreachable();                                     \
    } while (0)
#define FL_ALWAYS_INLINE inline __attribute__((always_inline))
#define FL_NEVER_INLINE __attribute__((noinline))

/* Whether somebody follows how objects come and go, which has to be told then. */
static inline bool
fl_compat_refs_are_seen(void)
{
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
    return true;
#elif PY_VERSION_HEX >= 0x030D0000
    void *data;
    return PyRefTracer_GetTracer(&data) != NULL;
#else
    return false;
#endif
}

/* A shorter bytes object out of one that nobody else has: the reference is taken, and a
 * new one returned. Unlike _PyBytes_Resize() it cannot fail: where there is no memory
 * to move it, it stays where it is. */
static inline PyObject *
fl_compat_bytes_shrink(PyObject *bytes, Py_ssize_t size)
{
    if (size == 0) {
        Py_DECREF(bytes);
        return PyBytes_FromStringAndSize(NULL, 0); /* there is one for all */
    }
#ifndef Py_TRACE_REFS
    void *moved =
        PyObject_Realloc(bytes, offsetof(PyBytesObject, ob_sval) + (size_t)size + 1);
    if (moved != NULL) {
        bytes = moved;
    }
#endif
    Py_SET_SIZE((PyVarObject *)bytes, size);
    PyBytes_AS_STRING(bytes)[size] = 0;
    return bytes;
}

#endif
