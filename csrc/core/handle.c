/* handle.c - FlHandle, the record that call_soon() and call_later() return.
 *
 * Owns:   callback, context and the arguments, which share its allocation up to three.
 * Thread: any; what the loop's own and another may reach at once is under the handle's
 *         lock.
 *
 * The type is no subclass of asyncio.Handle, whose Python slots would be dead weight:
 * its __class__ says asyncio.Handle, so isinstance() holds, and what is cold (repr,
 * ordering) runs asyncio's own functions on it. */
#include "core/handle.h"
#include "core/handleinfo.h"
#include "core/context.h"
#include "core/loop.h"
#include "base/errors.h"

#if FL_HAVE_GIL
/* Makes a few spare handles at once. The collector rests meanwhile: handles
 * are not tracked, so a batch of them is no reason to collect. 0 or -1. */
static int
handle_refill(FlState *st, PyTypeObject *type, int kind)
{
    int collecting = PyGC_Disable();
    int made = 0;
    for (; made < FL_HANDLE_REFILL; made++) {
        FlHandle *spare = PyObject_GC_New(FlHandle, type);
        if (spare == NULL) break;
        Py_DECREF(type); /* a spare does not hold its type */
        /* handle_alloc() makes a reference of its own: a debug build's sum of all is to
         * forget this one. */
        Py_SET_REFCNT((PyObject *)spare, 2);
        Py_DECREF((PyObject *)spare);
        memset((char *)spare + sizeof(PyObject), 0,
               (size_t)type->tp_basicsize - sizeof(PyObject));
        spare->context = (PyObject *)st->free_handles[kind];
        st->free_handles[kind] = spare;
    }
    st->free_handle_count[kind] += made;
    if (collecting) {
        PyGC_Enable();
    }
    if (made == 0) return -1;
    PyErr_Clear();
    return 0;
}
#endif

static FlHandle *
handle_alloc(FlState *st, PyTypeObject *type)
{
#if FL_HAVE_GIL
    int kind = type == st->timer_handle_type;
    if (FL_UNLIKELY(st->free_handles[kind] == NULL) &&
        handle_refill(st, type, kind) < 0) {
        return NULL;
    }
    FlHandle *self = st->free_handles[kind];
    st->free_handles[kind] = (FlHandle *)self->context;
    st->free_handle_count[kind]--;
    self->context = NULL;
    Py_INCREF(type);
    _Py_NewReference((PyObject *)self);
    return self;
#else
    (void)st;
    FlHandle *self = PyObject_GC_New(FlHandle, type);
    if (self == NULL) return NULL;
    memset((char *)self + sizeof(PyObject), 0,
           (size_t)type->tp_basicsize - sizeof(PyObject));
    return self;
#endif
}

FlHandle *
fl_handle_new(FlLoop *loop, PyTypeObject *type, PyObject *callback,
              PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    FlState *st = loop->st;
    FlHandle *self = handle_alloc(st, type);
    if (self == NULL) return NULL;

    fl_shared_init(&self->flags, type == st->timer_handle_type ? FL_HANDLE_TIMER : 0);
    self->nargs = 0;
    self->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    if (context != NULL) {
        self->context = Py_NewRef(context);
    }
    else {
        bool shared;
        self->context = fl_context_capture(st, &loop->contexts, &shared);
        if (self->context == NULL) goto error;
        if (shared) {
            self->flags |= FL_HANDLE_SHARED;
        }
    }
    if (FL_UNLIKELY(nargs > FL_HANDLE_INLINE_ARGS)) {
        PyObject **own = PyMem_Malloc((size_t)nargs * sizeof(PyObject *));
        if (own == NULL) {
            PyErr_NoMemory();
            goto error;
        }
        self->args[0] = (PyObject *)own;
    }
    self->callback = Py_NewRef(callback);
    self->nargs = (int)nargs;
    PyObject **slots = fl_handle_args(self);
    for (Py_ssize_t i = 0; i < nargs; i++) {
        slots[i] = Py_NewRef(args[i]);
    }
    if (!FL_HAVE_GIL) {
        fl_handle_track_always(self);
    }
    return self;

error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

/* Drops callback and arguments; the slots are empty before any destructor runs. The
 * order is that of asyncio's: the last argument goes first, as out of a tuple, and the
 * callback ahead of them where cancel() empties the one slot before the other. */
static void
handle_drop_call(FlHandle *self)
{
    PyObject *held[FL_HANDLE_INLINE_ARGS];
    PyObject **own = NULL;
    fl_lock_acquire(&self->lock);
    PyObject *callback = self->callback;
    int nargs = self->nargs;
    PyObject **args = fl_handle_args(self);
    if (FL_UNLIKELY(args != self->args)) {
        own = args;
    }
    else {
        FL_ASSUME(nargs <= FL_HANDLE_INLINE_ARGS);
        for (int i = 0; i < nargs; i++) {
            held[i] = args[i];
        }
        args = held;
    }
    bool cancelled = self->flags & FL_HANDLE_CANCELLED;
    self->callback = NULL;
    self->nargs = 0;
    fl_lock_release(&self->lock);
    if (cancelled) {
        Py_CLEAR(callback);
    }
    for (int i = nargs; i-- > 0;) {
        Py_DECREF(args[i]);
    }
    Py_XDECREF(callback);
    PyMem_Free(own);
}

PyObject *
fl_handle_callback(FlHandle *self)
{
    fl_lock_acquire(&self->lock);
    PyObject *callback = Py_XNewRef(self->callback);
    fl_lock_release(&self->lock);
    return callback;
}

/* Adds flags and returns those from before; see gate.h. */
static unsigned
handle_mark(FlHandle *self, unsigned flags)
{
    if (FL_HANDLE_GATED && FL_UNLIKELY(self->flags & FL_HANDLE_THREADSAFE) &&
        self->loop != NULL) {
        FlLoop *loop = (FlLoop *)Py_NewRef((PyObject *)self->loop);
        unsigned before = fl_gate_mark(loop, self, flags);
        Py_DECREF((PyObject *)loop);
        return before;
    }
    return fl_shared_set(&self->flags, flags);
}

int
fl_handle_trace(FlHandle *self)
{
    FlState *st = self->loop->st;
    /* The frame that called us, if any: C frames do not count. */
    PyObject *frame = PyObject_CallNoArgs(st->sys_getframe);
    if (frame == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ValueError)) return -1;
        PyErr_Clear(); /* no Python frame at all */
        return 0;
    }
    PyObject *traceback = PyObject_CallOneArg(st->extract_stack, frame);
    Py_DECREF(frame);
    return fl_handleinfo_set_note(self, FL_HANDLEINFO_TRACEBACK, traceback);
}

/* Of a handle that was just marked as cancelled: out of the heap, or counted in it. */
static void
handle_take_out(FlHandle *self, unsigned before)
{
    FlLoop *loop = self->loop;
    if (loop != NULL && !fl_loop_is_own(loop)) {
        if (before & FL_HANDLE_SCHEDULED) {
            fl_timers_cancelled_elsewhere(&loop->timers);
        }
    }
    else if ((self->flags & FL_HANDLE_SCHEDULED) && loop != NULL) {
        Py_INCREF((PyObject *)loop);
        fl_handle_track(self);
        fl_timers_cancelled(&loop->timers, self);
        Py_DECREF((PyObject *)loop);
    }
}

int
fl_handle_cancel(FlHandle *self)
{
    unsigned before = handle_mark(self, FL_HANDLE_CANCELLED);
    if (before & FL_HANDLE_CANCELLED) return 0;
    int rc = 0;
    Py_INCREF((PyObject *)self);
    /* Ahead of the repr, which may take turns that take it out: it is counted once. */
    handle_take_out(self, before);
    if (self->loop != NULL && FL_UNLIKELY(self->loop->debug)) {
        /* The repr outlives the callback: useful where a handle was cancelled early. */
        PyObject *repr = PyObject_Repr((PyObject *)self);
        rc = fl_handleinfo_set_note(self, FL_HANDLEINFO_REPR, repr);
    }
    /* It is cancelled all the same. */
    PyObject *raised = FL_UNLIKELY(rc < 0) ? fl_compat_take_exception() : NULL;
    handle_drop_call(self);
    if (FL_UNLIKELY(raised != NULL)) {
        fl_compat_set_exception(raised);
    }
    Py_DECREF((PyObject *)self);
    return rc;
}

static PyObject *
handle_cancel(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (fl_handle_cancel((FlHandle *)op) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *
handle_cancelled(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(handle_mark((FlHandle *)op, 0) & FL_HANDLE_CANCELLED);
}

static PyObject *
handle_run(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlHandle *self = (FlHandle *)op;
    int rc;
    if (FL_UNLIKELY(self->callback == NULL)) {
        if (FL_HANDLE_GATED && (self->flags & FL_HANDLE_THREADSAFE)) Py_RETURN_NONE;
        /* Cancelled: asyncio calls all the same, and reports what comes of that. */
        PyErr_SetString(PyExc_TypeError,
                        "Value after * must be an iterable, not NoneType");
        rc = self->loop == NULL ? -1 : fl_handle_failed(self);
    }
    else {
        rc = fl_handle_run(self);
    }
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

static int
handle_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlHandle *self = (FlHandle *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->notes);
    for (int i = 0; i < self->nargs; i++) {
        Py_VISIT(fl_handle_args(self)[i]);
    }
    return 0;
}

int
fl_handle_visit(FlHandle *self, visitproc visit, void *arg)
{
    PyObject *op = (PyObject *)self;
    if (!(self->flags & FL_HANDLE_TRACKED)) return handle_traverse(op, visit, arg);
    Py_VISIT(op);
    return 0;
}

static int
handle_clear(PyObject *op)
{
    FlHandle *self = (FlHandle *)op;
    handle_drop_call(self);
    PyObject *loop = (PyObject *)self->loop;
    self->loop = NULL;
    Py_XDECREF(loop);
    self->flags &= ~(unsigned)FL_HANDLE_SHARED;
    Py_CLEAR(self->context);
    Py_CLEAR(self->notes);
    return 0;
}

/* Takes the parts of a handle down and keeps it as a spare, or frees it. */
static void
handle_end(FlHandle *self)
{
    PyObject *op = (PyObject *)self;
    PyTypeObject *tp = Py_TYPE(op);
    if (FL_UNLIKELY(self->weakrefs != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
#if FL_HAVE_GIL
    bool keep = self->loop != NULL && !(self->flags & FL_HANDLE_CROWD);
    FlState *st = keep ? self->loop->st : NULL;
#endif
    (void)handle_clear(op);
#if FL_HAVE_GIL
    if (FL_UNLIKELY(st == NULL || !fl_handle_spare(st, self)))
#endif
    {
        PyObject_GC_Del(op);
    }
    Py_DECREF(tp);
}

static void
handle_dealloc(PyObject *op)
{
    FlHandle *self = (FlHandle *)op;
    if (self->flags & FL_HANDLE_TRACKED) {
        PyObject_GC_UnTrack(op);
        self->flags &= ~(unsigned)FL_HANDLE_TRACKED;
    }
    bool chained = false;
    for (int i = 0; i < self->nargs; i++) {
        chained |= Py_TYPE(fl_handle_args(self)[i])->tp_dealloc == handle_dealloc;
    }
    if (FL_LIKELY(!chained)) {
        handle_end(self);
        return;
    }
    /* A handle is another's argument, and so on perhaps for a hundred thousand. */
    Py_TRASHCAN_BEGIN(op, handle_dealloc)
    handle_end(self);
    Py_TRASHCAN_END
}

void
fl_handle_free_spares(FlState *st)
{
    for (int kind = 0; kind < 2; kind++) {
        FlHandle *self = st->free_handles[kind];
        st->free_handles[kind] = NULL;
        st->free_handle_count[kind] = FL_HANDLE_FREE_MAX; /* nothing comes back */
        while (self != NULL) {
            FlHandle *next = (FlHandle *)self->context;
            PyObject_GC_Del(self);
            self = next;
        }
    }
}

static PyMethodDef handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS,
     PyDoc_STR("cancel($self)\n--\n\n"
               "Cancel the callback; without effect if it has run or was cancelled.")},
    {"cancelled", handle_cancelled, METH_NOARGS,
     PyDoc_STR("cancelled($self)\n--\n\nReturn True if the callback was cancelled.")},
#if FL_HANDLE_GET_CONTEXT
    {"get_context", fl_handleinfo_get_context, METH_NOARGS,
     PyDoc_STR("get_context($self)\n--\n\n"
               "Return the contextvars.Context that the callback runs in.")},
#endif
    {"_run", handle_run, METH_NOARGS, NULL},
    {"_repr_info", fl_handleinfo_repr_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_handle_methods[] = {
    {"when", fl_handleinfo_when, METH_NOARGS,
     PyDoc_STR("when($self)\n--\n\n"
               "Return the time, in seconds of loop.time(), that it is due at.")},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlHandle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "A callback that was scheduled; see asyncio.Handle."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, fl_handleinfo_repr},
    {Py_tp_hash, fl_handleinfo_hash},
    {Py_tp_richcompare, fl_handleinfo_compare},
    {Py_tp_methods, handle_methods},
    {Py_tp_members, handle_members},
    {Py_tp_getset, fl_handleinfo_getset},
    {0, NULL},
};

static PyType_Slot timer_handle_slots[] = {
    {Py_tp_doc, "A callback that is due at a time; see asyncio.TimerHandle."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_hash, fl_handleinfo_hash},
    {Py_tp_richcompare, fl_handleinfo_compare},
    {Py_tp_methods, timer_handle_methods},
    {Py_tp_getset, fl_handleinfo_timer_getset},
    {0, NULL},
};

enum {
    HANDLE_TYPE_FLAGS = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
};

static PyType_Spec handle_spec = {
    .name = "fastloop.Handle",
    .basicsize = sizeof(FlHandle),
    .flags = HANDLE_TYPE_FLAGS | Py_TPFLAGS_BASETYPE, /* for the timer handle alone */
    .slots = handle_slots,
};

static PyType_Spec timer_handle_spec = {
    .name = "fastloop.TimerHandle",
    .basicsize = sizeof(FlTimerHandle),
    .flags = HANDLE_TYPE_FLAGS,
    .slots = timer_handle_slots,
};

int
fl_handle_register(PyObject *module, FlState *st)
{
    st->handle_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    if (st->handle_type == NULL || PyModule_AddType(module, st->handle_type) < 0) {
        return -1;
    }
    st->timer_handle_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &timer_handle_spec, (PyObject *)st->handle_type);
    if (st->timer_handle_type == NULL) return -1;
    return PyModule_AddType(module, st->timer_handle_type);
}
