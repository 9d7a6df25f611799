/* timer.h - callbacks that are due at a time.
 *
 * Promises: never early by loop.time(), equal deadlines in the order of scheduling,
 * cancelled handles leave memory before they outnumber the live ones. */
#ifndef FL_TIMER_H
#define FL_TIMER_H
#include "base/heap.h"
#include "base/ring.h"
#include "base/shared.h"
#include "core/handle.h"
#include "core/metrics.h"

/* Invariants: the heap owns a reference to each handle in it, and each has
 * FL_HANDLE_SCHEDULED; cancelled counts those of them that were cancelled. Keys are
 * nanoseconds of uv_hrtime(); a deadline may be before its zero, the machine's start.
 */
typedef struct {
    FlHeap heap;
    FL_SHARED ptrdiff_t cancelled;
} FlTimers;

#define FL_TIMER_NEVER INT64_MAX /* also the key of what is centuries ahead */

/* loop.time() for a reading of uv_hrtime(): seconds, as time.monotonic(). */
static inline double
fl_timer_seconds(int64_t ns)
{
    return (double)ns / 1e9;
}

/* Takes the handle out of the heap, or counts it and compacts the heap in time. The
 * caller owns a reference to the handle and to its loop. */
void fl_timers_cancelled(FlTimers *timers, FlHandle *handle);

/* The same by a thread that is not the loop's own: only counts it. */
static inline void
fl_timers_cancelled_elsewhere(FlTimers *timers)
{
    timers->cancelled++;
}

/* Puts a handle into the heap, which takes the caller's reference; false where memory
 * is out. */
bool fl_timers_push(FlTimers *timers, FlHandle *handle);

/* Nanoseconds for a timeout in seconds, at least 0. 0, or -1 with TypeError, or with
 * ValueError for what is not a number. */
int fl_timer_parse_timeout(PyObject *timeout, int64_t *ns);

/* The deadline of the first live handle in nanoseconds, or FL_TIMER_NEVER. */
int64_t fl_timers_next(FlTimers *timers);

/* Moves every handle that is due at now to the ready queue, references and all, and
 * notes how late it is. 0, or -1 with MemoryError. */
int fl_timers_pop_due(FlTimers *timers, int64_t now, FlRing *ready, FlMetrics *metrics);

/* Lets every handle go. */
void fl_timers_clear(FlTimers *timers);

int fl_timers_traverse(FlTimers *timers, visitproc visit, void *arg);

/* True unless a subclass or a patch gave the loop another clock. */
bool fl_timer_is_own(FlLoop *loop);

/* loop.time() as a key of the heap: what is due has a key that is not above it. 0 or
 * -1. */
int fl_timer_clock(FlLoop *loop, int64_t *now);

extern PyMethodDef fl_timer_methods[]; /* of the Loop: call_later, call_at */
extern PyMethodDef fl_timer_time_def;  /* time */
extern PyGetSetDef fl_timer_getset[];  /* _scheduled, _timer_cancelled_count */

#endif
