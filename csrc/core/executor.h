/* executor.h - run_in_executor(), and so asyncio.to_thread().
 *
 * Promises: jobs of the default executor go through jobs.h if it is the one that the
 * loop made for itself and nobody has replaced its submit(); in all other cases, in
 * debug mode and without a GIL asyncio's own code runs. */
#ifndef FL_EXECUTOR_H
#define FL_EXECUTOR_H
#include "core/loop.h"

int fl_executor_register(PyObject *module, FlState *st);

#endif
