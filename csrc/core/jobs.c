/* jobs.c - jobs, their queue, and what a worker does.
 *
 * Owns:   the queued items; a job owns what it calls and where its result goes.
 * Thread: any that holds the GIL; without one the executor is Python's own.
 *
 * A job is a work item, a concurrent future and the two callbacks that asyncio chains
 * futures with, in one record. Its result travels as a callback of the loop: the job
 * itself is what is called. */
#include "core/jobs.h"
#include "core/loop.h"
#include "base/errors.h"

typedef enum {
    JOB_WAITS,
    JOB_RETURNED,
    JOB_RAISED,
    JOB_CANCELLED,
    JOB_DELIVERED
} JobState;

/* Invariants: func is NULL from the moment that a worker takes the job; result is what
 * the state says. args[0] is spare, for the vectorcall. */
typedef struct {
    PyObject_VAR_HEAD
    vectorcallfunc vectorcall;
    FlLoop *loop;
    PyObject *future;
    PyObject *func;
    PyObject *result;
    JobState state;
    uint64_t queued; /* when, in ticks */
    PyObject *args[1];
} FlJob;

/* -- a job ------------------------------------------------------------------------ */

static void
job_drop_call(FlJob *self)
{
    Py_CLEAR(self->func);
    for (Py_ssize_t i = 1; i <= Py_SIZE(self); i++) {
        Py_CLEAR(self->args[i]);
    }
}

/* What future.method() says. */
static int
job_asks(FlJob *self, PyObject *method)
{
    PyObject *answer = PyObject_CallMethodNoArgs(self->future, method);
    int truth = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return truth;
}

/* The loop calls the job: the result is due. */
static PyObject *
job_deliver(PyObject *op, PyObject *const *Py_UNUSED(args), size_t Py_UNUSED(nargs),
            PyObject *Py_UNUSED(kwnames))
{
    FlJob *self = (FlJob *)op;
    FlState *st = self->loop->st;
    JobState state = self->state;
    /* By hand, too early or once more: it can be had from a handle. */
    if (FL_UNLIKELY(state == JOB_WAITS || state == JOB_DELIVERED)) Py_RETURN_NONE;
    self->state = JOB_DELIVERED;
    self->loop->jobs--;
    PyObject *value = self->result;
    self->result = NULL;
    int cancelled = job_asks(self, st->str_cancelled);
    if (cancelled != 0) {
        Py_XDECREF(value);
        if (cancelled < 0) return NULL;
        Py_RETURN_NONE;
    }
    if (state == JOB_CANCELLED) {
        return PyObject_CallMethodNoArgs(self->future, st->str_cancel);
    }
    PyObject *name = state == JOB_RAISED ? st->str_set_exception : st->str_set_result;
    PyObject *result = PyObject_CallMethodOneArg(self->future, name, value);
    Py_DECREF(value);
    return result;
}

/* Puts the job behind what is ready. 0 or -1. */
static int
job_post(FlJob *self)
{
    FlLoop *loop = self->loop;
    FlHandle *handle =
        fl_handle_new(loop, loop->st->handle_type, (PyObject *)self, NULL, 0, NULL);
    if (handle == NULL) return -1;
    fl_shared_set(&handle->flags, FL_HANDLE_THREADSAFE);
    int rc = fl_loop_push(loop, handle);
    Py_DECREF((PyObject *)handle);
    return rc;
}

/* Results that are asyncio's own code's to see: the loop is closed, or the exception is
 * one that changes on its way from future to future, or cannot be had by one. */
static bool
job_is_cold(FlJob *self, FlState *st)
{
    if (self->loop->closed) return true;
    if (self->state != JOB_RAISED) return false;
    return PyErr_GivenExceptionMatches(self->result, st->futures_error) ||
           PyErr_GivenExceptionMatches(self->result, PyExc_StopIteration);
}

/* A worker runs the job. 1 if its loop is to be woken, 0 if not, -1 with an exception.
 */
static int
job_run(FlJob *self, FlJobs *queue)
{
    FlState *st = queue->st;
    if (FL_UNLIKELY(self->func == NULL)) return 0; /* somebody has queued it twice */
    int cancelled = job_asks(self, st->str_cancelled);
    if (FL_UNLIKELY(cancelled > 0)) {
        self->loop->jobs--;
        job_drop_call(self);
        return 0;
    }
    if (FL_UNLIKELY(cancelled < 0)) {
        /* A class of the program's own: it is asked again, in the loop's thread, when
         * the result is due, and there its exception is reported. */
        PyErr_Clear();
    }
    FlMetrics *metrics = &self->loop->metrics;
    uint64_t waited = fl_metrics_now() - self->queued;
    fl_histogram_add(&metrics->job_wait, fl_metrics_ns(metrics, waited));
    fl_count_add(&metrics->jobs_started, 1);
    PyObject *func = self->func;
    self->func = NULL;
    self->result = PyObject_Vectorcall(
        func, self->args + 1, (size_t)Py_SIZE(self) | PY_VECTORCALL_ARGUMENTS_OFFSET,
        NULL);
    if (FL_LIKELY(self->result != NULL)) {
        self->state = JOB_RETURNED;
    }
    else {
        self->state = JOB_RAISED;
        self->result = fl_compat_take_exception();
    }
    Py_DECREF(func);
    job_drop_call(self);
    bool cold = job_is_cold(self, st);
    if (FL_LIKELY(!cold) && FL_LIKELY(job_post(self) == 0)) return 1;
    self->loop->jobs--;
    if (!cold) return -1; /* memory is out: nobody will deliver it */
    PyObject *raised = self->state == JOB_RAISED ? Py_True : Py_False;
    self->state = JOB_DELIVERED;
    PyObject *result = PyObject_CallFunctionObjArgs(queue->hand_over, self->future,
                                                    raised, self->result, NULL);
    Py_CLEAR(self->result);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static FlJob *
job_new(FlState *st, FlLoop *loop, PyObject *future, PyObject *func,
        PyObject *const *args, Py_ssize_t nargs)
{
    FlJob *self = PyObject_GC_NewVar(FlJob, st->job_type, nargs);
    if (self == NULL) return NULL;
    self->vectorcall = job_deliver;
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    self->future = Py_NewRef(future);
    self->func = Py_NewRef(func);
    self->result = NULL;
    self->state = JOB_WAITS;
    self->queued = fl_metrics_now();
    self->args[0] = NULL;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        self->args[i + 1] = Py_NewRef(args[i]);
    }
    PyObject_GC_Track((PyObject *)self);
    return self;
}

static int
job_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlJob *self = (FlJob *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->future);
    Py_VISIT(self->func);
    Py_VISIT(self->result);
    for (Py_ssize_t i = 1; i <= Py_SIZE(self); i++) {
        Py_VISIT(self->args[i]);
    }
    return 0;
}

/* The loop stays: whoever holds a job may still call it. */
static int
job_clear(PyObject *op)
{
    FlJob *self = (FlJob *)op;
    job_drop_call(self);
    Py_CLEAR(self->result);
    return 0;
}

static void
job_dealloc(PyObject *op)
{
    FlJob *self = (FlJob *)op;
    PyTypeObject *tp = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)job_clear(op);
    Py_CLEAR(self->future);
    Py_DECREF((PyObject *)self->loop);
    PyObject_GC_Del(op);
    Py_DECREF(tp);
}

/* executor.shutdown(cancel_futures=True) asks item.future.cancel() of what it drains.
 */
static PyObject *
job_get_future(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(op);
}

static PyObject *
job_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlJob *self = (FlJob *)op;
    if (self->func == NULL) Py_RETURN_FALSE;
    job_drop_call(self);
    self->state = JOB_CANCELLED;
    if (self->loop->closed) {
        self->state = JOB_DELIVERED;
        self->loop->jobs--;
        Py_RETURN_TRUE;
    }
    if (job_post(self) < 0) return NULL;
    fl_wakeup_signal(&self->loop->wakeup);
    Py_RETURN_TRUE;
}

static PyObject *
job_repr(PyObject *op)
{
    FlJob *self = (FlJob *)op;
    return PyUnicode_FromFormat("<%s for %R>", Py_TYPE(op)->tp_name, self->future);
}

static PyMethodDef job_methods[] = {
    {"cancel", job_cancel, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef job_getset[] = {
    {"future", job_get_future, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef job_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(FlJob, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot job_slots[] = {
    {Py_tp_doc, "A job of the default executor."},
    {Py_tp_dealloc, job_dealloc},
    {Py_tp_traverse, job_traverse},
    {Py_tp_clear, job_clear},
    {Py_tp_repr, job_repr},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_methods, job_methods},
    {Py_tp_members, job_members},
    {Py_tp_getset, job_getset},
    {0, NULL},
};

static PyType_Spec job_spec = {
    .name = "fastloop.Job",
    .basicsize = offsetof(FlJob, args) + sizeof(PyObject *),
    .itemsize = sizeof(PyObject *),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = job_slots,
};

/* -- the queue -------------------------------------------------------------------- */

/* Calls an idle worker: the one that is awake, if there is one. */
static void
jobs_call(FlJobs *self)
{
    int awake = FL_JOBS_AWAKE;
    self->idle--;
    if (!atomic_compare_exchange_strong(&self->awake, &awake, FL_JOBS_CALLED)) {
        uv_sem_post(&self->bell);
    }
}

/* Takes a reference of its own. 0, 1 if no worker is idle, or -1. */
static int
jobs_put(FlJobs *self, PyObject *item)
{
    if (!fl_ring_push(&self->items, item)) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(item);
    self->needed = self->idle == 0;
    if (self->needed) return 1;
    jobs_call(self);
    return 0;
}

int
fl_jobs_add(FlJobs *self, FlLoop *loop, PyObject *future, PyObject *func,
            PyObject *const *args, Py_ssize_t nargs)
{
    FlJob *job = job_new(self->st, loop, future, func, args, nargs);
    if (job == NULL) return -1;
    /* The worker that is called waits a little until the loop is out of its way. */
    bool holds_gil = fl_loop_runs_here(loop);
    atomic_store_explicit(&self->released, !holds_gil, memory_order_relaxed);
    int rc = jobs_put(self, (PyObject *)job);
    if (rc >= 0) {
        loop->jobs++;
        fl_count_add(&loop->metrics.jobs_submitted, 1);
        rc = rc > 0 && self->room > 0;
    }
    Py_DECREF((PyObject *)job);
    return rc;
}

/* Waits to be called, without the GIL. True if that came while awake. */
static bool
jobs_wait_called(FlJobs *self, bool stay_awake)
{
    if (stay_awake && !fl_spin_wait(&self->awake, FL_JOBS_CALLED)) {
        int awake = FL_JOBS_AWAKE;
        if (atomic_compare_exchange_strong(&self->awake, &awake, FL_JOBS_NOBODY)) {
            stay_awake = false;
        }
    }
    if (stay_awake) {
        atomic_store(&self->awake, FL_JOBS_NOBODY);
    }
    else {
        uv_sem_wait(&self->bell);
    }
    if (self->many_cpus) {
        atomic_store_explicit(&self->worker_cpu, fl_spin_cpu(), memory_order_relaxed);
        (void)fl_spin_wait(&self->released, true);
    }
    return stay_awake;
}

/* No items: lets the GIL go, wakes the loop, waits for more. */
static void
jobs_wait(FlJobs *self, FlWakeup *ringing)
{
    int nobody = FL_JOBS_NOBODY;
    self->idle++;
    bool stay_awake =
        self->many_cpus && atomic_load(&self->awake) == FL_JOBS_NOBODY &&
        fl_jobs_is_apart(&self->loop_cpu) && fl_spin_may(&self->spin) &&
        atomic_compare_exchange_strong(&self->awake, &nobody, FL_JOBS_AWAKE);
    PyThreadState *thread = PyEval_SaveThread();
    if (ringing != NULL) {
        fl_wakeup_ring_end(ringing);
    }
    bool was_awake = jobs_wait_called(self, stay_awake);
    PyEval_RestoreThread(thread);
    if (stay_awake) {
        fl_spin_ended(&self->spin, was_awake);
    }
}

/* serve(): what a worker does until it meets a None. */
static PyObject *
jobs_serve(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlJobs *self = (FlJobs *)op;
    FlState *st = self->st;
    FlWakeup *ringing = NULL; /* the loop that is to be woken */
    for (;;) {
        PyObject *item = fl_ring_pop(&self->items);
        if (item == NULL) {
            jobs_wait(self, ringing);
            ringing = NULL;
            continue;
        }
        if (ringing != NULL) {
            /* The next job may take long. */
            fl_wakeup_ring_end(ringing);
            ringing = NULL;
        }
        if (item == Py_None) {
            Py_DECREF(item);
            Py_RETURN_NONE;
        }
        int rc = 0;
        if (FL_LIKELY(Py_IS_TYPE(item, st->job_type))) {
            FlLoop *loop = ((FlJob *)item)->loop;
            rc = job_run((FlJob *)item, self);
            if (rc > 0 && fl_wakeup_ring_begin(&loop->wakeup)) {
                ringing = &loop->wakeup;
            }
        }
        else {
            PyObject *result = PyObject_CallOneArg(self->run_item, item);
            Py_XDECREF(result);
            rc = result == NULL ? -1 : 0;
        }
        Py_DECREF(item);
        if (rc < 0) return NULL;
    }
}

static PyObject *
jobs_put_method(PyObject *op, PyObject *item)
{
    FlJobs *self = (FlJobs *)op;
    if (item == Py_None) {
        self->ended = true;
    }
    atomic_store_explicit(&self->released, true, memory_order_relaxed);
    if (jobs_put(self, item) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
jobs_get_nowait(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlJobs *self = (FlJobs *)op;
    PyObject *item = fl_ring_pop(&self->items);
    if (item == NULL) {
        PyErr_SetNone(self->st->queue_empty);
    }
    return item;
}

static PyObject *
jobs_qsize(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(fl_ring_len(&((FlJobs *)op)->items));
}

static PyObject *
jobs_empty(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(fl_ring_len(&((FlJobs *)op)->items) == 0);
}

/* JobQueue(run_item, hand_over, submit) */
static PyObject *
jobs_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *run_item, *hand_over, *submit;
    if (!PyArg_ParseTuple(args, "OOO:JobQueue", &run_item, &hand_over, &submit)) {
        return NULL;
    }
    FlState *st = fl_state_of_type(type);
    if (st == NULL) return NULL;
    FlJobs *self = (FlJobs *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->st = st;
    self->run_item = Py_NewRef(run_item);
    self->hand_over = Py_NewRef(hand_over);
    self->submit = Py_NewRef(submit);
    self->many_cpus = uv_available_parallelism() > 1;
    atomic_init(&self->awake, FL_JOBS_NOBODY);
    atomic_init(&self->released, true);
    atomic_init(&self->loop_cpu, -1);
    atomic_init(&self->worker_cpu, -1);
    int rc = uv_sem_init(&self->bell, 0);
    if (rc != 0) {
        fl_errors_from_uv(rc);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->bell_open = true;
    return (PyObject *)self;
}

static int
jobs_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlJobs *self = (FlJobs *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->run_item);
    Py_VISIT(self->hand_over);
    Py_VISIT(self->submit);
    for (size_t i = 0; i < fl_ring_len(&self->items); i++) {
        Py_VISIT((PyObject *)fl_ring_at(&self->items, i));
    }
    return 0;
}

static int
jobs_clear(PyObject *op)
{
    FlJobs *self = (FlJobs *)op;
    PyObject *item;
    while ((item = fl_ring_pop(&self->items)) != NULL) {
        Py_DECREF(item);
    }
    Py_CLEAR(self->run_item);
    Py_CLEAR(self->hand_over);
    Py_CLEAR(self->submit);
    return 0;
}

static void
jobs_dealloc(PyObject *op)
{
    FlJobs *self = (FlJobs *)op;
    PyTypeObject *tp = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)jobs_clear(op);
    fl_ring_free(&self->items);
    if (self->bell_open) {
        uv_sem_destroy(&self->bell); /* a worker that waits holds the queue */
    }
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyMethodDef jobs_methods[] = {
    {"serve", jobs_serve, METH_NOARGS,
     PyDoc_STR("serve($self)\n--\n\nRun items until a None comes.")},
    {"put", jobs_put_method, METH_O,
     PyDoc_STR("put($self, item, /)\n--\n\nQueue an item; None ends a worker.")},
    {"get_nowait", jobs_get_nowait, METH_NOARGS,
     PyDoc_STR("get_nowait($self)\n--\n\nTake an item; queue.Empty without one.")},
    {"qsize", jobs_qsize, METH_NOARGS,
     PyDoc_STR("qsize($self)\n--\n\nReturn how many items wait.")},
    {"empty", jobs_empty, METH_NOARGS,
     PyDoc_STR("empty($self)\n--\n\nReturn True if no item waits.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef jobs_members[] = {
    {"room", T_PYSSIZET, offsetof(FlJobs, room), 0,
     PyDoc_STR("How many threads may yet be started.")},
    {"needed", T_BOOL, offsetof(FlJobs, needed), 0,
     PyDoc_STR("Whether the last item found no idle worker.")},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot jobs_slots[] = {
    {Py_tp_doc, "The queue between a loop and the threads of its default executor."},
    {Py_tp_new, jobs_new},
    {Py_tp_dealloc, jobs_dealloc},
    {Py_tp_traverse, jobs_traverse},
    {Py_tp_clear, jobs_clear},
    {Py_tp_methods, jobs_methods},
    {Py_tp_members, jobs_members},
    {0, NULL},
};

static PyType_Spec jobs_spec = {
    .name = "fastloop._core.JobQueue",
    .basicsize = sizeof(FlJobs),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = jobs_slots,
};

int
fl_jobs_register(PyObject *module, FlState *st)
{
    st->job_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &job_spec, NULL);
    if (st->job_type == NULL) return -1;
    st->jobs_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &jobs_spec, NULL);
    if (st->jobs_type == NULL) return -1;
    /* Its queue has no other guard. */
    return FL_HAVE_GIL ? PyModule_AddType(module, st->jobs_type) : 0;
}
