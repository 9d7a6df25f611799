/* watchdog.h - notices that a loop does not come back, while that is so.
 *
 * A thread that needs no GIL looks at the loop's turns (metrics.h) four times in the
 * threshold; the loop does nothing for it. The thread is one of Python's, which serves
 * _core.Watch.wait(): it tells fastloop/_watchdog.py of what it finds. If that takes
 * too long, because C code holds the GIL, another thread writes what can be had
 * without.
 *
 * Promises: time in which the watching thread itself did not run, as that of a process
 * that was stopped, does not count. A loop that closes, or goes, ends its watches. A
 * forked child has no such thread, and touches no lock that it held. */
#ifndef FL_WATCHDOG_H
#define FL_WATCHDOG_H
#include "base/state.h"

typedef struct FlWatch FlWatch;

/* The loop is no more: its watches end. */
void fl_watchdog_forget(FlLoop *loop);

int fl_watchdog_register(PyObject *module, FlState *st);

#endif
