/* watchdog.c - the watch of a loop, and the dump of stacks without the GIL.
 *
 * Owns:   a mutex, a condition, the file that dumps go through.
 * Thread: wait() is the watching thread's; stop() anybody's; on_late() of its own.
 *
 * Nobody but faulthandler can show stacks without the GIL in a way that holds on every
 * Python, and it offers that as a signal handler. The handler is a function like any
 * other: faulthandler.register() makes it, the signal gets back what it had, and we
 * call the function in a thread of ours. No signal is ever sent, so no system call of
 * the program is interrupted. It runs only when nobody could have the GIL for a while:
 * then its holder is inside of C code, and no frame changes. */
#include "core/watchdog.h"
#include "core/loop.h"
#include "base/errors.h"
#include <linux/memfd.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    WATCH_LOOKS = 4, /* in the threshold */
    WATCH_GRACE_LEAST_MS = 50,
    WATCH_GRACE_MOST_MS = 500,
    WATCH_MS = 1000000, /* nanoseconds */
};

typedef void (*WatchDumper)(int);

/* Invariants: loop, borrowed, is NULL once the loop has gone; it, stopped and gathered
 * are touched under mutex alone. next is the loop's other watch. The rest is the
 * watching thread's. */
struct FlWatch {
    PyObject_HEAD
    FlWatch *next;
    unsigned forks;
    bool open;
    uv_mutex_t mutex;
    uv_cond_t changed;
    FlLoop *loop;
    atomic_bool stopped;
    bool gathered; /* the stack was had with the GIL */
    bool dumped;
    uint64_t threshold;
    uint64_t seen;    /* the turn that is under way, */
    bool busy;        /* if it is, */
    uint64_t blocked; /* and for how long */
    bool incident;    /* that was told */
    WatchDumper dumper;
    int dumper_signal;
    int fd;         /* what the dumper writes to, or -1 */
    uint64_t last;  /* when it last looked */
    bool was_away;  /* the watching thread had something to tell meanwhile */
    bool late_over; /* on_late() has seen the end */
    uv_thread_t late;
    bool late_runs;
};

/* In a forked child nobody is there to let go of the lock. */
static bool
watch_is_foreign(FlWatch *self)
{
    return self->forks != fl_poll_forks();
}

/* -- the dump --------------------------------------------------------------------- */

static void
watch_write(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n <= 0) return;
        text += n;
        length -= (size_t)n;
    }
}

/* Has faulthandler write to the file, and shows that on stderr. */
static void
watch_dump(FlWatch *self, unsigned long thread, double seconds)
{
    char text[4096];
    int length = snprintf(text, sizeof(text),
                          "fastloop: the loop in thread 0x%016lx has been blocked for "
                          "%.3f seconds, and so is whoever would tell more\n",
                          thread, seconds);
    watch_write(STDERR_FILENO, text, (size_t)length);
    if (self->dumper == NULL || self->fd < 0 || ftruncate(self->fd, 0) < 0 ||
        lseek(self->fd, 0, SEEK_SET) < 0) {
        return;
    }
    self->dumper(self->dumper_signal);
    off_t at = 0;
    ssize_t n;
    while ((n = pread(self->fd, text, sizeof(text), at)) > 0) {
        watch_write(STDERR_FILENO, text, (size_t)n);
        at += n;
    }
}

/* -- watching --------------------------------------------------------------------- */

typedef enum { WATCH_QUIET, WATCH_BLOCKED, WATCH_OVER } WatchNews;

/* Looks at the loop; step is how long after the last look. Under the lock. */
static WatchNews
watch_look(FlWatch *self, uint64_t step)
{
    FlMetrics *metrics = &self->loop->metrics;
    bool idle = atomic_load_explicit(&metrics->idle, memory_order_relaxed);
    uint64_t turns = atomic_load_explicit(&metrics->turns, memory_order_relaxed);
    if (!idle && self->busy && turns == self->seen) {
        self->blocked += step;
        if (self->incident || self->blocked < self->threshold) return WATCH_QUIET;
        self->incident = true;
        return WATCH_BLOCKED;
    }
    self->busy = !idle;
    self->seen = turns;
    if (!self->incident) {
        self->blocked = 0;
        return WATCH_QUIET;
    }
    self->incident = false;
    self->blocked += step; /* half of it at either end, on average */
    return WATCH_OVER;
}

/* Looks, if it is time for that; under the lock. */
static WatchNews
watch_look_again(FlWatch *self)
{
    uint64_t period = self->threshold / WATCH_LOOKS;
    uint64_t now = uv_hrtime();
    uint64_t step = now - self->last;
    if (step < period / 2) return WATCH_QUIET; /* woken for another reason */
    /* More than that is time in which nobody ran, also not the loop. */
    if (step >= 2 * period && !self->was_away) {
        step = period;
    }
    self->last = now;
    self->was_away = false;
    return watch_look(self, step);
}

/* Until there are news, or the end: false. Without the GIL; under the lock. */
static bool
watch_wait(FlWatch *self, WatchNews *news)
{
    for (;;) {
        if (self->stopped || self->loop == NULL) return false;
        *news = self->late_over ? WATCH_OVER : WATCH_QUIET;
        self->late_over = false;
        if (*news != WATCH_QUIET) return true;
        (void)uv_cond_timedwait(&self->changed, &self->mutex,
                                self->threshold / WATCH_LOOKS);
        if (self->stopped || self->loop == NULL) return false;
        *news = watch_look_again(self);
        if (*news != WATCH_QUIET) return true;
    }
}

/* The thread that looks on while the other waits for the GIL, and writes what can be
 * had if that takes too long. */
static void
on_late(void *arg)
{
    FlWatch *self = arg;
    sigset_t all;
    sigfillset(&all); /* signals are for the program's own threads */
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL);
    uint64_t period = self->threshold / WATCH_LOOKS;
    uint64_t least = (uint64_t)WATCH_GRACE_LEAST_MS * WATCH_MS;
    uint64_t most = (uint64_t)WATCH_GRACE_MOST_MS * WATCH_MS;
    uint64_t grace = period < least ? least : period > most ? most : period;
    uint64_t began = uv_hrtime();
    uv_mutex_lock(&self->mutex);
    while (!self->gathered && !self->stopped && self->loop != NULL) {
        uint64_t passed = uv_hrtime() - began;
        if (!self->dumped && passed >= grace) {
            double seconds = (double)self->blocked / 1e9;
            unsigned long thread =
                atomic_load_explicit(&self->loop->metrics.thread, memory_order_relaxed);
            self->dumped = true; /* who reads what it brings, joins us first */
            uv_mutex_unlock(&self->mutex);
            watch_dump(self, thread, seconds);
            uv_mutex_lock(&self->mutex);
            continue;
        }
        uint64_t left = self->dumped ? period : grace - passed;
        (void)uv_cond_timedwait(&self->changed, &self->mutex,
                                left < period ? left : period);
        if (self->gathered || self->stopped || self->loop == NULL) break;
        if (watch_look_again(self) == WATCH_OVER) {
            self->late_over = true;
            break;
        }
    }
    uv_mutex_unlock(&self->mutex);
}

/* Ends it. Without the GIL. */
static void
watch_join_late(FlWatch *self)
{
    if (!self->late_runs) return;
    uv_mutex_lock(&self->mutex);
    self->gathered = true;
    uv_cond_broadcast(&self->changed);
    uv_mutex_unlock(&self->mutex);
    uv_thread_join(&self->late);
    self->late_runs = false;
}

/* What was dumped: a new reference to str, or to None. */
static PyObject *
watch_dumped(FlWatch *self)
{
    enum { MOST = 256 * 1024 };
    if (!self->dumped || self->fd < 0) Py_RETURN_NONE;
    off_t size = lseek(self->fd, 0, SEEK_END);
    size = size < 0 ? 0 : size > MOST ? MOST : size;
    char *text = PyMem_Malloc((size_t)size + 1);
    if (text == NULL) return PyErr_NoMemory();
    ssize_t n = pread(self->fd, text, (size_t)size, 0);
    PyObject *result = PyUnicode_DecodeUTF8(text, n < 0 ? 0 : n, "replace");
    PyMem_Free(text);
    return result;
}

/* wait(): ("blocked" or "over", seconds), or None at the end. */
static PyObject *
watch_wait_method(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlWatch *self = (FlWatch *)op;
    WatchNews news = WATCH_QUIET;
    uint64_t blocked;
    if (watch_is_foreign(self)) Py_RETURN_NONE;
    PyThreadState *thread = PyEval_SaveThread();
    watch_join_late(self);
    uv_mutex_lock(&self->mutex);
    if (self->last == 0) {
        self->last = uv_hrtime();
    }
    bool goes_on = watch_wait(self, &news);
    blocked = self->blocked;
    if (news == WATCH_BLOCKED) {
        self->gathered = self->dumped = false;
        self->late_runs = uv_thread_create(&self->late, on_late, self) == 0;
    }
    else if (news == WATCH_OVER) {
        self->blocked = 0;
    }
    self->was_away = !self->late_runs;
    uv_mutex_unlock(&self->mutex);
    PyEval_RestoreThread(thread);
    if (!goes_on) Py_RETURN_NONE;
    return Py_BuildValue("sd", news == WATCH_BLOCKED ? "blocked" : "over",
                         (double)blocked / 1e9);
}

/* frame(): where the loop's thread is, or None. sys._current_frames() would touch the
 * frames of interpreters whose GIL we have not. */
static PyObject *
watch_frame(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlLoop *loop = ((FlWatch *)op)->loop;
    if (!FL_HAVE_GIL) { /* there all threads have to stop for it */
        PyErr_SetString(PyExc_NotImplementedError, "only with a GIL");
        return NULL;
    }
    if (loop == NULL || loop->runner == NULL) Py_RETURN_NONE;
    PyObject *frame = (PyObject *)PyThreadState_GetFrame(loop->runner);
    return frame != NULL ? frame : Py_NewRef(Py_None);
}

/* gathered(): the stack was had. Returns what was dumped before, or None. */
static PyObject *
watch_gathered(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlWatch *self = (FlWatch *)op;
    if (watch_is_foreign(self)) Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS;
    watch_join_late(self);
    Py_END_ALLOW_THREADS;
    self->was_away = true;
    return watch_dumped(self);
}

/* stop(): wait() returns None. */
static PyObject *
watch_stop(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlWatch *self = (FlWatch *)op;
    if (!watch_is_foreign(self)) {
        Py_BEGIN_ALLOW_THREADS;
        uv_mutex_lock(&self->mutex);
        self->stopped = true;
        uv_cond_broadcast(&self->changed);
        uv_mutex_unlock(&self->mutex);
        Py_END_ALLOW_THREADS;
    }
    Py_RETURN_NONE;
}

/* memory_file(): a file that is nowhere, for the dumper. Python has os.memfd_create()
 * only where the C library that it was built with has one, and many are built with an
 * old one to run everywhere. */
static PyObject *
watch_memory_file(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    long fd = syscall(SYS_memfd_create, "fastloop-watchdog", MFD_CLOEXEC);
    return fd < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(fd);
}

/* take_dumper(signum, fd): takes over what faulthandler.register() has made of a signal
 * that had the default action, and gives the signal that back. */
static PyObject *
watch_take_dumper(PyObject *op, PyObject *args)
{
    FlWatch *self = (FlWatch *)op;
    int number, fd;
    struct sigaction action, plain = {.sa_handler = SIG_DFL};
    if (!PyArg_ParseTuple(args, "ii:take_dumper", &number, &fd)) return NULL;
    sigemptyset(&plain.sa_mask);
    if (sigaction(number, NULL, &action) < 0 || sigaction(number, &plain, NULL) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN ||
        (action.sa_flags & SA_SIGINFO)) {
        PyErr_SetString(PyExc_RuntimeError, "faulthandler has no handler there");
        return NULL;
    }
    self->dumper = action.sa_handler;
    self->dumper_signal = number;
    self->fd = fd;
    Py_RETURN_NONE;
}

/* -- the list of a loop's watches ------------------------------------------------- */

static void
watch_detach(FlWatch *self)
{
    if (watch_is_foreign(self)) {
        self->loop = NULL;
        return;
    }
    /* The other side never needs the GIL while it has the lock. */
    uv_mutex_lock(&self->mutex);
    self->loop = NULL;
    uv_cond_broadcast(&self->changed);
    uv_mutex_unlock(&self->mutex);
}

static void
watch_detach_all(FlWatch *watch)
{
    while (watch != NULL) {
        FlWatch *next = watch->next;
        watch->next = NULL;
        watch_detach(watch);
        Py_DECREF((PyObject *)watch);
        watch = next;
    }
}

void
fl_watchdog_forget(FlLoop *loop)
{
    FlWatch *watch;
    FL_BEGIN_CRITICAL((PyObject *)loop);
    watch = loop->watches;
    loop->watches = NULL;
    FL_END_CRITICAL();
    watch_detach_all(watch);
}

/* Those of the list that were stopped, out of it. */
static FlWatch *
watch_take_ended(FlLoop *loop)
{
    FlWatch *ended = NULL;
    FlWatch **at = &loop->watches;
    while (*at != NULL) {
        FlWatch *watch = *at;
        if (!watch->stopped) {
            at = &watch->next;
            continue;
        }
        *at = watch->next;
        watch->next = ended;
        ended = watch;
    }
    return ended;
}

/* Watch(loop, threshold): seconds. */
static PyObject *
watch_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    FlState *st = fl_state_of_type(type);
    PyObject *op;
    double threshold;
    if (st == NULL ||
        !PyArg_ParseTuple(args, "O!d:Watch", st->loop_type, &op, &threshold)) {
        return NULL;
    }
    if (!(threshold >= 0.001 && threshold <= 1e6)) {
        PyErr_SetString(PyExc_ValueError,
                        "threshold must be from 0.001 to 1,000,000 seconds");
        return NULL;
    }
    FlLoop *loop = (FlLoop *)op;
    if (fl_loop_check_closed(loop) < 0 || fl_loop_check_process(loop) < 0) return NULL;
    FlWatch *self = (FlWatch *)type->tp_alloc(type, 0);
    if (self == NULL) return NULL;
    self->fd = -1;
    int rc = uv_mutex_init(&self->mutex);
    if (rc == 0) {
        rc = uv_cond_init(&self->changed);
        if (rc != 0) {
            uv_mutex_destroy(&self->mutex);
        }
    }
    if (rc != 0) {
        fl_errors_from_uv(rc);
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    self->open = true;
    self->forks = fl_poll_forks();
    self->threshold = (uint64_t)(threshold * 1e9);
    self->loop = loop;
    FlWatch *ended;
    Py_INCREF((PyObject *)self);
    FL_BEGIN_CRITICAL(op);
    ended = watch_take_ended(loop);
    self->next = loop->watches;
    loop->watches = self;
    FL_END_CRITICAL();
    watch_detach_all(ended);
    return (PyObject *)self;
}

/* The loop holds a reference until it has let go, and the watching thread until wait()
 * has returned: nobody is at the lock. */
static void
watch_dealloc(PyObject *op)
{
    FlWatch *self = (FlWatch *)op;
    PyTypeObject *tp = Py_TYPE(op);
    if (self->open && !watch_is_foreign(self)) {
        Py_BEGIN_ALLOW_THREADS;
        watch_join_late(self);
        Py_END_ALLOW_THREADS;
        uv_cond_destroy(&self->changed);
        uv_mutex_destroy(&self->mutex);
    }
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyMethodDef watch_methods[] = {
    {"wait", watch_wait_method, METH_NOARGS,
     PyDoc_STR("wait($self)\n--\n\n"
               "Wait for news: ('blocked' or 'over', seconds); None at the end.")},
    {"frame", watch_frame, METH_NOARGS,
     PyDoc_STR("frame($self)\n--\n\nReturn the frame of the loop's thread, or None.")},
    {"gathered", watch_gathered, METH_NOARGS,
     PyDoc_STR("gathered($self)\n--\n\n"
               "The stack was had. Return what was dumped before that, or None.")},
    {"stop", watch_stop, METH_NOARGS,
     PyDoc_STR("stop($self)\n--\n\nHave wait() return None.")},
    {"memory_file", watch_memory_file, METH_NOARGS | METH_STATIC,
     PyDoc_STR("memory_file()\n--\n\n"
               "Return the descriptor of a new file that is in no folder.")},
    {"take_dumper", watch_take_dumper, METH_VARARGS,
     PyDoc_STR("take_dumper($self, signum, fd, /)\n--\n\n"
               "Take over what faulthandler.register(signum, fd) has made.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot watch_slots[] = {
    {Py_tp_doc, "What looks after a loop from another thread."},
    {Py_tp_new, watch_new},
    {Py_tp_dealloc, watch_dealloc},
    {Py_tp_methods, watch_methods},
    {0, NULL},
};

static PyType_Spec watch_spec = {
    .name = "fastloop._core.Watch",
    .basicsize = sizeof(FlWatch),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = watch_slots,
};

int
fl_watchdog_register(PyObject *module, FlState *st)
{
    st->watch_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &watch_spec, NULL);
    if (st->watch_type == NULL) return -1;
    return PyModule_AddType(module, st->watch_type);
}
