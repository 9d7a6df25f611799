/* tlstransport.c - FlTls as a Python object.
 *
 * Owns:   nothing beyond the connection itself.
 * Thread: the loop's own. */
#include "io/tlstransport.h"
#include "io/flow.h"
#include "io/tlswrite.h"

enum {
    TLS_WRITE_HIGH = 512 * 1024, /* asyncio.constants.FLOW_CONTROL_HIGH_WATER_SSL_* */
    TLS_READ_HIGH = 256 * 1024,
};

static PyObject *
tls_none(int rc)
{
    if (rc < 0) return NULL;
    Py_RETURN_NONE;
}

/* -- writing ----------------------------------------------------------------------- */

static PyObject *
tls_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static PyObject *
tls_can_write_eof(PyObject *Py_UNUSED(op), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_FALSE;
}

static PyObject *
tls_get_write_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    /* What counts is what the socket did not take, so offer it first. */
    if (self->flush.queued && fl_tls_flush(self) < 0) return NULL;
    return PyLong_FromSize_t(fl_tls_waiting(self));
}

static PyObject *
tls_set_write_buffer_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    PyObject *high, *low;
    if (fl_flow_parse_limits(args, kwargs, &high, &low) < 0) return NULL;
    if (self->flush.queued && fl_tls_flush(self) < 0) return NULL;
    PyObject *most = PyLong_FromLong(TLS_WRITE_HIGH);
    if (most == NULL) return NULL;
    /* The default is its own. */
    bool unset = high == Py_None && low == Py_None;
    int rc = fl_flow_put_limits(&self->base, unset ? most : high, low);
    Py_DECREF(most);
    return rc < 0 ? NULL : tls_none(fl_tls_control_writing(self));
}

/* -- reading ----------------------------------------------------------------------- */

static PyObject *
tls_is_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!(((FlTls *)op)->base.flags & FL_TRANSPORT_PAUSED));
}

static PyObject *
tls_pause_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    ((FlTls *)op)->base.flags |= FL_TRANSPORT_PAUSED;
    Py_RETURN_NONE;
}

static PyObject *
tls_resume_reading(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    if (!(self->base.flags & FL_TRANSPORT_PAUSED)) Py_RETURN_NONE;
    self->base.flags &= ~(unsigned)FL_TRANSPORT_PAUSED;
    return tls_none(fl_tls_resume_later(self));
}

static PyObject *
tls_resume(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    self->resume_pending = false;
    switch (self->state) {
    case FL_TLS_HANDSHAKE:
        return tls_none(fl_tls_handshake(self));
    case FL_TLS_WRAPPED:
        return tls_none(fl_tls_read(self, NULL, 0));
    default:
        Py_RETURN_NONE;
    }
}

static PyObject *
tls_get_read_buffer_size(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    if (self->engine.incoming == NULL) return PyLong_FromLong(0);
    return PyObject_GetAttr(self->engine.incoming, self->base.loop->st->str_pending);
}

static PyObject *
tls_get_read_buffer_limits(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)op;
    return Py_BuildValue("(nn)", (Py_ssize_t)self->read_low,
                         (Py_ssize_t)self->read_high);
}

static PyObject *
tls_set_read_buffer_limits(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    static char *names[] = {"high", "low", NULL};
    FlTls *self = (FlTls *)op;
    PyObject *high = Py_None, *low = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_read_buffer_limits", names,
                                     &high, &low)) {
        return NULL;
    }
    /* asyncio's arithmetic; what is kept is rounded down to whole bytes. */
    size_t high_bytes, low_bytes;
    PyObject *limits = PyObject_CallFunction(self->base.loop->st->flowcontrol_defaults,
                                             "OOi", high, low, TLS_READ_HIGH / 1024);
    if (limits == NULL) return NULL;
    int rc = -1;
    if (PyArg_ParseTuple(limits, "OO", &high, &low) &&
        fl_transport_parse_size(high, &high_bytes) == 0) {
        rc = fl_transport_parse_size(low, &low_bytes);
    }
    Py_DECREF(limits);
    if (rc < 0) return NULL;
    self->read_high = high_bytes;
    self->read_low = low_bytes;
    return tls_none(fl_tls_control_reading(self));
}

/* -- the end ----------------------------------------------------------------------- */

static PyObject *
tls_is_closing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FlTls *self = (FlTls *)op;
    int closing =
        self->base.flags & FL_TRANSPORT_CLOSING ? 1 : fl_tls_below_closing(self);
    return closing < 0 ? NULL : PyBool_FromLong(closing);
}

static PyObject *
tls_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "close"));
    return tls_none(fl_tls_close((FlTls *)op));
}

static PyObject *
tls_abort(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN_ELSE(((FlTransport *)op)->loop, return fl_transport_call_there(op, "abort"));
    FlTls *self = (FlTls *)op;
    /* What asyncio would have sent by now. */
    if (self->flush.queued && fl_tls_flush(self) < 0) return NULL;
    return tls_none(fl_tls_abort(self, NULL));
}

static PyObject *
tls_force_close(PyObject *op, PyObject *exc)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tls_none(fl_tls_abort((FlTls *)op, exc == Py_None ? NULL : exc));
}

static PyObject *
tls_check_handshake_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tls_none(fl_tls_handshake_late((FlTls *)op));
}

static PyObject *
tls_check_shutdown_timeout(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tls_none(fl_tls_shutdown_late((FlTls *)op));
}

static PyObject *
tls_check_linger(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tls_none(fl_tls_lingered((FlTls *)op));
}

/* -- the protocol of the transport below --------------------------------------------
 */

static PyObject *
tls_connection_made(PyObject *op, PyObject *below)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tls_none(fl_tls_connection_made((FlTls *)op, below));
}

static PyObject *
tls_connection_lost(PyObject *op, PyObject *exc)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    return tls_none(fl_tls_connection_lost((FlTls *)op, exc));
}

static PyObject *
tls_data_received(PyObject *op, PyObject *data)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    int rc = fl_tls_received((FlTls *)op, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return tls_none(rc);
}

/* Bytes that came before the connection was made. */
static PyObject *
tls_feed(PyObject *op, PyObject *data)
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    Py_buffer view;
    if (self->engine.incoming == NULL) Py_RETURN_NONE;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) return NULL;
    int rc = fl_tlsengine_feed(&self->engine, self->base.loop->st, view.buf,
                               (size_t)view.len);
    PyBuffer_Release(&view);
    return tls_none(rc);
}

/* We close the transport below, when the program's last bytes have left. */
static PyObject *
tls_eof_received(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    if (fl_tls_eof_received(self) < 0) return NULL;
    /* TLS below us closes in any case, and would warn of the answer. */
    PyTypeObject *tls = self->base.loop->st->tls_transport_type;
    return PyBool_FromLong(self->below == NULL || Py_TYPE(self->below) != tls);
}

static PyObject *
tls_pause_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    ((FlTls *)op)->below_full = true;
    Py_RETURN_NONE;
}

static PyObject *
tls_resume_writing(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    FL_OWN(((FlTransport *)op)->loop, NULL);
    FlTls *self = (FlTls *)op;
    self->below_full = false;
    return tls_none(self->state == FL_TLS_FLUSHING ? fl_tls_shut(self)
                                                   : fl_tls_flush(self));
}

/* -- what is known of the connection ------------------------------------------------
 */

/* What the handshake settled; NULL without an exception for other names. */
static PyObject *
tls_make_extra(FlTransport *base, PyObject *name)
{
    FlTls *self = (FlTls *)base;
    FlState *st = base->loop->st;
    if (!self->secured) return NULL;
    if (PyUnicode_Compare(name, st->str_ssl_object) == 0) {
        return Py_NewRef(self->engine.object);
    }
    if (PyUnicode_Compare(name, st->str_peercert) == 0) {
        return PyObject_CallMethodNoArgs(self->engine.object, st->str_getpeercert);
    }
    if (PyUnicode_Compare(name, st->str_cipher) == 0) {
        return PyObject_CallMethodNoArgs(self->engine.object, st->str_cipher);
    }
    if (PyUnicode_Compare(name, st->str_compression) == 0) {
        return PyObject_CallMethodNoArgs(self->engine.object, st->str_compression);
    }
    return NULL;
}

static PyObject *
tls_find_extra_info(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "default", NULL};
    FlTls *self = (FlTls *)op;
    FlState *st = self->base.loop->st;
    PyObject *name, *fallback = Py_None, *value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:get_extra_info", names, &name,
                                     &fallback)) {
        return NULL;
    }
    PyObject *extra = fl_transport_extra(&self->base);
    if (extra == NULL) return NULL;
    int found = fl_compat_dict_get(extra, name, &value);
    if (found != 0) return found < 0 ? NULL : value;
    if (PyUnicode_CheckExact(name)) {
        if (PyUnicode_Compare(name, st->str_sslcontext) == 0) {
            return Py_NewRef(self->sslcontext != NULL ? self->sslcontext : Py_None);
        }
        /* May still change. */
        if (self->secured && PyUnicode_Compare(name, st->str_tls_close_notify) == 0) {
            return PyBool_FromLong(self->notified);
        }
        value = tls_make_extra(&self->base, name);
        if (value == NULL && PyErr_Occurred()) return NULL;
        if (value != NULL) {
            if (PyDict_SetItem(extra, name, value) == 0) return value;
            Py_DECREF(value);
            return NULL;
        }
    }
    if (self->below == NULL) return Py_NewRef(fallback);
    return PyObject_CallMethodObjArgs(self->below, st->str_get_extra_info, name,
                                      fallback, NULL);
}

static PyObject *
tls_get_extra_info(PyObject *op, PyObject *args, PyObject *kwargs)
{
    PyObject *value;
    FL_BEGIN_CRITICAL(op);
    value = tls_find_extra_info(op, args, kwargs);
    FL_END_CRITICAL();
    return value;
}

static PyObject *
tls_repr(PyObject *op)
{
    FlTls *self = (FlTls *)op;
    static const char *const states[] = {
        [FL_TLS_UNWRAPPED] = "unwrapped", [FL_TLS_HANDSHAKE] = "handshake",
        [FL_TLS_WRAPPED] = "open",        [FL_TLS_FLUSHING] = "closing",
        [FL_TLS_SHUTDOWN] = "closing",
    };
    const char *state =
        fl_shared_peek(&self->over) ? "closed" : states[fl_shared_peek(&self->state)];
    PyObject *name = PyType_GetName(Py_TYPE(op));
    if (name == NULL) return NULL;
    PyObject *shown =
        self->below == NULL
            ? PyUnicode_FromFormat("<%U %s>", name, state)
            : PyUnicode_FromFormat("<%U %s over %R>", name, state, self->below);
    Py_DECREF(name);
    return shown;
}

static PyObject *
tls_get_self(PyObject *op, void *Py_UNUSED(closure))
{
    return Py_NewRef(op);
}

/* -- making --------------------------------------------------------------------------
 */

static size_t
tls_buffered(FlTransport *base)
{
    return fl_tls_waiting((FlTls *)base);
}

static void
tls_discard(FlTransport *base)
{
    fl_buffers_clear(&((FlTls *)base)->out);
}

static void
tls_unbind(FlTransport *base)
{
    fl_bound_clear(&((FlTls *)base)->bound);
}

static uint32_t
tls_wanted(FlTransport *Py_UNUSED(base))
{
    return 0;
}

static const FlTransportKind tls_kind = {
    .noun = "TLS transport",
    .buffered = tls_buffered,
    .discard = tls_discard,
    .unbind = tls_unbind,
    .wanted = tls_wanted,
    .make_extra = tls_make_extra,
};

static int
on_flush(FlFlush *flush)
{
    FlTls *self = (FlTls *)((char *)flush - offsetof(FlTls, flush));
    if (FL_UNLIKELY(self->base.flags & FL_TRANSPORT_OVERDUE)) {
        return fl_tls_lost_overdue(self);
    }
    if (self->state == FL_TLS_FLUSHING || self->state == FL_TLS_SHUTDOWN) {
        return fl_tls_shut(self);
    }
    return fl_tls_flush(self);
}

/* asyncio's own limit for None; ValueError for what is not positive. New reference. */
static PyObject *
tls_timeout(PyObject *value, const char *name, PyObject *fallback)
{
    if (value == Py_None) return Py_NewRef(fallback);
    PyObject *zero = PyLong_FromLong(0);
    int wrong = zero == NULL ? -1 : PyObject_RichCompareBool(value, zero, Py_LE);
    Py_XDECREF(zero);
    if (wrong > 0) {
        PyErr_Format(PyExc_ValueError, "%s should be a positive number, got %S", name,
                     value);
    }
    return wrong != 0 ? NULL : Py_NewRef(value);
}

FlTls *
fl_tlstransport_new(FlLoop *loop, const FlTlsOptions *options)
{
    FlState *st = loop->st;
    if (st->ssl_object == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "stdlib ssl module not available");
        return NULL;
    }
    FlTls *self = (FlTls *)fl_transport_alloc(st->tls_transport_type);
    if (self == NULL) return NULL;
    FlTransport *base = &self->base;
    base->kind = &tls_kind;
    base->flags = FL_TRANSPORT_CLOSED; /* no descriptor of its own */
    fl_flow_init(base, TLS_WRITE_HIGH);
    base->watcher.fd = -1;
    base->loop = (FlLoop *)Py_NewRef((PyObject *)loop);
    base->traffic = &loop->metrics.traffic[FL_TRAFFIC_TLS];
    self->read_high = TLS_READ_HIGH;
    self->read_low = TLS_READ_HIGH / 4;
    self->flush = (FlFlush){.call = on_flush, .owner = (PyObject *)self};
    self->app = options->connected ? FL_TLS_APP_MADE : FL_TLS_APP_INIT;
    base->context = PyContext_CopyCurrent();
    if (base->context == NULL) goto error;

    self->handshake_timeout = tls_timeout(
        options->handshake_timeout, "ssl_handshake_timeout", st->ssl_handshake_timeout);
    if (self->handshake_timeout == NULL) goto error;
    self->shutdown_timeout = tls_timeout(
        options->shutdown_timeout, "ssl_shutdown_timeout", st->ssl_shutdown_timeout);
    if (self->shutdown_timeout == NULL) goto error;
    int named = options->server_side ? 0 : PyObject_IsTrue(options->hostname);
    if (named < 0) goto error;
    self->sslcontext = Py_NewRef(options->sslcontext);
    int buffered = PyObject_IsInstance(options->protocol, st->buffered_protocol);
    if (buffered < 0) goto error;
    if (buffered) {
        base->flags |= FL_TRANSPORT_BUFFERED;
    }
    if (fl_tlsengine_init(&self->engine, st, options->sslcontext, options->server_side,
                          named ? options->hostname : Py_None) < 0) {
        goto error;
    }
    base->protocol = Py_NewRef(options->protocol);
    self->waiter = Py_XNewRef(options->waiter);
    fl_count_add(&base->traffic->opened, 1);
    self->counted = true;
    return self;

error:
    Py_DECREF((PyObject *)self);
    return NULL;
}

FlTls *
fl_tlstransport_accepted(FlLoop *loop, const FlTlsOptions *options, int fd,
                         PyObject *sock, int family, const FlAddress *peer,
                         PyObject *local, PyObject *context, PyObject *server)
{
    FlTls *self = fl_tlstransport_new(loop, options);
    if (self == NULL) return NULL;
    self->accepted = true;
    FlStream *stream = fl_stream_accepted(loop, fd, sock, family, peer, local,
                                          (PyObject *)self, context, server);
    if (stream == NULL) {
        Py_CLEAR(self);
    }
    Py_XDECREF((PyObject *)stream);
    return self;
}

/* loop._make_tls(protocol, sslcontext, waiter, server_side, server_hostname,
 * ssl_handshake_timeout, ssl_shutdown_timeout, call_connection_made) */
static PyObject *
tls_make(PyObject *op, PyObject *args)
{
    FL_OWN((FlLoop *)op, NULL);
    int server_side, call_connection_made;
    FlTlsOptions options = {0};
    if (!PyArg_ParseTuple(args, "OOOpOOOp:_make_tls", &options.protocol,
                          &options.sslcontext, &options.waiter, &server_side,
                          &options.hostname, &options.handshake_timeout,
                          &options.shutdown_timeout, &call_connection_made)) {
        return NULL;
    }
    options.server_side = server_side;
    options.connected = !call_connection_made;
    if (options.waiter == Py_None) {
        options.waiter = NULL;
    }
    return (PyObject *)fl_tlstransport_new((FlLoop *)op, &options);
}

static int
tls_traverse(PyObject *op, visitproc visit, void *arg)
{
    FlTls *self = (FlTls *)op;
    Py_VISIT(self->below);
    Py_VISIT(self->waiter);
    Py_VISIT(self->sslcontext);
    Py_VISIT(self->handshake_timeout);
    Py_VISIT(self->shutdown_timeout);
    Py_VISIT(self->timer);
    Py_VISIT(self->linger);
    int rc = fl_bound_traverse(&self->bound, visit, arg);
    if (rc == 0) rc = fl_tlsengine_traverse(&self->engine, visit, arg);
    return rc != 0 ? rc : fl_transport_traverse(op, visit, arg);
}

static int
tls_clear(PyObject *op)
{
    FlTls *self = (FlTls *)op;
    fl_tls_uncount(self);
    fl_buffers_clear(&self->out);
    self->stream = NULL;
    self->over = true;
    self->secured = false;
    self->state = FL_TLS_UNWRAPPED;
    Py_CLEAR(self->below);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->sslcontext);
    Py_CLEAR(self->handshake_timeout);
    Py_CLEAR(self->shutdown_timeout);
    Py_CLEAR(self->timer);
    Py_CLEAR(self->linger);
    tls_unbind(&self->base);
    fl_tlsengine_clear(&self->engine);
    return fl_transport_clear(op);
}

static void
tls_dealloc(PyObject *op)
{
    fl_transport_dealloc(op, tls_clear);
}

static void
tls_finalize(PyObject *op)
{
    FlTls *self = (FlTls *)op;
    if (self->below == NULL || (self->base.flags & FL_TRANSPORT_CLOSING)) return;
    fl_transport_warn_unclosed(op);
    self->base.flags |= FL_TRANSPORT_CLOSING;
}

static PyMethodDef loop_methods[] = {
    {"_make_tls", tls_make, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef tls_methods[] = {
    {"get_protocol", fl_transport_get_protocol, METH_NOARGS,
     PyDoc_STR("get_protocol($self)\n--\n\nReturn the current protocol.")},
    {"set_protocol", (PyCFunction)(void (*)(void))fl_transport_set_protocol,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("set_protocol($self, protocol)\n--\n\nSet a new protocol.")},
    {"get_extra_info", (PyCFunction)(void (*)(void))tls_get_extra_info,
     METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("get_extra_info($self, name, default=None)\n--\n\n"
               "Return what is known of the connection by that name: sslcontext,\n"
               "ssl_object, peercert, cipher, compression, tls_close_notify (whether\n"
               "the peer said that no more would come), and all that the transport\n"
               "below knows.")},
    {"is_closing", tls_is_closing, METH_NOARGS,
     PyDoc_STR("is_closing($self)\n--\n\nReturn True once the transport is closing.")},
    {"is_reading", tls_is_reading, METH_NOARGS,
     PyDoc_STR("is_reading($self)\n--\n\nReturn True if it is receiving.")},
    {"pause_reading", tls_pause_reading, METH_NOARGS,
     PyDoc_STR("pause_reading($self)\n--\n\nPause the receiving end.")},
    {"resume_reading", tls_resume_reading, METH_NOARGS,
     PyDoc_STR("resume_reading($self)\n--\n\nResume the receiving end.")},
    {"get_read_buffer_size", tls_get_read_buffer_size, METH_NOARGS,
     PyDoc_STR("get_read_buffer_size($self)\n--\n\nReturn how many bytes wait, as the "
               "peer sent them.")},
    {"get_read_buffer_limits", tls_get_read_buffer_limits, METH_NOARGS,
     PyDoc_STR("get_read_buffer_limits($self)\n--\n\nReturn (low, high), in bytes.")},
    {"set_read_buffer_limits", (PyCFunction)(void (*)(void))tls_set_read_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("set_read_buffer_limits($self, high=None, low=None)\n--\n\n"
               "Set the marks, in bytes, for pausing the transport below.")},
    {"write", (PyCFunction)(void (*)(void))fl_tlswrite_write,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("write($self, data)\n--\n\nWrite bytes; never blocks.")},
    {"writelines", (PyCFunction)(void (*)(void))fl_tlswrite_writelines,
     METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("writelines($self, list_of_data)\n--\n\n"
               "Write an iterable of bytes-like objects.")},
    {"write_eof", tls_write_eof, METH_NOARGS,
     PyDoc_STR("write_eof($self)\n--\n\nRaise NotImplementedError.")},
    {"can_write_eof", tls_can_write_eof, METH_NOARGS,
     PyDoc_STR("can_write_eof($self)\n--\n\nReturn False.")},
    {"get_write_buffer_size", tls_get_write_buffer_size, METH_NOARGS,
     PyDoc_STR("get_write_buffer_size($self)\n--\n\nReturn how many bytes wait.")},
    FL_FLOW_LIMIT_METHODS(tls_set_write_buffer_limits),
    {"close", tls_close, METH_NOARGS,
     PyDoc_STR("close($self)\n--\n\nClose the connection behind what waits.")},
    {"abort", tls_abort, METH_NOARGS,
     PyDoc_STR("abort($self)\n--\n\nClose the connection at once.")},
    {"connection_made", tls_connection_made, METH_O, NULL},
    {"connection_lost", tls_connection_lost, METH_O, NULL},
    {"data_received", tls_data_received, METH_O, NULL},
    {"eof_received", tls_eof_received, METH_NOARGS, NULL},
    {"pause_writing", tls_pause_writing, METH_NOARGS, NULL},
    {"resume_writing", tls_resume_writing, METH_NOARGS, NULL},
    {"_test__append_write_backlog", fl_tlswrite_append, METH_O, NULL},
    {"_feed", tls_feed, METH_O, NULL},
    {"_force_close", tls_force_close, METH_O, NULL},
    {"_resume", tls_resume, METH_NOARGS, NULL},
    {"_check_handshake_timeout", tls_check_handshake_timeout, METH_NOARGS, NULL},
    {"_check_shutdown_timeout", tls_check_shutdown_timeout, METH_NOARGS, NULL},
    {"_check_linger", tls_check_linger, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* The private names of asyncio's TLS transport and protocol that other code looks at.
 */
static PyMemberDef tls_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(FlTls, base.weakrefs), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(FlTls, base.dict), READONLY, NULL},
    {"_loop", T_OBJECT, offsetof(FlTls, base.loop), READONLY, NULL},
    {"_sslcontext", T_OBJECT, offsetof(FlTls, sslcontext), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef tls_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_app_protocol", fl_view_get_object, NULL, NULL,
     (void *)offsetof(FlTls, base.protocol)},
    {"_transport", fl_view_get_object, NULL, NULL, (void *)offsetof(FlTls, below)},
    {"_sslobj", fl_view_get_object, NULL, NULL, (void *)offsetof(FlTls, engine.object)},
    {"_conn_lost", fl_transport_get_conn_lost, NULL, NULL, NULL},
    {"_ssl_protocol", tls_get_self, NULL, NULL, NULL},
    {"_app_transport", tls_get_self, NULL, NULL, NULL},
    {"_closed", fl_transport_get_flag, NULL, NULL, (void *)FL_TRANSPORT_CLOSING},
    {"_app_reading_paused", fl_transport_get_flag, NULL, NULL,
     (void *)FL_TRANSPORT_PAUSED},
    {"_protocol_paused", fl_transport_get_flag, NULL, NULL,
     (void *)FL_TRANSPORT_PROTOCOL_PAUSED},
    {"_high_water", fl_transport_get_size, fl_transport_set_size, NULL,
     (void *)offsetof(FlTransport, high_water)},
    {"_low_water", fl_transport_get_size, fl_transport_set_size, NULL,
     (void *)offsetof(FlTransport, low_water)},
    {"_extra", fl_transport_get_extra, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tls_slots[] = {
    {Py_tp_doc, "A TLS transport over another transport."},
    {Py_tp_dealloc, tls_dealloc},
    {Py_tp_finalize, tls_finalize},
    {Py_tp_traverse, tls_traverse},
    {Py_tp_clear, tls_clear},
    {Py_tp_repr, tls_repr},
    {Py_tp_methods, tls_methods},
    {Py_tp_members, tls_members},
    {Py_tp_getset, tls_getset},
    {0, NULL},
};

static PyType_Spec tls_spec = {
    .name = "fastloop.SSLTransport",
    .basicsize = sizeof(FlTls),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = tls_slots,
};

int
fl_tlstransport_register(PyObject *module, FlState *st)
{
    if (fl_tlsengine_register(module, st) < 0) return -1;
    st->tls_transport_type =
        fl_transport_make_type(module, &tls_spec, st->transport_base);
    if (st->tls_transport_type == NULL) return -1;
    PyObject *type = (PyObject *)st->tls_transport_type;
    PyObject *mode = PyObject_GetAttrString(st->sendfile_mode, "FALLBACK");
    int rc =
        mode == NULL ? -1 : PyObject_SetAttrString(type, "_sendfile_compatible", mode);
    Py_XDECREF(mode);
    if (rc < 0 || PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) < 0) {
        return -1;
    }
    return fl_loop_add_methods(st, loop_methods);
}
