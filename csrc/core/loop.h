/* loop.h - the loop object and its turn.
 *
 * Promises: what asyncio's users can observe of the order (stop, KeyboardInterrupt,
 * cancellation, timers against call_soon) is asyncio's. */
#ifndef FL_LOOP_H
#define FL_LOOP_H
#include "base/ring.h"
#include "base/shared.h"
#include "core/callargs.h"
#include "core/context.h"
#include "core/gate.h"
#include "core/handle.h"
#include "core/jobs.h"
#include "core/metrics.h"
#include "core/owner.h"
#include "core/poll.h"
#include "core/probe.h"
#include "core/signals.h"
#include "core/spin.h"
#include "core/timer.h"
#include "core/wakeup.h"
#include "core/watchdog.h"

/* Something to do at the end of a turn, once; embedded in whoever asks. Unless it is
 * patient, it is done before that where callbacks take long. */
typedef struct FlFlush FlFlush;
struct FlFlush {
    FlFlush *next;
    bool queued;
    bool patient;
    /* 0, or -1 with the exception that must leave the loop. */
    int (*call)(FlFlush *flush);
    PyObject *owner; /* kept alive while queued */
};

/* Invariants: thread is 0 exactly while the loop does not run; ready owns its handles;
 * flushes owns a reference to the owner of each entry; after close nothing is watched,
 * queued or scheduled and uv is closed.
 *
 * Without a GIL only the thread that runs the loop touches ready, timers, poll and what
 * moves bytes, or while it stands still its guest: see owner.h. Others, and everybody
 * while the loop stands still, hand it their handles through wakeup.h. What is
 * FL_SHARED anybody may read. */
struct FlLoop {
    PyObject_HEAD
    FlState *st;
    PyObject *call_soon; /* the bound builtin, or what replaces it; see method.h */
    PyObject *time;      /* what replaces the loop's own clock, or NULL */
    PyObject *task_factory;
    PyObject *loop_kwargs;  /* {"loop": self}, and for tasks that start at once */
    PyObject *eager_kwargs; /* "eager_start": True, too; made when needed */
    PyObject *current_handle;
    FlRing ready;
    FlContexts contexts;
    FL_SHARED bool debug;
    FL_SHARED bool stopping;
    FL_SHARED bool closed;
    bool fresh;          /* the first turn of a run is to come */
    bool overrides_time; /* a subclass has a clock of its own */
    FL_SHARED unsigned long thread;
    FlOwner owner;
    unsigned depth;      /* runs within each other: a callback may take turns */
    unsigned idle_turns; /* turns since the last poll, while callbacks were ready */
    unsigned looks;      /* polls while callbacks were ready */
    uint64_t last_poll;  /* uv_hrtime() of it, fl_ticks() of it, */
    uint64_t last_ticks;
    uint64_t short_ticks; /* and how many of them are less than the clock need tell */
    size_t jobs;          /* of the native executor, whose results are due */
    FlJobs *job_queue;    /* the last that took one, or NULL */
    FlSpin spin;
    FlFlush *flushes;
    FlFlush **flushes_tail;
    uint64_t flush_since; /* the first that is not patient asked, in ticks; or 0 */
    FlTimers timers;
    FlWakeup wakeup;
    FlGate gate;
    FlSignals signals;
    FlMetrics metrics;
    FlProbes probes;
    FlWatch *watches;          /* a list, which owns them */
    PyThreadState *runner;     /* of the run that is on, or NULL */
    void (*overdue)(FlLoop *); /* tries again what memory was out for, or NULL */
    char *slab;           /* what reads land in; FL_SLAB_SIZE bytes, made when needed */
    PyObject *reserve;    /* bytes for what was read when memory ran out, or NULL; */
    PyObject *spare_stop; /* and a StopIteration for it to leave in */
    atomic_int large_pipes; /* that were made so: see pipe.c */
    FlPoll poll;
};

enum { FL_SLAB_SIZE = 256 * 1024 };

/* RuntimeError "Event loop is closed" and -1, or 0. */
int fl_loop_check_closed(FlLoop *loop);

/* RuntimeError and -1 in a forked child of the process that made the loop, or 0. */
int fl_loop_refuse_process(void);
static inline int
fl_loop_check_process(FlLoop *loop)
{
    if (FL_LIKELY(!fl_poll_is_foreign(&loop->poll))) return 0;
    return fl_loop_refuse_process();
}

/* In debug mode RuntimeError and -1 off the loop's thread, or 0. */
int fl_loop_check_thread(FlLoop *loop);

/* Whether the loop runs in this thread. */
static inline bool
fl_loop_runs_here(const FlLoop *loop)
{
    return loop->thread == PyThread_get_thread_ident();
}

/* Whether the caller may touch what is the loop's own: see above. */
static inline bool
fl_loop_is_own(FlLoop *loop)
{
    return FL_HAVE_GIL || fl_loop_runs_here(loop);
}

/* Whether another thread runs the loop, which no GIL keeps from what is its own. */
static inline bool
fl_loop_is_elsewhere(FlLoop *loop)
{
    if (FL_HAVE_GIL) return false;
    unsigned long thread = loop->thread;
    return thread != 0 && thread != PyThread_get_thread_ident();
}

/* RuntimeError and -1: another thread has the loop. */
int fl_loop_refuse_thread(void);

/* From here to the end of the block the caller has to itself what is the loop's own;
 * where another thread has it, it returns failed with RuntimeError, or does otherwise
 * (to return) without an exception. Whose loop runs in this thread pays a comparison.
 */
#if FL_HAVE_GIL
#define FL_OWN(loop, failed) ((void)0)
#define FL_OWN_ELSE(loop, otherwise) ((void)0)
#else
#define FL_OWN_ELSE(loop, otherwise)                                                   \
    __attribute__((cleanup(fl_owner_leave))) FlLoop *fl_own_entered = NULL;            \
    if (FL_UNLIKELY(!fl_loop_is_own(loop)) && !fl_owner_enter(loop, &fl_own_entered))  \
    otherwise
#define FL_OWN(loop, failed) FL_OWN_ELSE(loop, return (fl_loop_refuse_thread(), failed))
#endif

/* In debug mode TypeError and -1 for what method cannot call, or 0. */
int fl_loop_check_callback(FlLoop *loop, PyObject *callback, const char *method);

/* Puts a handle behind what is ready, or hands it over; takes a reference of its own. 0
 * or -1. */
int fl_loop_push(FlLoop *loop, FlHandle *handle);

/* Sees to it that fl_loop_bytes() and fl_loop_stop() cannot fail. 0, or -1 with
 * MemoryError. */
int fl_loop_reserve(FlLoop *loop);

/* The first size bytes of the slab as a bytes object, after fl_loop_reserve(): what was
 * taken from the kernel cannot be lost for want of memory. New reference. */
PyObject *fl_loop_bytes(FlLoop *loop, Py_ssize_t size);

/* StopIteration(value). New reference. */
PyObject *fl_loop_stop(FlLoop *loop, PyObject *value);

/* A handle as call_soon() makes it: in debug mode it knows where. New reference or
 * NULL.
 */
static inline FlHandle *
fl_loop_make_handle(FlLoop *loop, PyObject *callback, PyObject *const *args,
                    Py_ssize_t nargs, PyObject *context)
{
    FlHandle *handle =
        fl_handle_new(loop, loop->st->handle_type, callback, args, nargs, context);
    if (handle != NULL && FL_UNLIKELY(loop->debug) && fl_handle_trace(handle) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

/* As loop.call_soon(), without its debug checks. 0, or -1 with an exception. */
int fl_loop_call_soon(FlLoop *loop, PyObject *callback, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *context);

/* As loop.call_soon_threadsafe(), without its debug checks. 0 or -1. */
int fl_loop_call_threadsafe(FlLoop *loop, PyObject *callback, PyObject *const *args,
                            Py_ssize_t nargs);

/* asyncio's own method of that name: BaseEventLoop.name(loop, *args). */
PyObject *fl_loop_call_base(FlLoop *loop, PyObject *name, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames);

/* The loop's read buffer, or NULL with MemoryError. */
char *fl_loop_slab(FlLoop *loop);

/* The same for who calls into Python while it needs what is in there: a callback that
 * takes turns of the loop reads into another. Goes back with fl_loop_slab_return(). */
char *fl_loop_slab_borrow(FlLoop *loop);
void fl_loop_slab_return(FlLoop *loop, char *slab);

/* Makes the type; the rooms above add their methods to it. */
int fl_loop_register(PyObject *module, FlState *st);

/* Adds a room's methods or attributes to the Loop type. 0 or -1. */
int fl_loop_add_methods(FlState *st, PyMethodDef *methods);
int fl_loop_add_getset(FlState *st, PyGetSetDef *getset);

#endif
