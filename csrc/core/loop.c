/* loop.c - the Loop type: its state, its small methods, its making and its end.
 *
 * Owns:   the ready queue, the list of flushes, the read slab.
 * Thread: its own, from run_forever() on; queue and bell of wakeup.c are for others. */
#include "core/loop.h"
#include "base/errors.h"
#include "core/method.h"
#include "core/metrics.h"
#include "core/step.h"
#include "core/tasks.h"
#include "core/turn.h"
#include "core/view.h"

int
fl_loop_check_closed(FlLoop *loop)
{
    if (FL_LIKELY(!loop->closed)) return 0;
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

int
fl_loop_refuse_process(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "This event loop belongs to the parent process; a forked child "
                    "needs a loop of its own");
    return -1;
}

int
fl_loop_check_thread(FlLoop *loop)
{
    unsigned long thread = loop->thread;
    if (thread == 0 || thread == PyThread_get_thread_ident()) return 0;
    return fl_loop_refuse_thread();
}

int
fl_loop_refuse_thread(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "Non-thread-safe operation invoked on an event loop other than the "
                    "current one");
    return -1;
}

int
fl_loop_check_callback(FlLoop *loop, PyObject *callback, const char *method)
{
    PyObject *result = PyObject_CallMethod((PyObject *)loop, "_check_callback", "Os",
                                           callback, method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
fl_loop_push(FlLoop *loop, FlHandle *handle)
{
    if (!fl_loop_is_own(loop)) return fl_wakeup_hand_over(loop, handle, false);
    if (!FL_HAVE_GIL &&
        FL_UNLIKELY(fl_wakeup_comes_first(&loop->wakeup, &loop->ready)) &&
        fl_wakeup_drain(loop) < 0) {
        return -1;
    }
    if (FL_UNLIKELY(!fl_ring_push(&loop->ready, handle))) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF((PyObject *)handle);
    return 0;
}

int
fl_loop_call_soon(FlLoop *loop, PyObject *callback, PyObject *const *args,
                  Py_ssize_t nargs, PyObject *context)
{
    if (fl_loop_check_closed(loop) < 0) return -1;
    FlHandle *handle = fl_loop_make_handle(loop, callback, args, nargs, context);
    if (handle == NULL) return -1;
    int rc = fl_loop_push(loop, handle);
    Py_DECREF((PyObject *)handle);
    return rc;
}

int
fl_loop_call_threadsafe(FlLoop *loop, PyObject *callback, PyObject *const *args,
                        Py_ssize_t nargs)
{
    FlHandle *handle =
        fl_handle_new(loop, loop->st->handle_type, callback, args, nargs, NULL);
    if (handle == NULL) return -1;
    fl_shared_set(&handle->flags, FL_HANDLE_THREADSAFE);
    int rc = fl_wakeup_push(loop, handle);
    Py_DECREF((PyObject *)handle);
    return rc;
}

static PyObject *
loop_call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FlLoop *self = (FlLoop *)op;
    FlCallArgs call;
    if (FL_LIKELY(fl_step_is_meant(self->st, args, nargs, kwnames) && !self->debug &&
                  !self->closed)) {
        PyObject *arg = nargs == 2 ? args[1] : NULL;
        if (fl_step_push(self, args[0], arg, args[nargs]) < 0) return NULL;
        Py_RETURN_NONE;
    }
    if (fl_callargs_parse(self->st, "call_soon", NULL, args, nargs, kwnames, &call) <
            0 ||
        fl_loop_check_closed(self) < 0) {
        return NULL;
    }
    if (FL_UNLIKELY(self->debug)) {
        if (fl_loop_check_thread(self) < 0) return NULL;
        if (fl_loop_check_callback(self, call.callback, "call_soon") < 0) return NULL;
    }
    FlHandle *handle =
        fl_loop_make_handle(self, call.callback, call.args, call.nargs, call.context);
    if (handle == NULL) return NULL;
    if (fl_loop_push(self, handle) < 0) {
        Py_DECREF((PyObject *)handle);
        return NULL;
    }
    return (PyObject *)handle;
}

static PyMethodDef call_soon_def = {
    "call_soon", (PyCFunction)(void (*)(void))loop_call_soon,
    METH_FASTCALL | METH_KEYWORDS,
    PyDoc_STR("call_soon($self, callback, *args, context=None)\n--\n\n"
              "Call callback(*args) in the next turn of the loop. Return a Handle.")};

void
fl_loop_slab_return(FlLoop *loop, char *slab)
{
    PyMem_RawFree(loop->slab); /* what a turn within has made */
    loop->slab = slab;
}

char *
fl_loop_slab_borrow(FlLoop *loop)
{
    char *slab = fl_loop_slab(loop);
    loop->slab = NULL;
    return slab;
}

char *
fl_loop_slab(FlLoop *loop)
{
    if (FL_UNLIKELY(loop->slab == NULL)) {
        loop->slab = PyMem_RawMalloc(FL_SLAB_SIZE);
        if (loop->slab == NULL) {
            PyErr_NoMemory();
        }
    }
    return loop->slab;
}

int
fl_loop_reserve(FlLoop *loop)
{
    if (FL_UNLIKELY(loop->reserve == NULL)) {
        /* Pages that nobody touches cost nothing. */
        loop->reserve = PyBytes_FromStringAndSize(NULL, FL_SLAB_SIZE);
        if (loop->reserve == NULL) return -1;
    }
    if (FL_UNLIKELY(loop->spare_stop == NULL)) {
        loop->spare_stop = PyObject_CallNoArgs(PyExc_StopIteration);
        if (loop->spare_stop == NULL) return -1;
    }
    return 0;
}

PyObject *
fl_loop_bytes(FlLoop *loop, Py_ssize_t size)
{
    PyObject *bytes = PyBytes_FromStringAndSize(loop->slab, size);
    if (FL_LIKELY(bytes != NULL)) return bytes;
    PyErr_Clear();
    bytes = loop->reserve;
    loop->reserve = NULL;
    memcpy(PyBytes_AS_STRING(bytes), loop->slab, (size_t)size);
    return fl_compat_bytes_shrink(bytes, size);
}

PyObject *
fl_loop_stop(FlLoop *loop, PyObject *value)
{
    /* By hand: a tuple would be taken for the arguments. */
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (FL_LIKELY(stop != NULL) || loop->spare_stop == NULL) return stop;
    PyErr_Clear();
    stop = loop->spare_stop;
    loop->spare_stop = NULL;
    Py_XSETREF(((PyStopIterationObject *)stop)->value, Py_NewRef(value));
    return stop;
}

/* Sends what waits for the end of a turn where none may come: asyncio would have sent
 * it already. Whoever is first to raise keeps nobody from it, and what asks for a flush
 * meanwhile is served, too, within reason. Takes the exception that was raised before,
 * or NULL, and returns the last, or NULL. */
static PyObject *
loop_flush_all(FlLoop *self, PyObject *raised)
{
    enum { ROUNDS = 16 };
    size_t left = ROUNDS;
    for (FlFlush *flush = self->flushes; flush != NULL; flush = flush->next) {
        left++;
    }
    for (; left > 0 && self->flushes != NULL; left--) {
        if (fl_turn_flush(self) == 0) continue;
        PyObject *other = fl_compat_take_exception();
        if (other == raised) {
            Py_DECREF(other);
            continue;
        }
        if (raised != NULL) {
            PyException_SetContext(other, raised);
        }
        raised = other;
    }
    return raised;
}

static PyObject *
loop_take_turns(FlLoop *self, bool until_stopped, int64_t limit)
{
    FL_OWN(self, NULL);
    if (fl_loop_check_closed(self) < 0) return NULL;
    fl_turn_look_soon(self); /* each run begins with a look */
    self->fresh = true;
    if (self->depth > 0) {
        /* Within a callback: the timer's event may be among those still to be told. */
        fl_poll_disarm(&self->poll);
    }
    if (self->depth++ == 0) {
        self->runner = PyThreadState_Get();
        fl_metrics_run(&self->metrics);
    }
    int rc;
    do {
        rc = fl_turn_take(self, limit);
    } while (rc == 0 && until_stopped && !self->stopping);
    if (rc < 0 && self->depth == 1 && self->flushes != NULL) {
        fl_compat_set_exception(loop_flush_all(self, fl_compat_take_exception()));
    }
    if (--self->depth == 0) {
        fl_metrics_ran(&self->metrics);
        self->runner = NULL;
    }
    if (rc < 0) return NULL;
    fl_context_rest(&self->contexts);
    Py_RETURN_NONE;
}

static PyObject *
loop_run(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return loop_take_turns((FlLoop *)op, true, FL_TIMER_NEVER);
}

/* _run_once(timeout=None) */
static PyObject *
loop_run_once(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t limit = FL_TIMER_NEVER;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "_run_once() takes at most 1 argument");
        return NULL;
    }
    if (nargs == 1 && args[0] != Py_None &&
        fl_timer_parse_timeout(args[0], &limit) < 0) {
        return NULL;
    }
    return loop_take_turns((FlLoop *)op, false, limit);
}

/* _ended(): a run is over, also where asyncio's clean-up was cut short. Before Python
 * 3.14 it takes memory to say that no loop runs: where that is out for more than a
 * moment, the next run sees to it (Loop._check_running). */
static PyObject *
loop_ended(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    enum { TRIES = 5 };
    FlLoop *self = (FlLoop *)op;
    if (!fl_loop_is_elsewhere(self)) { /* or it came second, and never ran */
        self->thread = 0;
    }
    self->stopping = false;
    for (int i = 0; i < TRIES; i++) {
        PyObject *result = PyObject_CallOneArg(self->st->set_running_loop, Py_None);
        if (result != NULL) return result;
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

static PyObject *
loop_stop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    ((FlLoop *)op)->stopping = true;
    Py_RETURN_NONE;
}

static PyObject *
loop_is_running(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((FlLoop *)op)->thread != 0);
}

static PyObject *
loop_is_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((FlLoop *)op)->closed);
}

static PyObject *
loop_get_debug(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((FlLoop *)op)->debug);
}

static PyObject *
loop_check_closed(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlLoop *self = (FlLoop *)op;
    if (fl_loop_check_closed(self) < 0 || fl_loop_check_process(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
loop_check_thread(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_loop_check_thread((FlLoop *)op) < 0) return NULL;
    Py_RETURN_NONE;
}

PyObject *
fl_loop_call_base(FlLoop *self, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    PyObject *method = PyObject_GetAttr(self->st->base_event_loop, name);
    if (method == NULL) return NULL;
    Py_ssize_t count = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject *result = NULL;
    PyObject **stack = PyMem_Malloc((size_t)(count + 1) * sizeof(PyObject *));
    if (stack == NULL) {
        PyErr_NoMemory();
    }
    else {
        stack[0] = (PyObject *)self;
        memcpy(stack + 1, args, (size_t)count * sizeof(PyObject *));
        result = PyObject_Vectorcall(method, stack, (size_t)nargs + 1, kwnames);
        PyMem_Free(stack);
    }
    Py_DECREF(method);
    return result;
}

/* _add_callback_signalsafe(handle): asyncio's signal code queues its handles so. */
static PyObject *
loop_add_callback(PyObject *op, PyObject *handle)
{
    FlLoop *self = (FlLoop *)op;
    FlState *st = self->st;
    if (fl_handle_is(st, handle)) {
        fl_handle_track_always((FlHandle *)handle); /* it may wait twice now */
        if (fl_loop_push(self, (FlHandle *)handle) < 0) return NULL;
        Py_RETURN_NONE;
    }
    /* A handle of asyncio's own making: it knows how to run itself. */
    PyObject *cancelled = PyObject_CallMethod(handle, "cancelled", NULL);
    int skip = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
    Py_XDECREF(cancelled);
    if (skip < 0) return NULL;
    if (skip) Py_RETURN_NONE;
    PyObject *run = PyObject_GetAttrString(handle, "_run");
    if (run == NULL) return NULL;
    int rc = fl_loop_call_soon(self, run, NULL, 0, NULL);
    Py_DECREF(run);
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

/* What close() leaves to C: nothing is kept, nothing is watched. */
static void
loop_release(FlLoop *self)
{
    self->closed = true;
    fl_watchdog_forget(self);
    if (self->poll.made && !fl_poll_is_foreign(&self->poll)) {
        /* who comes again may do so in a forked child */
        fl_wakeup_close(&self->wakeup);
    }
    if (self->overdue != NULL) {
        self->overdue(self); /* which finds its transports in the slots */
    }
    fl_poll_clear(&self->poll);
    void *entry;
    while ((entry = fl_ring_pop(&self->ready)) != NULL) {
        FlStep *step = fl_step_of(entry);
        if (step != NULL) {
            fl_step_drop(self->st, step);
            continue;
        }
        FlHandle *handle = entry;
        fl_handle_track(handle);
        Py_DECREF((PyObject *)handle);
    }
    fl_timers_clear(&self->timers);
    fl_wakeup_clear(&self->wakeup);
    fl_context_clear(&self->contexts);
    while (self->flushes != NULL) {
        FlFlush *flush = self->flushes;
        self->flushes = flush->next;
        flush->queued = false;
        Py_DECREF(flush->owner);
    }
    self->flushes_tail = &self->flushes;
    fl_poll_free(&self->poll);
    fl_ring_free(&self->ready);
    PyMem_RawFree(self->slab);
    self->slab = NULL;
    Py_CLEAR(self->reserve);
    Py_CLEAR(self->spare_stop);
}

/* _release(): the C half of close(). Small writes still leave. */
static PyObject *
loop_release_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlLoop *self = (FlLoop *)op;
    if (self->thread != 0 ||
        (!FL_HAVE_GIL && !fl_owner_claim(self, PyThread_get_thread_ident()))) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    PyObject *raised = loop_flush_all(self, NULL);
    self->closed = true;
    self->thread = 0;
    loop_release(self);
    /* They lead back here: without them a closed loop goes when its last user does, as
     * asyncio's, and not when the collector comes by. */
    Py_CLEAR(self->loop_kwargs);
    Py_CLEAR(self->eager_kwargs);
    PyObject *bound = NULL;
    FL_BEGIN_CRITICAL(op);
    if (self->call_soon != NULL && PyCFunction_CheckExact(self->call_soon) &&
        PyCFunction_GET_SELF(self->call_soon) == op) {
        bound = self->call_soon;
        self->call_soon = NULL;
    }
    FL_END_CRITICAL();
    Py_XDECREF(bound);
    if (raised != NULL) {
        fl_compat_set_exception(raised);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* _show_handles(): the collector takes the loop for garbage, and believes that nobody
 * else holds what waits here. From now on it sees each handle that somebody does hold
 * for himself, and what that leads to stays as it is. */
static PyObject *
loop_show_handles(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlLoop *self = (FlLoop *)op;
    for (size_t i = 0; i < fl_ring_len(&self->ready); i++) {
        void *entry = fl_ring_at(&self->ready, i);
        if (fl_step_of(entry) == NULL) {
            fl_handle_track(entry);
        }
    }
    for (size_t i = 0; i < self->timers.heap.length; i++) {
        fl_handle_track(self->timers.heap.entries[i].item);
    }
    Py_RETURN_NONE;
}

/* 0 or a libuv code. */
static int
loop_init_uv(FlLoop *self)
{
    int rc = fl_gate_init_uv(&self->gate);
    if (rc != 0) return rc;
    rc = -fl_poll_init(&self->poll);
    if (rc == 0) {
        fl_wakeup_init(&self->wakeup, &self->poll);
    }
    return rc;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    FlState *st = fl_state_of_type(type);
    if (st == NULL) return NULL;
    FlLoop *self = (FlLoop *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;

    self->st = st;
    self->flushes_tail = &self->flushes;
    fl_metrics_init(&self->metrics);
    self->poll.epfd = self->poll.timer.fd = self->poll.bell.fd = -1;
    fl_owner_init(&self->owner);
    fl_signals_init(&self->signals, self);
    self->call_soon = PyCFunction_New(&call_soon_def, (PyObject *)self);
    if (self->call_soon == NULL) goto error;
    PyObject *time = PyObject_GetAttr((PyObject *)type, st->str_time);
    if (time == NULL) goto error;
    self->overrides_time = !Py_IS_TYPE(time, st->method_type);
    Py_DECREF(time);
    int rc = loop_init_uv(self);
    if (rc != 0) {
        fl_errors_from_uv(rc);
        goto error;
    }
    return (PyObject *)self;

error:
    self->closed = true; /* it never was open: __del__() has nothing to say */
    Py_DECREF((PyObject *)self);
    return NULL;
}

static int
loop_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlLoop *self = (FlLoop *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->call_soon);
    Py_VISIT(self->time);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->loop_kwargs);
    Py_VISIT(self->eager_kwargs);
    Py_VISIT(self->current_handle);
    Py_VISIT((PyObject *)self->job_queue);
    Py_VISIT(self->contexts.pristine);
    Py_VISIT(self->contexts.scratch);
    for (size_t i = 0; i < fl_ring_len(&self->ready); i++) {
        void *entry = fl_ring_at(&self->ready, i);
        FlStep *step = fl_step_of(entry);
        int stop = step != NULL ? fl_step_visit(step, visit, arg)
                                : fl_handle_visit(entry, visit, arg);
        if (stop != 0) return stop;
    }
    for (FlFlush *flush = self->flushes; flush != NULL; flush = flush->next) {
        Py_VISIT(flush->owner);
    }
    int rc = fl_probe_traverse(&self->probes, visit, arg);
    if (rc == 0) rc = fl_timers_traverse(&self->timers, visit, arg);
    if (rc == 0) rc = fl_wakeup_traverse(&self->wakeup, visit, arg);
    return rc == 0 ? fl_poll_traverse(&self->poll, visit, arg) : rc;
}

static int
loop_clear(PyObject *op)
{
    FlLoop *self = (FlLoop *)op;
    loop_release(self);
    fl_probe_clear(&self->probes);
    Py_CLEAR(self->call_soon);
    Py_CLEAR(self->time);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->loop_kwargs);
    Py_CLEAR(self->eager_kwargs);
    Py_CLEAR(self->current_handle);
    Py_CLEAR(self->job_queue);
    return 0;
}

static void
loop_dealloc(PyObject *op)
{
    PyTypeObject *tp = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)loop_clear(op);
    fl_gate_destroy((FlLoop *)op);
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyMethodDef loop_methods[] = {
    {"stop", loop_stop, METH_NOARGS,
     PyDoc_STR("stop($self)\n--\n\nStop the loop at the end of this turn.")},
    {"is_running", loop_is_running, METH_NOARGS,
     PyDoc_STR("is_running($self)\n--\n\nReturn True while the loop runs.")},
    {"is_closed", loop_is_closed, METH_NOARGS,
     PyDoc_STR("is_closed($self)\n--\n\nReturn True once the loop was closed.")},
    {"get_debug", loop_get_debug, METH_NOARGS,
     PyDoc_STR("get_debug($self)\n--\n\nReturn True in debug mode.")},
    {"_check_closed", loop_check_closed, METH_NOARGS, NULL},
    {"_check_thread", loop_check_thread, METH_NOARGS, NULL},
    {"_add_callback", loop_add_callback, METH_O, NULL},
    {"_add_callback_signalsafe", loop_add_callback, METH_O, NULL},
    {"_run", loop_run, METH_NOARGS,
     PyDoc_STR("_run($self)\n--\n\nTake turns until stop().")},
    {"_run_once", (PyCFunction)(void (*)(void))loop_run_once, METH_FASTCALL,
     PyDoc_STR("_run_once($self, timeout=None, /)\n--\n\nTake one turn.")},
    {"_ended", loop_ended, METH_NOARGS,
     PyDoc_STR("_ended($self)\n--\n\nThe loop does not run any more.")},
    {"_show_handles", loop_show_handles, METH_NOARGS,
     PyDoc_STR("_show_handles($self)\n--\n\n"
               "Tell the collector of the handles that others hold.")},
    {"_release", loop_release_method, METH_NOARGS,
     PyDoc_STR("_release($self)\n--\n\nThe C half of close().")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "The native half of fastloop.Loop."},
    {Py_tp_new, loop_new},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "fastloop._core.Loop",
    .basicsize = sizeof(FlLoop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = loop_slots,
};

int
fl_loop_add_methods(FlState *st, PyMethodDef *methods)
{
    for (; methods->ml_name != NULL; methods++) {
        PyObject *descr = PyDescr_NewMethod(st->loop_type, methods);
        if (descr == NULL) return -1;
        int rc =
            PyObject_SetAttrString((PyObject *)st->loop_type, methods->ml_name, descr);
        Py_DECREF(descr);
        if (rc < 0) return -1;
    }
    return 0;
}

int
fl_loop_add_getset(FlState *st, PyGetSetDef *getset)
{
    for (; getset->name != NULL; getset++) {
        PyObject *descr = PyDescr_NewGetSet(st->loop_type, getset);
        if (descr == NULL) return -1;
        int rc = PyObject_SetAttrString((PyObject *)st->loop_type, getset->name, descr);
        Py_DECREF(descr);
        if (rc < 0) return -1;
    }
    return 0;
}

int
fl_loop_register(PyObject *module, FlState *st)
{
    if (fl_context_self_test(st) < 0) return -1;
    st->loop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_spec, NULL);
    if (st->loop_type == NULL || PyModule_AddType(module, st->loop_type) < 0) return -1;
    if (fl_method_register(module, st) < 0 ||
        fl_method_add(st, &call_soon_def, offsetof(FlLoop, call_soon)) < 0 ||
        fl_method_add(st, &fl_timer_time_def, offsetof(FlLoop, time)) < 0 ||
        fl_loop_add_methods(st, fl_tasks_methods) < 0 ||
        fl_loop_add_methods(st, fl_timer_methods) < 0 ||
        fl_loop_add_getset(st, fl_timer_getset) < 0 ||
        fl_loop_add_getset(st, fl_view_getset) < 0 ||
        fl_loop_add_getset(st, fl_probe_getset) < 0 ||
        fl_loop_add_methods(st, fl_metrics_methods) < 0 ||
        fl_loop_add_methods(st, fl_wakeup_methods) < 0) {
        return -1;
    }
    return fl_loop_add_methods(st, fl_signals_methods);
}
