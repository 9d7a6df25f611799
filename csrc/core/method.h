/* method.h - methods of the Loop that live in a slot of the loop.
 *
 * _asyncio looks call_soon up at each step of a task: found ready bound in a slot, that
 * costs 9% less of a task switch than binding it anew. And the loop must know whether
 * its time() is its own, which a __dict__ would not tell.
 *
 * Promises: like any method otherwise. It can be replaced on an instance, and deleting
 * the replacement brings the loop's own back; called on the class it takes the loop as
 * its first argument; super() finds it. */
#ifndef FL_METHOD_H
#define FL_METHOD_H
#include "base/state.h"

/* Adds the method to the Loop type. slot is the offset in FlLoop of a PyObject *, which
 * holds what the attribute is: the bound method, a replacement, or NULL for a method
 * that is bound when asked for. 0 or -1. */
int fl_method_add(FlState *st, PyMethodDef *def, size_t slot);

int fl_method_register(PyObject *module, FlState *st);

#endif
