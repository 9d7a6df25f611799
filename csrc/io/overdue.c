/* overdue.c - transports whose connection_lost() could not be scheduled.
 *
 * Owns:   a reference to each of them, until it is scheduled or the loop is closed.
 * Thread: the loop's own.
 *
 * There is no memory for a list: a flag in the transport says it, and the loop's slots
 * of descriptors lead to the transports. */
#include "io/overdue.h"

/* 0 or -1. */
static int
overdue_schedule(FlTransport *self)
{
    PyObject *method =
        PyObject_GetAttr((PyObject *)self, self->loop->st->str__call_connection_lost);
    if (method == NULL) return -1;
    (void)PyErr_NoMemory(); /* Python keeps a few of them ready */
    PyObject *exc = fl_compat_take_exception();
    int rc = fl_loop_call_soon(self->loop, method, &exc, 1, self->context);
    Py_DECREF(exc);
    Py_DECREF(method);
    return rc;
}

static void
overdue_retry(FlLoop *loop)
{
    bool left = false;
    loop->overdue = NULL;
    FlPoll *poll = &loop->poll;
    for (size_t fd = 0; fd < poll->slot_count; fd++) {
        FlTransport *self = (FlTransport *)fl_poll_transport(poll, (int)fd);
        if (self == NULL) continue;
        if (self->flags & FL_TRANSPORT_OVERDUE) {
            /* To schedule may run code that takes turns, which come here, too. */
            self->flags &= ~(unsigned)FL_TRANSPORT_OVERDUE;
            if (overdue_schedule(self) < 0 && !loop->closed) {
                self->flags |= FL_TRANSPORT_OVERDUE;
                left = true;
            }
            else {
                Py_DECREF((PyObject *)self); /* the one of fl_overdue_add() */
            }
            PyErr_Clear(); /* still no memory, or the loop is closed */
        }
        Py_DECREF((PyObject *)self);
    }
    if (left) {
        loop->overdue = overdue_retry;
    }
}

void
fl_overdue_add(FlTransport *self)
{
    FlLoop *loop = self->loop;
    /* While it is lent to a sendfile(), that is who ends it. */
    PyObject *watched = fl_poll_transport(&loop->poll, self->watcher.fd);
    Py_XDECREF(watched);
    if (watched != (PyObject *)self) return;
    self->flags |= FL_TRANSPORT_OVERDUE;
    Py_INCREF((PyObject *)self);
    loop->overdue = overdue_retry;
}
