/* state.c - the module state: filled, visited and cleared from its lists.
 *
 * Owns:   a reference to each type, import and interned name.
 * Thread: any that holds the interpreter's GIL; constant after the module's init. */
#include "base/state.h"

static PyObject *
state_import(const char *module_name, const char *wanted)
{
    const char *attribute = wanted;
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL || attribute[0] == '\0') return module;
    /* "Class.method" is looked up in two steps. */
    PyObject *value = module;
    while (value != NULL && *attribute != '\0') {
        size_t length = strcspn(attribute, ".");
        PyObject *name = PyUnicode_FromStringAndSize(attribute, (Py_ssize_t)length);
        PyObject *found = name == NULL ? NULL : PyObject_GetAttr(value, name);
        Py_XDECREF(name);
        Py_SETREF(value, found);
        attribute += length + (attribute[length] == '.');
    }
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Format(PyExc_ImportError,
                     "fastloop does not support this Python: it has no %s.%s",
                     module_name, wanted);
    }
    return value;
}

/* Where Python was built without it, asyncio has no TLS either. */
static int
state_import_ssl(FlState *st)
{
    PyObject *ssl = PyImport_ImportModule("ssl");
    if (ssl == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) return -1;
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(ssl);
#define X(name, module, attribute)                                                     \
    st->name = state_import(module, attribute);                                        \
    if (st->name == NULL) return -1;
    FL_STATE_SSL_IMPORTS(X)
#undef X
    return 0;
}

/* Whether this is the class that Python's own socket.py makes of _socket's. 1, 0 or -1.
 */
static int
state_is_socket_class(FlState *st, PyObject *class)
{
    if (!PyType_Check(class) ||
        ((PyTypeObject *)class)->tp_base != (PyTypeObject *)st->native_socket) {
        return 0;
    }
    PyObject *module = PyObject_GetAttr(class, st->str___module__);
    PyObject *name = module == NULL ? NULL : PyObject_GetAttr(class, st->str___name__);
    int own = name == NULL ? -1
                           : PyObject_RichCompareBool(module, st->str_socket, Py_EQ) &&
                                 PyObject_RichCompareBool(name, st->str_socket, Py_EQ);
    Py_XDECREF(name);
    Py_XDECREF(module);
    return own;
}

/* What socket.socket was before somebody put something else there, as gevent and users
 * of PySocks do: only what is of that one type needs none of its methods called. */
static int
state_find_socket_class(FlState *st)
{
    PyObject *current = state_import("socket", "socket");
    if (current == NULL) return -1;
    PyObject *found =
        st->native_socket; /* where it is gone, no socket is of its type */
    int rc = state_is_socket_class(st, current);
    PyObject *list =
        rc != 0 ? NULL
                : PyObject_CallMethodNoArgs(st->native_socket, st->str___subclasses__);
    if (rc > 0) {
        found = current;
    }
    else if (list == NULL) {
        rc = -1;
    }
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(list); i++) {
        rc = state_is_socket_class(st, PyList_GET_ITEM(list, i));
        if (rc > 0) {
            found = PyList_GET_ITEM(list, i);
        }
    }
    st->socket_class = Py_NewRef(found);
    Py_XDECREF(list);
    Py_DECREF(current);
    if (rc < 0) return -1;
    st->socket_close = PyObject_GetAttr(st->socket_class, st->str_close);
    return st->socket_close == NULL ? -1 : 0;
}

int
fl_state_init(FlState *st)
{
#define X(name, module, attribute)                                                     \
    st->name = state_import(module, attribute);                                        \
    if (st->name == NULL) return -1;
    FL_STATE_IMPORTS(X)
#undef X
#define X(name)                                                                        \
    st->str_##name = PyUnicode_InternFromString(#name);                                \
    if (st->str_##name == NULL) return -1;
    FL_STATE_STRINGS(X)
#undef X
    if (state_find_socket_class(st) < 0 || state_import_ssl(st) < 0) return -1;
    st->kw_wrap_bio = PyTuple_Pack(2, st->str_server_side, st->str_server_hostname);
    if (st->kw_wrap_bio == NULL) return -1;
    st->empty_tuple = PyTuple_New(0);
    if (st->empty_tuple == NULL) return -1;
    st->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    if (st->empty_bytes == NULL) return -1;
    st->kw_loop = PyTuple_Pack(1, st->str_loop);
    return st->kw_loop == NULL ? -1 : 0;
}

void
fl_state_types_made(FlState *st)
{
#define X(name) fl_compat_keep((PyObject *)st->name);
    FL_STATE_TYPES(X)
#undef X
}

int
fl_state_traverse(FlState *st, visitproc visit, void *arg)
{
#define X(name) Py_VISIT(st->name);
    FL_STATE_TYPES(X)
#undef X
#define X(name, module, attribute) Py_VISIT(st->name);
    FL_STATE_IMPORTS(X)
    FL_STATE_SSL_IMPORTS(X)
#undef X
    Py_VISIT(st->socket_class);
    Py_VISIT(st->socket_close);
    Py_VISIT(st->data_received_function);
    Py_VISIT(st->feed_data_function);
    Py_VISIT(st->wakeup_waiter_function);
    Py_VISIT(st->stream_reader_property);
    Py_VISIT(st->reads_class);
    Py_VISIT(st->reads_originals);
    return 0;
}

int
fl_state_clear(FlState *st)
{
#define X(name) Py_CLEAR(st->name);
    FL_STATE_TYPES(X)
#undef X
#define X(name, module, attribute) Py_CLEAR(st->name);
    FL_STATE_IMPORTS(X)
    FL_STATE_SSL_IMPORTS(X)
#undef X
#define X(name) Py_CLEAR(st->str_##name);
    FL_STATE_STRINGS(X)
#undef X
    Py_CLEAR(st->socket_class);
    Py_CLEAR(st->socket_close);
    Py_CLEAR(st->data_received_function);
    Py_CLEAR(st->feed_data_function);
    Py_CLEAR(st->wakeup_waiter_function);
    Py_CLEAR(st->stream_reader_property);
    Py_CLEAR(st->reads_class);
    Py_CLEAR(st->reads_originals);
    Py_CLEAR(st->empty_tuple);
    Py_CLEAR(st->empty_bytes);
    Py_CLEAR(st->kw_loop);
    Py_CLEAR(st->kw_wrap_bio);
    Py_CLEAR(st->kw_asyncio);
    return 0;
}

FlState *
fl_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &fl_module_def);
    return module == NULL ? NULL : PyModule_GetState(module);
}
