/* pipe.c - opening, sharing and giving back what is read or written.
 *
 * Owns:   a private duplicate of a descriptor that another transport of the loop
 *         watches already.
 * Thread: the loop's own. */
#include "io/pipe.h"
#include <fcntl.h>
#include <unistd.h>

enum {
    PIPE_FULL_TIMES = 16,
    PIPE_LARGE = 256 * 1024, /* of what is read at once */
    PIPE_LARGE_MOST = 64,    /* of a loop: a user's pipes hold 64 MiB by default */
};

static bool
pipe_is(FlState *st, PyObject *transport)
{
    return Py_IS_TYPE(transport, st->read_pipe_transport_type) ||
           Py_IS_TYPE(transport, st->write_pipe_transport_type);
}

/* Makes the file description blocking again, unless another transport of the loop is
 * over the same one: then that is left to it. */
static void
pipe_restore(FlPipe *self)
{
    int fd = self->base.watcher.fd;
    struct stat status;
    if (!self->restores) return;
    self->restores = false;
    /* A forked child shares the description with its parent, who still reads it. */
    if (fl_poll_is_foreign(&self->base.loop->poll)) return;
    /* Nor can a collector in another thread tell who else has it. */
    FL_OWN_ELSE(self->base.loop, return);
    /* The program may have closed the descriptor, and the number be somebody else's. */
    if (fstat(fd, &status) < 0 || status.st_dev != self->device ||
        status.st_ino != self->inode) {
        return;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) return;

    FlPoll *poll = &self->base.loop->poll;
    for (size_t i = 0; i < poll->slot_count; i++) {
        PyObject *transport = fl_poll_transport(poll, (int)i);
        if (transport == NULL) continue;
        Py_DECREF(transport); /* nobody lets it go meanwhile: nothing below calls out */
        if (transport == (PyObject *)self || !pipe_is(self->base.loop->st, transport)) {
            continue;
        }
        FlPipe *other = (FlPipe *)transport;
        if (other->device != self->device || other->inode != self->inode) continue;
        /* Both ends of a pipe are one inode: the flag tells whether it is one end. */
        flags = fcntl(other->base.watcher.fd, F_GETFL);
        if (flags < 0 || (flags & O_NONBLOCK)) continue;
        (void)fcntl(other->base.watcher.fd, F_SETFL, flags | O_NONBLOCK);
        other->restores = true;
        return;
    }
}

void
fl_pipe_was_full(FlPipe *self)
{
    if (self->full >= PIPE_FULL_TIMES || ++self->full < PIPE_FULL_TIMES) return;
#ifdef F_SETPIPE_SZ
    int fd = self->base.watcher.fd;
    atomic_int *count = &self->base.loop->large_pipes;
    if (fcntl(fd, F_GETPIPE_SZ) != FL_PIPE_USUAL) return;
    self->large = atomic_fetch_add(count, 1) < PIPE_LARGE_MOST &&
                  fcntl(fd, F_SETPIPE_SZ, PIPE_LARGE) >= 0;
    if (!self->large) {
        (void)atomic_fetch_sub(count, 1);
    }
#endif
}

void
fl_pipe_release(FlTransport *base)
{
    FlPipe *self = (FlPipe *)base;
    if (self->large) {
        self->large = false;
        (void)atomic_fetch_sub(&base->loop->large_pipes, 1);
    }
    pipe_restore(self);
    if (!self->duplicate) return;
    FlPoll *poll = &base->loop->poll;
    (void)fl_poll_set(poll, &base->watcher, 0);
    fl_poll_disown(poll, base->watcher.fd, (PyObject *)base);
    close(base->watcher.fd);
    base->watcher.fd = self->fileno;
    self->duplicate = false;
}

void
fl_pipe_unbind(FlTransport *Py_UNUSED(base))
{
    /* Methods are looked up at each call. */
}

int
fl_pipe_log_closed(FlPipe *self)
{
    FlTransport *base = &self->base;
    if (!base->loop->debug) return 0;
    FlState *st = base->loop->st;
    PyObject *logger = PyObject_GetAttr(st->asyncio_base_events, st->str_logger);
    if (logger == NULL) return -1;
    PyObject *result =
        PyObject_CallMethod(logger, "info", "sO", "%r was closed by peer", base);
    Py_DECREF(logger);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_pipe_fileno(FlLoop *loop, PyObject *pipe, const char *refusal, struct stat *status)
{
    PyObject *number = PyObject_CallMethodNoArgs(pipe, loop->st->str_fileno);
    if (number == NULL) return -1;
    int fd = fl_compat_long_as_int(number);
    Py_DECREF(number);
    if (fd == -1 && PyErr_Occurred()) return -1;
    if (fstat(fd, status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    mode_t mode = status->st_mode;
    if (S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode)) return fd;
    PyErr_SetString(PyExc_ValueError, refusal);
    return -1;
}

int
fl_pipe_open(FlPipe *self, FlLoop *loop, const FlTransportKind *kind,
             FlWatcherCall call, int fd, const struct stat *status, PyObject *pipe,
             PyObject *protocol, PyObject *extra)
{
    FlTransport *base = &self->base;
    int watched = fd;
    self->fileno = fd;
    self->device = status->st_dev;
    self->inode = status->st_ino;
    base->flags = FL_TRANSPORT_CLOSED;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) goto failed;
    if (fl_poll_has_transport(&loop->poll, fd)) {
        /* A descriptor stands in the epoll set once, a duplicate beside it. */
        watched = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (watched < 0) goto failed;
    }
    if (fl_transport_init(base, loop, kind, call, watched, pipe, protocol, NULL, NULL) <
        0) {
        goto error;
    }
    self->duplicate = watched != fd;
    if (!(flags & O_NONBLOCK)) {
        if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            fl_transport_abandon(base);
            goto error;
        }
        self->restores = true;
    }
    base->extra = extra == Py_None ? PyDict_New() : Py_NewRef(extra);
    if (base->extra != NULL &&
        PyDict_SetItem(base->extra, loop->st->str_pipe, pipe) == 0) {
        return 0;
    }
    pipe_restore(self);
    fl_transport_abandon(base);
    goto error;

failed:
    PyErr_SetFromErrno(PyExc_OSError);
error:
    self->duplicate = false;
    if (watched >= 0 && watched != fd) {
        close(watched);
        base->watcher.fd = fd;
    }
    return -1;
}

void
fl_pipe_abandon(FlPipe *self)
{
    PyObject *raised = fl_compat_take_exception();
    fl_pipe_release(&self->base);
    fl_compat_set_exception(raised);
    fl_transport_abandon(&self->base);
}

const char *
fl_pipe_state(FlPipe *self, uint32_t event)
{
    if (self->base.flags & FL_TRANSPORT_CLOSED) return "closed";
    if (self->base.loop->closed) return "open";
    return fl_shared_peek(&self->base.watcher.events) & event ? "polling" : "idle";
}

const char *
fl_pipe_prefix(FlPipe *self)
{
    if (self->base.flags & FL_TRANSPORT_CLOSED) return " closed";
    return self->base.flags & FL_TRANSPORT_CLOSING ? " closing" : "";
}

PyObject *
fl_pipe_get_pipe(PyObject *op, void *Py_UNUSED(closure))
{
    PyObject *pipe;
    FL_BEGIN_CRITICAL(op);
    pipe = ((FlTransport *)op)->sock;
    pipe = Py_NewRef(pipe != NULL ? pipe : Py_None);
    FL_END_CRITICAL();
    return pipe;
}

/* transport._pipe = None: whoever closed the file himself says so like this. */
int
fl_pipe_set_pipe(PyObject *op, PyObject *value, void *Py_UNUSED(closure))
{
    FL_OWN(((FlTransport *)op)->loop, -1);
    FlTransport *base = (FlTransport *)op;
    if (value != Py_None) {
        PyErr_SetString(PyExc_TypeError, "_pipe can only be set to None");
        return -1;
    }
    if (base->flags & FL_TRANSPORT_CLOSED) return 0;
    fl_pipe_release(base);
    (void)fl_poll_set(&base->loop->poll, &base->watcher, 0);
    fl_poll_disown(&base->loop->poll, base->watcher.fd, op);
    base->flags |= FL_TRANSPORT_CLOSED | FL_TRANSPORT_CLOSING;
    base->kind->discard(base);
    Py_XDECREF(fl_transport_take_sock(base));
    return 0;
}

PyObject *
fl_pipe_get_fileno(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(((FlPipe *)op)->fileno);
}

PyObject *
fl_pipe_find_transport(PyObject *op, PyObject *pipe)
{
    FlLoop *loop = (FlLoop *)op;
    FL_OWN(loop, NULL);
    for (size_t fd = 0; fd < loop->poll.slot_count; fd++) {
        PyObject *transport = fl_poll_transport(&loop->poll, (int)fd);
        if (transport == NULL) continue;
        if ((Py_IS_TYPE(transport, loop->st->read_pipe_transport_type) ||
             Py_IS_TYPE(transport, loop->st->write_pipe_transport_type)) &&
            ((FlTransport *)transport)->sock == pipe) {
            return transport;
        }
        Py_DECREF(transport);
    }
    Py_RETURN_NONE;
}
