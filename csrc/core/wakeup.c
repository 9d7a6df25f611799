/* wakeup.c - the queue that other threads fill, and who rings the bell when.
 *
 * Owns:   the queued handles; the bell is the set's.
 * Thread: any may push and ring; the loop's own drains. */
#include "core/wakeup.h"
#include "core/loop.h"
#include "base/errors.h"
#include <sched.h>
#include <time.h>

/* A thread may send faster than the loop runs what it sent: then turns would grow
 * without bound, and timers and I/O wait for their end. Above what the loop gets done
 * in WAKEUP_BATCH_NS, senders pause at every so many, without the GIL, until the loop
 * takes some. To let the GIL go and ask for it again would do harm: a loop that wakes
 * up a little later finds it taken, each time anew, and never gets to the switch
 * interval after which it is given. A loop that takes nothing meanwhile, in a callback
 * that waits perhaps for the sender, is not waited for again soon. */
enum {
    WAKEUP_CROWD = 2048, /* before the first batch was timed */
    WAKEUP_CROWD_MAX = 32768,
    WAKEUP_BATCH_NS = 1000000,
    WAKEUP_CROWD_STEP = 64,
    WAKEUP_CROWD_STEP_STUCK = 8192,
    WAKEUP_PAUSE_NS = 50000,
    WAKEUP_PAUSES = 1000,     /* the most for one call */
    WAKEUP_PAUSES_STUCK = 20, /* and without any callback run meanwhile */
};

void
fl_wakeup_init(FlWakeup *wakeup, FlPoll *poll)
{
    atomic_init(&wakeup->pending, false);
    atomic_init(&wakeup->sleeping, FL_WAKEUP_AWAKE);
    atomic_init(&wakeup->ringers, 0);
    wakeup->poll = poll;
    wakeup->crowd = WAKEUP_CROWD;
    wakeup->open = true;
}

void
fl_wakeup_close(FlWakeup *wakeup)
{
    fl_lock_acquire(&wakeup->lock);
    wakeup->open = false;
    fl_lock_release(&wakeup->lock);
    while (atomic_load(&wakeup->ringers) > 0) {
        sched_yield(); /* a system call, and it is through */
    }
}

void
fl_wakeup_clear(FlWakeup *wakeup)
{
    fl_lock_acquire(&wakeup->lock);
    FlRing queue = wakeup->queue; /* whoever is refused may still look at its length */
    wakeup->queue = (FlRing){0};
    wakeup->timers = 0;
    wakeup->length = 0;
    fl_lock_release(&wakeup->lock);
    FlHandle *handle;
    while ((handle = fl_ring_pop(&queue)) != NULL) {
        fl_handle_track(handle);
        Py_DECREF((PyObject *)handle);
    }
    fl_ring_free(&queue);
}

/* A timer's handle goes to the heap, which owns the queue's reference then. */
static bool
wakeup_take_timer(FlTimers *timers, FlHandle *handle)
{
    if (!fl_timers_push(timers, handle)) return false;
    fl_shared_drop(&handle->flags, FL_HANDLE_HANDED);
    return true;
}

int
fl_wakeup_drain(FlLoop *loop)
{
    FlWakeup *wakeup = &loop->wakeup;
    FlRing *ready = &loop->ready;
    int rc = 0;
    fl_lock_acquire(&wakeup->lock);
    if (fl_ring_len(ready) == 0 && wakeup->timers == 0) {
        FlRing spare = *ready; /* nothing ready: the queues change places */
        *ready = wakeup->queue;
        wakeup->queue = spare;
    }
    while (fl_ring_len(&wakeup->queue) > 0) {
        FlHandle *handle = fl_ring_at(&wakeup->queue, 0);
        bool is_timer = (handle->flags & FL_HANDLE_HANDED) != 0;
        if (is_timer ? !wakeup_take_timer(&loop->timers, handle)
                     : !fl_ring_push(ready, handle)) {
            PyErr_NoMemory();
            rc = -1;
            break;
        }
        fl_ring_pop(&wakeup->queue);
        wakeup->timers -= is_timer;
    }
    wakeup->length = fl_ring_len(&wakeup->queue);
    atomic_store(&wakeup->pending, wakeup->length > 0);
    fl_lock_release(&wakeup->lock);
    return rc;
}

int
fl_wakeup_list(FlWakeup *wakeup, PyObject *list, bool timers)
{
    int rc = 0;
    fl_lock_acquire(&wakeup->lock);
    for (size_t i = 0; rc == 0 && i < fl_ring_len(&wakeup->queue); i++) {
        FlHandle *handle = fl_ring_at(&wakeup->queue, i);
        if (((handle->flags & FL_HANDLE_HANDED) != 0) == timers) {
            rc = PyList_Append(list, (PyObject *)handle);
        }
    }
    fl_lock_release(&wakeup->lock);
    return rc;
}

int
fl_wakeup_signal(FlWakeup *wakeup)
{
    fl_lock_acquire(&wakeup->lock);
    int code = wakeup->open ? fl_poll_ring(wakeup->poll) : 0;
    fl_lock_release(&wakeup->lock);
    return code;
}

int
fl_wakeup_traverse(FlWakeup *wakeup, visitproc visit, void *arg)
{
    for (size_t i = 0; i < fl_ring_len(&wakeup->queue); i++) {
        int rc = fl_handle_visit(fl_ring_at(&wakeup->queue, i), visit, arg);
        if (rc != 0) return rc;
    }
    return 0;
}

static inline bool
wakeup_asleep(FlWakeup *wakeup)
{
    return atomic_load(&wakeup->sleeping) != FL_WAKEUP_AWAKE;
}

/* Rings the bell for a loop that sleeps; only the first to find it so does. 0 or an
 * errno: then it sleeps on, and the next one tries again. */
static int
wakeup_ring(FlWakeup *wakeup)
{
    if (!wakeup_asleep(wakeup) ||
        atomic_exchange(&wakeup->sleeping, FL_WAKEUP_AWAKE) != FL_WAKEUP_ASLEEP) {
        return 0;
    }
    int code = fl_poll_ring(wakeup->poll);
    if (FL_UNLIKELY(code != 0)) {
        atomic_store(&wakeup->sleeping, FL_WAKEUP_ASLEEP);
    }
    return code;
}

/* Nobody could wake the loop for a handle that was queued. -1 with RuntimeError. */
static int
wakeup_failed(FlHandle *handle, int code)
{
    if (fl_handle_cancel(handle) < 0) return -1;
    fl_errors_from_uv(-code);
    PyObject *cause = fl_compat_take_exception();
    PyErr_SetString(PyExc_RuntimeError, "Event loop cannot be woken: its descriptors "
                                        "were closed");
    PyObject *exc = fl_compat_take_exception();
    PyException_SetCause(exc, cause);
    fl_compat_set_exception(exc);
    return -1;
}

bool
fl_wakeup_ring_begin(FlWakeup *wakeup)
{
    if (!wakeup->open || atomic_load(&wakeup->sleeping) == FL_WAKEUP_AWAKE)
        return false;
    atomic_fetch_add(&wakeup->ringers, 1);
    return true;
}

void
fl_wakeup_ring_end(FlWakeup *wakeup)
{
    /* Where that fails, who waits is told when the loop finds its set closed. */
    (void)wakeup_ring(wakeup);
    atomic_fetch_sub(&wakeup->ringers, 1);
}

void
fl_wakeup_pace(FlWakeup *wakeup, size_t batch, uint64_t passed)
{
    size_t crowd = (size_t)(batch * WAKEUP_BATCH_NS / (passed + 1));
    if (crowd > WAKEUP_CROWD_MAX) {
        crowd = WAKEUP_CROWD_MAX;
    }
    wakeup->crowd = crowd > FL_WAKEUP_BATCH ? crowd : FL_WAKEUP_BATCH;
}

#if FL_HAVE_GIL
static void
wakeup_let_catch_up(FlLoop *loop, size_t length)
{
    FlWakeup *wakeup = &loop->wakeup;
    size_t step = wakeup->stuck ? WAKEUP_CROWD_STEP_STUCK : WAKEUP_CROWD_STEP;
    if (length % step != 0) return;
    if (loop->thread == 0 || fl_loop_runs_here(loop)) return;
    size_t taken = loop->ready.head;
    size_t seen = taken;
    PyThreadState *thread = PyEval_SaveThread();
    for (int i = 0; seen == taken && i < WAKEUP_PAUSES_STUCK; i++) {
        nanosleep(&(struct timespec){.tv_nsec = WAKEUP_PAUSE_NS}, NULL);
        seen = __atomic_load_n(&loop->ready.head, __ATOMIC_RELAXED);
    }
    PyEval_RestoreThread(thread);
    wakeup->stuck = seen == taken;
}
#else
/* Nothing else keeps a sender from being faster than the loop: it pauses for as long as
 * the loop runs callbacks and has not taken what it sent. */
static void
wakeup_let_catch_up(FlLoop *loop, size_t length)
{
    FlWakeup *wakeup = &loop->wakeup;
    size_t step = wakeup->stuck ? WAKEUP_CROWD_STEP_STUCK : WAKEUP_CROWD_STEP;
    if (length % step != 0 || !fl_loop_is_elsewhere(loop)) return;
    bool waits = true;
    bool stuck = false;
    PyThreadState *thread = PyEval_SaveThread();
    for (int pause = 0; waits && !stuck && pause < WAKEUP_PAUSES; pause++) {
        unsigned ran = wakeup->ran;
        for (int i = 0; waits && i < WAKEUP_PAUSES_STUCK; i++) {
            nanosleep(&(struct timespec){.tv_nsec = WAKEUP_PAUSE_NS}, NULL);
            waits = wakeup->length >= wakeup->crowd;
            if (wakeup->ran != ran) break;
        }
        stuck = waits && wakeup->ran == ran;
    }
    PyEval_RestoreThread(thread);
    wakeup->stuck = stuck;
}
#endif

int
fl_wakeup_hand_over(FlLoop *loop, FlHandle *handle, bool wake)
{
    FlWakeup *wakeup = &loop->wakeup;
    fl_lock_acquire(&wakeup->lock);
    bool open = wakeup->open;
    bool queued = open && fl_ring_push(&wakeup->queue, handle);
    size_t length = fl_ring_len(&wakeup->queue);
    int code = 0;
    if (queued) {
        wakeup->length = length;
        Py_INCREF((PyObject *)handle);
        wakeup->timers += (handle->flags & FL_HANDLE_HANDED) != 0;
        atomic_store(&wakeup->pending, true);
        if (wake) {
            code = wakeup_ring(wakeup);
        }
    }
    fl_lock_release(&wakeup->lock);
    if (queued) {
        if (FL_UNLIKELY(code != 0)) return wakeup_failed(handle, code);
        if (FL_UNLIKELY(wake && length >= wakeup->crowd)) {
            wakeup_let_catch_up(loop, length);
        }
        return 0;
    }
    if (!open) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    }
    else {
        PyErr_NoMemory();
    }
    return -1;
}

int
fl_wakeup_push(FlLoop *loop, FlHandle *handle)
{
    if (!fl_loop_is_own(loop)) return fl_wakeup_hand_over(loop, handle, true);
    /* Nobody else is at the ready queue: one order with call_soon(). */
    FlWakeup *wakeup = &loop->wakeup;
    if (fl_loop_push(loop, handle) < 0) return -1;
    if (FL_UNLIKELY(wakeup_asleep(wakeup)) && wakeup->open) {
        int code = wakeup_ring(wakeup);
        if (FL_UNLIKELY(code != 0)) return wakeup_failed(handle, code);
    }
    size_t length = fl_ring_len(&loop->ready);
    if (FL_HAVE_GIL && FL_UNLIKELY(length >= wakeup->crowd)) {
        wakeup_let_catch_up(loop, length);
    }
    return 0;
}

static PyObject *
wakeup_call_soon_threadsafe(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    FlLoop *self = (FlLoop *)op;
    FlCallArgs call;
    if (fl_callargs_parse(self->st, "call_soon_threadsafe", NULL, args, nargs, kwnames,
                          &call) < 0 ||
        fl_loop_check_closed(self) < 0 || fl_loop_check_process(self) < 0) {
        return NULL;
    }
    if (FL_UNLIKELY(self->debug) &&
        fl_loop_check_callback(self, call.callback, "call_soon_threadsafe") < 0) {
        return NULL;
    }
    FlHandle *handle =
        fl_loop_make_handle(self, call.callback, call.args, call.nargs, call.context);
    if (handle == NULL) return NULL;
    fl_shared_set(&handle->flags, FL_HANDLE_THREADSAFE);
    if (fl_wakeup_push(self, handle) < 0) {
        Py_DECREF((PyObject *)handle);
        return NULL;
    }
    return (PyObject *)handle;
}

static PyObject *
wakeup_write_to_self(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    /* asyncio's says nothing about a pipe that was closed, either. */
    (void)fl_wakeup_signal(&((FlLoop *)op)->wakeup);
    Py_RETURN_NONE;
}

PyMethodDef fl_wakeup_methods[] = {
    {"call_soon_threadsafe", (PyCFunction)(void (*)(void))wakeup_call_soon_threadsafe,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
               "Like call_soon(), from any thread and from signal handlers.")},
    {"_write_to_self", wakeup_write_to_self, METH_NOARGS,
     PyDoc_STR("Wake the loop, from any thread.")},
    {NULL, NULL, 0, NULL},
};
