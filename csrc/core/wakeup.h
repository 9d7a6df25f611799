/* wakeup.h - work that other threads hand to the loop.
 *
 * Promises: callbacks of one thread stay in order; the loop is woken only if it sleeps;
 * a closed loop refuses with asyncio's RuntimeError. */
#ifndef FL_WAKEUP_H
#define FL_WAKEUP_H
#include "base/ring.h"
#include "base/shared.h"
#include "core/handle.h"
#include "core/poll.h"
#include <stdatomic.h>

enum { FL_WAKEUP_AWAKE, FL_WAKEUP_ASLEEP, FL_WAKEUP_LOOKS };

/* With a GIL, other threads push onto the ready queue itself, in one order with
 * call_soon(); without one they fill a queue of their own, which the loop's thread
 * moves behind what is ready before it puts something there. So does everybody while
 * the loop stands still, when no thread is the loop's own.
 *
 * Invariants: queue owns its handles and is touched under lock alone; length is how
 * many they are; timers counts those in it that are FL_HANDLE_HANDED; pending is true
 * whenever queue is not empty; sleeping is true from before the loop's last look at
 * pending until it is awake again, FL_WAKEUP_LOOKS for as long as it looks at sleeping
 * itself; the loop's set is there while open, and until nobody is between ring_begin
 * and ring_end. */
typedef struct {
    FlLock lock;
    FlRing queue;
    FL_SHARED size_t length; /* for who must not lock; without a GIL */
    size_t timers;
    atomic_bool pending;
    atomic_int sleeping; /* FL_WAKEUP_* */
    atomic_int ringers;  /* between ring_begin and ring_end */
    bool open;
    FL_SHARED bool stuck;   /* the loop ran nothing while a sender paused */
    FL_SHARED size_t crowd; /* senders pause when so many wait: what a batch may take */
    FL_SHARED unsigned ran; /* changes while the loop runs callbacks; without a GIL */
    FlPoll *poll;           /* the loop's, which has the bell */
} FlWakeup;

void fl_wakeup_init(FlWakeup *wakeup, FlPoll *poll);

/* Refuses further work, and waits until nobody rings. */
void fl_wakeup_close(FlWakeup *wakeup);

/* Releases what is left in the queue. */
void fl_wakeup_clear(FlWakeup *wakeup);

/* Queues a handle for the loop, a timer's for its heap, and wakes it if that is wanted.
 * Takes a reference of its own. 0, or -1 with RuntimeError or MemoryError; so also
 * where the program has closed the loop's descriptors: then the handle is cancelled.
 * Any thread. */
int fl_wakeup_hand_over(FlLoop *loop, FlHandle *handle, bool wake);

/* The same in the order of call_soon() on the loop's own thread, and always wakes. */
int fl_wakeup_push(FlLoop *loop, FlHandle *handle);

/* Moves what was queued behind what is ready, or into the heap. 0, or -1 with
 * MemoryError. */
int fl_wakeup_drain(FlLoop *loop);

/* Appends what is queued to a list: the timers' handles, or the others. 0 or -1. */
int fl_wakeup_list(FlWakeup *wakeup, PyObject *list, bool timers);

/* Ends a wait of the loop, now or the next one. Any thread. 0 or an errno. */
int fl_wakeup_signal(FlWakeup *wakeup);

/* Wakes the loop if it sleeps, in two steps: the first, under the GIL, keeps the loop
 * from closing and tells whether the second is due, which needs no GIL. For what was
 * put behind the ready handles before. */
bool fl_wakeup_ring_begin(FlWakeup *wakeup);
void fl_wakeup_ring_end(FlWakeup *wakeup);

int fl_wakeup_traverse(FlWakeup *wakeup, visitproc visit, void *arg);

/* A batch that is worth noting the time of. */
enum { FL_WAKEUP_BATCH = 256 };

/* The loop ran a batch of so many in so many nanoseconds. */
void fl_wakeup_pace(FlWakeup *wakeup, size_t batch, uint64_t passed);

/* The loop runs another callback; left is how many follow. */
static inline void
fl_wakeup_note(FlWakeup *wakeup, size_t left)
{
#if !FL_HAVE_GIL
    atomic_store_explicit(&wakeup->ran, (unsigned)left, memory_order_relaxed);
#endif
}

static inline bool
fl_wakeup_has_work(FlWakeup *wakeup)
{
    return atomic_load_explicit(&wakeup->pending, memory_order_relaxed);
}

/* Whether what other threads have queued is to be moved ahead of what the loop's own
 * makes ready now, which may know of it: without a GIL. Not behind a crowd, where that
 * would keep senders from pausing. */
static inline bool
fl_wakeup_comes_first(FlWakeup *wakeup, const FlRing *ready)
{
    return fl_wakeup_has_work(wakeup) && fl_ring_len(ready) < FL_WAKEUP_BATCH;
}

extern PyMethodDef fl_wakeup_methods[]; /* call_soon_threadsafe, _write_to_self */

#endif
