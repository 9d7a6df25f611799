/* ticks.h - the processor's own counter.
 *
 * Reading the clock takes 23 ns, this 10, which shows in a loop whose turns take 300.
 * The rate is unknown and need not be steady: whoever counts ticks has a clock to fall
 * back on. Thread: any. */
#ifndef FL_TICKS_H
#define FL_TICKS_H
#include <stdint.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define FL_NO_TICKS
#endif

/* 0 where there is no such counter. */
static inline uint64_t
fl_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}

#endif
