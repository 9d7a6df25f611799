/* flow.c - flow control of what transports write.
 *
 * Owns:   nothing: the marks and the flag are the transport's.
 * Thread: the loop's own. */
#include "io/flow.h"
#include "base/errors.h"

enum {
    FLOW_LOST_WRITES = 5, /* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
};

/* Calls the protocol's method; what it raises is reported with message. shown is NULL
 * for the protocol itself. 0 or -1. */
static int
flow_call(FlTransport *self, PyObject *name, const char *message, PyObject *shown)
{
    if (self->protocol == NULL) return 0;
    FlState *st = self->loop->st;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, name);
    int rc = 0;
    if (result == NULL) {
        rc = fl_errors_report_text(st, (PyObject *)self->loop, message,
                                   st->str_transport, (PyObject *)self,
                                   st->str_protocol, shown != NULL ? shown : protocol);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
    return rc;
}

static int
flow_call_pause(FlTransport *self, PyObject *shown)
{
    self->flags |= FL_TRANSPORT_PROTOCOL_PAUSED;
    return flow_call(self, self->loop->st->str_pause_writing,
                     "protocol.pause_writing() failed", shown);
}

static int
flow_call_resume(FlTransport *self, PyObject *shown)
{
    self->flags &= ~(unsigned)FL_TRANSPORT_PROTOCOL_PAUSED;
    return flow_call(self, self->loop->st->str_resume_writing,
                     "protocol.resume_writing() failed", shown);
}

int
fl_flow_maybe_pause(FlTransport *self)
{
    if (self->kind->buffered(self) <= self->high_water) return 0;
    if (self->flags & FL_TRANSPORT_PROTOCOL_PAUSED) return 0;
    return flow_call_pause(self, NULL);
}

int
fl_flow_maybe_resume(FlTransport *self)
{
    if (!(self->flags & FL_TRANSPORT_PROTOCOL_PAUSED)) return 0;
    if (self->kind->buffered(self) > self->low_water) return 0;
    return flow_call_resume(self, NULL);
}

int
fl_flow_maybe_resume_within(FlTransport *self)
{
    bool entered = fl_transport_enter(self);
    int rc = fl_flow_maybe_resume(self);
    return fl_transport_left(self, entered, rc);
}

int
fl_flow_pause(FlTransport *self, PyObject *shown)
{
    bool entered = fl_transport_enter(self);
    int rc = flow_call_pause(self, shown);
    return fl_transport_left(self, entered, rc);
}

int
fl_flow_resume(FlTransport *self, PyObject *shown)
{
    bool entered = fl_transport_enter(self);
    int rc = flow_call_resume(self, shown);
    return fl_transport_left(self, entered, rc);
}

int
fl_flow_write_lost(FlTransport *self, const char *warning)
{
    if (self->conn_lost >= FLOW_LOST_WRITES && fl_transport_warn(self, warning) < 0) {
        return -1;
    }
    fl_shared_put(&self->conn_lost, self->conn_lost + 1);
    return 0;
}

/* -- the marks --------------------------------------------------------------------- */

int
fl_flow_parse_limits(PyObject *args, PyObject *kwargs, PyObject **high, PyObject **low)
{
    static char *names[] = {"high", "low", NULL};
    *high = *low = Py_None;
    return PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits",
                                       names, high, low)
               ? 0
               : -1;
}

int
fl_flow_put_limits(FlTransport *self, PyObject *high, PyObject *low)
{
    PyObject *set =
        PyObject_CallMethod(self->loop->st->transport_base, "_set_write_buffer_limits",
                            "OOO", self, high, low);
    Py_XDECREF(set);
    return set == NULL ? -1 : 0;
}

PyObject *
fl_flow_set_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTransport *self = (FlTransport *)op;
    PyObject *high, *low;
    if (fl_flow_parse_limits(args, kwargs, &high, &low) < 0) return NULL;
    /* Asks how much waits, as asyncio does: that offers what waits for the turn's end,
     * which is no reason to pause. */
    PyObject *size =
        PyObject_CallMethodNoArgs(op, self->loop->st->str_get_write_buffer_size);
    if (size == NULL) return NULL;
    Py_DECREF(size);
    if (fl_flow_put_limits(self, high, low) < 0) return NULL;
    if (fl_flow_maybe_pause(self) < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *
fl_flow_get_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlTransport *self = (FlTransport *)op;
    return Py_BuildValue("(nn)", (Py_ssize_t)fl_shared_peek(&self->low_water),
                         (Py_ssize_t)fl_shared_peek(&self->high_water));
}
