/* readpipe.c - the transport over the reading end of a pipe.
 *
 * Owns:   nothing beside what pipe.c does.
 * Thread: the loop's own. */
#include "io/readpipe.h"
#include "core/turn.h"
#include "base/errors.h"
#include "io/feed.h"
#include "io/pipe.h"
#include <errno.h>
#include <unistd.h>

enum {
    READPIPE_LARGE_READ = 16 * 1024, /* above, reads go straight into a bytes object */
};

/* always_ready: epoll takes no such device, so it is read once a turn. */
typedef struct {
    FlPipe pipe;
    Py_ssize_t predicted; /* how much the next read is likely to bring */
    bool always_ready;
    bool scheduled; /* always_ready, and the next read is due */
} FlReadPipe;

static size_t
readpipe_buffered(FlTransport *Py_UNUSED(base))
{
    return 0;
}

static void
readpipe_discard(FlTransport *Py_UNUSED(base))
{
}

static bool
readpipe_reads(FlTransport *base)
{
    return (base->flags & FL_TRANSPORT_STARTED) &&
           !(base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED));
}

static uint32_t
readpipe_wanted(FlTransport *base)
{
    return readpipe_reads(base) && !((FlReadPipe *)base)->always_ready ? EPOLLIN : 0;
}

/* As fl_transport_fatal_errno(), but of all OSErrors only EIO, a terminal that was hung
 * up, is no news for the exception handler. */
static int
readpipe_fatal(FlTransport *base, int code)
{
    static const char message[] = "Fatal read error on pipe transport";
    if (code == EIO) return fl_transport_fatal_errno(base, code, message);
    FlState *st = base->loop->st;
    PyObject *exc = fl_errors_new_os_error(code);
    if (exc == NULL) return -1;
    int rc = fl_errors_report_exception(st, (PyObject *)base->loop, message, exc,
                                        st->str_transport, (PyObject *)base,
                                        st->str_protocol, base->protocol);
    if (rc == 0) {
        rc = fl_transport_force_close(base, exc);
    }
    Py_DECREF(exc);
    return rc;
}

static int
readpipe_ended(FlTransport *base)
{
    if (fl_pipe_log_closed((FlPipe *)base) < 0) return -1;
    if (base->protocol == NULL) return 0; /* whoever logs may take turns */
    base->flags |= FL_TRANSPORT_CLOSING;
    (void)fl_poll_set(&base->loop->poll, &base->watcher, 0);
    PyObject *method =
        PyObject_GetAttr(base->protocol, base->loop->st->str_eof_received);
    int rc = method == NULL
                 ? -1
                 : fl_loop_call_soon(base->loop, method, NULL, 0, base->context);
    Py_XDECREF(method);
    PyObject *raised = rc < 0 ? fl_compat_take_exception() : NULL;
    if (fl_transport_lose(base, NULL) < 0) {
        Py_XDECREF(raised);
        return -1;
    }
    if (raised != NULL) {
        fl_compat_set_exception(raised);
    }
    return rc;
}

/* What was read cannot be delivered: going on would leave a hole in the stream. */
static int
readpipe_lost_bytes(FlTransport *base)
{
    return fl_transport_fatal(base, "Fatal read error on pipe transport");
}

/* What one read() brings, or NULL with *rc, if there is nothing to tell the protocol.
 */
static PyObject *
readpipe_take(FlReadPipe *self, int *rc)
{
    FlTransport *base = &self->pipe.base;
    PyObject *data = NULL;
    char *into;
    size_t size = FL_SLAB_SIZE;
    bool large = self->predicted > READPIPE_LARGE_READ;
    *rc = -1;
    if (large) {
        size = (size_t)self->predicted;
        data = PyBytes_FromStringAndSize(NULL, self->predicted);
        if (data == NULL) return NULL;
        into = PyBytes_AS_STRING(data);
    }
    else {
        into = fl_loop_slab(base->loop);
        if (into == NULL) return NULL;
    }
    ssize_t n = read(base->watcher.fd, into, size);
    int code = errno;
    if (FL_UNLIKELY(n <= 0)) {
        Py_XDECREF(data);
        if (n == 0) {
            *rc = readpipe_ended(base);
        }
        else if (code == EAGAIN || code == EWOULDBLOCK || code == EINTR) {
            *rc = 0;
        }
        else {
            *rc = readpipe_fatal(base, code);
        }
        return NULL;
    }
    fl_traffic_in(base->traffic, (size_t)n);
    if (FL_UNLIKELY(n == FL_PIPE_USUAL)) {
        fl_pipe_was_full(&self->pipe);
    }
    if (!large) {
        self->predicted = n;
        data = PyBytes_FromStringAndSize(into, n);
        if (data == NULL) {
            *rc = readpipe_lost_bytes(base);
        }
        return data;
    }
    if (n == self->predicted) {
        self->predicted = n * 2 < FL_SLAB_SIZE ? n * 2 : FL_SLAB_SIZE;
        return data;
    }
    /* Pipes fill up to the same size again and again: room for that, and a bit. */
    self->predicted = n + n / 4;
    return fl_compat_bytes_shrink(data, n);
}

/* Reads once. 0, or -1 with the protocol's exception. */
static int
readpipe_read(FlReadPipe *self)
{
    FlTransport *base = &self->pipe.base;
    int rc;
    PyObject *data = readpipe_take(self, &rc);
    if (data == NULL) return rc;
    PyObject *args[2] = {Py_NewRef(base->protocol), data};
    PyObject *result =
        PyObject_VectorcallMethod(base->loop->st->str_data_received, args,
                                  2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(args[0]);
    Py_DECREF(data);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
on_readpipe_event(FlWatcher *watcher, uint32_t events)
{
    FlReadPipe *self = (FlReadPipe *)watcher->owner;
    FlTransport *base = &self->pipe.base;
    bool entered = fl_transport_enter(base);
    int rc = readpipe_read(self);
    fl_transport_leave(base, entered);
    if (events & EPOLLHUP) {
        fl_turn_look_soon(base->loop); /* the end stands behind the data */
    }
    if (FL_LIKELY(rc == 0)) return 0;
    return fl_transport_callback_failed(base, base->loop->st->str__read_ready);
}

/* The next turn reads a device that is always ready. 0 or -1. */
static int
readpipe_schedule(FlReadPipe *self)
{
    FlTransport *base = &self->pipe.base;
    if (!self->always_ready || self->scheduled ||
        (base->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED))) {
        return 0;
    }
    PyObject *method =
        PyObject_GetAttr((PyObject *)self, base->loop->st->str__read_ready);
    if (method == NULL) return -1;
    int rc = fl_loop_call_soon(base->loop, method, NULL, 0, base->context);
    Py_DECREF(method);
    self->scheduled = rc == 0;
    return rc;
}

static PyObject *
readpipe_read_ready(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlReadPipe *self = (FlReadPipe *)op;
    self->scheduled = false;
    if (!readpipe_reads(&self->pipe.base)) Py_RETURN_NONE;
    int rc = readpipe_read(self);
    PyObject *raised = rc < 0 ? fl_compat_take_exception() : NULL;
    if (readpipe_schedule(self) < 0) {
        Py_XDECREF(raised);
        return NULL;
    }
    if (raised != NULL) {
        fl_compat_set_exception(raised);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
readpipe_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    PyObject *result = fl_transport_resume_reading(op, NULL);
    if (result != NULL && readpipe_schedule((FlReadPipe *)op) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *
readpipe_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "close"));
    if (fl_transport_close((FlTransport *)op) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
readpipe_repr(PyObject *op)
{
    FlPipe *self = (FlPipe *)op;
    PyObject *name = PyType_GetName(Py_TYPE(op));
    if (name == NULL) return NULL;
    PyObject *shown =
        PyUnicode_FromFormat("<%U%s fd=%d %s>", name, fl_pipe_prefix(self),
                             self->fileno, fl_pipe_state(self, EPOLLIN));
    Py_DECREF(name);
    return shown;
}

static const FlTransportKind readpipe_kind = {
    .noun = "pipe transport",
    .traffic = FL_TRAFFIC_PIPE,
    .buffered = readpipe_buffered,
    .discard = readpipe_discard,
    .unbind = fl_pipe_unbind,
    .wanted = readpipe_wanted,
    .release = fl_pipe_release,
};

/* Devices like /dev/null are always ready and epoll takes none of them. */
static bool
readpipe_is_always_ready(int fd, const struct stat *status)
{
    if (!S_ISCHR(status->st_mode)) return false;
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) return false;
    struct epoll_event event = {.events = EPOLLIN};
    bool refused = epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) < 0 && errno == EPERM;
    close(epfd);
    return refused;
}

/* loop._make_read_pipe_transport(pipe, protocol, waiter=None, extra=None) */
static PyObject *
readpipe_make_transport(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN((FlLoop *)op, NULL);
    static char *names[] = {"pipe", "protocol", "waiter", "extra", NULL};
    FlLoop *loop = (FlLoop *)op;
    PyObject *pipe, *protocol, *waiter = Py_None, *extra = Py_None;
    struct stat status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO&:_make_read_pipe_transport",
                                     names, &pipe, &protocol, &waiter,
                                     fl_transport_convert_extra, &extra)) {
        return NULL;
    }
    int fd = fl_pipe_fileno(loop, pipe, "Pipe transport is for pipes/sockets only.",
                            &status);
    if (fd < 0) return NULL;
    FlReadPipe *self =
        (FlReadPipe *)fl_transport_alloc(loop->st->read_pipe_transport_type);
    if (self == NULL) return NULL;
    self->always_ready = readpipe_is_always_ready(fd, &status);
    if (fl_pipe_open(&self->pipe, loop, &readpipe_kind, on_readpipe_event, fd, &status,
                     pipe, protocol, extra) < 0) {
        goto error;
    }
    if (fl_transport_start(&self->pipe.base, waiter) < 0 ||
        readpipe_schedule(self) < 0) {
        fl_pipe_abandon(&self->pipe);
        goto error;
    }
    fl_feed_adopt(loop, protocol);
    return (PyObject *)self;

error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void
readpipe_dealloc(PyObject *op)
{
    fl_transport_dealloc(op, fl_transport_clear);
}

static PyMethodDef readpipe_methods[] = {
    FL_TRANSPORT_METHODS,
    {"pause_reading", fl_transport_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self)\n--\n\nPause the receiving end.")},
    {"resume_reading", readpipe_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self)\n--\n\nResume the receiving end.")},
    {"is_reading", fl_transport_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self)\n--\n\nReturn True if it is receiving.")},
    {"close", readpipe_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nStop reading and close the pipe.")},
    {"_read_ready", readpipe_read_ready, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef readpipe_getset[] = {
    FL_PIPE_GETSET,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot readpipe_slots[] = {
    {Py_tp_doc, "A transport over the reading end of a pipe."},
    {Py_tp_dealloc, readpipe_dealloc},
    {Py_tp_finalize, fl_transport_finalize},
    {Py_tp_traverse, fl_transport_traverse},
    {Py_tp_clear, fl_transport_clear},
    {Py_tp_repr, readpipe_repr},
    {Py_tp_methods, readpipe_methods},
    {Py_tp_members, fl_transport_members},
    {Py_tp_getset, readpipe_getset},
    {0, NULL},
};

static PyType_Spec readpipe_spec = {
    .name = "fastloop.ReadPipeTransport",
    .basicsize = sizeof(FlReadPipe),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = readpipe_slots,
};

static PyMethodDef loop_methods[] = {
    {"_pipe_transport", fl_pipe_find_transport, METH_O, NULL},
    {"_make_read_pipe_transport", (PyCFunction)(void (*)(void))readpipe_make_transport,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

int
fl_readpipe_register(PyObject *module, FlState *st)
{
    st->read_pipe_transport_type =
        fl_transport_make_type(module, &readpipe_spec, st->read_transport_base);
    if (st->read_pipe_transport_type == NULL) return -1;
    return fl_loop_add_methods(st, loop_methods);
}
