/* writepipe.c - the transport over the writing end of a pipe.
 *
 * Owns:   the queue of writes.
 * Thread: the loop's own. */
#include "io/writepipe.h"
#include "core/turn.h"
#include "base/buffers.h"
#include "base/errors.h"
#include "io/flow.h"
#include "io/payload.h"
#include "io/pipe.h"
#include <errno.h>
#include <unistd.h>

enum {
    WRITEPIPE_SMALL_WRITE = 16 * 1024, /* below, writes wait for the end of the turn */
    WRITEPIPE_VECTORS = 256,           /* buffers a writev() takes */
    WRITEPIPE_LOST_WRITES = 5, /* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
};

/* Invariants: writing is true exactly while the watcher waits for the pipe to take
 * more; then no flush is queued. dropped counts like asyncio's _conn_lost: writes after
 * the end, and the error that was it. */
typedef struct {
    FlPipe pipe;
    FlFlush flush;
    FlBuffers out;
    int dropped;
    bool hears_reader; /* the device tells when its reader goes */
    bool writing;
} FlWritePipe;

static size_t
writepipe_buffered(FlTransport *base)
{
    return ((FlWritePipe *)base)->out.size;
}

static void
writepipe_discard(FlTransport *base)
{
    FlWritePipe *self = (FlWritePipe *)base;
    fl_buffers_clear(&self->out);
    self->writing = false;
}

static uint32_t
writepipe_wanted(FlTransport *base)
{
    FlWritePipe *self = (FlWritePipe *)base;
    bool ended = (base->flags & FL_TRANSPORT_CLOSING) && self->out.size == 0;
    bool hears = (base->flags & FL_TRANSPORT_STARTED) && self->hears_reader && !ended;
    /* A pipe without readers is EPOLLERR, which always shows; a socket whose peer is
     * gone is EPOLLRDHUP. asyncio asks for EPOLLIN and so takes a byte that comes the
     * other way through a socket for the end. */
    return (hears ? (uint32_t)EPOLLRDHUP : 0) |
           (self->writing ? (uint32_t)EPOLLOUT : 0);
}

/* Everything has left. 0 or -1. */
static int
writepipe_drained(FlWritePipe *self)
{
    FlTransport *base = &self->pipe.base;
    if (base->flags & FL_TRANSPORT_PROTOCOL_PAUSED) {
        if (fl_flow_maybe_resume_within(base) < 0) return -1;
        if (self->out.size > 0) return 0; /* it wrote at once */
    }
    return base->flags & FL_TRANSPORT_CLOSING ? fl_transport_lose(base, NULL) : 0;
}

/* Writes what the pipe takes. 0; 1 if it takes no more just now; or an errno, negated.
 * In a forked child nothing leaves: what waited at the fork is the parent's to write.
 */
static int
writepipe_send(FlWritePipe *self)
{
    if (FL_UNLIKELY(fl_poll_is_foreign(&self->pipe.base.loop->poll))) return 1;
    fl_turn_look_soon(self->pipe.base.loop);
    while (self->out.size > 0) {
        struct iovec vectors[WRITEPIPE_VECTORS];
        int count = fl_buffers_vectors(&self->out, vectors, WRITEPIPE_VECTORS);
        int fd = self->pipe.base.watcher.fd;
        ssize_t n = writev(fd, vectors, count);
        if (FL_UNLIKELY(n < 0) && fl_errors_is_refused(errno)) {
            count = WRITEPIPE_VECTORS; /* and so there may be room for more */
            n = write(fd, vectors[0].iov_base, vectors[0].iov_len);
        }
        if (n < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN || errno == EWOULDBLOCK ? 1 : -errno;
        }
        fl_traffic_out(self->pipe.base.traffic, (size_t)n);
        fl_buffers_consume(&self->out, (size_t)n);
        /* Less than was offered: it is full, another call would only say so. */
        if (self->out.size > 0 && count < WRITEPIPE_VECTORS) return 1;
    }
    return 0;
}

static int
writepipe_fatal(FlWritePipe *self, int code)
{
    self->dropped++;
    return fl_transport_fatal_errno(&self->pipe.base, code,
                                    "Fatal write error on pipe transport");
}

/* Writes, and sees to what follows from it. 0 or -1. */
static int
writepipe_flush(FlWritePipe *self)
{
    FlTransport *base = &self->pipe.base;
    if (self->out.size == 0 || base->conn_lost > 0 ||
        (base->flags & FL_TRANSPORT_CLOSED)) {
        return 0;
    }
    int code = writepipe_send(self);
    if (FL_UNLIKELY(code < 0)) return writepipe_fatal(self, -code);
    bool waits = code > 0;
    if (waits) {
        fl_pipe_was_full(&self->pipe);
    }
    if (waits != self->writing) {
        self->writing = waits;
        if (fl_transport_watch(base) < 0) {
            return fl_transport_fatal(base, "Fatal write error on pipe transport");
        }
    }
    return waits ? fl_flow_maybe_pause(base) : writepipe_drained(self);
}

static int
on_writepipe_flush(FlFlush *flush)
{
    return writepipe_flush(
        (FlWritePipe *)((char *)flush - offsetof(FlWritePipe, flush)));
}

/* Something was queued: now, or at the end of the turn? 0 or -1. */
static int
writepipe_queued(FlWritePipe *self)
{
    FlTransport *base = &self->pipe.base;
    if (self->writing) return fl_flow_maybe_pause(base);
    if (self->out.size < WRITEPIPE_SMALL_WRITE && self->out.size <= base->high_water &&
        base->loop->thread != 0) {
        fl_turn_flush_later(base->loop, &self->flush);
        return 0;
    }
    return writepipe_flush(self);
}

/* What is not a bytes object: a large one goes out as far as it will before the rest is
 * copied, unless this is a forked child. 0 or -1. */
static int
writepipe_other(FlWritePipe *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        /* Not contiguous: a copy is. */
        if (!PyErr_ExceptionMatches(PyExc_BufferError)) return -1;
        PyErr_Clear();
        if (fl_payload_push(&self->out, data) < 0) return -1;
        return writepipe_queued(self);
    }
    const char *rest = view.buf;
    size_t length = (size_t)view.len;
    int rc = 0;
    /* The data's own __buffer__() may have ended the connection. */
    if (FL_UNLIKELY(self->pipe.base.conn_lost > 0)) goto done;
    while (length >= WRITEPIPE_SMALL_WRITE && self->out.size == 0 &&
           FL_LIKELY(!fl_poll_is_foreign(&self->pipe.base.loop->poll))) {
        ssize_t n = write(self->pipe.base.watcher.fd, rest, length);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) break;
            rc = writepipe_fatal(self, errno);
            goto done;
        }
        fl_turn_look_soon(self->pipe.base.loop);
        fl_traffic_out(self->pipe.base.traffic, (size_t)n);
        rest += n;
        length -= (size_t)n;
    }
    if (length > 0) {
        rc = fl_payload_push_copy(&self->out, rest, length);
        if (rc == 0) {
            rc = writepipe_queued(self);
        }
    }
done:
    PyBuffer_Release(&view);
    return rc;
}

/* A write after the end: counts, and warns from the sixth on, as asyncio does. */
static int
writepipe_lost(FlWritePipe *self)
{
    if (self->dropped++ < WRITEPIPE_LOST_WRITES) return 0;
    return fl_transport_warn(
        &self->pipe.base,
        "pipe closed by peer or os.write(pipe, data) raised exception.");
}

static PyObject *
writepipe_write(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlWritePipe *self = (FlWritePipe *)op;
    PyObject *data = fl_callargs_one("write", "data", args, nargs, kwnames);
    if (FL_UNLIKELY(data == NULL)) return NULL;
    bool is_bytes = PyBytes_CheckExact(data);
    if (FL_UNLIKELY(!is_bytes && !fl_payload_is_fit(data))) {
        /* asyncio has an assert here. */
        PyErr_Format(PyExc_AssertionError, "%R", data);
        return NULL;
    }
    Py_ssize_t length = is_bytes ? PyBytes_GET_SIZE(data) : PyObject_Size(data);
    if (length < 0) return NULL;
    if (length == 0) Py_RETURN_NONE;
    int rc;
    if (FL_UNLIKELY(self->dropped > 0 ||
                    (self->pipe.base.flags & FL_TRANSPORT_CLOSING))) {
        rc = writepipe_lost(self);
    }
    else if (is_bytes) {
        rc = fl_payload_push(&self->out, data);
        if (rc == 0) {
            rc = writepipe_queued(self);
        }
    }
    else {
        rc = writepipe_other(self, data);
    }
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

/* asyncio would have written already what waits for the end of the turn. 0 or -1. */
static int
writepipe_settle(FlWritePipe *self)
{
    return self->flush.queued ? writepipe_flush(self) : 0;
}

static PyObject *
writepipe_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "close"));
    FlWritePipe *self = (FlWritePipe *)op;
    if (self->pipe.base.flags & FL_TRANSPORT_CLOSING) Py_RETURN_NONE;
    if (writepipe_settle(self) < 0 || fl_transport_close(&self->pipe.base) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
writepipe_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
writepipe_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "abort"));
    FlWritePipe *self = (FlWritePipe *)op;
    if (writepipe_settle(self) < 0 ||
        fl_transport_force_close(&self->pipe.base, NULL) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
writepipe_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlWritePipe *self = (FlWritePipe *)op;
    if (writepipe_settle(self) < 0) return NULL;
    return PyLong_FromSize_t(self->out.size);
}

/* The reader is gone. 0 or -1. */
static int
writepipe_hung_up(FlWritePipe *self)
{
    FlTransport *base = &self->pipe.base;
    if (fl_pipe_log_closed(&self->pipe) < 0 || writepipe_settle(self) < 0) return -1;
    if (base->conn_lost > 0) return 0;
    PyObject *exc = NULL;
    if (self->out.size > 0) {
        exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
        if (exc == NULL) return -1;
    }
    int rc = fl_transport_force_close(base, exc);
    Py_XDECREF(exc);
    return rc;
}

static int
on_writepipe_event(FlWatcher *watcher, uint32_t events)
{
    FlWritePipe *self = (FlWritePipe *)watcher->owner;
    FlTransport *base = &self->pipe.base;
    bool entered = fl_transport_enter(base);
    int rc = 0;
    if ((watcher->events & EPOLLRDHUP) && (events & ~(uint32_t)EPOLLOUT)) {
        rc = writepipe_hung_up(self);
    }
    else if (self->writing) {
        rc = writepipe_flush(self);
    }
    fl_transport_leave(base, entered);
    return rc;
}

static PyObject *
writepipe_repr(PyObject *op)
{
    FlWritePipe *self = (FlWritePipe *)op;
    FlPipe *pipe = &self->pipe;
    PyObject *name = PyType_GetName(Py_TYPE(op));
    if (name == NULL) return NULL;
    const char *prefix = fl_pipe_prefix(pipe), *state = fl_pipe_state(pipe, EPOLLOUT);
    PyObject *shown;
    if ((pipe->base.flags & FL_TRANSPORT_CLOSED) || pipe->base.loop->closed) {
        shown =
            PyUnicode_FromFormat("<%U%s fd=%d %s>", name, prefix, pipe->fileno, state);
    }
    else {
        shown =
            PyUnicode_FromFormat("<%U%s fd=%d %s bufsize=%zu>", name, prefix,
                                 pipe->fileno, state, fl_shared_peek(&self->out.size));
    }
    Py_DECREF(name);
    return shown;
}

static const FlTransportKind writepipe_kind = {
    .noun = "pipe transport",
    .traffic = FL_TRAFFIC_PIPE,
    .buffered = writepipe_buffered,
    .discard = writepipe_discard,
    .unbind = fl_pipe_unbind,
    .wanted = writepipe_wanted,
    .release = fl_pipe_release,
};

/* loop._make_write_pipe_transport(pipe, protocol, waiter=None, extra=None) */
static PyObject *
writepipe_make_transport(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN((FlLoop *)op, NULL);
    static char *names[] = {"pipe", "protocol", "waiter", "extra", NULL};
    FlLoop *loop = (FlLoop *)op;
    PyObject *pipe, *protocol, *waiter = Py_None, *extra = Py_None;
    struct stat status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO&:_make_write_pipe_transport",
                                     names, &pipe, &protocol, &waiter,
                                     fl_transport_convert_extra, &extra)) {
        return NULL;
    }
    int fd = fl_pipe_fileno(loop, pipe,
                            "Pipe transport is only for pipes, sockets and "
                            "character devices",
                            &status);
    if (fd < 0) return NULL;
    FlWritePipe *self =
        (FlWritePipe *)fl_transport_alloc(loop->st->write_pipe_transport_type);
    if (self == NULL) return NULL;
    self->flush = (FlFlush){.call = on_writepipe_flush, .owner = (PyObject *)self};
    self->hears_reader = !S_ISCHR(status.st_mode);
    if (fl_pipe_open(&self->pipe, loop, &writepipe_kind, on_writepipe_event, fd,
                     &status, pipe, protocol, extra) < 0) {
        goto error;
    }
    if (fl_transport_start(&self->pipe.base, waiter) < 0) {
        fl_pipe_abandon(&self->pipe);
        goto error;
    }
    return (PyObject *)self;

error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

static int
writepipe_clear(PyObject *op)
{
    fl_buffers_clear(&((FlWritePipe *)op)->out);
    return fl_transport_clear(op);
}

static void
writepipe_dealloc(PyObject *op)
{
    fl_transport_dealloc(op, writepipe_clear);
}

static PyMethodDef writepipe_methods[] = {
    FL_TRANSPORT_METHODS,
    FL_FLOW_METHODS,
    {"write", (PyCFunction)(void (*)(void))writepipe_write,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write($self, data)\n--\n\nWrite bytes; never blocks.")},
    {"write_eof", writepipe_close, METH_NOARGS,
     PyDoc_STR("write_eof($self)\n--\n\nClose the pipe behind what waits.")},
    {"can_write_eof", writepipe_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self)\n--\n\nReturn True.")},
    {"get_write_buffer_size", writepipe_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self)\n--\n\nReturn how many bytes wait.")},
    {"close", writepipe_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nClose the pipe behind what waits.")},
    {"abort", writepipe_abort, METH_NOARGS,
     PyDoc_STR("abort($self)\n--\n\nClose the pipe at once.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef writepipe_getset[] = {
    FL_PIPE_GETSET,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot writepipe_slots[] = {
    {Py_tp_doc, "A transport over the writing end of a pipe."},
    {Py_tp_dealloc, writepipe_dealloc},
    {Py_tp_finalize, fl_transport_finalize},
    {Py_tp_traverse, fl_transport_traverse},
    {Py_tp_clear, writepipe_clear},
    {Py_tp_repr, writepipe_repr},
    {Py_tp_methods, writepipe_methods},
    {Py_tp_members, fl_transport_members},
    {Py_tp_getset, writepipe_getset},
    {0, NULL},
};

static PyType_Spec writepipe_spec = {
    .name = "fastloop.WritePipeTransport",
    .basicsize = sizeof(FlWritePipe),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = writepipe_slots,
};

static PyMethodDef loop_methods[] = {
    {"_make_write_pipe_transport",
     (PyCFunction)(void (*)(void))writepipe_make_transport,
     METH_VARARGS | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

int
fl_writepipe_register(PyObject *module, FlState *st)
{
    st->write_pipe_transport_type =
        fl_transport_make_type(module, &writepipe_spec, st->transport_base);
    if (st->write_pipe_transport_type == NULL) return -1;
    return fl_loop_add_methods(st, loop_methods);
}
