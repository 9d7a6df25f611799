/* bound.c - looks up how a protocol receives.
 *
 * Owns:   nothing: what it finds is the transport's.
 * Thread: the loop's own. */
#include "io/bound.h"
#include "io/feed.h"

PyObject *
fl_bound_look_up(FlTransport *self, FlBound *bound, PyObject **kept, PyObject *name)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *method = PyObject_GetAttr(protocol, name);
    if (method != NULL) {
        bool feeds = kept == &bound->receive &&
                     fl_feed_is_meant(self->loop->st, protocol, method);
        if (self->protocol == protocol && *kept == NULL) {
            *kept = Py_NewRef(method);
            bound->feeds |= feeds;
        }
    }
    Py_DECREF(protocol);
    return method;
}
