/* gate.c - the lock between a callback that runs and a thread that cancels it.
 *
 * Owns:   the mutex and the condition of a loop.
 * Thread: any; the callback's side is the loop's own. */
#include "core/gate.h"
#include "core/loop.h"

int
fl_gate_init_uv(FlGate *gate)
{
    int rc = uv_mutex_init(&gate->mutex);
    if (rc != 0) return rc;
    rc = uv_cond_init(&gate->ended);
    if (rc != 0) {
        uv_mutex_destroy(&gate->mutex);
        return rc;
    }
    gate->open = true;
    return 0;
}

void
fl_gate_destroy(FlLoop *loop)
{
    FlGate *gate = &loop->gate;
    /* libuv aborts the process where a mutex is locked. */
    if (!gate->open || fl_poll_is_foreign(&loop->poll)) return;
    gate->open = false;
    uv_cond_destroy(&gate->ended);
    uv_mutex_destroy(&gate->mutex);
}

bool
fl_gate_enter(FlLoop *loop, FlHandle *handle)
{
    FlGate *gate = &loop->gate;
    if (!FL_HAVE_GIL) {
        uv_mutex_lock(&gate->mutex);
    }
    bool enters = !(handle->flags & FL_HANDLE_CANCELLED);
    if (enters && FL_LIKELY(fl_loop_runs_here(loop))) {
        fl_shared_set(&handle->flags, FL_HANDLE_RUNNING);
    }
    if (!FL_HAVE_GIL) {
        uv_mutex_unlock(&gate->mutex);
    }
    return enters;
}

void
fl_gate_leave(FlLoop *loop, FlHandle *handle)
{
    FlGate *gate = &loop->gate;
    if ((FL_HAVE_GIL && FL_LIKELY(gate->waiters == 0)) ||
        FL_UNLIKELY(fl_poll_is_foreign(&loop->poll))) {
        fl_shared_drop(&handle->flags, FL_HANDLE_RUNNING);
        return;
    }
    uv_mutex_lock(&gate->mutex);
    fl_shared_drop(&handle->flags, FL_HANDLE_RUNNING);
    uv_cond_broadcast(&gate->ended);
    uv_mutex_unlock(&gate->mutex);
}

/* Without the GIL, which the callback needs to come to its end. */
static void
gate_wait(FlGate *gate, FlHandle *handle)
{
    gate->waiters++;
    PyThreadState *thread = PyEval_SaveThread();
    uv_mutex_lock(&gate->mutex);
    while (handle->flags & FL_HANDLE_RUNNING) {
        uv_cond_wait(&gate->ended, &gate->mutex);
    }
    uv_mutex_unlock(&gate->mutex);
    PyEval_RestoreThread(thread);
    gate->waiters--;
}

unsigned
fl_gate_mark(FlLoop *loop, FlHandle *handle, unsigned flags)
{
    FlGate *gate = &loop->gate;
    bool inside = fl_loop_runs_here(loop);
    if (FL_UNLIKELY(fl_poll_is_foreign(&loop->poll))) {
        return fl_shared_set(&handle->flags, flags);
    }
    if (FL_HAVE_GIL) {
        /* It may have begun again, by hand, before the GIL came back. */
        while (!inside && (handle->flags & FL_HANDLE_RUNNING)) {
            gate_wait(gate, handle);
        }
        return fl_shared_set(&handle->flags, flags);
    }
    PyThreadState *thread = PyEval_SaveThread();
    uv_mutex_lock(&gate->mutex);
    while (!inside && (handle->flags & FL_HANDLE_RUNNING)) {
        uv_cond_wait(&gate->ended, &gate->mutex);
    }
    unsigned before = fl_shared_set(&handle->flags, flags);
    uv_mutex_unlock(&gate->mutex);
    PyEval_RestoreThread(thread);
    return before;
}
