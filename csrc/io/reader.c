/* reader.c - one record for each descriptor that add_reader() and sock_*() watch.
 *
 * Owns:   the callbacks and futures that wait for the descriptor, and the file object
 *         that it was named by, as a selector's key does.
 * Thread: the loop's own. */
#include "io/reader.h"
#include "base/errors.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>

/* Invariants: targets[side] is the FlHandle of a user's callback, the future of
 * fl_reader_wait(), or NULL; watcher asks for the sides that have one, for one event
 * only where they are all futures. With the last target the record leaves the poll set,
 * which owns it, unless an event had disarmed it (watcher.events is READER_DISARMED):
 * then it stays for the next wait. counted is true while a callback among the targets
 * counts in poll.user_count; file is set only while there are targets. */
typedef struct {
    PyObject_HEAD
    FlLoop *loop;
    PyObject *targets[2];
    PyObject *file;
    bool counted;
    FlWatcher watcher;
} FlReader;

static int on_event(FlWatcher *watcher, uint32_t events);

/* What epoll keeps of EPOLLONESHOT once the event has come: nothing is reported any
 * more, also if the descriptor is closed but lives on elsewhere. To arm it again is one
 * system call a wait where adding and removing are two: 7.0 against 9.3 us of CPU an
 * echo. */
static const uint32_t READER_DISARMED = EPOLLONESHOT;

#define READER_INVALID "Invalid file descriptor: %S"

static const uint32_t side_events[2] = {EPOLLIN, EPOLLOUT};

/* The record of a descriptor, borrowed, or NULL. */
static FlReader *
reader_find(FlLoop *loop, int fd)
{
    FlWatcher *watcher = fl_poll_find(&loop->poll, fd);
    if (watcher == NULL || watcher->call != on_event) return NULL;
    return (FlReader *)watcher->owner;
}

/* The record that was made with this file object, borrowed, or NULL: a closed socket
 * has no number to find it by. */
static FlReader *
reader_find_file(FlLoop *loop, PyObject *file)
{
    for (size_t fd = 0; fd < loop->poll.slot_count; fd++) {
        FlReader *self = reader_find(loop, (int)fd);
        if (self != NULL && self->file == file) return self;
    }
    return NULL;
}

/* The file object to remember: new reference, or NULL for a number. */
static PyObject *
reader_key(PyObject *file)
{
    return file == NULL || PyLong_Check(file) ? NULL : Py_NewRef(file);
}

static FlReader *
reader_new(FlLoop *loop, int fd, PyObject *file)
{
    FlReader *self = PyObject_GC_New(FlReader, loop->st->reader_type);
    if (self == NULL) return NULL;
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->targets[FL_READER_READ] = self->targets[FL_READER_WRITE] = NULL;
    self->file = reader_key(file);
    self->counted = false;
    self->watcher = (FlWatcher){.fd = fd, .call = on_event, .owner = (PyObject *)self};
    PyObject_GC_Track((PyObject *)self);
    return self;
}

/* The EPOLL* bits that the targets wait for. Tells the loop whether there are callbacks
 * among them: it looks for events each turn then, as asyncio does. */
static uint32_t
reader_wanted(FlReader *self)
{
    uint32_t events = 0;
    bool counted = false;
    for (int side = 0; side < 2; side++) {
        PyObject *target = self->targets[side];
        if (target == NULL) continue;
        events |= side_events[side];
        counted |= fl_handle_is(self->loop->st, target);
    }
    if (counted != self->counted) {
        self->counted = counted;
        self->watcher.queues = counted;
        self->loop->poll.user_count += counted ? 1 : (size_t)-1;
    }
    return events == 0 || counted ? events : events | EPOLLONESHOT;
}

/* Asks epoll for what the targets wait for. 0 or an errno, with epoll as it was. The
 * caller owns a reference. */
static int
reader_ask(FlReader *self)
{
    uint32_t events = reader_wanted(self);
    if (events == 0 && self->watcher.events == READER_DISARMED) return 0;
    return fl_poll_set(&self->loop->poll, &self->watcher, events);
}

/* Ends the wait of a target that was taken out; its reference is spent. */
static void
reader_end(FlReader *self, PyObject *target)
{
    if (target != NULL && fl_handle_is(self->loop->st, target) &&
        fl_handle_cancel((FlHandle *)target) < 0) {
        PyErr_WriteUnraisable(target); /* its repr, in debug mode */
    }
    Py_XDECREF(target);
}

/* Asks for what is left after a target went. The caller owns a reference. */
static void
reader_ask_rest(FlReader *self)
{
    PyObject *left[2] = {NULL, NULL};
    if (FL_UNLIKELY(reader_ask(self) != 0)) {
        /* The descriptor was closed too early: whoever is left waits for nothing. */
        for (int side = 0; side < 2; side++) {
            left[side] = self->targets[side];
            self->targets[side] = NULL;
        }
        (void)reader_ask(self);
    }
    PyObject *file = NULL;
    if (self->targets[FL_READER_READ] == NULL &&
        self->targets[FL_READER_WRITE] == NULL) {
        file = self->file;
        self->file = NULL;
    }
    reader_end(self, left[FL_READER_READ]);
    reader_end(self, left[FL_READER_WRITE]);
    Py_XDECREF(file);
}

/* Takes a target out of the record. New reference or NULL. */
static PyObject *
reader_take(FlReader *self, FlReaderSide side)
{
    PyObject *target = self->targets[side];
    if (target == NULL) return NULL;
    Py_INCREF((PyObject *)self);
    self->targets[side] = NULL;
    reader_ask_rest(self);
    Py_DECREF((PyObject *)self);
    return target;
}

void
fl_reader_forget(FlLoop *loop, int fd)
{
    FlReader *self = reader_find(loop, fd);
    if (self == NULL) return;
    Py_INCREF((PyObject *)self);
    for (int side = 0; side < 2; side++) {
        reader_end(self, reader_take(self, side));
    }
    (void)fl_poll_set(&loop->poll, &self->watcher, 0);
    Py_DECREF((PyObject *)self);
}

static int
reader_raise(FlLoop *loop, int fd, int code)
{
    if (code == EEXIST) {
        PyObject *transport = fl_poll_transport(&loop->poll, fd);
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by %s%R", fd,
                     transport != NULL ? "transport " : "",
                     transport != NULL ? transport : (PyObject *)loop);
        Py_XDECREF(transport);
    }
    else if (code == ENOMEM) {
        PyErr_NoMemory();
    }
    else {
        errno = code;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}

/* Puts a target into a record that has been in the poll set. 0 or an errno. */
static int
reader_replace(FlReader *self, FlReaderSide side, PyObject *target)
{
    FlPoll *poll = &self->loop->poll;
    int fd = self->watcher.fd;
    uint32_t generation = poll->slots[fd].generation;
    uint32_t events = self->watcher.events;
    PyObject *old = self->targets[side];
    self->targets[side] = Py_NewRef(target);
    /* Ask even for what was asked before: the number may name another file by now. */
    self->watcher.events = READER_DISARMED;
    int code = reader_ask(self);
    if (code != 0) {
        self->watcher.events = events;
        self->targets[side] = old;
        (void)reader_wanted(self); /* counts again */
        Py_DECREF(target);
        return code;
    }
    if (poll->slots[fd].generation != generation) {
        /* It does. What waits on the other side waits for a file that is gone. */
        reader_end(self, reader_take(self, !side));
    }
    reader_end(self, old);
    return 0;
}

/* Takes a reference to target. 0, or -1 with an exception and nothing changed. */
static int
reader_put(FlLoop *loop, int fd, PyObject *file, FlReaderSide side, PyObject *target)
{
    if (fl_loop_check_process(loop) < 0) return -1;
    FlReader *self = reader_find(loop, fd);
    int code;
    if (FL_LIKELY(self != NULL)) {
        Py_INCREF((PyObject *)self);
        bool idle = self->targets[side] == NULL && self->targets[!side] == NULL;
        code = reader_replace(self, side, target);
        if (idle && code == 0) {
            Py_XSETREF(self->file, reader_key(file));
        }
    }
    else {
        /* No slots for any number that the program names before it is known good. */
        if ((size_t)fd >= loop->poll.slot_count && fcntl(fd, F_GETFD) < 0) {
            return reader_raise(loop, fd, errno);
        }
        self = reader_new(loop, fd, file);
        if (self == NULL) return -1;
        self->targets[side] = Py_NewRef(target);
        code = reader_ask(self);
        if (code != 0) {
            Py_CLEAR(self->targets[side]);
            (void)reader_wanted(self); /* counts again */
        }
    }
    Py_DECREF((PyObject *)self);
    return code == 0 ? 0 : reader_raise(loop, fd, code);
}

/* The descriptor is ready: the future gets its result, unless it has one. */
static int
reader_wake(FlReader *self, PyObject *future)
{
    FlState *st = self->loop->st;
    PyObject *result = PyObject_CallMethodOneArg(future, st->str_set_result, Py_None);
    if (FL_LIKELY(result != NULL)) {
        Py_DECREF(result);
        return 0;
    }
    if (fl_errors_fatal()) return -1;
    /* Cancelled, as a rule, by a callback of this very turn. */
    PyObject *exc = fl_compat_take_exception();
    PyObject *done = PyObject_CallMethodNoArgs(future, st->str_done);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    if (is_done > 0) {
        Py_DECREF(exc);
        return 0;
    }
    PyErr_Clear();
    fl_compat_set_exception(exc);
    return fl_errors_report_text(st, (PyObject *)self->loop,
                                 "Exception in callback of a future", st->str_future,
                                 future, NULL, NULL);
}

/* Whether the handle runs anyway: an event has been told of it. */
static bool
reader_is_ready(const FlLoop *loop, const PyObject *handle)
{
    for (size_t i = fl_ring_len(&loop->ready); i-- > 0;) {
        if (fl_ring_at(&loop->ready, i) == (const void *)handle) return true;
    }
    return false;
}

void
fl_reader_expire(FlLoop *loop, int fd)
{
    FlReader *self = reader_find(loop, fd);
    if (self == NULL) return;
    Py_INCREF((PyObject *)self);
    for (int side = 0; side < 2; side++) {
        PyObject *target = reader_take(self, side);
        if (target == NULL) continue;
        int rc = 0;
        if (!fl_handle_is(loop->st, target)) {
            rc = reader_wake(self, target);
        }
        else if (!reader_is_ready(loop, target)) {
            rc = fl_loop_push(loop, (FlHandle *)target);
        }
        if (rc < 0) {
            PyErr_WriteUnraisable(target);
        }
        Py_DECREF(target);
    }
    (void)fl_poll_set(&loop->poll, &self->watcher, 0);
    Py_DECREF((PyObject *)self);
}

static int
on_event(FlWatcher *watcher, uint32_t events)
{
    FlReader *self = (FlReader *)watcher->owner;
    FlLoop *loop = self->loop;
    /* A hang-up or an error is for both sides, as in selectors.EpollSelector. */
    bool hit[2] = {(events & ~(uint32_t)EPOLLOUT) != 0,
                   (events & ~(uint32_t)EPOLLIN) != 0};
    if (watcher->events & EPOLLONESHOT) {
        watcher->events = READER_DISARMED;
    }
    int rc = 0;
    bool taken = false;
    for (int side = 0; side < 2 && rc == 0; side++) {
        PyObject *target = self->targets[side];
        if (!hit[side] || target == NULL) continue;
        bool is_handle = fl_handle_is(loop->st, target);
        if (is_handle && !(((FlHandle *)target)->flags & FL_HANDLE_CANCELLED)) {
            rc = fl_loop_push(loop, (FlHandle *)target);
            continue;
        }
        self->targets[side] = NULL;
        taken = true;
        if (!is_handle) {
            rc = reader_wake(self, target);
        }
        Py_DECREF(target);
    }
    if (taken) {
        PyObject *raised = rc < 0 ? fl_compat_take_exception() : NULL;
        reader_ask_rest(self);
        if (raised != NULL) {
            fl_compat_set_exception(raised);
        }
    }
    return rc;
}

int
fl_reader_wait(FlLoop *loop, int fd, FlReaderSide side, PyObject *future)
{
    if (fl_loop_check_closed(loop) < 0) return -1;
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return -1;
    }
    return reader_put(loop, fd, NULL, side, future);
}

void
fl_reader_unwait(FlLoop *loop, int fd, FlReaderSide side, PyObject *future)
{
    FlReader *self = reader_find(loop, fd);
    if (self != NULL && self->targets[side] == future) {
        Py_DECREF(reader_take(self, side));
    }
}

/* The number of what names a descriptor, an int of any size. New reference or NULL. */
static PyObject *
reader_number(FlLoop *loop, PyObject *file)
{
    PyObject *number = NULL;
    if (PyLong_Check(file)) {
        number = Py_NewRef(file);
    }
    else {
        PyObject *result = PyObject_CallMethodNoArgs(file, loop->st->str_fileno);
        if (result != NULL) {
            number = PyNumber_Long(result);
            Py_DECREF(result);
        }
    }
    if (number == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError) ||
            PyErr_ExceptionMatches(PyExc_TypeError) ||
            PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_ValueError, "Invalid file object: %R", file);
        }
    }
    return number;
}

/* The descriptor, or the nearest int to a number that none can have. */
static int
reader_clamp(PyObject *number)
{
    int overflow;
    long value = PyLong_AsLongAndOverflow(number, &overflow);
    if (overflow > 0 || value > INT_MAX) return INT_MAX;
    return overflow < 0 || value < INT_MIN ? INT_MIN : (int)value;
}

int
fl_reader_fileno(FlLoop *loop, PyObject *file, int *fd)
{
    PyObject *number = reader_number(loop, file);
    if (number == NULL) return -1;
    *fd = reader_clamp(number);
    Py_DECREF(number);
    return 0;
}

int
fl_reader_check_transport(FlLoop *loop, PyObject *file, int fd)
{
    PyObject *transport = fl_poll_transport(&loop->poll, fd);
    if (FL_LIKELY(transport == NULL)) return 0;
    int closing = -1;
    PyObject *result = PyObject_CallMethodNoArgs(transport, loop->st->str_is_closing);
    if (result != NULL) {
        closing = PyObject_IsTrue(result);
        Py_DECREF(result);
    }
    if (closing == 0) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R",
                     file, transport);
    }
    Py_DECREF(transport);
    return closing > 0 ? 0 : -1;
}

/* The number that add_reader() is given, where it can be a descriptor's; else -1 with
 * the exception of selectors or epoll. */
static int
reader_descriptor(FlLoop *loop, PyObject *file)
{
    PyObject *number = reader_number(loop, file);
    if (number == NULL) return -1;
    int fd = reader_clamp(number);
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, READER_INVALID, number);
        fd = -1;
    }
    else if (fd == INT_MAX) {
        fd = fl_compat_long_as_int(number); /* OverflowError above it */
    }
    Py_DECREF(number);
    return fd;
}

/* The public methods take no context=. 0, or -1 with TypeError. */
static int
reader_check_keywords(const char *method, PyObject *kwnames)
{
    for (Py_ssize_t i = 0; kwnames != NULL && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(name, "context") == 0) {
            PyErr_Format(PyExc_TypeError,
                         "Loop.%s() got an unexpected keyword argument 'context'",
                         method);
            return -1;
        }
    }
    return 0;
}

enum { READER_PUBLIC = 1 }; /* refuses descriptors of transports, and context= */

static PyObject *
reader_add(PyObject *op, FlReaderSide side, int how, const char *method,
           PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FL_OWN((FlLoop *)op, NULL);
    FlLoop *loop = (FlLoop *)op;
    FlCallArgs call;
    int fd;
    if (fl_callargs_parse(loop->st, method, "fd", args, nargs, kwnames, &call) < 0) {
        return NULL;
    }
    if (how & READER_PUBLIC) {
        if (reader_check_keywords(method, kwnames) < 0 ||
            fl_reader_fileno(loop, call.first, &fd) < 0 ||
            fl_reader_check_transport(loop, call.first, fd) < 0) {
            return NULL;
        }
    }
    if (fl_loop_check_closed(loop) < 0) return NULL;
    /* Once more: fileno() and is_closing() may be anything. */
    fd = reader_descriptor(loop, call.first);
    if (fd < 0) return NULL;
    FlHandle *handle =
        fl_loop_make_handle(loop, call.callback, call.args, call.nargs, call.context);
    if (handle == NULL) return NULL;
    fl_handle_track_always(handle); /* it waits here and not in a queue of the loop's */
    if (reader_put(loop, fd, call.first, side, (PyObject *)handle) < 0) {
        Py_DECREF((PyObject *)handle);
        return NULL;
    }
    if (how & READER_PUBLIC) {
        Py_DECREF((PyObject *)handle);
        Py_RETURN_NONE;
    }
    return (PyObject *)handle;
}

static PyObject *
reader_remove(PyObject *op, FlReaderSide side, int how, const char *method,
              PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FL_OWN((FlLoop *)op, NULL);
    FlLoop *loop = (FlLoop *)op;
    int fd;
    if (nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames)) != 1 ||
        (nargs == 0 &&
         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "fd") != 0)) {
        return PyErr_Format(PyExc_TypeError,
                            "Loop.%s() takes exactly one argument, 'fd'", method);
    }
    PyObject *file = args[0];
    if (how & READER_PUBLIC) {
        if (fl_reader_fileno(loop, file, &fd) < 0 ||
            fl_reader_check_transport(loop, file, fd) < 0) {
            return NULL;
        }
    }
    if (loop->closed) Py_RETURN_FALSE;
    PyObject *number = reader_number(loop, file);
    if (number == NULL) return NULL;
    fd = reader_clamp(number);
    FlReader *self = fd < 0 ? reader_find_file(loop, file) : reader_find(loop, fd);
    if (self == NULL && fd < 0) {
        PyErr_Format(PyExc_ValueError, READER_INVALID, number);
    }
    Py_DECREF(number);
    if (self == NULL) return fd < 0 ? NULL : Py_NewRef(Py_False);
    Py_INCREF((PyObject *)self);
    PyObject *target = reader_take(self, side);
    bool found = target != NULL;
    reader_end(self, target);
    Py_DECREF((PyObject *)self);
    return PyBool_FromLong(found);
}

#define READER_ADD(name, side, how)                                                    \
    static PyObject *reader_##name(PyObject *op, PyObject *const *args,                \
                                   Py_ssize_t nargs, PyObject *kwnames)                \
    {                                                                                  \
        return reader_add(op, side, how, #name, args, nargs, kwnames);                 \
    }
#define READER_REMOVE(name, side, how)                                                 \
    static PyObject *reader_##name(PyObject *op, PyObject *const *args,                \
                                   Py_ssize_t nargs, PyObject *kwnames)                \
    {                                                                                  \
        return reader_remove(op, side, how, #name, args, nargs, kwnames);              \
    }
READER_ADD(add_reader, FL_READER_READ, READER_PUBLIC)
READER_ADD(add_writer, FL_READER_WRITE, READER_PUBLIC)
READER_ADD(_add_reader, FL_READER_READ, 0)
READER_ADD(_add_writer, FL_READER_WRITE, 0)
READER_REMOVE(remove_reader, FL_READER_READ, READER_PUBLIC)
READER_REMOVE(remove_writer, FL_READER_WRITE, READER_PUBLIC)
READER_REMOVE(_remove_reader, FL_READER_READ, 0)
READER_REMOVE(_remove_writer, FL_READER_WRITE, 0)

static PyObject *
reader_ensure_fd_no_transport(PyObject *op, PyObject *file)
{
    FL_OWN((FlLoop *)op, NULL);
    FlLoop *loop = (FlLoop *)op;
    int fd;
    if (fl_reader_fileno(loop, file, &fd) < 0 ||
        fl_reader_check_transport(loop, file, fd) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* loop._watches(fd): whether the number names the file that the loop watches by it. */
static PyObject *
reader_watches(PyObject *op, PyObject *number)
{
    FL_OWN((FlLoop *)op, NULL);
    int fd = fl_compat_long_as_int(number);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    return PyBool_FromLong(fl_poll_holds(&((FlLoop *)op)->poll, fd));
}

#define READER_CALL(name) (PyCFunction)(void (*)(void)) reader_##name
static PyMethodDef reader_methods[] = {
    {"add_reader", READER_CALL(add_reader), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("add_reader($self, fd, callback, *args)\n--\n\n"
               "Call callback(*args) whenever fd, a descriptor or an object with\n"
               "fileno(), can be read from. It replaces an earlier callback. OSError\n"
               "for what cannot be watched, such as a regular file.")},
    {"add_writer", READER_CALL(add_writer), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("add_writer($self, fd, callback, *args)\n--\n\n"
               "Call callback(*args) whenever fd, a descriptor or an object with\n"
               "fileno(), can be written to. It replaces an earlier callback. OSError\n"
               "for what cannot be watched, such as a regular file.")},
    {"remove_reader", READER_CALL(remove_reader), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("remove_reader($self, fd)\n--\n\n"
               "Return True if there was a callback, which is gone now.")},
    {"remove_writer", READER_CALL(remove_writer), METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("remove_writer($self, fd)\n--\n\n"
               "Return True if there was a callback, which is gone now.")},
    {"_add_reader", READER_CALL(_add_reader), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_add_writer", READER_CALL(_add_writer), METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_remove_reader", READER_CALL(_remove_reader), METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"_remove_writer", READER_CALL(_remove_writer), METH_FASTCALL | METH_KEYWORDS,
     NULL},
    {"_watches", reader_watches, METH_O, NULL},
    {"_ensure_fd_no_transport", reader_ensure_fd_no_transport, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static int
reader_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlReader *self = (FlReader *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->targets[FL_READER_READ]);
    Py_VISIT(self->targets[FL_READER_WRITE]);
    Py_VISIT(self->file);
    return 0;
}

static int
reader_clear(PyObject *op)
{
    FlReader *self = (FlReader *)op;
    Py_CLEAR(self->targets[FL_READER_READ]);
    Py_CLEAR(self->targets[FL_READER_WRITE]);
    Py_CLEAR(self->file);
    return 0;
}

static void
reader_dealloc(PyObject *op)
{
    FlReader *self = (FlReader *)op;
    PyTypeObject *tp = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    FlLoop *loop = self->loop;
    if (self->counted) { /* somebody else took the record out of the poll set */
        loop->poll.user_count--;
    }
    (void)reader_clear(op);
    Py_DECREF((PyObject *)loop);
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "What waits for a descriptor of the program's."},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "fastloop._core.Reader",
    .basicsize = sizeof(FlReader),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reader_slots,
};

int
fl_reader_register(PyObject *module, FlState *st)
{
    st->reader_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    if (st->reader_type == NULL) return -1;
    return fl_loop_add_methods(st, reader_methods);
}
