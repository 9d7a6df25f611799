/* handle.h - what call_soon() and call_later() return, and the ready queue holds.
 *
 * Promises: an asyncio.Handle or TimerHandle to everyone who looks (isinstance, every
 * method and underscored attribute), and to the loop a record that costs one free-list
 * hit to make. */
#ifndef FL_HANDLE_H
#define FL_HANDLE_H
#include "base/shared.h"
#include "base/state.h"
#include "core/context.h"

enum {
    FL_HANDLE_CANCELLED = 1 << 0,
    FL_HANDLE_SHARED = 1 << 1,     /* context is the loop's pristine one */
    FL_HANDLE_SCHEDULED = 1 << 2,  /* in the loop's heap of timers */
    FL_HANDLE_TIMER = 1 << 3,      /* of timer_handle_type */
    FL_HANDLE_THREADSAFE = 1 << 4, /* made by call_soon_threadsafe() */
    FL_HANDLE_TRACKED = 1 << 5,    /* the collector was told of it */
    FL_HANDLE_RUNNING = 1 << 6, /* a threadsafe one whose callback runs; see gate.h */
    FL_HANDLE_HANDED = 1 << 7,  /* a timer's, on its way to the heap; see wakeup.h */
    FL_HANDLE_WHOLE = 1 << 8,   /* a timer's, whose time was given as an int */
    FL_HANDLE_CROWD = 1 << 9,   /* one of very many timers: not kept as a spare */
};

enum { FL_HANDLE_INLINE_ARGS = 3, FL_HANDLE_REFILL = 32 };

/* Invariants: callback is NULL exactly if the handle was cancelled or cleared; up to
 * FL_HANDLE_INLINE_ARGS arguments stand in args, more of them in memory that args[0]
 * points to; context is never NULL while callback is set. notes is NULL or a list: in
 * debug mode, where the handle was made, and its repr from before a cancel(); and what
 * a timer's time was given as, where no double tells it. A batch of 200,000 is bound by
 * its memory, so a handle is no larger than it must be.
 *
 * With a GIL, the collector is not told of a handle that waits in a loop: the loop
 * shows it what the handle leads to (fl_handle_visit). It is tracked when the loop lets
 * go of it and somebody else still holds it. So 200,000 handles that wait cost no
 * collection anything; tracked, they took half the time of as many call_soon().
 *
 * Without a GIL any thread may cancel a handle while the loop runs it: callback, nargs,
 * args and notes are then read and changed under lock. */
struct FlHandle {
    PyObject_HEAD
    PyObject *weakrefs;
    FlLoop *loop;
    PyObject *callback;
    PyObject *context;
    PyObject *notes;
    int nargs;
    FL_SHARED unsigned flags;
    FlLock lock;
    PyObject *args[FL_HANDLE_INLINE_ARGS];
};

typedef struct {
    FlHandle handle;
    double when;
} FlTimerHandle;

/* context may be NULL: the current one then, as asyncio has it. New reference. */
FlHandle *fl_handle_new(FlLoop *loop, PyTypeObject *type, PyObject *callback,
                        PyObject *const *args, Py_ssize_t nargs, PyObject *context);

/* Runs the callback in its context and reports what it raises. Returns 0, or -1 with
 * the exception that must leave the loop. The caller owns a reference. */
int fl_handle_run(FlHandle *self);

/* The same for one of a batch, whose reference it takes over: not in debug mode, nor
 * for one that is gated. */
int fl_handle_run_staying(FlHandle *self, FlStay *stay);

/* Takes the exception that the callback raised and reports it. 0, or -1 with the
 * exception that must leave the loop. */
int fl_handle_failed(FlHandle *self);

/* As Handle.cancel(): drops callback and arguments, keeps the repr in debug mode. */
int fl_handle_cancel(FlHandle *self);

/* Records where the caller stands, for debug mode. 0, or -1 with an exception. */
int fl_handle_trace(FlHandle *self);

/* Tells the collector of a handle; the first only if somebody besides the caller holds
 * it. */
static inline void
fl_handle_track_always(FlHandle *self)
{
    if (!(self->flags & FL_HANDLE_TRACKED)) {
        self->flags |= FL_HANDLE_TRACKED;
        PyObject_GC_Track((PyObject *)self);
    }
}

static inline void
fl_handle_track(FlHandle *self)
{
    if (FL_HAVE_GIL && FL_UNLIKELY(Py_REFCNT((PyObject *)self) > 1)) {
        fl_handle_track_always(self);
    }
}

/* Whether other threads may wait for its end; see gate.h. */
static inline bool
fl_handle_is_gated(FlHandle *self)
{
    return FL_HANDLE_GATED && FL_UNLIKELY(self->flags & FL_HANDLE_THREADSAFE);
}

/* Whether there is something to run. */
static inline bool
fl_handle_is_live(FlHandle *self)
{
    if (FL_HAVE_GIL) return self->callback != NULL;
    return !(self->flags & FL_HANDLE_CANCELLED);
}

/* What it calls: a new reference, or NULL without an exception. */
PyObject *fl_handle_callback(FlHandle *self);

/* For the traverse function of what holds waiting handles. */
int fl_handle_visit(FlHandle *self, visitproc visit, void *arg);

static inline bool
fl_handle_is(FlState *st, PyObject *op)
{
    return Py_IS_TYPE(op, st->handle_type) || Py_IS_TYPE(op, st->timer_handle_type);
}

int fl_handle_register(PyObject *module, FlState *st);

/* Keeps an empty handle, which then holds nothing, its type neither; false where there
 * are enough. */
static inline bool
fl_handle_spare(FlState *st, FlHandle *self)
{
    int kind = (self->flags & FL_HANDLE_TIMER) != 0;
    if (FL_UNLIKELY(st->free_handle_count[kind] >= FL_HANDLE_FREE_MAX)) return false;
    self->context = (PyObject *)st->free_handles[kind];
    st->free_handles[kind] = self;
    st->free_handle_count[kind]++;
    return true;
}

/* Frees the spare handles of a module that goes away. */
void fl_handle_free_spares(FlState *st);

/* Where the arguments stand. */
static inline PyObject **
fl_handle_args(FlHandle *self)
{
    return FL_LIKELY(self->nargs <= FL_HANDLE_INLINE_ARGS) ? self->args
                                                           : (PyObject **)self->args[0];
}

#endif
