/* method.c - the descriptor of a method that lives in a slot.
 *
 * Owns:   nothing but its type; the loop owns what is in the slot.
 * Thread: any that holds the GIL. */
#include "core/method.h"

typedef struct {
    PyObject_HEAD
    PyMethodDef *def;
    size_t slot;
    PyTypeObject *owner;
} FlMethod;

/* Whether op has the slot: a class of the program's own may have borrowed the method.
 */
static inline bool
method_fits(const FlMethod *self, PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    return FL_LIKELY(type->tp_base == self->owner) || type == self->owner ||
           PyType_IsSubtype(type, self->owner);
}

static void
method_refuse(const FlMethod *self, PyObject *op)
{
    PyErr_Format(PyExc_TypeError,
                 "descriptor '%s' for 'fastloop.Loop' objects doesn't apply to a '%s' "
                 "object",
                 self->def->ml_name, Py_TYPE(op)->tp_name);
}

static PyObject *
method_get(PyObject *op, PyObject *loop, PyObject *Py_UNUSED(type))
{
    FlMethod *self = (FlMethod *)op;
    if (loop == NULL) return Py_NewRef(op);
    if (FL_UNLIKELY(!method_fits(self, loop))) {
        method_refuse(self, loop);
        return NULL;
    }
    PyObject *bound;
    FL_BEGIN_CRITICAL(loop);
    bound = Py_XNewRef(*(PyObject **)((char *)loop + self->slot));
    FL_END_CRITICAL();
    return bound != NULL ? bound : PyCFunction_New(self->def, loop);
}

/* Whether value is what the slot holds while nobody has replaced it. */
static bool
method_is_own(const FlMethod *self, PyObject *loop, PyObject *value)
{
    return value == NULL || (PyCFunction_CheckExact(value) &&
                             ((PyCFunctionObject *)value)->m_ml == self->def &&
                             PyCFunction_GET_SELF(value) == loop);
}

static int
method_set(PyObject *op, PyObject *loop, PyObject *value)
{
    FlMethod *self = (FlMethod *)op;
    PyObject **slot = (PyObject **)((char *)loop + self->slot);
    PyObject *old;
    bool missing;
    if (!method_fits(self, loop)) {
        method_refuse(self, loop);
        return -1;
    }
    FL_BEGIN_CRITICAL(loop);
    old = *slot;
    missing = value == NULL && method_is_own(self, loop, old);
    if (!missing) {
        *slot = Py_XNewRef(value);
    }
    FL_END_CRITICAL();
    if (missing) {
        PyErr_Format(PyExc_AttributeError, "'%s' object has no attribute '%s'",
                     Py_TYPE(loop)->tp_name, self->def->ml_name);
        return -1;
    }
    Py_XDECREF(old);
    return 0;
}

static PyObject *
method_call(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FlMethod *self = (FlMethod *)op;
    FlState *st = fl_state_of_type(Py_TYPE(op));
    if (st == NULL) return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(args);
    if (count < 1 || !PyObject_TypeCheck(PyTuple_GET_ITEM(args, 0), st->loop_type)) {
        return PyErr_Format(PyExc_TypeError, "unbound method Loop.%s() needs a Loop",
                            self->def->ml_name);
    }
    PyObject *bound = PyCFunction_New(self->def, PyTuple_GET_ITEM(args, 0));
    PyObject *rest = bound == NULL ? NULL : PyTuple_GetSlice(args, 1, count);
    PyObject *result = rest == NULL ? NULL : PyObject_Call(bound, rest, kwargs);
    Py_XDECREF(rest);
    Py_XDECREF(bound);
    return result;
}

/* What a method descriptor says of itself, asked of a bound builtin that has no self.
 */
static PyObject *
method_get_name(PyObject *op, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(((FlMethod *)op)->def->ml_name);
}

static PyObject *
method_get_described(PyObject *op, void *closure)
{
    PyObject *function = PyCFunction_New(((FlMethod *)op)->def, NULL);
    if (function == NULL) return NULL;
    PyObject *value = PyObject_GetAttrString(function, closure);
    Py_DECREF(function);
    return value;
}

/* inspect does not ask such a descriptor for its text, but asks any object for this. */
static PyObject *
method_get_signature(PyObject *op, void *Py_UNUSED(closure))
{
    FlMethod *self = (FlMethod *)op;
    PyObject *inspect = PyImport_ImportModule("inspect");
    if (inspect == NULL) return NULL;
    PyObject *method = PyDescr_NewMethod(self->owner, self->def);
    PyObject *signature =
        method == NULL ? NULL : PyObject_CallMethod(inspect, "signature", "O", method);
    Py_XDECREF(method);
    Py_DECREF(inspect);
    return signature;
}

static PyObject *
method_repr(PyObject *op)
{
    return PyUnicode_FromFormat("<method '%s' of 'fastloop.Loop' objects>",
                                ((FlMethod *)op)->def->ml_name);
}

/* Through its type it leads to the module and back here, by way of the Loop type:
 * unseen by the collector it would keep the module of an interpreter that ended. */
static int
method_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT((PyObject *)((FlMethod *)op)->owner);
    return 0;
}

static void
method_dealloc(PyObject *op)
{
    PyTypeObject *tp = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_XDECREF((PyObject *)((FlMethod *)op)->owner);
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyGetSetDef method_getset[] = {
    {"__name__", method_get_name, NULL, NULL, NULL},
    {"__doc__", method_get_described, NULL, NULL, (void *)"__doc__"},
    {"__text_signature__", method_get_described, NULL, NULL,
     (void *)"__text_signature__"},
    {"__signature__", method_get_signature, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_dealloc, method_dealloc}, {Py_tp_traverse, method_traverse},
    {Py_tp_descr_get, method_get},   {Py_tp_descr_set, method_set},
    {Py_tp_call, method_call},       {Py_tp_repr, method_repr},
    {Py_tp_getset, method_getset},   {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "fastloop._core.Method",
    .basicsize = sizeof(FlMethod),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = method_slots,
};

int
fl_method_add(FlState *st, PyMethodDef *def, size_t slot)
{
    FlMethod *self = (FlMethod *)st->method_type->tp_alloc(st->method_type, 0);
    if (self == NULL) return -1;
    self->def = def;
    self->slot = slot;
    self->owner = (PyTypeObject *)Py_NewRef((PyObject *)st->loop_type);
    int rc = PyObject_SetAttrString((PyObject *)st->loop_type, def->ml_name,
                                    (PyObject *)self);
    fl_compat_keep((PyObject *)self);
    Py_DECREF((PyObject *)self);
    return rc;
}

int
fl_method_register(PyObject *module, FlState *st)
{
    st->method_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &method_spec, NULL);
    return st->method_type == NULL ? -1 : 0;
}
