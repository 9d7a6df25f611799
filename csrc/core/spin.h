/* spin.h - waiting awake for what is about to come.
 *
 * A thread that sleeps is back some 20 to 50 us after it was called, and calling it is
 * a system call. Where a job is under way and another processor works on it, looking at
 * a flag for that long is cheaper for both.
 *
 * Promises: who looks in vain does so ever more rarely, so that long jobs cost nothing.
 * Thread: one at a time; the flags that are looked at are the callers' own. */
#ifndef FL_SPIN_H
#define FL_SPIN_H
#include "base/compat.h"
#include <sched.h>
#include <stdatomic.h>

enum { FL_SPIN_NS = 25000, FL_SPIN_MOST_MISSES = 8, FL_SPIN_STEP = 32 };

typedef struct {
    unsigned misses; /* in a row */
    unsigned rest;   /* waits to sit out */
} FlSpin;

/* Whether this wait is worth it. */
static inline bool
fl_spin_may(FlSpin *spin)
{
    if (FL_LIKELY(spin->rest == 0)) return true;
    spin->rest--;
    return false;
}

static inline void
fl_spin_ended(FlSpin *spin, bool found)
{
    if (found) {
        spin->misses = 0;
        return;
    }
    if (spin->misses < FL_SPIN_MOST_MISSES) {
        spin->misses++;
    }
    spin->rest = (1u << spin->misses) - 1;
}

/* Tells the processor that this is a wait. */
static inline void
fl_spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* The processor that the caller is on; -1 where that is not known. */
static inline int
fl_spin_cpu(void)
{
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

/* Looks for as long as it may pay whether the flag has become what is wanted. */
static inline bool
fl_spin_wait(atomic_int *flag, int wanted)
{
    uint64_t until = uv_hrtime() + FL_SPIN_NS;
    do {
        for (int i = 0; i < FL_SPIN_STEP; i++) {
            if (atomic_load_explicit(flag, memory_order_acquire) == wanted) return true;
            fl_spin_pause();
        }
    } while (uv_hrtime() < until);
    return false;
}

#endif
