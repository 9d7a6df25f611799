/* streamlend.c - the descriptor of a stream transport, lent to sendfile().
 *
 * Owns:   nothing: the waiter is the transport's.
 * Thread: the loop's own.
 *
 * asyncio's sendfile() waits until all that was written has left, and then writes to
 * the socket itself. */
#include "io/streamlend.h"
#include "io/reader.h"

PyObject *
fl_streamlend_make_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (self->flush.queued && fl_stream_flush(self) < 0) return NULL;
    PyObject *waiter = fl_loop_new_future(self->base.loop);
    if (waiter == NULL) return NULL;
    self->empty_waiter = Py_NewRef(waiter);
    /* Lent: add_writer() may have the descriptor until the waiter is reset. */
    fl_poll_disown(&self->base.loop->poll, self->base.watcher.fd, op);
    if (self->out.size == 0 && fl_stream_drained(self) < 0) {
        Py_CLEAR(waiter);
    }
    return waiter;
}

PyObject *
fl_streamlend_reset_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    Py_CLEAR(self->empty_waiter);
    if (!(self->base.flags & FL_TRANSPORT_CLOSED)) {
        (void)fl_poll_own(&self->base.loop->poll, self->base.watcher.fd, op);
    }
    Py_RETURN_NONE;
}

int
fl_streamlend_lost(FlTransport *base, PyObject *Py_UNUSED(exc))
{
    FlStream *self = (FlStream *)base;
    if (self->empty_waiter == NULL) return 0;
    fl_reader_expire(base->loop, base->watcher.fd); /* a sendfile() that had it lent */
    FlState *st = base->loop->st;
    PyObject *done = PyObject_CallMethodNoArgs(self->empty_waiter, st->str_done);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    if (is_done != 0) return is_done < 0 ? -1 : 0;
    PyObject *error = PyObject_CallFunction(PyExc_ConnectionError, "s",
                                            "Connection is closed by peer");
    PyObject *result = error == NULL
                           ? NULL
                           : PyObject_CallMethodOneArg(self->empty_waiter,
                                                       st->str_set_exception, error);
    Py_XDECREF(error);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}
