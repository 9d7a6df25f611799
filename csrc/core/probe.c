/* probe.c - timing callbacks, and naming those that take too long.
 *
 * Owns:   the hooks, and what is timed while it is.
 * Thread: the loop's own; the hooks are set from any. */
#include "core/probe.h"
#include "core/loop.h"
#include "core/view.h"
#include "base/errors.h"
#include <math.h>
#include <time.h>

enum {
    PROBE_EVERY = 64, /* on average: a period would meet the program's own */
    PROBE_LONG_NS = 1000000,
    PROBE_CPU_MARK_NS = 200000, /* the thread's clock is a system call */
};

/* After a measurement: when is the next? */
static inline void
probe_next(FlProbes *probes, uint64_t ticks)
{
    probes->until = FL_UNLIKELY(probes->watching)
                        ? 0
                        : PROBE_EVERY / 2 + (ticks >> 4) % PROBE_EVERY;
}

size_t
fl_probe_plain_run(FlLoop *loop)
{
    FlProbes *probes = &loop->probes;
    if (FL_UNLIKELY(probes->watching)) {
        probes->until = 0;
    }
    if (FL_UNLIKELY(probes->lag_marked)) {
        size_t offset = probes->lag_at - loop->ready.head;
        if (offset >= fl_ring_len(&loop->ready)) {
            probes->lag_marked = false; /* it has gone another way */
        }
        else if (offset < probes->until) {
            return offset;
        }
    }
    return probes->until;
}

static uint64_t
probe_cpu_ns(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) < 0) return 0;
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* The time of the thread before a callback, right by PROBE_CPU_MARK_NS. */
static void
probe_mark_cpu(FlLoop *loop, uint64_t ticks)
{
    FlProbes *probes = &loop->probes;
    double rate = loop->metrics.ns_per_tick;
    if ((double)(ticks - probes->cpu_ticks) * rate < PROBE_CPU_MARK_NS) return;
    probes->cpu_ns = probe_cpu_ns();
    probes->cpu_ticks = fl_metrics_now();
}

static void
probe_begin(FlLoop *loop, FlProbe *probe, PyObject *what)
{
    probe->what = Py_XNewRef(what);
    probe->tail = loop->ready.tail;
    probe->full = true;
    probe->started = fl_metrics_now();
    if (FL_UNLIKELY(loop->probes.watching)) {
        probe_mark_cpu(loop, probe->started);
        probe->started = fl_metrics_now();
    }
}

void
fl_probe_begin_ready(FlLoop *loop, FlProbe *probe, PyObject *what, size_t at)
{
    FlProbes *probes = &loop->probes;
    probe_begin(loop, probe, what);
    if (probes->lag_marked && at == probes->lag_at) {
        probes->lag_marked = false;
        fl_histogram_add(
            &loop->metrics.lag,
            fl_metrics_ns(&loop->metrics, probe->started - probes->lag_since));
        if (probes->until > 0) {
            probes->until--;
            probe->full = false;
        }
    }
}

void
fl_probe_begin_event(FlLoop *loop, FlProbe *probe, PyObject *what)
{
    FlMetrics *metrics = &loop->metrics;
    probe_begin(loop, probe, what);
    fl_histogram_add(&metrics->lag,
                     fl_metrics_ns(metrics, probe->started - metrics->woke));
}

/* slow_callback_duration in ticks, asked for once a turn. 0 or -1. */
static int
probe_limit(FlLoop *loop, uint64_t *limit)
{
    FlProbes *probes = &loop->probes;
    FlState *st = loop->st;
    uint64_t turn = atomic_load_explicit(&loop->metrics.turns, memory_order_relaxed);
    if (probes->limit_turn != turn) {
        PyObject *value =
            PyObject_GetAttr((PyObject *)loop, st->str_slow_callback_duration);
        if (value == NULL) return -1;
        double seconds = PyFloat_AsDouble(value);
        Py_DECREF(value);
        if (seconds == -1.0 && PyErr_Occurred()) return -1;
        double ticks = seconds * 1e9 / loop->metrics.ns_per_tick;
        probes->limit = !(ticks > 0)     ? (isnan(ticks) ? UINT64_MAX : 0)
                        : ticks < 9.2e18 ? (uint64_t)ticks
                                         : UINT64_MAX;
        probes->limit_turn = turn;
    }
    *limit = probes->limit;
    return 0;
}

/* loop.name(...). 0 or -1. */
static int
probe_call(FlLoop *loop, const char *name, FlProbe *probe, FlProbeKind kind,
           unsigned events, uint64_t ticks)
{
    double wall = fl_timer_seconds((int64_t)fl_metrics_ns(&loop->metrics, ticks));
    double cpu = wall;
    if (loop->probes.watching) {
        cpu = fl_timer_seconds((int64_t)(probe_cpu_ns() - loop->probes.cpu_ns));
        loop->probes.cpu_ticks = 0; /* what comes after is not to pay for this */
    }
    PyObject *result =
        PyObject_CallMethod((PyObject *)loop, name, "OiIdd", probe->what, (int)kind,
                            events, wall, cpu < wall ? cpu : wall);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Whoever samples hears of one callback in PROBE_EVERY, and of all that take long. */
static bool
probe_is_sampled(FlLoop *loop, uint64_t ticks)
{
    if (loop->probes.sampler == NULL) return false;
    return (fl_metrics_now() >> 4) % PROBE_EVERY == 0 ||
           (double)ticks * loop->metrics.ns_per_tick >= PROBE_LONG_NS;
}

/* Tells those who asked. 0, or -1 with an exception that must leave the loop. */
static int
probe_tell(FlLoop *loop, FlProbe *probe, FlProbeKind kind, unsigned events,
           uint64_t ticks)
{
    FlProbes *probes = &loop->probes;
    uint64_t limit = UINT64_MAX;
    int rc = probes->hook != NULL ? probe_limit(loop, &limit) : 0;
    if (rc == 0 && FL_UNLIKELY(ticks >= limit)) {
        rc = probe_call(loop, "_callback_was_slow", probe, kind, events, ticks);
    }
    if (rc == 0 && probe_is_sampled(loop, ticks)) {
        rc = probe_call(loop, "_callback_was_sampled", probe, kind, events, ticks);
    }
    if (FL_LIKELY(rc == 0)) return 0;
    if (fl_errors_fatal()) return -1;
    return fl_errors_report_text(loop->st, (PyObject *)loop,
                                 "Exception in slow_callback_hook", NULL, NULL, NULL,
                                 NULL);
}

int
fl_probe_end(FlLoop *loop, FlProbe *probe, FlProbeKind kind, unsigned events, int rc)
{
    FlProbes *probes = &loop->probes;
    uint64_t ended = fl_metrics_now();
    if (FL_LIKELY(probe->full)) {
        uint64_t ticks = ended > probe->started ? ended - probe->started : 0;
        fl_histogram_add(&loop->metrics.duration, fl_metrics_ns(&loop->metrics, ticks));
        /* The first that it scheduled is looked at again when it runs. */
        if (!probes->lag_marked && loop->ready.tail != probe->tail) {
            probes->lag_marked = true;
            probes->lag_at = probe->tail;
            probes->lag_since = ended;
        }
        probe_next(probes, ended);
        if (FL_UNLIKELY(probes->watching) && rc == 0 && probe->what != NULL) {
            rc = probe_tell(loop, probe, kind, events, ticks);
        }
    }
    Py_XDECREF(probe->what);
    return rc;
}

int
fl_probe_traverse(FlProbes *probes, visitproc visit, void *arg)
{
    Py_VISIT(probes->hook);
    Py_VISIT(probes->sampler);
    return 0;
}

void
fl_probe_clear(FlProbes *probes)
{
    probes->watching = false;
    Py_CLEAR(probes->hook);
    Py_CLEAR(probes->sampler);
}

static int
probe_set(PyObject *op, PyObject *value, void *closure)
{
    FlProbes *probes = &((FlLoop *)op)->probes;
    PyObject **slot = (PyObject **)((char *)op + (uintptr_t)closure);
    PyObject *old;
    if (value == Py_None) {
        value = NULL;
    }
    if (value != NULL && !PyCallable_Check(value)) {
        PyErr_Format(PyExc_TypeError, "a callable object or None was expected, got %R",
                     value);
        return -1;
    }
    FL_BEGIN_CRITICAL(op);
    old = *slot;
    *slot = Py_XNewRef(value);
    probes->watching = probes->hook != NULL || probes->sampler != NULL;
    FL_END_CRITICAL();
    Py_XDECREF(old);
    return 0;
}

PyGetSetDef fl_probe_getset[] = {
    {"slow_callback_hook", fl_view_get_object, probe_set,
     PyDoc_STR("Called with a fastloop.metrics.SlowCallback; None: nothing is timed."),
     (void *)offsetof(FlLoop, probes.hook)},
    {"_sampler", fl_view_get_object, probe_set, NULL,
     (void *)offsetof(FlLoop, probes.sampler)},
    {NULL, NULL, NULL, NULL, NULL},
};
