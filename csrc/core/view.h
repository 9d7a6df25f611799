/* view.h - attributes of the Loop that asyncio's code and tools look at.
 *
 * Promises: BaseEventLoop's own code finds and sets its state in the loop's C fields;
 * whoever looks at what waits finds handles, made at that moment. */
#ifndef FL_VIEW_H
#define FL_VIEW_H
#include "base/compat.h"

extern PyGetSetDef fl_view_getset[];

/* A getter: the object at the offset that closure is, or None. */
PyObject *fl_view_get_object(PyObject *op, void *closure);

#endif
