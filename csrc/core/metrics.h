/* metrics.h - what a loop counts while it works.
 *
 * Always on, so it costs what a plain addition does: nothing here takes a lock, and no
 * callback has a clock read for it. Times are counted in ticks of the processor, which
 * are told in nanoseconds only when somebody asks.
 *
 * Promises: counters never go back; loop._metrics() may be called from any thread.
 * Where there is no GIL, each counter has one writer and is read and written whole.
 *
 * Thread: the loop's own writes; the workers of its executor under the GIL; the
 * watchdog reads turns and idle without it. */
#ifndef FL_METRICS_H
#define FL_METRICS_H
#include "base/shared.h"
#include "base/ticks.h"
#include <stdatomic.h>

typedef FL_SHARED uint64_t FlCount;

static inline void
fl_count_add(FlCount *count, uint64_t more)
{
#if FL_HAVE_GIL
    *count += more;
#else /* one writer: no need for the processors to agree on each addition */
    uint64_t before = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, before + more, memory_order_relaxed);
#endif
}

static inline uint64_t
fl_count_get(const FlCount *count)
{
#if FL_HAVE_GIL
    return *count;
#else
    return atomic_load_explicit((FlCount *)count, memory_order_relaxed);
#endif
}

static inline void
fl_count_set(FlCount *count, uint64_t value)
{
#if FL_HAVE_GIL
    *count = value;
#else
    atomic_store_explicit(count, value, memory_order_relaxed);
#endif
}

/* Eight buckets for each power of two: what is told of a value is right by an eighth.
 * The last takes what is above half an hour. */
enum { FL_HISTOGRAM_BUCKETS = 312 };

typedef struct {
    FlCount buckets[FL_HISTOGRAM_BUCKETS];
    FlCount sum; /* nanoseconds */
    FlCount most;
} FlHistogram;

void fl_histogram_add(FlHistogram *histogram, uint64_t ns);

/* What moves bytes, by what is on the other side of the system call. TLS counts what
 * the program sees; the records are its stream's. */
enum {
    FL_TRAFFIC_TCP,
    FL_TRAFFIC_UNIX,
    FL_TRAFFIC_PIPE,
    FL_TRAFFIC_UDP,
    FL_TRAFFIC_TLS,
    FL_TRAFFIC_SOCK, /* loop.sock_recv() and its kin */
    FL_TRAFFIC_KINDS,
};

typedef struct {
    FlCount bytes_in;
    FlCount bytes_out;
    FlCount reads;
    FlCount writes;
    FlCount opened;
    FL_SHARED uint64_t closed; /* also by a collector in another thread */
} FlTraffic;

typedef struct {
    uint64_t ticks;
    double ns;
} FlTold;

/* Invariants: turns changes with each turn; idle is set while the loop waits for events
 * and while it does not run. wait_started is when it began to wait, woke when it last
 * came back; both in ticks. */
typedef struct {
    _Atomic uint64_t turns;
    atomic_bool idle;
    atomic_ulong thread; /* that ran the loop last */
    FlCount taken;       /* entries of the ready queue, */
    FlCount skipped;     /* and how many of them were cancelled */
    FlCount ready_peak;
    FlCount events; /* that the poll told of */
    FlCount gil_handovers;
    FlCount timers_fired;
    FlCount idle_ticks;
    FlCount ran_ticks; /* in runs that are over */
    FlCount run_started;
    FlCount wait_started;
    uint64_t woke;
    int64_t last_due; /* what the clock said when timers were last looked at */
    FlHistogram lag;
    FlHistogram duration;
    FlHistogram job_wait;
    FlCount jobs_submitted;
    FlCount jobs_started;
    FlTraffic traffic[FL_TRAFFIC_KINDS];
    FlCount accepts;
    FlCount accept_failures;
    FlCount listening_begun;
    FL_SHARED uint64_t listening_ended;
    FlCount handshakes;
    FlCount handshake_failures;
    FL_SHARED uint64_t udp_dropped; /* by the kernel, of sockets that are closed */
    uint64_t base_ns;               /* clock and ticks when the loop was made */
    uint64_t base_ticks;
    double ns_per_tick;
    unsigned scale_left; /* measurements until the rate is looked at again */
    FlTold told_idle;    /* what was told so far, which the rate may change no more; */
    FlTold told_busy;    /* whoever asks has the loop to himself */
#if !FL_HAVE_GIL
    FlCount ready_length; /* what others must not look at themselves */
    FlCount timers_length;
#endif
} FlMetrics;

static inline uint64_t
fl_metrics_now(void)
{
#ifdef FL_NO_TICKS
    return uv_hrtime();
#else
    return fl_ticks();
#endif
}

void fl_metrics_init(FlMetrics *metrics);

/* Ticks in nanoseconds. The loop's own thread. */
uint64_t fl_metrics_ns(FlMetrics *metrics, uint64_t ticks);

/* -- the loop's states ------------------------------------------------------------ */

static inline uint64_t
fl_metrics_turns(FlMetrics *metrics)
{
    return atomic_load_explicit(&metrics->turns, memory_order_relaxed);
}

static inline void
fl_metrics_turn(FlMetrics *metrics)
{
    uint64_t turns = fl_metrics_turns(metrics);
    atomic_store_explicit(&metrics->turns, turns + 1, memory_order_relaxed);
}

static inline void
fl_metrics_set_idle(FlMetrics *metrics)
{
    atomic_store_explicit(&metrics->idle, true, memory_order_relaxed);
}

static inline void
fl_metrics_set_busy(FlMetrics *metrics)
{
    atomic_store_explicit(&metrics->idle, false, memory_order_relaxed);
}

/* Around a wait for events: the first and the last with the GIL, the second without. */
static inline void
fl_metrics_wait(FlMetrics *metrics)
{
    fl_count_set(&metrics->wait_started, fl_metrics_now());
    fl_count_add(&metrics->gil_handovers, 1);
    fl_metrics_set_idle(metrics);
}

static inline uint64_t
fl_metrics_wake(FlMetrics *metrics)
{
    fl_metrics_set_busy(metrics);
    return fl_metrics_now();
}

static inline void
fl_metrics_waited(FlMetrics *metrics, uint64_t woke)
{
    uint64_t started = fl_count_get(&metrics->wait_started);
    metrics->woke = woke;
    if (FL_LIKELY(woke > started)) { /* not all processors' counters may agree */
        fl_count_add(&metrics->idle_ticks, woke - started);
    }
}

/* A run begins or ends. */
void fl_metrics_run(FlMetrics *metrics);
void fl_metrics_ran(FlMetrics *metrics);

/* A batch of the ready queue is about to run. */
static inline void
fl_metrics_batch(FlMetrics *metrics, uint64_t length)
{
    if (FL_UNLIKELY(length > fl_count_get(&metrics->ready_peak))) {
        fl_count_set(&metrics->ready_peak, length);
    }
}

/* A timer is late by so many nanoseconds. */
static inline void
fl_metrics_timer(FlMetrics *metrics, int64_t deadline, int64_t now)
{
    fl_count_add(&metrics->timers_fired, 1);
    /* What was overdue when it was scheduled is not the loop's doing. */
    if (FL_LIKELY(deadline >= metrics->last_due)) {
        fl_histogram_add(&metrics->lag, (uint64_t)(now - deadline));
    }
}

static inline void
fl_traffic_in(FlTraffic *traffic, size_t bytes)
{
    fl_count_add(&traffic->bytes_in, bytes);
    fl_count_add(&traffic->reads, 1);
}

static inline void
fl_traffic_out(FlTraffic *traffic, size_t bytes)
{
    fl_count_add(&traffic->bytes_out, bytes);
    fl_count_add(&traffic->writes, 1);
}

extern PyMethodDef fl_metrics_methods[]; /* of the Loop: _metrics */

#endif
