/* bound.h - the methods of a protocol that a transport calls for each piece of data.
 *
 * Promises: each is looked up once, when it is first needed, and again after another
 * protocol was set. A look-up may run Python code (a property) that sets one or closes
 * the transport: then what was found is not kept. */
#ifndef FL_BOUND_H
#define FL_BOUND_H
#include "io/transport.h"

/* Invariant: what is not NULL is a bound method of the transport's current protocol. */
typedef struct {
    PyObject *receive; /* data_received, or get_buffer of a BufferedProtocol */
    PyObject *updated; /* buffer_updated of a BufferedProtocol */
    bool feeds;        /* receive is that of asyncio's streams: see feed.h */
} FlBound;

/* Looks up a method of the protocol, which must not be NULL, for receive or updated of
 * bound, as kept says. New reference or NULL. */
PyObject *fl_bound_look_up(FlTransport *self, FlBound *bound, PyObject **kept,
                           PyObject *name);

/* The same where it may be known already. */
static inline PyObject *
fl_bound_get(FlTransport *self, FlBound *bound, PyObject **kept, PyObject *name)
{
    if (FL_LIKELY(*kept != NULL)) return Py_NewRef(*kept);
    return fl_bound_look_up(self, bound, kept, name);
}

/* Forgets them: the protocol is another one. */
static inline void
fl_bound_clear(FlBound *bound)
{
    bound->feeds = false;
    Py_CLEAR(bound->receive);
    Py_CLEAR(bound->updated);
}

static inline int
fl_bound_traverse(FlBound *bound, visitproc visit, void *arg)
{
    Py_VISIT(bound->receive);
    Py_VISIT(bound->updated);
    return 0;
}

#endif
