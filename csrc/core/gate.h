/* gate.h - handles that another thread may cancel while their callback runs.
 *
 * Promises: what asyncio's _ThreadSafeHandle does since Python 3.14. Whoever cancels a
 * handle of call_soon_threadsafe(), or asks whether it was cancelled, waits for the end
 * of its callback, without the GIL; not so the callback itself. A handle cancelled
 * before its callback began never runs. */
#ifndef FL_GATE_H
#define FL_GATE_H
#include "base/compat.h"
#include "core/handle.h"

/* A forked child has no use for any of it: the threads that it is for are gone, and
 * whatever they had locked stays so.
 *
 * Invariants: waiters counts the threads that wait for ended; FL_HANDLE_RUNNING of a
 * handle is changed under the mutex where there is no GIL or somebody waits. */
typedef struct {
    uv_mutex_t mutex;
    uv_cond_t ended;
    unsigned waiters;
    bool open;
} FlGate;

/* A libuv code. */
int fl_gate_init_uv(FlGate *gate);

/* Nobody waits any more: every handle that waits keeps its loop alive. */
void fl_gate_destroy(FlLoop *loop);

/* The callback begins; false if the handle was cancelled. Nobody waits for the end of
 * one that is run by hand, outside of the loop's run. */
bool fl_gate_enter(FlLoop *loop, FlHandle *handle);

/* The callback has ended. */
void fl_gate_leave(FlLoop *loop, FlHandle *handle);

/* Waits for the end of the callback if another thread runs it, then adds flags to the
 * handle's. Returns the flags from before. The caller owns handle and loop. */
unsigned fl_gate_mark(FlLoop *loop, FlHandle *handle, unsigned flags);

#endif
