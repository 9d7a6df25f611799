/* turn.c - the turn of a loop: the wait, the events, the batch, the flush.
 *
 * Owns:   nothing: the queues are the loop's.
 * Thread: the loop's own.
 *
 * The wait is one call without the GIL, and events are told of after it, so that N
 * readable sockets cost one hand-over. */
#include "core/turn.h"
#include "core/step.h"
#include "base/errors.h"
#include "base/ticks.h"

/* While callbacks are ready, a look for events costs as much as half a turn. It is due
 * after so many turns or so long, whichever is first; and at every so many looks other
 * threads get a chance at the GIL. */
enum { TURN_POLL_TURNS = 64, TURN_POLL_NS = 50000, TURN_GIL_LOOKS = 4 };

/* What is written waits for others' callbacks no longer than this and the last of them.
 * A system call takes a twentieth of it. */
enum { TURN_FLUSH_NS = 50000 };

void
fl_turn_look_soon(FlLoop *self)
{
    self->idle_turns = TURN_POLL_TURNS;
}

static void
turn_add_flush(FlLoop *loop, FlFlush *flush, bool patient)
{
    flush->queued = true;
    flush->patient = patient;
    flush->next = NULL;
    Py_INCREF(flush->owner);
    *loop->flushes_tail = flush;
    loop->flushes_tail = &flush->next;
}

void
fl_turn_flush_later(FlLoop *loop, FlFlush *flush)
{
    if (flush->queued) return;
    turn_add_flush(loop, flush, false);
    if (loop->flush_since == 0) {
        loop->flush_since = fl_metrics_now();
    }
}

void
fl_turn_flush_at_end(FlLoop *loop, FlFlush *flush)
{
    if (!flush->queued) {
        turn_add_flush(loop, flush, true);
    }
    flush->patient = true;
}

/* Takes the first of *link off the list, and serves it. 0 or -1. */
static int
turn_serve_flush(FlLoop *self, FlFlush **link)
{
    FlFlush *flush = *link;
    PyObject *owner = flush->owner;
    *link = flush->next;
    if (*link == NULL) {
        self->flushes_tail = link;
    }
    flush->queued = false;
    int rc = flush->call(flush);
    Py_DECREF(owner);
    return rc;
}

/* What asks for a flush meanwhile is served in the next turn. Who waits stays in the
 * list, where a turn that is taken within a call, and the next after an exception that
 * leaves the loop, finds them. */
int
fl_turn_flush(FlLoop *self)
{
    uint64_t turns = fl_metrics_turns(&self->metrics);
    FlFlush **last = self->flushes_tail;
    bool more = true;
    int rc = 0;
    self->flush_since = 0;
    while (rc == 0 && more && self->flushes != NULL) {
        more = &self->flushes->next != last;
        rc = turn_serve_flush(self, &self->flushes);
        if (FL_UNLIKELY(fl_metrics_turns(&self->metrics) != turns)) {
            turns = fl_metrics_turns(&self->metrics);
            last = self->flushes_tail; /* the last that was may have gone */
            more = true;
        }
    }
    /* Something was sent: whoever answers in this process may be readable by now. */
    fl_turn_look_soon(self);
    return rc;
}

int
fl_turn_flush_overdue(FlLoop *self)
{
    uint64_t waited = fl_metrics_now() - self->flush_since;
    if (FL_LIKELY(fl_metrics_ns(&self->metrics, waited) < TURN_FLUSH_NS)) return 0;
    uint64_t turns = fl_metrics_turns(&self->metrics);
    FlFlush **last = self->flushes_tail;
    FlFlush **link = &self->flushes;
    bool more = self->flushes != NULL;
    int rc = 0;
    self->flush_since = 0;
    /* A turn within serves them all, those that link has passed, too. */
    while (rc == 0 && more && fl_metrics_turns(&self->metrics) == turns) {
        FlFlush *flush = *link;
        more = &flush->next != last;
        if (flush->patient) {
            link = &flush->next;
        }
        else {
            rc = turn_serve_flush(self, link);
        }
    }
    fl_turn_look_soon(self);
    return rc;
}

int
fl_turn_log_slow(FlLoop *loop, PyObject *what, double seconds)
{
    FlState *st = loop->st;
    PyObject *limit =
        PyObject_GetAttr((PyObject *)loop, st->str_slow_callback_duration);
    if (limit == NULL) return -1;
    double threshold = PyFloat_AsDouble(limit);
    Py_DECREF(limit);
    if (threshold == -1.0 && PyErr_Occurred()) return -1;
    if (!(seconds >= threshold)) return 0;

    PyObject *result = NULL;
    PyObject *logger = PyObject_GetAttr(st->asyncio_base_events, st->str_logger);
    PyObject *shown = !fl_handle_is(st, what)
                          ? PyObject_Repr(what)
                          : PyObject_CallMethodOneArg(st->asyncio_base_events,
                                                      st->str__format_handle, what);
    if (logger != NULL && shown != NULL) {
        result = PyObject_CallMethod(logger, "warning", "sOd",
                                     "Executing %s took %.3f seconds", shown, seconds);
    }
    Py_XDECREF(logger);
    Py_XDECREF(shown);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Another thread may ask which one it is. */
static void
turn_set_current(FlLoop *self, FlHandle *handle)
{
    PyObject *old;
    FL_BEGIN_CRITICAL((PyObject *)self);
    old = self->current_handle;
    self->current_handle = Py_XNewRef((PyObject *)handle);
    FL_END_CRITICAL();
    Py_XDECREF(old);
}

static int
turn_run_handle_debug(FlLoop *self, FlHandle *handle)
{
    /* Whose callback takes turns, or NULL. */
    PyObject *outer = Py_XNewRef(self->current_handle);
    turn_set_current(self, handle);
    uint64_t started = uv_hrtime();
    int rc = fl_handle_run(handle);
    double seconds = fl_timer_seconds((int64_t)(uv_hrtime() - started));
    if (rc == 0) {
        rc = fl_turn_log_slow(self, (PyObject *)handle, seconds);
    }
    turn_set_current(self, (FlHandle *)outer);
    Py_XDECREF(outer);
    return rc;
}

/* Runs an entry that was taken from the queue. 0 or -1. */
static inline int
turn_run_entry(FlLoop *self, void *entry, FlStay *stay)
{
    int rc = 0;
    FlHandle *handle = entry;
    FlStep *step = fl_step_of(entry);
    if (step != NULL) {
        fl_context_leave(&self->contexts, stay);
        if (FL_LIKELY(!self->debug)) return fl_step_run(self, step);
        handle = fl_step_handle(self, step);
        if (handle == NULL) {
            fl_step_drop(self->st, step);
            return -1;
        }
    }
    else if (FL_HAVE_GIL && FL_LIKELY(!self->debug && fl_handle_is_live(handle)) &&
             !fl_handle_is_gated(handle)) {
        return fl_handle_run_staying(handle, stay);
    }
    fl_context_leave(&self->contexts, stay);
    if (FL_LIKELY(fl_handle_is_live(handle))) {
        rc = FL_UNLIKELY(self->debug) ? turn_run_handle_debug(self, handle)
                                      : fl_handle_run(handle);
    }
    else {
        fl_count_add(&self->metrics.skipped, 1);
    }
    fl_handle_track(handle);
    Py_DECREF((PyObject *)handle);
    return rc;
}

/* The same for the first of the queue, with a look at the time. */
static FL_NEVER_INLINE int
turn_run_timed(FlLoop *self)
{
    FlProbe probe;
    FlProbeKind kind = FL_PROBE_CALLBACK;
    size_t at = self->ready.head;
    void *entry = fl_ring_pop(&self->ready);
    FL_ASSUME(entry != NULL);
    FlStep *step = fl_step_of(entry);
    PyObject *what;
    if (step != NULL) {
        what = Py_NewRef(step->callback);
    }
    else {
        what = fl_handle_callback(entry);
        kind = ((FlHandle *)entry)->flags & FL_HANDLE_TIMER ? FL_PROBE_TIMER : kind;
    }
    fl_probe_begin_ready(self, &probe, what, at);
    Py_XDECREF(what);
    FlStay stay = {.scratch = NULL};
    int rc = turn_run_entry(self, entry, &stay);
    fl_context_leave(&self->contexts, &stay);
    return fl_probe_end(self, &probe, kind, 0, rc);
}

static int
turn_run_batch(FlLoop *self, size_t left)
{
    int rc = 0;
    FlStay stay = {.scratch = NULL};
    fl_metrics_batch(&self->metrics, left);
    while (left > 0 && rc == 0) {
        size_t plain = fl_probe_plain_run(self);
        plain = plain < left ? plain : left;
        self->probes.until -= plain;
        left -= plain;
        size_t taken = plain;
        for (; plain > 0; plain--) {
            fl_wakeup_note(&self->wakeup, left + plain);
            void *entry = fl_ring_pop(&self->ready);
            if (FL_UNLIKELY(entry == NULL)) break; /* a nested run took the rest */
            rc = turn_run_entry(self, entry, &stay);
            if (FL_UNLIKELY(self->flush_since != 0) && rc == 0) {
                fl_context_leave(&self->contexts, &stay);
                rc = fl_turn_flush_overdue(self);
            }
            if (FL_UNLIKELY(rc < 0)) {
                plain--; /* it has run */
                break;
            }
        }
        if (left > 0 && rc == 0 && fl_ring_len(&self->ready) > 0) {
            fl_wakeup_note(&self->wakeup, left);
            left--;
            taken++;
            fl_context_leave(&self->contexts, &stay);
            rc = turn_run_timed(self);
            rc = rc == 0 ? fl_turn_between(self) : rc;
        }
        fl_count_add(&self->metrics.taken, taken - plain);
        if (FL_UNLIKELY(fl_ring_len(&self->ready) == 0)) break;
    }
    fl_context_leave(&self->contexts, &stay);
    return rc;
}

static inline int
turn_run_ready(FlLoop *self, size_t batch)
{
    if (FL_LIKELY(batch < FL_WAKEUP_BATCH)) return turn_run_batch(self, batch);
    uint64_t started = uv_hrtime();
    int rc = turn_run_batch(self, batch);
    fl_wakeup_pace(&self->wakeup, batch, uv_hrtime() - started);
    return rc;
}

/* A signal has ended the wait. As a rule the wake-up descriptor tells of it, as it does
 * of those that come before a wait or to another thread, but the program may have set
 * another. 0, or -1 with the exception of a handler, which leaves the loop. */
static FL_NEVER_INLINE int
turn_interrupted(FlLoop *self)
{
    FlPoll *poll = &self->poll;
    poll->interrupted = false;
    for (int i = 0; i < poll->harvested; i++) {
        if ((uint32_t)poll->events[i].data.u64 == (uint32_t)self->signals.watcher.fd) {
            return 0;
        }
    }
    return PyErr_CheckSignals();
}

static inline int
turn_waited(FlLoop *self)
{
    return FL_LIKELY(!self->poll.interrupted) ? 0 : turn_interrupted(self);
}

/* Lets the GIL go around the poll. 0 or -1. */
static FL_ALWAYS_INLINE int
turn_poll(FlLoop *self, FlPollWait wait)
{
    FlJobs *queue = self->job_queue;
    FlMetrics *metrics = &self->metrics;
    fl_metrics_wait(metrics);
    PyThreadState *thread = PyEval_SaveThread();
    fl_jobs_released(queue);
    fl_poll_harvest(&self->poll, wait);
    uint64_t woke = fl_metrics_wake(metrics);
    PyEval_RestoreThread(thread);
    fl_metrics_waited(metrics, woke);
    self->idle_turns = 0;
    return turn_waited(self);
}

/* Jobs are under way: looks for a result before it sleeps. 0 or -1. */
static int
turn_poll_awake(FlLoop *self)
{
    FlJobs *queue = self->job_queue;
    atomic_int *sleeping = &self->wakeup.sleeping;
    FlMetrics *metrics = &self->metrics;
    fl_metrics_wait(metrics);
    PyThreadState *thread = PyEval_SaveThread();
    fl_jobs_released(queue);
    bool found = fl_spin_wait(sleeping, FL_WAKEUP_AWAKE);
    int looks = FL_WAKEUP_LOOKS;
    if (!found && atomic_compare_exchange_strong(sleeping, &looks, FL_WAKEUP_ASLEEP)) {
        fl_poll_harvest(&self->poll, FL_POLL_BLOCK);
        self->idle_turns = 0;
    }
    else if (++self->idle_turns >= TURN_POLL_TURNS) {
        fl_poll_harvest(&self->poll, FL_POLL_LOOK);
        self->idle_turns = 0;
    }
    uint64_t woke = fl_metrics_wake(metrics);
    PyEval_RestoreThread(thread);
    fl_metrics_waited(metrics, woke);
    fl_spin_ended(&self->spin, found);
    return turn_waited(self);
}

static bool
turn_has_work(FlLoop *self)
{
    return fl_ring_len(&self->ready) > 0 || self->stopping || self->flushes != NULL ||
           self->overdue != NULL || self->poll.harvested > 0 ||
           fl_wakeup_has_work(&self->wakeup);
}

/* The earlier of deadline and limit nanoseconds from now. */
static int64_t
turn_limit(int64_t deadline, int64_t limit)
{
    int64_t until;
    if (limit == FL_TIMER_NEVER ||
        __builtin_add_overflow((int64_t)uv_hrtime(), limit, &until)) {
        return deadline;
    }
    return until < deadline ? until : deadline;
}

/* Nothing is ready: wait for an event, another thread, the next timer or the limit. */
static int
turn_wait(FlLoop *self, int64_t limit)
{
    fl_context_rest(&self->contexts);
    int64_t deadline = fl_timers_next(&self->timers);
    int64_t now = 0;
    if (deadline != FL_TIMER_NEVER && fl_timer_clock(self, &now) < 0) return -1;
    /* Cancelled timers went, and a clock was asked: that may have brought work. */
    if (turn_has_work(self) || (deadline != FL_TIMER_NEVER && deadline <= now)) {
        fl_poll_harvest(&self->poll, FL_POLL_LOOK);
        return 0;
    }
    if (limit <= 0) {
        return turn_poll(self, FL_POLL_LOOK);
    }
    int64_t next = fl_heap_second(&self->timers.heap);
    /* A clock of the program's own ticks as fast as ours, asyncio believes. */
    if (deadline != FL_TIMER_NEVER && !fl_timer_is_own(self)) {
        next = FL_TIMER_NEVER;
        if (__builtin_sub_overflow(deadline, now, &deadline) ||
            __builtin_add_overflow(deadline, (int64_t)uv_hrtime(), &deadline)) {
            deadline = FL_TIMER_NEVER;
        }
    }
    deadline = turn_limit(deadline, limit);
    if (deadline != FL_TIMER_NEVER) {
        fl_poll_arm(&self->poll, deadline, next);
    }
    /* Other threads ring the bell from here on; what came before it, is seen here. */
    bool look = self->jobs > 0 && fl_jobs_may_look(self->job_queue, &self->spin);
    atomic_store(&self->wakeup.sleeping, look ? FL_WAKEUP_LOOKS : FL_WAKEUP_ASLEEP);
    int rc = 0;
    if (!atomic_load(&self->wakeup.pending)) {
        rc = look ? turn_poll_awake(self) : turn_poll(self, FL_POLL_BLOCK);
    }
    atomic_store(&self->wakeup.sleeping, FL_WAKEUP_AWAKE);
    return rc;
}

/* Whether the last look was TURN_POLL_NS ago. That less than most of it has passed can
 * be told without the clock. */
static bool
turn_is_long_ago(FlLoop *self)
{
    return fl_ticks() - self->last_ticks >= self->short_ticks &&
           uv_hrtime() - self->last_poll >= TURN_POLL_NS;
}

/* Notes the time, and how many ticks are most of TURN_POLL_NS. */
static void
turn_note_look(FlLoop *self)
{
    uint64_t now = uv_hrtime();
    uint64_t ticks = fl_ticks();
    uint64_t passed = now - self->last_poll;
    const uint64_t due = TURN_POLL_NS;
    if (passed > due / 16 && passed < due * 16) {
        self->short_ticks = (ticks - self->last_ticks) * (due / 8 * 7) / passed;
    }
    self->last_poll = now;
    self->last_ticks = ticks;
}

/* Callbacks are ready: look for events now and then. recent is set where it is not yet
 * TURN_POLL_NS since the last look. 0 or -1. */
static int
turn_look(FlLoop *self, bool *recent)
{
    if (++self->idle_turns < TURN_POLL_TURNS && self->poll.user_count == 0 &&
        !turn_is_long_ago(self)) {
        *recent = true;
        return 0;
    }
    self->idle_turns = 0;
    turn_note_look(self);
    if (++self->looks % TURN_GIL_LOOKS == 0) return turn_poll(self, FL_POLL_LOOK);
    fl_poll_harvest(&self->poll, FL_POLL_LOOK);
    return 0;
}

/* For those who must not look themselves. */
static inline void
turn_show_lengths(FlLoop *self)
{
#if !FL_HAVE_GIL
    fl_count_set(&self->metrics.ready_length, fl_ring_len(&self->ready));
    fl_count_set(&self->metrics.timers_length, self->timers.heap.length);
#endif
}

/* Callbacks of add_reader() stand behind what is ready, and run with it. */
static inline int
turn_queue(FlLoop *self)
{
    if (FL_LIKELY(self->poll.user_count == 0)) return 0;
    return fl_poll_queue(&self->poll, self);
}

static inline int
turn_dispatch(FlLoop *self)
{
    return self->poll.harvested != 0 ? fl_poll_dispatch(&self->poll, self) : 0;
}

/* Whether a timer may be due: the clock need not be asked while the first is further
 * from the last look than that can be ago. */
static inline bool
turn_timer_may_be_due(FlLoop *self, bool recent)
{
    const FlHeap *heap = &self->timers.heap;
    return heap->length > 0 &&
           !(recent &&
             heap->entries[0].key >= (int64_t)self->last_poll + TURN_POLL_NS &&
             fl_timer_is_own(self));
}

/* What is ready runs between the look and the telling of what it found, as in asyncio:
 * the first step of a task may put up what the read is for, and what it sends or closes
 * is heard of in the next turn. Events wait meanwhile in the set, where turns within a
 * callback, and the next where one raises, find them. */
int
fl_turn_take(FlLoop *self, int64_t limit)
{
    /* A child that fork() made inside a callback comes back to here, too. */
    if (fl_loop_check_process(self) < 0) return -1;
    fl_metrics_turn(&self->metrics);
    turn_show_lengths(self);
    if (self->fresh && fl_wakeup_has_work(&self->wakeup) && fl_wakeup_drain(self) < 0) {
        return -1; /* only where the queue is not the ready queue itself */
    }
    if (FL_UNLIKELY(self->overdue != NULL)) {
        self->overdue(self);
    }
    self->fresh = false;
    bool batch_first = fl_ring_len(&self->ready) > 0;
    bool recent = false;
    int rc = turn_has_work(self) ? turn_look(self, &recent) : turn_wait(self, limit);
    if (rc < 0) return -1;
    if ((batch_first ? turn_queue(self) : turn_dispatch(self)) < 0) return -1;
    /* What a signal raises is better raised here than in the first line of a callback,
     * which would be lost with all that waits for it. */
    if (!recent && FL_UNLIKELY(PyErr_CheckSignals() < 0)) return -1;
    if (fl_wakeup_has_work(&self->wakeup) && fl_wakeup_drain(self) < 0) return -1;
    size_t ahead = fl_ring_len(&self->ready);
    if (turn_timer_may_be_due(self, recent)) {
        int64_t now;
        if (fl_timer_clock(self, &now) < 0 ||
            fl_timers_pop_due(&self->timers, now, &self->ready, &self->metrics) < 0) {
            return -1;
        }
    }
    size_t batch = fl_ring_len(&self->ready);
    if (batch_first && self->poll.harvested != 0) {
        /* Timers that are due stand behind the events: a time-out may lose to data. */
        batch -= ahead < batch ? ahead : batch; /* a turn within may have run them */
        uint64_t turns = fl_metrics_turns(&self->metrics);
        if (turn_run_ready(self, ahead) < 0 || turn_dispatch(self) < 0) return -1;
        if (FL_UNLIKELY(fl_metrics_turns(&self->metrics) != turns)) {
            batch = 0; /* they ran in a turn within, or will in the next */
        }
    }
    if (turn_run_ready(self, batch) < 0) return -1;
    return self->flushes != NULL ? fl_turn_flush(self) : 0;
}
