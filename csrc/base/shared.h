/* shared.h - what several threads may touch at once.
 *
 * With a GIL, holding it is enough: fields are plain and locks are nothing, so that
 * neither costs anything. Without one, FL_SHARED makes a field atomic, which C's own
 * operators respect, and FlLock is a mutex of one byte, whose memory must be zero at
 * first.
 *
 * Promises: a thread that waits for an FlLock does not hold up the collector. Between
 * acquire and release nothing may run Python code, which might come back for the lock.
 * Thread: any. */
#ifndef FL_SHARED_H
#define FL_SHARED_H
#include "base/compat.h"

#if FL_HAVE_GIL
#define FL_SHARED
#define fl_lock_acquire(lock) ((void)(lock))
#define fl_lock_release(lock) ((void)(lock))

/* The GNU dialects' empty struct: no room in whatever has one. */
typedef struct {
} FlLock;

static inline unsigned
fl_shared_set(unsigned *flags, unsigned more)
{
    unsigned before = *flags;
    *flags |= more;
    return before;
}

static inline unsigned
fl_shared_drop(unsigned *flags, unsigned gone)
{
    unsigned before = *flags;
    *flags &= ~gone;
    return before;
}

/* Of a record that nobody else knows yet. */
static inline void
fl_shared_init(unsigned *flags, unsigned value)
{
    *flags = value;
}
#else
#include <stdatomic.h>
#define FL_SHARED _Atomic
#define fl_lock_acquire(lock) PyMutex_Lock(lock)
#define fl_lock_release(lock) PyMutex_Unlock(lock)

typedef PyMutex FlLock;

/* Sets flags and returns what they were before, as one step. */
static inline unsigned
fl_shared_set(FL_SHARED unsigned *flags, unsigned more)
{
    return atomic_fetch_or(flags, more);
}

/* Likewise drops flags. */
static inline unsigned
fl_shared_drop(FL_SHARED unsigned *flags, unsigned gone)
{
    return atomic_fetch_and(flags, ~gone);
}

/* Of a record that nobody else knows yet. */
static inline void
fl_shared_init(FL_SHARED unsigned *flags, unsigned value)
{
    atomic_init(flags, value);
}
#endif

#endif
