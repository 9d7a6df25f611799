/* shared.c - the wait for a lock that another thread has.
 *
 * Owns:   nothing.
 * Thread: any. */
#include "base/shared.h"

#if !FL_HAVE_GIL
#include <sched.h>
#include <time.h>

/* The holder is through in some ten instructions, unless the kernel has put it aside.
 */
enum { LOCK_YIELDS = 100, LOCK_PAUSE_NS = 20000 };

void
fl_lock_wait(FlLock *lock)
{
    int tried = 0;
    do {
        for (; atomic_load_explicit(lock, memory_order_relaxed) != 0; tried++) {
            if (tried < LOCK_YIELDS) {
                sched_yield();
                continue;
            }
            nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
        }
    } while (atomic_exchange_explicit(lock, 1, memory_order_acquire) != 0);
}
#endif
