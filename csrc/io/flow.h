/* flow.h - flow control: what a protocol hears of the bytes that wait to be written.
 *
 * Promises: pause_writing() comes once when more waits than the high mark allows, and
 * resume_writing() once when that is down to the low mark. What they raise is reported,
 * and the connection lives on. The marks are asyncio's, with its arithmetic. */
#ifndef FL_FLOW_H
#define FL_FLOW_H
#include "io/transport.h"

enum { FL_FLOW_HIGH_WATER = 64 * 1024 }; /* of asyncio's, but for TLS */

/* Invariants: low_water <= high_water, unless the program set an attribute itself.
 * FL_TRANSPORT_PROTOCOL_PAUSED is set from before pause_writing() is called until
 * before resume_writing() is: either may write, and finds what holds from then on. */

/* The marks of a fresh transport: asyncio's low one is a quarter of the high one. */
static inline void
fl_flow_init(FlTransport *self, size_t high_water)
{
    self->high_water = high_water;
    self->low_water = high_water / 4;
}

/* pause_writing() above the high mark, resume_writing() at the low one, if that is due.
 * 0, or -1 with an exception that must leave the loop. */
int fl_flow_maybe_pause(FlTransport *self);
int fl_flow_maybe_resume(FlTransport *self);

/* The latter in the connection's own context. */
int fl_flow_maybe_resume_within(FlTransport *self);

/* For transports with other rules: the same calls at once, in the connection's own
 * context. What they raise is reported as shown's, which the handler is told of in the
 * protocol's place. 0, or -1 with an exception that must leave the loop. */
int fl_flow_pause(FlTransport *self, PyObject *shown);
int fl_flow_resume(FlTransport *self, PyObject *shown);

/* A write after the loss: counts, and warns from the fifth on. 0 or -1. */
int fl_flow_write_lost(FlTransport *self, const char *warning);

/* The arguments of set_write_buffer_limits(), borrowed. 0 or -1 with TypeError. */
int fl_flow_parse_limits(PyObject *args, PyObject *kwargs, PyObject **high,
                         PyObject **low);

/* Sets the marks by asyncio's arithmetic, which takes any number; None is what was not
 * given. 0 or -1. */
int fl_flow_put_limits(FlTransport *self, PyObject *high, PyObject *low);

/* The methods of transports that write. */
#define FL_FLOW_LIMIT_METHODS(set)                                                     \
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))(set),                    \
     METH_VARARGS | METH_KEYWORDS,                                                     \
     PyDoc_STR("set_write_buffer_limits($self, high=None, low=None)\n--\n\n"           \
               "Set the marks, in bytes, for pause_writing() and resume_writing().")}, \
    {                                                                                  \
        "get_write_buffer_limits", fl_flow_get_limits, METH_NOARGS,                    \
            PyDoc_STR(                                                                 \
                "get_write_buffer_limits($self)\n--\n\nReturn (low, high), in bytes.") \
    }
#define FL_FLOW_METHODS FL_FLOW_LIMIT_METHODS(fl_flow_set_limits)

PyObject *fl_flow_set_limits(PyObject *, PyObject *, PyObject *);
PyObject *fl_flow_get_limits(PyObject *, PyObject *);

#endif
