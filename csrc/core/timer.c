/* timer.c - the heap of timer handles, and the Loop's methods that fill it.
 *
 * Owns:   the handles in the heap.
 * Thread: the loop's own. */
#include "core/timer.h"
#include "core/handleinfo.h"
#include "core/loop.h"
#include <math.h>

/* Below this many cancelled handles a compaction is not worth its pass. */
enum { TIMER_COMPACT_ABOVE = 64 };

/* Beyond so many the handles are not kept as spares: a thousand of a million would lie
 * in every arena of Python's allocator, none of which could then be given back. */
enum { TIMER_CROWD_ABOVE = 64 * 1024 };

/* Below, a float holds every int as it is. */
#define TIMER_EXACT 9007199254740992.0

static bool
timer_is_live(void *item)
{
    return !(((FlHandle *)item)->flags & FL_HANDLE_CANCELLED);
}

static void
timer_release(FlHandle *handle)
{
    fl_shared_drop(&handle->flags, FL_HANDLE_SCHEDULED);
    Py_DECREF((PyObject *)handle);
}

static inline void
timers_compact(FlTimers *timers)
{
    ptrdiff_t cancelled = timers->cancelled;
    if (cancelled <= TIMER_COMPACT_ABOVE ||
        cancelled <= (ptrdiff_t)timers->heap.length / 2) {
        return;
    }
    size_t count;
    void **taken = fl_heap_filter(&timers->heap, timer_is_live, &count);
    if (taken == NULL) return;
    /* Ahead of the destructors, which may schedule, cancel and come here again. */
    timers->cancelled -= (ptrdiff_t)count;
    for (size_t i = 0; i < count; i++) {
        timer_release(taken[i]);
    }
    free(taken);
}

void
fl_timers_cancelled(FlTimers *timers, FlHandle *handle)
{
    if (fl_heap_take_last(&timers->heap, handle)) {
        timer_release(handle);
        return;
    }
    timers->cancelled++;
    timers_compact(timers);
}

static FlHandle *
timers_pop(FlTimers *timers)
{
    FlHandle *handle = fl_heap_pop(&timers->heap);
    if (fl_shared_drop(&handle->flags, FL_HANDLE_SCHEDULED) & FL_HANDLE_CANCELLED) {
        timers->cancelled--;
    }
    return handle;
}

int64_t
fl_timers_next(FlTimers *timers)
{
    while (timers->heap.length > 0) {
        if (timer_is_live(timers->heap.entries[0].item)) {
            return timers->heap.entries[0].key;
        }
        Py_DECREF((PyObject *)timers_pop(timers));
    }
    return FL_TIMER_NEVER;
}

int
fl_timers_pop_due(FlTimers *timers, int64_t now, FlRing *ready, FlMetrics *metrics)
{
    if (!FL_HAVE_GIL) {
        timers_compact(timers); /* for what other threads cancelled */
    }
    while (timers->heap.length > 0 && timers->heap.entries[0].key <= now) {
        FlHandle *handle = timers->heap.entries[0].item;
        if (!timer_is_live(handle)) {
            Py_DECREF((PyObject *)timers_pop(timers));
            continue;
        }
        if (!fl_ring_push(ready, handle)) {
            PyErr_NoMemory();
            return -1;
        }
        fl_metrics_timer(metrics, timers->heap.entries[0].key, now);
        timers_pop(timers); /* its reference is the ready queue's now */
    }
    metrics->last_due = now;
    return 0;
}

void
fl_timers_clear(FlTimers *timers)
{
    while (timers->heap.length > 0) {
        FlHandle *handle = timers_pop(timers);
        fl_handle_track(handle);
        Py_DECREF((PyObject *)handle);
    }
    timers->cancelled = 0;
    fl_heap_free(&timers->heap);
}

int
fl_timers_traverse(FlTimers *timers, visitproc visit, void *arg)
{
    for (size_t i = 0; i < timers->heap.length; i++) {
        int rc = fl_handle_visit(timers->heap.entries[i].item, visit, arg);
        if (rc != 0) return rc;
    }
    return 0;
}

/* The first nanosecond at which loop.time() is not before when: then a callback that
 * asks for the time never finds itself early, whatever the rounding. */
static int64_t
timer_key(double when)
{
    if (when >= 9.2e9) return FL_TIMER_NEVER;
    if (!(when > -9.2e9)) return INT64_MIN; /* due at once; not a number is, too */
    int64_t key = (int64_t)(when * 1e9);
    while (fl_timer_seconds(key) < when) {
        key++;
    }
    while (fl_timer_seconds(key - 1) >= when) {
        key--;
    }
    return key;
}

static inline bool
timers_push(FlTimers *timers, FlHandle *handle, double when)
{
    int64_t key = timer_key(when);
    if (!fl_heap_push(&timers->heap, key, handle)) return false;
    /* One that was handed over may have been cancelled on its way. */
    unsigned flags = FL_HANDLE_SCHEDULED;
    if (FL_UNLIKELY(timers->heap.length > TIMER_CROWD_ABOVE)) {
        flags |= FL_HANDLE_CROWD;
    }
    if ((fl_shared_set(&handle->flags, flags) & FL_HANDLE_CANCELLED) && !FL_HAVE_GIL) {
        timers->cancelled++;
    }
    return true;
}

int
fl_timer_parse_timeout(PyObject *timeout, int64_t *ns)
{
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred()) return -1;
    if (isnan(seconds)) {
        PyErr_SetString(PyExc_ValueError, "timeout must be a number, not NaN");
        return -1;
    }
    *ns = seconds > 0 ? timer_key(seconds) : 0;
    return 0;
}

bool
fl_timers_push(FlTimers *timers, FlHandle *handle)
{
    return timers_push(timers, handle, ((FlTimerHandle *)handle)->when);
}

/* given is what the program named the time by, where no double tells it, or NULL. */
static PyObject *
timer_schedule(FlLoop *loop, double when, unsigned flags, PyObject *given,
               const FlCallArgs *call)
{
    FlHandle *handle = fl_handle_new(loop, loop->st->timer_handle_type, call->callback,
                                     call->args, call->nargs, call->context);
    if (handle == NULL) return NULL;
    ((FlTimerHandle *)handle)->when = when;
    handle->flags |= flags;
    if (FL_UNLIKELY(given != NULL) &&
        fl_handleinfo_set_note(handle, FL_HANDLEINFO_WHEN, Py_NewRef(given)) < 0) {
        goto error;
    }
    if (FL_UNLIKELY(loop->debug) && fl_handle_trace(handle) < 0) goto error;
    if (!fl_loop_is_own(loop)) {
        fl_shared_set(&handle->flags, FL_HANDLE_HANDED);
        if (fl_wakeup_hand_over(loop, handle, false) < 0) goto error;
        return (PyObject *)handle;
    }
    if (!timers_push(&loop->timers, handle, when)) {
        PyErr_NoMemory();
        goto error;
    }
    return Py_NewRef((PyObject *)handle);

error:
    Py_DECREF((PyObject *)handle);
    return NULL;
}

bool
fl_timer_is_own(FlLoop *loop)
{
    return !loop->overrides_time && loop->time == NULL;
}

int
fl_timer_clock(FlLoop *loop, int64_t *now)
{
    if (FL_LIKELY(fl_timer_is_own(loop))) {
        *now = (int64_t)uv_hrtime();
        return 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str_time);
    if (result == NULL) return -1;
    double seconds = PyFloat_AsDouble(result);
    Py_DECREF(result);
    if (seconds == -1.0 && PyErr_Occurred()) return -1;
    *now = timer_key(seconds);
    return 0;
}

/* The seconds that an object names. 0, or -1 with TypeError for what is no number. */
static int
timer_seconds(PyObject *given, double *when)
{
    *when = PyFloat_AsDouble(given);
    if (FL_LIKELY(*when != -1.0 || !PyErr_Occurred())) return 0;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError)) return -1;
    /* An int of hundreds of digits: a time like any other. */
    PyErr_Clear();
    PyObject *zero = PyLong_FromLong(0);
    int past = zero == NULL ? -1 : PyObject_RichCompareBool(given, zero, Py_LT);
    Py_XDECREF(zero);
    *when = past > 0 ? -HUGE_VAL : HUGE_VAL;
    return past < 0 ? -1 : 0;
}

static int
timer_checks(FlLoop *loop, const FlCallArgs *call, const char *method)
{
    if (fl_loop_check_closed(loop) < 0) return -1;
    if (FL_LIKELY(!loop->debug)) return 0;
    if (fl_loop_check_thread(loop) < 0) return -1;
    return fl_loop_check_callback(loop, call->callback, method);
}

/* call_at() with what was asked for already. */
static PyObject *
timer_schedule_at(FlLoop *loop, PyObject *given, const FlCallArgs *call)
{
    double when;
    if (timer_checks(loop, call, "call_at") < 0 || timer_seconds(given, &when) < 0) {
        return NULL;
    }
    if (PyFloat_CheckExact(given)) return timer_schedule(loop, when, 0, NULL, call);
    if (PyLong_CheckExact(given) && fabs(when) < TIMER_EXACT) {
        return timer_schedule(loop, when, FL_HANDLE_WHOLE, NULL, call);
    }
    return timer_schedule(loop, when, 0, given, call);
}

/* call_later() in Python's arithmetic: a clock of the program's own, or a delay that is
 * neither float nor int. */
static PyObject *
timer_schedule_later(FlLoop *loop, const FlCallArgs *call)
{
    PyObject *now = PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str_time);
    PyObject *when = now == NULL ? NULL : PyNumber_Add(now, call->first);
    PyObject *handle = when == NULL ? NULL : timer_schedule_at(loop, when, call);
    Py_XDECREF(when);
    Py_XDECREF(now);
    return handle;
}

static PyObject *
timer_call_later(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    FlLoop *self = (FlLoop *)op;
    FlCallArgs call;
    if (fl_callargs_parse(self->st, "call_later", "delay", args, nargs, kwnames,
                          &call) < 0) {
        return NULL;
    }
    if (call.first == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    bool plain = PyFloat_CheckExact(call.first) || PyLong_CheckExact(call.first);
    if (FL_UNLIKELY(!plain || !fl_timer_is_own(self))) {
        return timer_schedule_later(self, &call);
    }
    double now = fl_timer_seconds((int64_t)uv_hrtime());
    double delay = PyFloat_AsDouble(call.first);
    if ((delay == -1.0 && PyErr_Occurred()) ||
        timer_checks(self, &call, "call_at") < 0) {
        return NULL;
    }
    return timer_schedule(self, now + delay, 0, NULL, &call);
}

static PyObject *
timer_call_at(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FlLoop *self = (FlLoop *)op;
    FlCallArgs call;
    if (fl_callargs_parse(self->st, "call_at", "when", args, nargs, kwnames, &call) <
        0) {
        return NULL;
    }
    if (call.first == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    return timer_schedule_at(self, call.first, &call);
}

static PyObject *
timer_time(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble(fl_timer_seconds((int64_t)uv_hrtime()));
}

/* asyncio.TimerHandle.cancel() tells its loop; ours come here directly. */
static PyObject *
timer_handle_cancelled(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(handle))
{
    Py_RETURN_NONE;
}

PyMethodDef fl_timer_time_def = {
    "time", timer_time, METH_NOARGS,
    PyDoc_STR("time($self)\n--\n\n"
              "Return the loop's clock, time.monotonic(), in seconds.")};

PyMethodDef fl_timer_methods[] = {
    {"call_later", (PyCFunction)(void (*)(void))timer_call_later,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_later($self, delay, callback, *args, context=None)\n--\n\n"
               "Call callback(*args) after delay seconds. Return a TimerHandle.")},
    {"call_at", (PyCFunction)(void (*)(void))timer_call_at,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_at($self, when, callback, *args, context=None)\n--\n\n"
               "Call callback(*args) at loop.time() == when. Return a TimerHandle.")},
    {"_timer_handle_cancelled", timer_handle_cancelled, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *
timer_get_scheduled(PyObject *op, void *Py_UNUSED(closure))
{
    FlLoop *self = (FlLoop *)op;
    FlHeap *heap = &self->timers.heap;
    FL_OWN(self, NULL);
    PyObject *list = PyList_New(0);
    if (list == NULL) return NULL;
    for (size_t i = 0; i < heap->length; i++) {
        if (PyList_Append(list, heap->entries[i].item) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    if (fl_wakeup_list(&self->wakeup, list, true) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static PyObject *
timer_get_cancelled_count(PyObject *op, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(((FlLoop *)op)->timers.cancelled);
}

/* BaseEventLoop.__init__() assigns its own; ours is the truth. */
static int
timer_set_ignored(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(value),
                  void *Py_UNUSED(closure))
{
    return 0;
}

PyGetSetDef fl_timer_getset[] = {
    {"_scheduled", timer_get_scheduled, timer_set_ignored,
     PyDoc_STR("The timer handles that are pending, as a list."), NULL},
    {"_timer_cancelled_count", timer_get_cancelled_count, timer_set_ignored, NULL,
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
