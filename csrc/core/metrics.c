/* metrics.c - histograms, the rate of the ticks, and the snapshot that Python sees.
 *
 * Owns:   nothing: the counters are the loop's.
 * Thread: as metrics.h has it; the snapshot is anybody's. */
#include "core/metrics.h"
#include "core/loop.h"

enum {
    HISTOGRAM_EXACT = 8,         /* values below have a bucket each */
    METRICS_SCALE_EVERY = 4096,  /* measurements after which the rate is asked anew */
    METRICS_SCALE_SOON = 16,     /* and while the loop is young */
    METRICS_SCALE_AGE = 1000000, /* nanoseconds that it is young for */
};

static inline unsigned
histogram_bucket(uint64_t ns)
{
    if (ns < HISTOGRAM_EXACT) return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (power - 2) * 8 + (unsigned)((ns >> (power - 3)) & 7);
    return bucket < FL_HISTOGRAM_BUCKETS ? bucket : FL_HISTOGRAM_BUCKETS - 1;
}

void
fl_histogram_add(FlHistogram *histogram, uint64_t ns)
{
    fl_count_add(&histogram->buckets[histogram_bucket(ns)], 1);
    fl_count_add(&histogram->sum, ns);
    if (ns > fl_count_get(&histogram->most)) {
        fl_count_set(&histogram->most, ns);
    }
}

void
fl_metrics_init(FlMetrics *metrics)
{
    atomic_init(&metrics->turns, 0);
    atomic_init(&metrics->idle, true);
    metrics->base_ns = uv_hrtime();
    metrics->base_ticks = fl_metrics_now();
    metrics->ns_per_tick = 1.0;
    metrics->last_due = INT64_MIN;
}

/* How long a tick is, by what has passed since the loop was made. */
static double
metrics_rate(const FlMetrics *metrics)
{
    uint64_t ns = uv_hrtime() - metrics->base_ns;
    uint64_t ticks = fl_metrics_now() - metrics->base_ticks;
    if (ns == 0 || ticks == 0 || ticks > INT64_MAX) return metrics->ns_per_tick;
    return (double)ns / (double)ticks;
}

uint64_t
fl_metrics_ns(FlMetrics *metrics, uint64_t ticks)
{
    if (metrics->scale_left == 0) {
        metrics->ns_per_tick = metrics_rate(metrics);
        bool young = uv_hrtime() - metrics->base_ns < METRICS_SCALE_AGE;
        metrics->scale_left = young ? METRICS_SCALE_SOON : METRICS_SCALE_EVERY;
    }
    metrics->scale_left--;
    if (ticks > INT64_MAX) return 0; /* two processors' counters that do not agree */
    return (uint64_t)((double)ticks * metrics->ns_per_tick);
}

void
fl_metrics_run(FlMetrics *metrics)
{
    uint64_t now = fl_metrics_now();
    fl_count_set(&metrics->run_started, now);
    metrics->woke = now;
    atomic_store_explicit(&metrics->thread, PyThread_get_thread_ident(),
                          memory_order_relaxed);
    fl_metrics_set_busy(metrics);
}

void
fl_metrics_ran(FlMetrics *metrics)
{
    uint64_t now = fl_metrics_now();
    uint64_t started = fl_count_get(&metrics->run_started);
    fl_count_set(&metrics->run_started, 0);
    if (now > started) {
        fl_count_add(&metrics->ran_ticks, now - started);
    }
    fl_metrics_set_idle(metrics);
}

/* -- the snapshot ----------------------------------------------------------------- */

/* Sets dict[name] to a number. 0 or -1. */
static int
metrics_put(PyObject *dict, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int rc = number == NULL ? -1 : PyDict_SetItemString(dict, name, number);
    Py_XDECREF(number);
    return rc;
}

/* Sets dict[name] and takes the reference. 0 or -1. */
static int
metrics_put_object(PyObject *dict, const char *name, PyObject *value)
{
    int rc = value == NULL ? -1 : PyDict_SetItemString(dict, name, value);
    Py_XDECREF(value);
    return rc;
}

/* (sum, most, [(bucket, count), ...]) of the buckets that are not empty. */
static PyObject *
metrics_histogram(const FlHistogram *histogram)
{
    PyObject *list = PyList_New(0);
    if (list == NULL) return NULL;
    uint64_t sum = fl_count_get(&histogram->sum);
    uint64_t most = fl_count_get(&histogram->most);
    for (int i = 0; i < FL_HISTOGRAM_BUCKETS; i++) {
        uint64_t count = fl_count_get(&histogram->buckets[i]);
        if (count == 0) continue;
        PyObject *pair = Py_BuildValue("iK", i, (unsigned long long)count);
        int rc = pair == NULL ? -1 : PyList_Append(list, pair);
        Py_XDECREF(pair);
        if (rc < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return Py_BuildValue("KKN", (unsigned long long)sum, (unsigned long long)most,
                         list);
}

/* {kind: (bytes in, bytes out, reads, writes, opened, open)} */
static PyObject *
metrics_traffic(const FlMetrics *metrics)
{
    static const char *const names[FL_TRAFFIC_KINDS] = {
        [FL_TRAFFIC_TCP] = "tcp",   [FL_TRAFFIC_UNIX] = "unix",
        [FL_TRAFFIC_PIPE] = "pipe", [FL_TRAFFIC_UDP] = "udp",
        [FL_TRAFFIC_TLS] = "tls",   [FL_TRAFFIC_SOCK] = "sock",
    };
    PyObject *dict = PyDict_New();
    for (int i = 0; dict != NULL && i < FL_TRAFFIC_KINDS; i++) {
        const FlTraffic *traffic = &metrics->traffic[i];
        uint64_t closed = traffic->closed, opened = fl_count_get(&traffic->opened);
        PyObject *row = Py_BuildValue(
            "KKKKKK", (unsigned long long)fl_count_get(&traffic->bytes_in),
            (unsigned long long)fl_count_get(&traffic->bytes_out),
            (unsigned long long)fl_count_get(&traffic->reads),
            (unsigned long long)fl_count_get(&traffic->writes),
            (unsigned long long)opened,
            (unsigned long long)(opened > closed ? opened - closed : 0));
        if (metrics_put_object(dict, names[i], row) < 0) {
            Py_CLEAR(dict);
        }
    }
    return dict;
}

#if !FL_HAVE_GIL
/* As they are just now, for who may look. */
static void
metrics_own_lengths(FlLoop *loop, uint64_t *ready, uint64_t *timers)
{
    FL_OWN_ELSE(loop, return);
    *ready = fl_ring_len(&loop->ready);
    *timers = loop->timers.heap.length;
}
#endif

/* How many wait, also of those that were handed over. */
static void
metrics_lengths(FlLoop *loop, uint64_t *ready, uint64_t *timers)
{
#if FL_HAVE_GIL
    *ready = fl_ring_len(&loop->ready);
    *timers = loop->timers.heap.length;
#else
    *ready = fl_count_get(&loop->metrics.ready_length);
    *timers = fl_count_get(&loop->metrics.timers_length);
    metrics_own_lengths(loop, ready, timers);
    FlWakeup *wakeup = &loop->wakeup;
    fl_lock_acquire(&wakeup->lock);
    *ready += fl_ring_len(&wakeup->queue) - wakeup->timers;
    *timers += wakeup->timers;
    fl_lock_release(&wakeup->lock);
#endif
}

/* Tells of more ticks, at the rate of now. In nanoseconds, never less than before. */
static uint64_t
metrics_tell(FlTold *told, uint64_t ticks, double rate)
{
    if (ticks > told->ticks) {
        told->ns += (double)(ticks - told->ticks) * rate;
        told->ticks = ticks;
    }
    return (uint64_t)told->ns;
}

static int
metrics_put_times(PyObject *dict, FlLoop *loop)
{
    FlMetrics *metrics = &loop->metrics;
    bool waits = atomic_load_explicit(&metrics->idle, memory_order_relaxed);
    double rate = metrics_rate(metrics);
    uint64_t now = fl_metrics_now();
    uint64_t started = fl_count_get(&metrics->run_started);
    uint64_t ran = fl_count_get(&metrics->ran_ticks);
    uint64_t idle = fl_count_get(&metrics->idle_ticks);
    if (started != 0 && now > started) {
        ran += now - started;
        uint64_t began = fl_count_get(&metrics->wait_started);
        if (waits && now > began) {
            idle += now - began;
        }
    }
    if (idle > ran) {
        idle = ran;
    }
    uint64_t idle_ns, busy_ns;
    FL_BEGIN_CRITICAL((PyObject *)loop);
    idle_ns = metrics_tell(&metrics->told_idle, idle, rate);
    busy_ns = metrics_tell(&metrics->told_busy, ran - idle, rate);
    FL_END_CRITICAL();
    if (metrics_put(dict, "running", started != 0) < 0) return -1;
    if (metrics_put(dict, "idle_ns", idle_ns) < 0) return -1;
    return metrics_put(dict, "busy_ns", busy_ns);
}

static int
metrics_put_counts(PyObject *dict, FlLoop *loop)
{
    const FlMetrics *metrics = &loop->metrics;
    uint64_t ready, timers;
    metrics_lengths(loop, &ready, &timers);
    uint64_t skipped = fl_count_get(&metrics->skipped);
    uint64_t taken = fl_count_get(&metrics->taken);
    ptrdiff_t cancelled = loop->timers.cancelled;
    uint64_t dead = cancelled > 0 ? (uint64_t)cancelled : 0;
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"iterations", atomic_load_explicit(&metrics->turns, memory_order_relaxed)},
        {"callbacks_run", taken > skipped ? taken - skipped : 0},
        {"callbacks_cancelled", skipped},
        {"ready_now", ready},
        {"ready_peak", fl_count_get(&metrics->ready_peak)},
        {"timers_pending", timers > dead ? timers - dead : 0},
        {"timers_cancelled", dead},
        {"timers_fired", fl_count_get(&metrics->timers_fired)},
        {"polls", fl_count_get(&loop->poll.waits)},
        {"poll_events", fl_count_get(&metrics->events)},
        {"gil_handovers", fl_count_get(&metrics->gil_handovers)},
        {"jobs_submitted", fl_count_get(&metrics->jobs_submitted)},
        {"jobs_started", fl_count_get(&metrics->jobs_started)},
        {"accepts", fl_count_get(&metrics->accepts)},
        {"accept_failures", fl_count_get(&metrics->accept_failures)},
        {"listening",
         fl_count_get(&metrics->listening_begun) - metrics->listening_ended},
        {"tls_handshakes", fl_count_get(&metrics->handshakes)},
        {"tls_handshake_failures", fl_count_get(&metrics->handshake_failures)},
        {"udp_dropped", metrics->udp_dropped},
        {"time_ns", uv_hrtime()},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(counts); i++) {
        if (metrics_put(dict, counts[i].name, counts[i].value) < 0) return -1;
    }
    return 0;
}

/* loop._metrics(): everything, in a dict of which fastloop/metrics.py makes a record.
 */
static PyObject *
metrics_get(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlLoop *self = (FlLoop *)op;
    FlMetrics *metrics = &self->metrics;
    PyObject *dict = PyDict_New();
    if (dict == NULL) return NULL;
    if (metrics_put_counts(dict, self) < 0 || metrics_put_times(dict, self) < 0 ||
        metrics_put_object(dict, "lag", metrics_histogram(&metrics->lag)) < 0 ||
        metrics_put_object(dict, "duration", metrics_histogram(&metrics->duration)) <
            0 ||
        metrics_put_object(dict, "job_wait", metrics_histogram(&metrics->job_wait)) <
            0 ||
        metrics_put_object(dict, "traffic", metrics_traffic(metrics)) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
    return dict;
}

PyMethodDef fl_metrics_methods[] = {
    {"_metrics", metrics_get, METH_NOARGS,
     PyDoc_STR("_metrics($self)\n--\n\nReturn what was counted, as a dict.")},
    {NULL, NULL, 0, NULL},
};
