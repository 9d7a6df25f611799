/* owner.c - the claims of threads on a loop: to run it, or to call what is its own.
 *
 * Owns:   the guest of a loop, and the thread that runs it.
 * Thread: any.
 *
 * A guest writes its name and then looks whether the loop runs; who wants to run it
 * writes first, too, and then looks for a guest. So one of two sees the other. */
#include "core/owner.h"
#include "core/loop.h"
#include <sched.h>
#include <time.h>

#if FL_HAVE_GIL
bool
fl_owner_claim(FlLoop *loop, unsigned long thread)
{
    loop->thread = thread;
    return true;
}
#else
/* A call takes microseconds, unless it calls into the program. */
enum { OWNER_YIELDS = 50, OWNER_PAUSES = 10000, OWNER_PAUSE_NS = 100000 };

void
fl_owner_init(FlOwner *owner)
{
    atomic_init(&owner->forks, fl_poll_forks());
}

/* Nobody comes back to leave whom another thread than the one that forked had inside.
 */
static void
owner_forget_parent(FlOwner *owner, unsigned long thread)
{
    unsigned forks = owner->forks;
    if (FL_LIKELY(forks == fl_poll_forks())) return;
    unsigned long guest = owner->guest;
    if (atomic_compare_exchange_strong(&owner->forks, &forks, fl_poll_forks()) &&
        guest != 0 && guest != thread) {
        (void)atomic_compare_exchange_strong(&owner->guest, &guest, 0);
    }
}

static void
owner_pause(int tried)
{
    if (tried < OWNER_YIELDS) {
        sched_yield();
        return;
    }
    nanosleep(&(struct timespec){.tv_nsec = OWNER_PAUSE_NS}, NULL);
}

bool
fl_owner_enter(FlLoop *loop, FlLoop **entered)
{
    FlOwner *owner = &loop->owner;
    unsigned long thread = PyThread_get_thread_ident();
    PyThreadState *waits = NULL;
    if (loop->thread == thread || owner->guest == thread) return true;
    owner_forget_parent(owner, thread);
    for (int tried = 0; loop->thread == 0; tried++) {
        unsigned long nobody = 0;
        if (atomic_compare_exchange_strong(&owner->guest, &nobody, thread)) {
            if (loop->thread == 0) {
                *entered = loop;
                break;
            }
            owner->guest = 0;
            break;
        }
        if (tried == OWNER_YIELDS + OWNER_PAUSES) break;
        if (waits == NULL) {
            waits = PyEval_SaveThread();
        }
        owner_pause(tried);
    }
    if (waits != NULL) {
        PyEval_RestoreThread(waits);
    }
    return *entered != NULL;
}

void
fl_owner_leave(FlLoop **entered)
{
    if (*entered != NULL) {
        (*entered)->owner.guest = 0;
    }
}

/* Whether no other thread is the guest, or leaves while we wait. */
static bool
owner_is_left(FlOwner *owner, unsigned long thread)
{
    owner_forget_parent(owner, thread);
    if (FL_LIKELY(owner->guest == 0 || owner->guest == thread)) return true;
    PyThreadState *waits = PyEval_SaveThread();
    for (int tried = 0; owner->guest != 0 && tried < OWNER_YIELDS + OWNER_PAUSES;
         tried++) {
        owner_pause(tried);
    }
    PyEval_RestoreThread(waits);
    return owner->guest == 0;
}

bool
fl_owner_claim(FlLoop *loop, unsigned long thread)
{
    unsigned long nobody = 0;
    if (!atomic_compare_exchange_strong(&loop->thread, &nobody, thread)) {
        return nobody == thread;
    }
    if (FL_LIKELY(owner_is_left(&loop->owner, PyThread_get_thread_ident())))
        return true;
    loop->thread = 0;
    return false;
}
#endif
