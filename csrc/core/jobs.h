/* jobs.h - the queue between a loop and its workers.
 *
 * The workers are threads of Python's threading module that run serve(); the executor
 * that starts and ends them is fastloop/_executor.py. To concurrent.futures' own code
 * the queue is the SimpleQueue of work items that its executor has.
 *
 * Promises: jobs start in the order of their arrival; one that was cancelled before
 * does not; each idle worker is called once. A worker lets the GIL go before it wakes
 * the loop, unless more jobs wait. */
#ifndef FL_JOBS_H
#define FL_JOBS_H
#include "base/ring.h"
#include "core/spin.h"
#include "core/wakeup.h"
#include <stdatomic.h>

/* Where the one worker is that waits awake. */
enum { FL_JOBS_NOBODY, FL_JOBS_AWAKE, FL_JOBS_CALLED };

/* Invariants, under the GIL: items owns what is in it; idle counts the workers that
 * wait and were not called yet; needed is true if the last item found none of them. */
typedef struct {
    PyObject_HEAD
    FlState *st;
    FlRing items;        /* FlJob; work items of concurrent.futures; None: the end */
    PyObject *run_item;  /* runs a work item */
    PyObject *hand_over; /* takes the results that asyncio's own code must see */
    PyObject *submit;    /* the function that nobody has replaced */
    Py_ssize_t idle;
    Py_ssize_t room; /* threads that may yet be started */
    bool needed;
    bool ended;
    bool bell_open;
    bool many_cpus;
    FlSpin spin;
    atomic_int awake;      /* FL_JOBS_* */
    atomic_int released;   /* the loop has let the GIL go since the last job */
    atomic_int loop_cpu;   /* where the loop was last: who is there, too, must not */
    atomic_int worker_cpu; /* look for the other, who waits for the processor */
    uv_sem_t bell;
} FlJobs;

/* Queues a job: func(*args), whose result goes to future. 0; 1 if a worker more is
 * wanted; or -1 with an exception. */
int fl_jobs_add(FlJobs *self, FlLoop *loop, PyObject *future, PyObject *func,
                PyObject *const *args, Py_ssize_t nargs);

/* The loop has let the GIL go: workers that were called may take it. Without the GIL.
 */
static inline void
fl_jobs_released(FlJobs *self)
{
    if (self != NULL) {
        atomic_store_explicit(&self->loop_cpu, fl_spin_cpu(), memory_order_relaxed);
        atomic_store_explicit(&self->released, true, memory_order_release);
    }
}

/* Whether the other, who was last seen there, has a processor of its own. */
static inline bool
fl_jobs_is_apart(atomic_int *seen)
{
    int cpu = fl_spin_cpu();
    return cpu < 0 || cpu != atomic_load_explicit(seen, memory_order_relaxed);
}

/* Whether it may pay to look for a result instead of sleeping. */
static inline bool
fl_jobs_may_look(FlJobs *self, FlSpin *spin)
{
    if (!self->many_cpus) return false;
    return fl_jobs_is_apart(&self->worker_cpu) && fl_spin_may(spin);
}

int fl_jobs_register(PyObject *module, FlState *st);

#endif
