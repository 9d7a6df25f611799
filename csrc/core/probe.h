/* probe.h - how long callbacks take: one in many, or each.
 *
 * The ready queue and the poll run most callbacks without looking at the time. One in
 * about 64 is timed, for the histograms of metrics.h: so long as nobody asks for more,
 * a callback that is not timed costs nothing for it. With loop.slow_callback_hook set
 * each is timed, and those that take loop.slow_callback_duration or longer are named.
 *
 * Promises: what asyncio's debug mode does is not touched. What the hook raises is
 * reported to the loop's exception handler. */
#ifndef FL_PROBE_H
#define FL_PROBE_H
#include "base/state.h"
#include "core/metrics.h"

/* Invariants: until is how many callbacks run before the next that is timed, 0 always
 * while watching; lag_at, if lag_marked, is the place in the ready queue (its tail of
 * that time) of a callback that was scheduled at lag_since. */
typedef struct {
    size_t until;
    size_t lag_at;
    uint64_t lag_since;
    bool lag_marked;
    FL_SHARED bool watching;
    PyObject *hook;    /* slow_callback_hook, or NULL */
    PyObject *sampler; /* called with each callback that was timed, or NULL */
    uint64_t limit;    /* slow_callback_duration in ticks, as of limit_turn */
    uint64_t limit_turn;
    uint64_t cpu_ns; /* the thread's own time at cpu_ticks */
    uint64_t cpu_ticks;
} FlProbes;

/* One measurement: on the stack of whoever runs the callback. */
typedef struct {
    PyObject *what;
    uint64_t started;
    uint64_t tail;
    bool full; /* not for the lag alone */
} FlProbe;

typedef enum { FL_PROBE_CALLBACK, FL_PROBE_TIMER, FL_PROBE_EVENT } FlProbeKind;

/* How many entries of the ready queue may run before the next that is timed. */
size_t fl_probe_plain_run(FlLoop *loop);

/* Begins to time an entry of the ready queue (what: its callback, or NULL), or a
 * watcher (its owner). */
void fl_probe_begin_ready(FlLoop *loop, FlProbe *probe, PyObject *what, size_t at);
void fl_probe_begin_event(FlLoop *loop, FlProbe *probe, PyObject *what);

/* Ends it; rc is what the callback returned. rc, or -1 with an exception of the hook's
 * that must leave the loop. */
int fl_probe_end(FlLoop *loop, FlProbe *probe, FlProbeKind kind, unsigned events,
                 int rc);

int fl_probe_traverse(FlProbes *probes, visitproc visit, void *arg);
void fl_probe_clear(FlProbes *probes);

extern PyGetSetDef fl_probe_getset[]; /* slow_callback_hook, _sampler */

#endif
