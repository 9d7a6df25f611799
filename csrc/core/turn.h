/* turn.h - one turn of a loop.
 *
 * Promises: wait or look for events, tell of them, take in what other threads queued
 * and the timers that are due, run what is ready (its length taken at entry), flush
 * small writes (of long turns between callbacks, too); in that order, but where
 * callbacks are ready already, they run between the look and the telling, and the
 * timers behind it: asyncio's order. */
#ifndef FL_TURN_H
#define FL_TURN_H
#include "core/loop.h"

/* Takes one turn, in which it waits for something to do no longer than limit, in
 * nanoseconds (FL_TIMER_NEVER: no limit). 0, or -1 with the exception that must leave
 * the loop; what was not run is kept for the next turn. A callback may take a turn of
 * the loop that called it. */
int fl_turn_take(FlLoop *loop, int64_t limit);

/* The next turn looks for events. */
void fl_turn_look_soon(FlLoop *loop);

/* Has flush->call() called at the end of this turn (or of the next, outside one), or
 * between two callbacks where it has waited for 50 us: the others' work is not to hold
 * up an answer. */
void fl_turn_flush_later(FlLoop *loop, FlFlush *flush);

/* The same, but not before the end. */
void fl_turn_flush_at_end(FlLoop *loop, FlFlush *flush);

/* Between two callbacks: serves those who have waited so long. 0 or -1. */
int fl_turn_flush_overdue(FlLoop *loop);
static inline int
fl_turn_between(FlLoop *loop)
{
    return FL_LIKELY(loop->flush_since == 0) ? 0 : fl_turn_flush_overdue(loop);
}

/* Serves everybody who asked for a flush by now. 0 or -1. */
int fl_turn_flush(FlLoop *loop);

/* Debug mode: warns of a handle or another object whose callback took seconds, if that
 * is loop.slow_callback_duration or more. 0, or -1 with an exception. */
int fl_turn_log_slow(FlLoop *loop, PyObject *what, double seconds);

#endif
