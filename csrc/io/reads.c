/* reads.c - reads of a StreamReader for which its buffer is all that is needed.
 *
 * Owns:   nothing: the reader's attributes are asyncio's.
 * Thread: any that holds the GIL; like asyncio's methods they are meant for the loop's.
 */
#include "io/reads.h"
#include "base/stock.h"
#include <string.h>

/* asyncio's methods whose work is done here, and how many there are; of them, those
 * that are asked for by name, so that an attribute can be in their place. */
enum { READS_METHODS = 8, READS_BY_NAME = 5 };

static void
reads_names(FlState *st, PyObject *names[READS_METHODS])
{
    PyObject *all[READS_METHODS] = {
        st->str_feed_data,      st->str__wakeup_waiter,
        st->str__wait_for_data, st->str__maybe_resume_transport,
        st->str_readuntil, /* by readline() */
        st->str_read,           st->str_readline,
        st->str_readexactly,
    };
    memcpy(names, all, sizeof(all));
}

/* Whether the class has the functions that it had when it was adopted. Its version says
 * so nearly always: it is another one after each change of the class. */
static bool
reads_are_asyncios(FlState *st)
{
    PyTypeObject *type = (PyTypeObject *)st->stream_reader;
    if (FL_LIKELY(fl_stock_is_version(type, st->reads_version))) return true;
    PyObject *names[READS_METHODS];
    reads_names(st, names);
    return fl_stock_look_up(type, names, PySequence_Fast_ITEMS(st->reads_originals),
                            READS_METHODS, &st->reads_version);
}

/* Whether no attribute hides one of asyncio's methods: these would be in the way of
 * what is done here. Nearly always a reader has as many as it was made with. */
static bool
reads_has_no_own(FlState *st, PyObject *dict)
{
    if (FL_LIKELY(PyDict_GET_SIZE(dict) == st->reads_attributes)) return true;
    PyObject *names[READS_METHODS];
    reads_names(st, names);
    return fl_stock_dict(dict, names, READS_BY_NAME);
}

void
fl_reads_adopt(FlState *st, PyObject *reader)
{
    if (st->reads_class == NULL ||
        !Py_IS_TYPE(reader, (PyTypeObject *)st->stream_reader) ||
        !reads_are_asyncios(st)) {
        return;
    }
    if (PyObject_SetAttr(reader, st->str___class__, st->reads_class) < 0) {
        PyErr_Clear();
    }
}

PyObject *
fl_reads_dict(FlState *st, PyObject *reader)
{
    if ((PyObject *)Py_TYPE(reader) != st->reads_class || !reads_are_asyncios(st)) {
        return NULL;
    }
    PyObject *dict = PyObject_GenericGetDict(reader, NULL);
    if (FL_LIKELY(dict != NULL && reads_has_no_own(st, dict))) return dict;
    Py_XDECREF(dict);
    PyErr_Clear();
    return NULL;
}

/* What a read looks at. dict is owned, the rest borrowed from it; attributes that are
 * missing are NULL. */
typedef struct {
    FlState *st;
    PyObject *reader;
    PyObject *dict;
    PyObject *buffer; /* a bytearray */
} FlRead;

static inline PyObject *
reads_attribute(const FlRead *self, PyObject *name)
{
    PyObject *value = PyDict_GetItemWithError(self->dict, name);
    if (FL_UNLIKELY(value == NULL)) {
        PyErr_Clear();
    }
    return value;
}

/* Begins a read: false if it is for asyncio's own method. again says that this read has
 * waited before: then asyncio's looks for no exception either. reads_end() follows if
 * it is true. */
static bool
reads_begin(FlRead *self, PyObject *module, PyObject *reader, bool again)
{
    FlState *st = PyModule_GetState(module);
    self->st = st;
    self->reader = reader;
    self->dict = fl_reads_dict(st, reader);
    if (FL_UNLIKELY(self->dict == NULL)) return false;
    self->buffer = reads_attribute(self, st->str__buffer);
    if (FL_LIKELY(self->buffer != NULL && PyByteArray_CheckExact(self->buffer) &&
                  (again || reads_attribute(self, st->str__exception) == Py_None))) {
        Py_INCREF(self->buffer);
        return true;
    }
    Py_DECREF(self->dict);
    return false;
}

static inline void
reads_end(FlRead *self)
{
    Py_DECREF(self->buffer);
    Py_DECREF(self->dict);
}

/* The first size bytes, taken out of the buffer, which has them; the transport goes on
 * if it was paused and there is room again. New reference or NULL. */
static PyObject *
reads_take(FlRead *self, Py_ssize_t size)
{
    FlState *st = self->st;
    PyObject *buffer = self->buffer;
    PyObject *data = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), size);
    if (data == NULL) return NULL;
    int rc = size == PyByteArray_GET_SIZE(buffer)
                 ? PyByteArray_Resize(buffer, 0)
                 : PySequence_DelSlice(buffer, 0, size);
    if (rc == 0 && FL_UNLIKELY(reads_attribute(self, st->str__paused) != Py_False)) {
        PyObject *result =
            PyObject_CallMethodNoArgs(self->reader, st->str__maybe_resume_transport);
        Py_XDECREF(result);
        rc = result == NULL ? -1 : 0;
    }
    if (FL_UNLIKELY(rc < 0)) {
        Py_CLEAR(data);
    }
    return data;
}

/* A future that data will complete, noted as the reader's waiter; None if asyncio's own
 * method must see to it. New reference or NULL. */
static PyObject *
reads_wait(FlRead *self)
{
    FlState *st = self->st;
    PyObject *loop = reads_attribute(self, st->str__loop);
    if (FL_UNLIKELY(reads_attribute(self, st->str__waiter) != Py_None ||
                    reads_attribute(self, st->str__eof) != Py_False ||
                    reads_attribute(self, st->str__paused) != Py_False ||
                    loop == NULL)) {
        Py_RETURN_NONE;
    }
    Py_INCREF(loop);
    PyObject *future = PyObject_CallMethodNoArgs(loop, st->str_create_future);
    Py_DECREF(loop);
    if (future != NULL && PyDict_SetItem(self->dict, st->str__waiter, future) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

/* A count of bytes, or -1 for what asyncio's own method must look at. */
static Py_ssize_t
reads_count(PyObject *op)
{
    if (FL_UNLIKELY(!PyLong_CheckExact(op))) return -1;
    Py_ssize_t count = PyLong_AsSsize_t(op);
    if (FL_UNLIKELY(count == -1)) {
        PyErr_Clear();
    }
    return count;
}

/* read_some() and, where all of the bytes are meant, read_exactly(). */
static PyObject *
reads_counted(PyObject *module, PyObject *const *args, Py_ssize_t nargs, bool all)
{
    FlRead self;
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "three arguments are needed");
    Py_ssize_t count = reads_count(args[1]);
    bool again = args[2] == Py_True;
    if (count <= 0 || !reads_begin(&self, module, args[0], again)) Py_RETURN_NONE;
    Py_ssize_t size = PyByteArray_GET_SIZE(self.buffer);
    bool is_there =
        all ? size >= count
            : size > 0 || again || reads_attribute(&self, self.st->str__eof) == Py_True;
    PyObject *result =
        is_there ? reads_take(&self, Py_MIN(size, count)) : reads_wait(&self);
    reads_end(&self);
    return result;
}

static PyObject *
reads_some(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return reads_counted(module, args, nargs, false);
}

static PyObject *
reads_exactly(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    return reads_counted(module, args, nargs, true);
}

/* Where the separator begins, at or behind start; -1 if it is not there. */
static Py_ssize_t
reads_find(PyObject *buffer, PyObject *separator, Py_ssize_t start)
{
    const char *bytes = PyByteArray_AS_STRING(buffer);
    Py_ssize_t rest = PyByteArray_GET_SIZE(buffer) - start;
    Py_ssize_t length = PyBytes_GET_SIZE(separator);
    const char *first = PyBytes_AS_STRING(separator);
    if (rest < length) return -1;
    const char *found =
        length == 1 ? memchr(bytes + start, first[0], (size_t)rest)
                    : memmem(bytes + start, (size_t)rest, first, (size_t)length);
    return found == NULL ? -1 : found - bytes;
}

static PyObject *
reads_until(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    FlRead self;
    if (nargs != 3) return PyErr_Format(PyExc_TypeError, "three arguments are needed");
    Py_ssize_t seen = reads_count(args[2]);
    if (!PyBytes_CheckExact(args[1]) || PyBytes_GET_SIZE(args[1]) == 0 ||
        !reads_begin(&self, module, args[0], seen >= 0)) {
        Py_RETURN_NONE;
    }
    PyObject *result = NULL;
    PyObject *separator = args[1];
    Py_ssize_t length = PyBytes_GET_SIZE(separator);
    Py_ssize_t start = seen < length ? 0 : seen - (length - 1);
    Py_ssize_t at = reads_find(self.buffer, separator, start);
    PyObject *limit_op = reads_attribute(&self, self.st->str__limit);
    Py_ssize_t limit = limit_op == NULL ? -1 : reads_count(limit_op);
    Py_ssize_t without = at >= 0 ? at : PyByteArray_GET_SIZE(self.buffer) + 1 - length;
    if (FL_UNLIKELY(limit < 0 || without > limit)) {
        result = Py_NewRef(Py_None);
    }
    else {
        result = at >= 0 ? reads_take(&self, at + length) : reads_wait(&self);
    }
    reads_end(&self);
    return result;
}

/* asyncio's own functions by reads_names(): a new tuple. NULL if one was replaced by
 * now, with or without an exception. */
static PyObject *
reads_find_originals(FlState *st)
{
    if (st->feed_data_function == NULL) return NULL;
    PyCodeObject *code = (PyCodeObject *)PyFunction_GET_CODE(st->feed_data_function);
    PyObject *names[READS_METHODS];
    reads_names(st, names);
    PyObject *originals = PyTuple_New(READS_METHODS);
    for (Py_ssize_t at = 0; originals != NULL && at < READS_METHODS; at++) {
        PyObject *function =
            fl_stock_function(st->stream_reader, names[at], code->co_filename);
        if (function == NULL) {
            Py_CLEAR(originals);
            break;
        }
        PyTuple_SET_ITEM(originals, at, function);
    }
    return originals;
}

/* How many attributes a new reader has; -1 with an exception. */
static Py_ssize_t
reads_count_attributes(FlState *st)
{
    Py_ssize_t count = -1;
    PyObject *loop = NULL, *reader = NULL, *dict = NULL;
    PyObject *kwargs = Py_BuildValue("{sO}", "get_debug", &PyBool_Type);
    if (kwargs == NULL) return -1;
    loop = PyObject_Call(st->simple_namespace, st->empty_tuple, kwargs);
    if (loop == NULL) goto done;
    PyObject *args[2] = {NULL, loop};
    reader = PyObject_Vectorcall(st->stream_reader, args + 1,
                                 0 | PY_VECTORCALL_ARGUMENTS_OFFSET, st->kw_loop);
    dict = reader == NULL ? NULL : PyObject_GenericGetDict(reader, NULL);
    count = dict == NULL ? -1 : PyDict_GET_SIZE(dict);
done:
    Py_XDECREF(dict);
    Py_XDECREF(reader);
    Py_XDECREF(loop);
    Py_DECREF(kwargs);
    return count;
}

static PyObject *
reads_use(PyObject *module, PyObject *cls)
{
    FlState *st = PyModule_GetState(module);
    PyObject *originals = FL_HAVE_GIL ? reads_find_originals(st) : NULL;
    Py_ssize_t attributes = originals == NULL ? -1 : reads_count_attributes(st);
    if (attributes >= 0) {
        st->reads_attributes = attributes;
        Py_XSETREF(st->reads_originals, Py_NewRef(originals));
        Py_XSETREF(st->reads_class, Py_NewRef(cls));
    }
    PyErr_Clear(); /* asyncio's class is another one: then it serves */
    Py_XDECREF(originals);
    Py_RETURN_NONE;
}

static PyObject *
reads_adopt(PyObject *module, PyObject *reader)
{
    fl_reads_adopt(PyModule_GetState(module), reader);
    Py_RETURN_NONE;
}

#define READS_FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef module_methods[] = {
    {"read_some", READS_FAST(reads_some), METH_FASTCALL,
     PyDoc_STR("read_some(reader, n, again, /)\n--\n\n"
               "Return up to n bytes, a future to wait for, or None: asyncio's turn.")},
    {"read_exactly", READS_FAST(reads_exactly), METH_FASTCALL,
     PyDoc_STR("read_exactly(reader, n, again, /)\n--\n\n"
               "Return n bytes, a future to wait for, or None: asyncio's turn.")},
    {"read_until", READS_FAST(reads_until), METH_FASTCALL,
     PyDoc_STR("read_until(reader, separator, seen, /)\n--\n\n"
               "Return bytes up to a separator, a future to wait for, or None.\n\n"
               "seen bytes were there before the read waited; -1 if it did not.")},
    {"adopt_reader", reads_adopt, METH_O,
     PyDoc_STR("adopt_reader($module, reader, /)\n--\n\n"
               "Give that class to a reader, if it is one of asyncio's own.")},
    {"use_reader", reads_use, METH_O,
     PyDoc_STR("use_reader($module, cls, /)\n--\n\n"
               "Give this class to the readers that are fed.")},
    {NULL, NULL, 0, NULL},
};

int
fl_reads_register(PyObject *module, FlState *Py_UNUSED(st))
{
    return PyModule_AddFunctions(module, module_methods);
}
