/* streamlend.c - the descriptor of a stream transport, lent to sendfile().
 *
 * Owns:   nothing: the waiter is the transport's.
 * Thread: the loop's own.
 *
 * asyncio's sendfile() waits until all that was written has left, and then writes to
 * the socket itself. */
#include "io/streamlend.h"
#include "core/tasks.h"
#include "io/reader.h"
#include "io/streamwrite.h"

static void
streamlend_take_back(FlStream *self)
{
    Py_CLEAR(self->empty_waiter);
    if (!(self->base.flags & FL_TRANSPORT_CLOSED)) {
        (void)fl_poll_own(&self->base.loop->poll, self->base.watcher.fd,
                          (PyObject *)self);
    }
}

PyObject *
fl_streamlend_make_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlStream *self = (FlStream *)op;
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (fl_streamwrite_settle(self) < 0) return NULL;
    PyObject *waiter = fl_tasks_new_future(self->base.loop);
    if (waiter == NULL) return NULL;
    self->empty_waiter = Py_NewRef(waiter);
    /* Lent: add_writer() may have the descriptor until the waiter is reset. */
    fl_poll_disown(&self->base.loop->poll, self->base.watcher.fd, op);
    if (self->out.size == 0 && fl_streamwrite_drained(self) < 0) {
        Py_CLEAR(waiter);
        streamlend_take_back(self);
    }
    return waiter;
}

PyObject *
fl_streamlend_reset_empty_waiter(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    streamlend_take_back((FlStream *)op);
    Py_RETURN_NONE;
}

int
fl_streamlend_lost(FlTransport *base, PyObject *Py_UNUSED(exc))
{
    FlStream *self = (FlStream *)base;
    if (self->empty_waiter == NULL) return 0;
    PyObject *waiter = Py_NewRef(self->empty_waiter);
    fl_reader_expire(base->loop, base->watcher.fd); /* a sendfile() that had it lent */
    FlState *st = base->loop->st;
    PyObject *error = NULL, *result = NULL;
    int rc = -1;
    PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
    int is_done = done == NULL ? -1 : PyObject_IsTrue(done);
    Py_XDECREF(done);
    if (is_done != 0) {
        rc = is_done < 0 ? -1 : 0;
        goto done;
    }
    error = PyObject_CallFunction(PyExc_ConnectionError, "s",
                                  "Connection is closed by peer");
    if (error == NULL) goto done;
    result = PyObject_CallMethodOneArg(waiter, st->str_set_exception, error);
    rc = result == NULL ? -1 : 0;
done:
    Py_XDECREF(error);
    Py_XDECREF(result);
    Py_DECREF(waiter);
    return rc;
}
