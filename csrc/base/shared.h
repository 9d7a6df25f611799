/* shared.h - what several threads may touch at once.
 *
 * With a GIL, holding it is enough: fields are plain and locks are nothing, so that
 * neither costs anything. Without one, FL_SHARED makes a field atomic, which C's own
 * operators respect, and FlLock is a lock of one byte, whose memory must be zero at
 * first.
 *
 * Promises: a forked child finds every FlLock free. fork() stops all threads that are
 * attached to the interpreter where they could run Python code. So whoever takes a lock
 * must be attached, and between acquire and release nothing may run Python code, wait
 * or detach. Nor does a PyMutex do: it is handed over to threads that are not attached.
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

#define fl_shared_peek(field) (*(field))
#define fl_shared_put(field, value) ((void)(*(field) = (value)))
#else
#include <stdatomic.h>
#define FL_SHARED _Atomic

typedef atomic_uchar FlLock;

void fl_lock_wait(FlLock *lock);

static inline void
fl_lock_acquire(FlLock *lock)
{
    if (FL_UNLIKELY(atomic_exchange_explicit(lock, 1, memory_order_acquire) != 0)) {
        fl_lock_wait(lock);
    }
}

static inline void
fl_lock_release(FlLock *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release);
}

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

/* A plain field of which the loop's thread, which alone writes it, makes the most:
 * others may peek at what it put there. */
#define fl_shared_peek(field) __atomic_load_n((field), __ATOMIC_RELAXED)
#define fl_shared_put(field, value) __atomic_store_n((field), (value), __ATOMIC_RELAXED)
#endif

#endif
