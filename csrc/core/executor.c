/* executor.c - the loop's side of its default executor.
 *
 * Owns:   nothing: the executor is an attribute of the loop, as in asyncio.
 * Thread: the loop's own, or any while it does not run. */
#include "core/executor.h"
#include "core/jobs.h"

static PyObject *
executor_run_cold(FlLoop *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    return fl_loop_call_base(self, self->st->str_run_in_executor, args, nargs, kwnames);
}

/* loop.name, or NULL without an exception. */
static PyObject *
executor_attribute(PyObject *op, PyObject *name)
{
    PyObject *value;
    if (fl_compat_get_optional(op, name, &value) < 0) {
        PyErr_Clear();
        return NULL;
    }
    return value;
}

/* The first job: the executor is made. 0 or -1. */
static int
executor_make(FlLoop *self)
{
    PyObject *executor =
        PyObject_CallMethod((PyObject *)self, "_make_default_executor", NULL);
    int rc = executor == NULL
                 ? -1
                 : PyObject_SetAttr((PyObject *)self, self->st->str__default_executor,
                                    executor);
    Py_XDECREF(executor);
    return rc;
}

/* The queue of the default executor, if its jobs may go there directly; *executor is
 * a new reference then. NULL without an exception if not. */
static FlJobs *
executor_queue(FlLoop *self, PyObject **executor)
{
    FlState *st = self->st;
    PyObject *op = (PyObject *)self;
    PyObject *called = executor_attribute(op, st->str__executor_shutdown_called);
    bool shut = called != Py_False;
    Py_XDECREF(called);
    if (shut) return NULL;
    *executor = executor_attribute(op, st->str__default_executor);
    if (*executor == NULL) return NULL;
    PyObject *queue = NULL;
    PyObject *submit = NULL;
    if (*executor == Py_None) goto refuse;
    queue = executor_attribute(*executor, st->str__work_queue);
    if (queue == NULL || !Py_IS_TYPE(queue, st->jobs_type)) goto refuse;
    FlJobs *jobs = (FlJobs *)queue;
    submit = executor_attribute(*executor, st->str_submit);
    if (submit == NULL || !PyMethod_Check(submit) ||
        PyMethod_GET_FUNCTION(submit) != jobs->submit || jobs->ended) {
        goto refuse;
    }
    Py_DECREF(submit);
    return jobs;

refuse:
    Py_XDECREF(submit);
    Py_XDECREF(queue);
    Py_CLEAR(*executor);
    return NULL;
}

static PyObject *
executor_run(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    FlLoop *self = (FlLoop *)op;
    FlState *st = self->st;
    if (!FL_HAVE_GIL || kwnames != NULL || nargs < 2 || args[0] != Py_None ||
        self->debug || self->closed || fl_poll_is_foreign(&self->poll)) {
        return executor_run_cold(self, args, nargs, kwnames);
    }
    PyObject *executor = NULL;
    FlJobs *jobs = executor_queue(self, &executor);
    if (FL_UNLIKELY(jobs == NULL)) {
        PyObject *none = executor_attribute(op, st->str__default_executor);
        PyObject *called = executor_attribute(op, st->str__executor_shutdown_called);
        int rc = none == Py_None && called == Py_False ? executor_make(self) : 0;
        Py_XDECREF(called);
        Py_XDECREF(none);
        if (rc < 0) return NULL;
        jobs = executor_queue(self, &executor);
        if (jobs == NULL) return executor_run_cold(self, args, nargs, kwnames);
    }
    PyObject *future = PyObject_CallMethodNoArgs(op, st->str_create_future);
    if (future == NULL) goto done;
    if (FL_UNLIKELY(jobs->ended || self->closed)) { /* what ran meanwhile did that */
        Py_SETREF(future, executor_run_cold(self, args, nargs, kwnames));
        goto done;
    }
    if (self->job_queue != jobs) {
        Py_INCREF((PyObject *)jobs);
        Py_XSETREF(self->job_queue, jobs);
    }
    int rc = fl_jobs_add(jobs, self, future, args[1], args + 2, nargs - 2);
    if (rc > 0) {
        PyObject *grown = PyObject_CallMethodNoArgs(executor, st->str__grow);
        Py_XDECREF(grown);
        rc = grown == NULL ? -1 : 0;
    }
    if (rc < 0) {
        Py_CLEAR(future);
    }
done:
    Py_DECREF((PyObject *)jobs);
    Py_DECREF(executor);
    return future;
}

static PyMethodDef executor_methods[] = {
    {"run_in_executor", (PyCFunction)(void (*)(void))executor_run,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("run_in_executor($self, executor, func, *args)\n--\n\n"
               "Run func(*args) in a thread of the executor, of the default one for "
               "None. Return a future.")},
    {NULL, NULL, 0, NULL},
};

int
fl_executor_register(PyObject *module, FlState *st)
{
    if (fl_jobs_register(module, st) < 0) return -1;
    return fl_loop_add_methods(st, executor_methods);
}
