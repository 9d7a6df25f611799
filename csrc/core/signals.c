/* signals.c - the read end of the signals' wake-up socket pair, on the loop.
 *
 * Owns:   the watcher; the socket pair is the Python half's.
 * Thread: the main one, where Python runs signal handlers. */
#include "core/signals.h"
#include "core/loop.h"
#include <errno.h>
#include <sys/socket.h>

static int
on_wakeup_fd(FlWatcher *watcher, uint32_t Py_UNUSED(events))
{
    FlLoop *loop =
        ((FlSignals *)((char *)watcher - offsetof(FlSignals, watcher)))->loop;
    /* The numbers first: a handler that raises leaves the loop, and they would be
     * left behind. Memory for them before that: each is a signal. */
    enum { NUMBERS = 256 };
    PyObject *data = PyBytes_FromStringAndSize(NULL, NUMBERS);
    if (data == NULL) return -1;
    ssize_t n = recv(watcher->fd, PyBytes_AS_STRING(data), NUMBERS, 0);
    if (n > 0) {
        data = fl_compat_bytes_shrink(data, n);
    }
    else {
        Py_CLEAR(data);
    }

    int rc = PyErr_CheckSignals();
    if (data != NULL) {
        PyObject *raised = rc < 0 ? fl_compat_take_exception() : NULL;
        PyObject *result = PyObject_CallMethodOneArg(
            (PyObject *)loop, loop->st->str__process_self_data, data);
        Py_DECREF(data);
        Py_XDECREF(result);
        if (raised != NULL) {
            if (result == NULL) {
                PyErr_WriteUnraisable((PyObject *)loop);
            }
            fl_compat_set_exception(raised);
        }
        else if (result == NULL) {
            rc = -1;
        }
    }
    return rc;
}

void
fl_signals_init(FlSignals *signals, FlLoop *loop)
{
    signals->loop = loop;
    signals->watcher = (FlWatcher){.fd = -1, .call = on_wakeup_fd};
}

#if !FL_HAVE_GIL
/* The main thread adds a signal handler to a loop that runs in another one. */
static PyObject *
signals_watch_there(FlLoop *self, PyObject *arg)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self, "_watch_wakeup_fd");
    if (method == NULL) return NULL;
    int rc = fl_loop_call_threadsafe(self, method, &arg, 1);
    Py_DECREF(method);
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}
#endif

/* _watch_wakeup_fd(fd): watch the read end of the pair; -1 stops. */
static PyObject *
signals_watch_wakeup_fd(PyObject *op, PyObject *arg)
{
    FlLoop *self = (FlLoop *)op;
    FL_OWN_ELSE(self, return signals_watch_there(self, arg));
    int fd = fl_compat_long_as_int(arg);
    if (fd == -1 && PyErr_Occurred()) return NULL;
    FlWatcher *watcher = &self->signals.watcher;
    if (watcher->fd >= 0) {
        fl_poll_set(&self->poll, watcher, 0);
    }
    watcher->fd = fd;
    if (fd >= 0) {
        FlWatcher *stale = fl_poll_find(&self->poll, fd);
        if (stale != NULL) { /* the number is new, so its file was closed too early */
            fl_poll_set(&self->poll, stale, 0);
        }
        int code = fl_poll_set(&self->poll, watcher, EPOLLIN);
        if (code != 0) {
            watcher->fd = -1;
            errno = code;
            return PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    Py_RETURN_NONE;
}

PyMethodDef fl_signals_methods[] = {
    {"_watch_wakeup_fd", signals_watch_wakeup_fd, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
