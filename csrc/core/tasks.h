/* tasks.h - the futures and tasks that a loop makes.
 *
 * Promises: they are of the classes that asyncio has at that moment, and those get the
 * keywords that were given and no others. A task factory, debug mode and keywords of
 * newer Pythons are asyncio's own code's. */
#ifndef FL_TASKS_H
#define FL_TASKS_H
#include "core/loop.h"

/* loop.create_future(). New reference. */
PyObject *fl_tasks_new_future(FlLoop *loop);

/* create_future(), create_task(). */
extern PyMethodDef fl_tasks_methods[];

#endif
