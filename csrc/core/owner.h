/* owner.h - whose a loop is just now, where no GIL says so.
 *
 * A loop that runs belongs to its thread. While it stands still, any thread may call
 * its transports and watch descriptors, as in asyncio: each is a guest for as long as
 * its call takes, one after the other, and a run begins when the guest has left.
 *
 * Promises: nobody waits for ever. A guest that does not leave, because its call came
 * to a callback that waits for somebody else, has the others refused.
 *
 * Thread: any. With a GIL all of this is nothing. */
#ifndef FL_OWNER_H
#define FL_OWNER_H
#include "base/shared.h"
#include "base/state.h"

/* Invariants: a guest other than the thread that runs the loop has left before the run
 * touches anything; forks tells in which process guest was written. */
#if FL_HAVE_GIL
typedef struct {
} FlOwner;
#define fl_owner_init(owner) ((void)(owner))
#else
typedef struct {
    FL_SHARED unsigned long guest; /* a thread, or 0 */
    FL_SHARED unsigned forks;      /* fl_poll_forks() */
} FlOwner;

void fl_owner_init(FlOwner *owner);

/* Makes the calling thread the loop's guest, unless it is the one that runs it or its
 * guest already; *entered is the loop if there is something to leave. False, without an
 * exception, where another thread has the loop. The caller keeps the loop alive. */
bool fl_owner_enter(FlLoop *loop, FlLoop **entered);
void fl_owner_leave(FlLoop **entered);
#endif

/* Makes thread, the calling one, the one that runs the loop. Without a GIL two may try
 * at once, or one to run and one to close: false for the second. */
bool fl_owner_claim(FlLoop *loop, unsigned long thread);

#endif
