/* transport.c - what sockets, pipes and datagram endpoints have in common.
 *
 * Owns:   protocol, context, the descriptor or the object that owns it.
 * Thread: the loop's own. */
#include "io/transport.h"
#include "core/turn.h"
#include "base/errors.h"
#include "io/flow.h"
#include "io/overdue.h"
#include "io/reader.h"
#include <errno.h>
#include <unistd.h>

FlTransport *
fl_transport_alloc(PyTypeObject *type)
{
    /* tp_alloc of a subclass of asyncio's Python classes zeroes and tracks. */
    return (FlTransport *)type->tp_alloc(type, 0);
}

int
fl_transport_init(FlTransport *self, FlLoop *loop, const FlTransportKind *kind,
                  FlWatcherCall call, int fd, PyObject *sock, PyObject *protocol,
                  PyObject *context, PyObject *server)
{
    self->kind = kind;
    self->flags = FL_TRANSPORT_CLOSED; /* until everything is in place */
    fl_flow_init(self, FL_FLOW_HIGH_WATER);
    self->watcher = (FlWatcher){.fd = fd, .call = call, .owner = (PyObject *)self};
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->traffic = &loop->metrics.traffic[kind->traffic];
    self->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (self->context == NULL) return -1;
    if (fl_loop_check_closed(loop) < 0) return -1;

    int buffered = PyObject_IsInstance(protocol, loop->st->buffered_protocol);
    if (buffered < 0) return -1;
    int code = fl_poll_own(&loop->poll, fd, (PyObject *)self);
    if (code != 0) {
        fl_errors_from_uv(-code);
        return -1;
    }
    if (server != NULL) {
#if FL_SERVER_ATTACH_TRANSPORT
        PyObject *attached =
            PyObject_CallMethodOneArg(server, loop->st->str__attach, (PyObject *)self);
#else
        PyObject *attached = PyObject_CallMethodNoArgs(server, loop->st->str__attach);
#endif
        if (attached == NULL) {
            fl_poll_disown(&loop->poll, fd, (PyObject *)self);
            return -1;
        }
        Py_DECREF(attached);
    }
    self->protocol = Py_NewRef(protocol);
    self->server = Py_XNewRef(server);
    self->sock = Py_XNewRef(sock);
    self->flags = buffered ? FL_TRANSPORT_BUFFERED : 0;
    fl_count_add(&self->traffic->opened, 1);
    return 0;
}

static int
transport_call_soon(FlTransport *self, PyObject *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, name);
    if (method == NULL) return -1;
    int rc = fl_loop_call_soon(self->loop, method, &arg, arg != NULL, self->context);
    Py_DECREF(method);
    return rc;
}

/* Queues three handles, of which one may be NULL: all, or none. 0 or -1. */
static int
transport_push(FlLoop *loop, FlHandle **handles)
{
    for (int i = 0; i < 3; i++) {
        if (handles[i] == NULL || fl_loop_push(loop, handles[i]) == 0) continue;
        PyObject *raised = fl_compat_take_exception();
        while (--i >= 0) {
            if (handles[i] != NULL && fl_handle_cancel(handles[i]) < 0) {
                PyErr_WriteUnraisable((PyObject *)loop);
            }
        }
        fl_compat_set_exception(raised);
        return -1;
    }
    return 0;
}

int
fl_transport_start(FlTransport *self, PyObject *waiter)
{
    FlLoop *loop = self->loop;
    FlState *st = loop->st;
    PyObject *op = (PyObject *)self;
    bool awaited = waiter != NULL && waiter != Py_None;
    PyObject *wake = NULL, *watch = NULL;
    FlHandle *handles[3] = {NULL, NULL, NULL};
    int rc = -1;
    PyObject *made = PyObject_GetAttr(self->protocol, st->str_connection_made);
    if (made == NULL) goto done;
    handles[0] = fl_loop_make_handle(loop, made, &op, 1, self->context);
    if (handles[0] == NULL) goto done;
    if (awaited) {
        wake =
            PyObject_GetAttr(st->asyncio_futures, st->str__set_result_unless_cancelled);
        if (wake == NULL) goto done;
        PyObject *args[2] = {waiter, Py_None};
        handles[1] = fl_loop_make_handle(loop, wake, args, 2, self->context);
        if (handles[1] == NULL) goto done;
    }
    /* Reading begins only when connection_made() has been called. */
    watch = PyObject_GetAttr(op, st->str__connection_made);
    if (watch == NULL) goto done;
    handles[2] = fl_loop_make_handle(loop, watch, NULL, 0, self->context);
    if (handles[2] == NULL || fl_loop_check_closed(loop) < 0) goto done;
    rc = transport_push(loop, handles);
done:
    for (size_t i = 0; i < Py_ARRAY_LENGTH(handles); i++) {
        Py_XDECREF((PyObject *)handles[i]);
    }
    Py_XDECREF(watch);
    Py_XDECREF(wake);
    Py_XDECREF(made);
    return rc;
}

PyObject *
fl_transport_connection_made(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTransport *self = (FlTransport *)op;
    if (self->flags & FL_TRANSPORT_CLOSED) Py_RETURN_NONE;
    self->flags |= FL_TRANSPORT_STARTED;
    if (fl_transport_watch(self) < 0 &&
        fl_transport_fatal(self, "Fatal error on transport") < 0) {
        return NULL;
    }
    /* What there is to read comes behind the step of the task that awaited the
     * connection, which is ready by now, and ahead of what that step queues. */
    fl_turn_look_soon(self->loop);
    Py_RETURN_NONE;
}

int
fl_transport_watch(FlTransport *self)
{
    uint32_t events = self->flags & FL_TRANSPORT_CLOSED ? 0 : self->kind->wanted(self);
    FlPoll *poll = &self->loop->poll;
    if (events != 0 && fl_loop_check_closed(self->loop) < 0) return -1;
    int code = fl_poll_set(poll, &self->watcher, events);
    if (FL_UNLIKELY(code == EEXIST)) {
        fl_reader_forget(self->loop, self->watcher.fd);
        code = fl_poll_set(poll, &self->watcher, events);
    }
    if (FL_LIKELY(code == 0)) return 0;
    fl_errors_from_uv(-code);
    return -1;
}

bool
fl_transport_enter(FlTransport *self)
{
    /* Ahead of the error: its text is made with code that looks for signals, and what a
     * handler of one raises would end here. */
    if (PyThreadState_Get()->context == self->context) return false;
    if (FL_LIKELY(PyContext_Enter(self->context) == 0)) return true;
    PyErr_Clear();
    return false;
}

void
fl_transport_leave(FlTransport *self, bool entered)
{
    if (!entered) return;
    if (FL_UNLIKELY(PyErr_Occurred() != NULL)) {
        PyObject *exc = fl_compat_take_exception();
        (void)PyContext_Exit(self->context);
        fl_compat_set_exception(exc);
    }
    else if (PyContext_Exit(self->context) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

int
fl_transport_lose(FlTransport *self, PyObject *exc)
{
    if (self->conn_lost > 0) return 0;
    fl_shared_put(&self->conn_lost, self->conn_lost + 1);
    int rc = transport_call_soon(self, self->loop->st->str__call_connection_lost,
                                 exc != NULL ? exc : Py_None);
    if (FL_UNLIKELY(rc < 0) && PyErr_ExceptionMatches(PyExc_MemoryError)) {
        fl_overdue_add(self);
    }
    return rc;
}

int
fl_transport_force_close(FlTransport *self, PyObject *exc)
{
    if (self->conn_lost > 0) return 0;
    self->kind->discard(self);
    self->flags |= FL_TRANSPORT_CLOSING;
    (void)fl_poll_set(&self->loop->poll, &self->watcher, 0);
    return fl_transport_lose(self, exc);
}

PyObject *
fl_transport_force_close_method(PyObject *op, PyObject *exc)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    if (fl_transport_force_close((FlTransport *)op, exc) < 0) return NULL;
    Py_RETURN_NONE;
}

int
fl_transport_close(FlTransport *self)
{
    if (self->flags & FL_TRANSPORT_CLOSING) return 0;
    self->flags |= FL_TRANSPORT_CLOSING;
    if (fl_transport_watch(self) < 0) {
        return fl_transport_fatal(self, "Fatal error on transport");
    }
    return self->kind->buffered(self) > 0 ? 0 : fl_transport_lose(self, NULL);
}

/* Closes a socket object that nobody else has: without the frames of its Python
 * methods. NULL with an exception. */
static PyObject *
transport_close_sock(FlState *st, PyObject *sock)
{
    if (FL_HAVE_GIL && Py_REFCNT(sock) == 1 &&
        Py_IS_TYPE(sock, (PyTypeObject *)st->socket_class)) {
        PyObject *close = PyObject_GetAttr(st->socket_class, st->str_close);
        if (close == NULL) return NULL;
        bool plain = close == st->socket_close; /* which calls the other at once */
        Py_DECREF(close);
        if (plain) return PyObject_CallOneArg(st->native_socket_close, sock);
    }
    return PyObject_CallMethodNoArgs(sock, st->str_close);
}

/* Closes the descriptor through its owner. What that raised, a new reference, or NULL.
 */
static PyObject *
transport_release(FlTransport *self)
{
    if (self->flags & FL_TRANSPORT_CLOSED) return NULL;
    if (self->kind->release != NULL) {
        self->kind->release(self);
    }
    FlPoll *poll = &self->loop->poll;
    int fd = self->watcher.fd;
    (void)fl_poll_set(poll, &self->watcher, 0);
    fl_poll_disown(poll, fd, (PyObject *)self);
    /* In this order: who makes the socket object for another thread looks at the flag,
     * in a critical section, and has put it there before this takes it, or never will.
     */
    self->flags |= FL_TRANSPORT_CLOSED | FL_TRANSPORT_CLOSING;
    PyObject *sock = fl_transport_take_sock(self);
    self->traffic->closed++;
    if (sock == NULL) {
        close(fd);
        return NULL;
    }
    PyObject *closed = transport_close_sock(self->loop->st, sock);
    PyObject *raised = closed == NULL ? fl_compat_take_exception() : NULL;
    Py_XDECREF(closed);
    Py_DECREF(sock);
    return raised;
}

/* Reports an exception that has no place to go, if there is one; it is spent. */
static void
transport_unraisable(FlTransport *self, PyObject *exc)
{
    if (exc == NULL) return;
    fl_compat_set_exception(exc);
    PyErr_WriteUnraisable((PyObject *)self);
}

void
fl_transport_release(FlTransport *self)
{
    transport_unraisable(self, transport_release(self));
}

/* What that raised, a new reference, or NULL. */
static PyObject *
transport_detach(FlTransport *self)
{
    PyObject *server;
    FL_BEGIN_CRITICAL((PyObject *)self);
    server = self->server;
    self->server = NULL;
    FL_END_CRITICAL();
    if (server == NULL) return NULL;
#if FL_SERVER_ATTACH_TRANSPORT
    PyObject *result = PyObject_CallMethodOneArg(server, self->loop->st->str__detach,
                                                 (PyObject *)self);
#else
    PyObject *result = PyObject_CallMethodNoArgs(server, self->loop->st->str__detach);
#endif
    PyObject *raised = result == NULL ? fl_compat_take_exception() : NULL;
    Py_XDECREF(result);
    Py_DECREF(server);
    return raised;
}

PyObject *
fl_transport_take_sock(FlTransport *self)
{
    PyObject *sock;
    FL_BEGIN_CRITICAL((PyObject *)self);
    sock = self->sock;
    self->sock = NULL;
    FL_END_CRITICAL();
    return sock;
}

/* Another thread may ask for it at the same time. */
void
fl_transport_put_protocol(FlTransport *self, PyObject *protocol)
{
    PyObject *old;
    FL_BEGIN_CRITICAL((PyObject *)self);
    old = self->protocol;
    self->protocol = Py_XNewRef(protocol);
    FL_END_CRITICAL();
    /* Behind it: what goes here may run code that reads, for the new protocol then. */
    self->kind->unbind(self);
    Py_XDECREF(old);
}

PyObject *
fl_transport_call_there(PyObject *op, const char *name)
{
    FlTransport *self = (FlTransport *)op;
    PyObject *method = PyObject_GetAttrString(op, name);
    if (method == NULL) return NULL;
    int rc = fl_loop_call_threadsafe(self->loop, method, NULL, 0);
    Py_DECREF(method);
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

/* Which of two exceptions goes on: the first, unless only the other has to leave the
 * loop. The one that does not is reported. Either may be NULL; takes both over. */
static PyObject *
transport_choose(FlTransport *self, PyObject *first, PyObject *second)
{
    if (first == NULL || second == NULL) return first != NULL ? first : second;
    bool is_second = PyErr_GivenExceptionMatches(first, PyExc_Exception) &&
                     !PyErr_GivenExceptionMatches(second, PyExc_Exception);
    transport_unraisable(self, is_second ? first : second);
    return is_second ? second : first;
}

PyObject *
fl_transport_call_connection_lost(PyObject *op, PyObject *exc)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTransport *self = (FlTransport *)op;
    if (self->protocol == NULL) Py_RETURN_NONE;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result =
        PyObject_CallMethodOneArg(protocol, self->loop->st->str_connection_lost, exc);
    PyObject *raised = result == NULL ? fl_compat_take_exception() : NULL;
    Py_XDECREF(result);

    raised = transport_choose(self, raised, transport_release(self));
    fl_turn_look_soon(self->loop); /* a peer in this process may hear of it */
    fl_transport_put_protocol(self, NULL);
    raised = transport_choose(self, raised, transport_detach(self));
    int rc = self->kind->lost != NULL ? self->kind->lost(self, exc) : 0;
    if (rc < 0) {
        raised = transport_choose(self, raised, fl_compat_take_exception());
    }
    Py_DECREF(protocol); /* its end may open a file that gets the descriptor's number */
    if (raised != NULL) {
        fl_compat_set_exception(raised);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
fl_transport_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    /* As in asyncio, what the collector ended is not closing for the finalizers that
     * run behind: that of a StreamWriter warns then. */
    unsigned flags = ((FlTransport *)op)->flags;
    flags &= FL_TRANSPORT_CLOSING | FL_TRANSPORT_UNCLOSED;
    return PyBool_FromLong(flags == FL_TRANSPORT_CLOSING);
}

PyObject *
fl_transport_get_protocol(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol;
    FL_BEGIN_CRITICAL(op);
    protocol = Py_XNewRef(((FlTransport *)op)->protocol);
    FL_END_CRITICAL();
    return protocol != NULL ? protocol : Py_NewRef(Py_None);
}

PyObject *
fl_transport_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTransport *self = (FlTransport *)op;
    PyObject *protocol =
        fl_callargs_one("set_protocol", "protocol", args, nargs, kwnames);
    if (protocol == NULL) return NULL;
    int buffered = PyObject_IsInstance(protocol, self->loop->st->buffered_protocol);
    if (buffered < 0) return NULL;
    if (buffered) {
        self->flags |= FL_TRANSPORT_BUFFERED;
    }
    else {
        self->flags &= ~(unsigned)FL_TRANSPORT_BUFFERED;
    }
    fl_transport_put_protocol(self, protocol);
    Py_RETURN_NONE;
}

PyObject *
fl_transport_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTransport *self = (FlTransport *)op;
    if (self->flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED)) Py_RETURN_NONE;
    self->flags |= FL_TRANSPORT_PAUSED;
    if (fl_transport_watch(self) < 0) return NULL;
    if (fl_transport_debug(self, "%r pauses reading") < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *
fl_transport_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTransport *self = (FlTransport *)op;
    if ((self->flags & FL_TRANSPORT_CLOSING) || !(self->flags & FL_TRANSPORT_PAUSED)) {
        Py_RETURN_NONE;
    }
    /* As in asyncio, whoever resumes behind the peer's end is told of it once more: be
     * it another protocol, as that of start_tls(). */
    self->flags &= ~(unsigned)(FL_TRANSPORT_PAUSED | FL_TRANSPORT_READ_EOF);
    if (fl_transport_watch(self) < 0) return NULL;
    fl_turn_look_soon(self->loop); /* it may have waited for long */
    if (fl_transport_debug(self, "%r resumes reading") < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *
fl_transport_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    unsigned flags = ((FlTransport *)op)->flags;
    return PyBool_FromLong(!(flags & (FL_TRANSPORT_CLOSING | FL_TRANSPORT_PAUSED)));
}

int
fl_transport_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlTransport *self = (FlTransport *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->mixin); i++) {
        Py_VISIT(self->mixin[i]);
    }
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->sock);
    Py_VISIT(self->server);
    return 0;
}

int
fl_transport_clear(PyObject *op)
{
    FlTransport *self = (FlTransport *)op;
    if (self->loop != NULL) {
        fl_transport_release(self);
    }
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    for (size_t i = 0; i < Py_ARRAY_LENGTH(self->mixin); i++) {
        Py_CLEAR(self->mixin[i]);
    }
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->context);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->server);
    return 0;
}

void
fl_transport_warn_unclosed(PyObject *op)
{
    PyObject *pending = fl_compat_take_exception();
    if (PyErr_ResourceWarning(op, 1, "unclosed transport %R", op) < 0) {
        if (PyErr_ExceptionMatches(PyExc_Warning)) {
            PyErr_WriteUnraisable(op);
        }
        PyErr_Clear();
    }
    if (pending != NULL) {
        fl_compat_set_exception(pending);
    }
}

void
fl_transport_finalize(PyObject *op)
{
    FlTransport *self = (FlTransport *)op;
    if (self->flags & FL_TRANSPORT_CLOSED) return;
    if (!(self->flags & FL_TRANSPORT_CLOSING)) {
        self->flags |= FL_TRANSPORT_UNCLOSED;
    }
    fl_transport_warn_unclosed(op);
    PyObject *pending = fl_compat_take_exception();
    fl_transport_release(self);
    if (pending != NULL) {
        fl_compat_set_exception(pending);
    }
}

void
fl_transport_dealloc(PyObject *op, inquiry clear)
{
    FlTransport *self = (FlTransport *)op;
    PyTypeObject *tp = Py_TYPE(op);
    if (PyObject_CallFinalizerFromDealloc(op) < 0) return;
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    (void)clear(op);
    PyMem_Free(self->peer);
    PyMem_Free(self->own_name);
    Py_CLEAR(self->loop);
    tp->tp_free(op);
    Py_DECREF(tp);
}

int
fl_transport_check_free(FlLoop *loop, int fd)
{
    PyObject *other = fl_poll_transport(&loop->poll, fd);
    if (other == NULL) return 0;
    bool is_open = !(((FlTransport *)other)->flags & FL_TRANSPORT_CLOSING);
    if (is_open) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R",
                     fd, other);
    }
    Py_DECREF(other);
    return is_open ? -1 : 0;
}

void
fl_transport_abandon(FlTransport *self)
{
    PyObject *raised = fl_compat_take_exception();
    fl_poll_disown(&self->loop->poll, self->watcher.fd, (PyObject *)self);
    self->flags |= FL_TRANSPORT_CLOSED | FL_TRANSPORT_CLOSING;
    self->traffic->closed++;
    fl_shared_put(&self->conn_lost, self->conn_lost + 1);
    Py_XDECREF(fl_transport_take_sock(self));
    transport_unraisable(self, transport_detach(self));
    fl_compat_set_exception(raised);
}

/* What asyncio's transports read at most, for those who look. 0 or -1. */
static int
transport_set_max_size(PyTypeObject *type)
{
    PyObject *size = PyLong_FromLong(FL_SLAB_SIZE);
    if (size == NULL) return -1;
    int rc = PyObject_SetAttrString((PyObject *)type, "max_size", size);
    Py_DECREF(size);
    return rc;
}

PyTypeObject *
fl_transport_make_type(PyObject *module, PyType_Spec *spec, PyObject *bases)
{
    PyObject *base = PyTuple_Check(bases) ? PyTuple_GET_ITEM(bases, 0) : bases;
    /* Our struct begins with the base's: a header, the slot _extra, those of the mixin.
     */
    size_t size = (size_t)((PyTypeObject *)base)->tp_basicsize;
    if (size != offsetof(FlTransport, mixin) &&
        size != offsetof(FlTransport, weakrefs)) {
        PyErr_Format(PyExc_ImportError,
                     "fastloop does not support this Python: %R has another layout",
                     base);
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, bases);
    if (type != NULL &&
        (transport_set_max_size(type) < 0 || PyModule_AddType(module, type) < 0)) {
        Py_CLEAR(type);
    }
    return type;
}
