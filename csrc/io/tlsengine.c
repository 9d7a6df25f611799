/* tlsengine.c - SSLObject, MemoryBIOs, and where records end.
 *
 * Owns:   the SSLObject and its BIOs.
 * Thread: the loop's own. _ssl lets the GIL go while it works.
 *
 * asyncio reads until SSLWantReadError says that nothing is left. Raising and dropping
 * that costs as much as decrypting a small record, so the record headers, which are not
 * encrypted, tell here when a read would be in vain. */
#include "io/tlsengine.h"

enum {
    ENGINE_HEADER = 5,
    ENGINE_LARGEST = FL_TLS_RECORD + 2048, /* a record's body, by the oldest rule */
    ENGINE_STEP = FL_TLS_RECORD, /* fed before it is decrypted: keeps the BIO small */
    ENGINE_SMALL = FL_TLS_RECORD + 512,
    ENGINE_FIRST_TYPE = 20,
    ENGINE_LAST_TYPE = 24,
};

/* -- a buffer over memory of ours, for the length of one call ---------------------- */

struct FlWindow {
    PyObject_HEAD
    char *data;
    Py_ssize_t size;
    bool readonly;
};

static int
window_getbuffer(PyObject *op, Py_buffer *view, int flags)
{
    FlWindow *self = (FlWindow *)op;
    if (self->data == NULL) {
        PyErr_SetString(PyExc_BufferError, "nothing to see");
        view->obj = NULL;
        return -1;
    }
    return PyBuffer_FillInfo(view, op, self->data, self->size, self->readonly, flags);
}

static void
window_dealloc(PyObject *op)
{
    PyTypeObject *tp = Py_TYPE(op);
    tp->tp_free(op);
    Py_DECREF(tp);
}

static PyType_Slot window_slots[] = {
    {Py_tp_dealloc, window_dealloc},
    {Py_bf_getbuffer, window_getbuffer},
    {0, NULL},
};

static PyType_Spec window_spec = {
    .name = "fastloop._core._Window",
    .basicsize = sizeof(FlWindow),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = window_slots,
};

static PyObject *
window_open(FlTlsEngine *engine, const char *data, size_t size, bool readonly)
{
    FlWindow *window = engine->window;
    window->data = (char *)(uintptr_t)data;
    window->size = (Py_ssize_t)size;
    window->readonly = readonly;
    return (PyObject *)window;
}

/* -- calls ------------------------------------------------------------------------- */

/* The exception that is set: does OpenSSL only want more? */
static FlTlsResult
engine_again(FlState *st)
{
    if (PyErr_ExceptionMatches(st->ssl_want_read) ||
        PyErr_ExceptionMatches(st->ssl_syscall_error)) {
        PyErr_Clear();
        return FL_TLS_AGAIN;
    }
    return FL_TLS_ERROR;
}

static PyObject *
engine_call(PyObject *op, PyObject *name, PyObject *a, PyObject *b)
{
    PyObject *args[3] = {op, a, b};
    size_t nargs = 1 + (size_t)(a != NULL) + (size_t)(b != NULL);
    return PyObject_VectorcallMethod(name, args, nargs | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                     NULL);
}

static FlTlsResult
engine_step(PyObject *op, FlState *st, PyObject *name)
{
    PyObject *result = PyObject_CallMethodNoArgs(op, name);
    if (result == NULL) return engine_again(st);
    Py_DECREF(result);
    return FL_TLS_DONE;
}

FlTlsResult
fl_tlsengine_handshake(FlTlsEngine *engine, FlState *st)
{
    PyObject *op = engine->native != NULL ? engine->native : engine->object;
    return engine_step(op, st, st->str_do_handshake);
}

FlTlsResult
fl_tlsengine_shutdown(FlTlsEngine *engine, FlState *st)
{
    if (engine->native != NULL)
        return engine_step(engine->native, st, st->str_shutdown);
    return engine_step(engine->object, st, st->str_unwrap);
}

Py_ssize_t
fl_tlsengine_pending(FlState *st, PyObject *bio)
{
    PyObject *pending = PyObject_GetAttr(bio, st->str_pending);
    if (pending == NULL) return -1;
    Py_ssize_t size = PyLong_AsSsize_t(pending);
    Py_DECREF(pending);
    return size;
}

PyObject *
fl_tlsengine_take(FlTlsEngine *engine, FlState *st)
{
    return PyObject_CallMethodNoArgs(engine->outgoing, st->str_read);
}

int
fl_tlsengine_init(FlTlsEngine *engine, FlState *st, PyObject *sslcontext,
                  bool server_side, PyObject *hostname)
{
    FlWindow *window = PyObject_New(FlWindow, st->window_type);
    if (window == NULL) return -1;
    window->data = NULL;
    engine->window = window;
    engine->incoming = PyObject_CallNoArgs(st->ssl_memory_bio);
    engine->outgoing = PyObject_CallNoArgs(st->ssl_memory_bio);
    if (engine->incoming == NULL || engine->outgoing == NULL) return -1;
    PyObject *args[] = {sslcontext, engine->incoming, engine->outgoing,
                        server_side ? Py_True : Py_False, hostname};
    engine->object = PyObject_VectorcallMethod(
        st->str_wrap_bio, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, st->kw_wrap_bio);
    if (engine->object == NULL) return -1;
    if ((PyObject *)Py_TYPE(engine->object) == st->ssl_object) {
        engine->native = PyObject_GetAttr(engine->object, st->str__sslobj);
        if (engine->native == NULL) return -1;
        if ((PyObject *)Py_TYPE(engine->native) != st->ssl_native) {
            Py_CLEAR(engine->native);
        }
    }
    return 0;
}

/* -- records ----------------------------------------------------------------------- */

/* Follows the records through data, up to the first end of one behind limit bytes.
 * Returns how far it came. */
static size_t
engine_scan(FlTlsEngine *engine, const char *data, size_t size, size_t limit)
{
    size_t at = 0;
    while (at < size) {
        if (engine->rest == 0) {
            engine->header[engine->header_length++] = (uint8_t)data[at++];
            if (engine->header_length < ENGINE_HEADER) continue;
            const uint8_t *header = engine->header;
            engine->header_length = 0;
            engine->rest = (size_t)header[3] << 8 | header[4];
            if (header[0] < ENGINE_FIRST_TYPE || header[0] > ENGINE_LAST_TYPE ||
                header[1] != 3 || engine->rest > ENGINE_LARGEST) {
                engine->opaque = true; /* OpenSSL will say what it is */
                return size;
            }
        }
        size_t taken = size - at < engine->rest ? size - at : engine->rest;
        engine->rest -= taken;
        at += taken;
        if (engine->rest == 0) {
            engine->boundary = engine->fed + at;
            engine->records++;
            if (at >= limit) return at;
        }
    }
    return at;
}

/* incoming.write(data) */
static int
engine_put(FlTlsEngine *engine, FlState *st, const char *data, size_t size)
{
    PyObject *window = window_open(engine, data, size, true);
    PyObject *result =
        PyObject_CallMethodOneArg(engine->incoming, st->str_write, window);
    engine->window->data = NULL;
    if (result == NULL) return -1;
    Py_DECREF(result);
    engine->fed += size;
    return 0;
}

int
fl_tlsengine_feed(FlTlsEngine *engine, FlState *st, const char *data, size_t size)
{
    if (size == 0) return 0;
    if (FL_UNLIKELY(engine->later_size > 0)) {
        size_t later = engine->later_size;
        engine->later_size = 0;
        if (fl_tlsengine_feed(engine, st, engine->later, later) < 0) return -1;
    }
    if (!engine->opaque) {
        (void)engine_scan(engine, data, size, size);
    }
    return engine_put(engine, st, data, size);
}

Py_ssize_t
fl_tlsengine_ready(FlTlsEngine *engine, FlState *st)
{
    Py_ssize_t pending = fl_tlsengine_pending(st, engine->incoming);
    if (pending < 0) return -1;
    if (engine->opaque) return pending + FL_TLS_RECORD;
    uint64_t taken = engine->fed - (uint64_t)pending;
    if (taken >= engine->boundary) return engine->left;
    return engine->left + (Py_ssize_t)(engine->boundary - taken) +
           (engine->ahead ? ENGINE_LARGEST : 0);
}

/* A read has failed: where the next one goes on. */
static FlTlsResult
engine_read_failed(FlTlsEngine *engine, FlState *st)
{
    FlTlsResult rc = engine_again(st);
    engine->left = 0;
    if (rc == FL_TLS_AGAIN) {
        engine->ahead = engine->rest > 0 || engine->header_length > 0;
    }
    return rc;
}

/* A read brought as many bytes as it had room for, or fewer. 0 or -1. */
static int
engine_read_worked(FlTlsEngine *engine, FlState *st, bool full)
{
    engine->ahead = false;
    /* Somebody else's class may bring less than there is, and asyncio does not ask it
     * for the rest: another read will tell. */
    engine->left = engine->native != NULL ? 0 : ENGINE_LARGEST;
    if (FL_LIKELY(!full) || engine->native == NULL) return 0;
    PyObject *pending = PyObject_CallMethodNoArgs(engine->native, st->str_pending);
    if (pending == NULL) return -1;
    engine->left = PyLong_AsSsize_t(pending);
    Py_DECREF(pending);
    return engine->left < 0 ? -1 : 0;
}

/* -- plain bytes ------------------------------------------------------------------- */

FlTlsResult
fl_tlsengine_read(FlTlsEngine *engine, FlState *st, char *data, Py_ssize_t size,
                  Py_ssize_t *count)
{
    *count = 0;
    PyObject *wanted = PyLong_FromSsize_t(size);
    if (wanted == NULL) return FL_TLS_ERROR;
    PyObject *result;
    if (engine->native != NULL) {
        result = engine_call(engine->native, st->str_read, wanted,
                             window_open(engine, data, (size_t)size, false));
        engine->window->data = NULL;
    }
    else {
        result = engine_call(engine->object, st->str_read, wanted, NULL);
    }
    Py_DECREF(wanted);
    if (result == NULL) return engine_read_failed(engine, st);
    if (engine->native != NULL) {
        *count = PyLong_AsSsize_t(result);
    }
    else if (PyBytes_Check(result) && PyBytes_GET_SIZE(result) <= size) {
        *count = PyBytes_GET_SIZE(result);
        memcpy(data, PyBytes_AS_STRING(result), (size_t)*count);
    }
    else {
        PyErr_SetString(PyExc_TypeError, "read() of the SSL object returned no bytes");
        *count = -1;
    }
    Py_DECREF(result);
    if (*count < 0 || engine_read_worked(engine, st, *count == size) < 0) {
        *count = 0;
        return FL_TLS_ERROR;
    }
    return *count == 0 ? FL_TLS_EOF : FL_TLS_DONE;
}

/* One small record, the most likely case: OpenSSL fills the bytes object. */
static FlTlsResult
engine_read_bytes(FlTlsEngine *engine, FlState *st, Py_ssize_t size, PyObject **plain)
{
    PyObject *wanted = PyLong_FromSsize_t(size);
    if (wanted == NULL) return FL_TLS_ERROR;
    PyObject *op = engine->native != NULL ? engine->native : engine->object;
    PyObject *result = PyObject_CallMethodOneArg(op, st->str_read, wanted);
    Py_DECREF(wanted);
    if (result == NULL) return engine_read_failed(engine, st);
    if (!PyBytes_CheckExact(result)) {
        PyErr_SetString(PyExc_TypeError, "read() of the SSL object returned no bytes");
        Py_DECREF(result);
        return FL_TLS_ERROR;
    }
    Py_ssize_t count = PyBytes_GET_SIZE(result);
    if (count == 0 || engine_read_worked(engine, st, count >= size) < 0) {
        Py_DECREF(result);
        return count == 0 ? FL_TLS_EOF : FL_TLS_ERROR;
    }
    *plain = result;
    return engine->left > 0 ? FL_TLS_MORE : FL_TLS_DONE;
}

/* Reads record after record to data + *at. FL_TLS_DONE: all that is complete. */
static FlTlsResult
engine_read_records(FlTlsEngine *engine, FlState *st, char *data, Py_ssize_t size,
                    Py_ssize_t *at)
{
    while (*at < size) {
        Py_ssize_t ready = fl_tlsengine_ready(engine, st);
        if (ready <= 0) return ready < 0 ? FL_TLS_ERROR : FL_TLS_DONE;
        Py_ssize_t count;
        FlTlsResult rc = fl_tlsengine_read(engine, st, data + *at, size - *at, &count);
        if (rc != FL_TLS_DONE) return rc == FL_TLS_AGAIN ? FL_TLS_DONE : rc;
        *at += count;
    }
    return FL_TLS_MORE;
}

/* Many records: into one bytes object, fed in steps so that what a step decrypts is
 * still in the processor's cache, and the BIO never grows to the size of a read. */
static FlTlsResult
engine_decrypt_large(FlTlsEngine *engine, FlState *st, const char *data, size_t size,
                     Py_ssize_t bound, PyObject **plain)
{
    PyObject *all = PyBytes_FromStringAndSize(NULL, bound);
    if (all == NULL) return FL_TLS_ERROR;
    Py_ssize_t at = 0;
    FlTlsResult rc = FL_TLS_DONE;
    engine->later = data;
    engine->later_size = size;
    do {
        const char *next = engine->later;
        size_t step = engine->later_size;
        if (!engine->opaque && step > 0) {
            step = engine_scan(engine, next, step, ENGINE_STEP);
        }
        engine->later += step;
        engine->later_size -= step;
        if (step > 0 && engine_put(engine, st, next, step) < 0) {
            rc = FL_TLS_ERROR;
            break;
        }
        rc = engine_read_records(engine, st, PyBytes_AS_STRING(all), bound, &at);
    } while (rc == FL_TLS_DONE && engine->later_size > 0);
    /* The rest has no room, or nobody reads it any more. */
    size_t rest = engine->later_size;
    engine->later_size = 0;
    if (rc != FL_TLS_ERROR && fl_tlsengine_feed(engine, st, engine->later, rest) < 0) {
        rc = FL_TLS_ERROR;
    }
    if (rc == FL_TLS_ERROR || at == 0) {
        Py_DECREF(all);
        return rc;
    }
    if (at != bound) {
        all = fl_compat_bytes_shrink(all, at);
    }
    *plain = all;
    return rc;
}

/* No more than this can become plain: what OpenSSL has of a record, what waits for it,
 * and what comes. */
static Py_ssize_t
engine_bound(FlTlsEngine *engine, FlState *st, size_t size)
{
    Py_ssize_t pending = fl_tlsengine_pending(st, engine->incoming);
    if (pending < 0) return -1;
    uint64_t taken = engine->fed - (uint64_t)pending;
    uint64_t begun = taken > engine->boundary ? taken - engine->boundary : 0;
    if (engine->ahead || engine->opaque) {
        begun = ENGINE_LARGEST;
    }
    begun += (uint64_t)engine->left;
    return pending + (Py_ssize_t)(size + begun);
}

FlTlsResult
fl_tlsengine_decrypt(FlTlsEngine *engine, FlState *st, const char *data, size_t size,
                     PyObject **plain)
{
    *plain = NULL;
    Py_ssize_t ready;
    engine->records = 0;
    if (size > 0 && size <= ENGINE_SMALL) {
        if (fl_tlsengine_feed(engine, st, data, size) < 0) return FL_TLS_ERROR;
        ready = fl_tlsengine_ready(engine, st);
        if (ready <= 0) return ready < 0 ? FL_TLS_ERROR : FL_TLS_DONE;
        if (engine->records == 1 && ready <= ENGINE_SMALL) {
            FlTlsResult rc = engine_read_bytes(engine, st, ready, plain);
            return rc == FL_TLS_AGAIN ? FL_TLS_DONE : rc;
        }
        size = 0;
    }
    else if (size == 0) {
        ready = fl_tlsengine_ready(engine, st);
        if (ready <= 0) return ready < 0 ? FL_TLS_ERROR : FL_TLS_DONE;
    }
    Py_ssize_t bound = engine_bound(engine, st, size);
    if (bound < 0) return FL_TLS_ERROR;
    return engine_decrypt_large(engine, st, data, size, bound, plain);
}

FlTlsResult
fl_tlsengine_write(FlTlsEngine *engine, FlState *st, const char *data, size_t size,
                   size_t *count)
{
    PyObject *result;
    *count = 0;
    if (engine->native != NULL) {
        PyObject *window = window_open(engine, data, size, true);
        result = PyObject_CallMethodOneArg(engine->native, st->str_write, window);
        engine->window->data = NULL;
    }
    else {
        PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
        if (copy == NULL) return FL_TLS_ERROR;
        result = PyObject_CallMethodOneArg(engine->object, st->str_write, copy);
        Py_DECREF(copy);
    }
    if (result == NULL) return engine_again(st);
    Py_ssize_t written = PyLong_AsSsize_t(result);
    Py_DECREF(result);
    if (written < 0 || (size_t)written > size) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "write() of the SSL object miscounted");
        }
        return FL_TLS_ERROR;
    }
    *count = (size_t)written;
    return written == 0 ? FL_TLS_AGAIN : FL_TLS_DONE;
}

int
fl_tlsengine_traverse(FlTlsEngine *engine, visitproc visit, void *arg)
{
    Py_VISIT(engine->object);
    Py_VISIT(engine->native);
    Py_VISIT(engine->incoming);
    Py_VISIT(engine->outgoing);
    return 0;
}

void
fl_tlsengine_clear(FlTlsEngine *engine)
{
    Py_CLEAR(engine->native);
    Py_CLEAR(engine->object);
    Py_CLEAR(engine->incoming);
    Py_CLEAR(engine->outgoing);
    PyObject *window = (PyObject *)engine->window;
    engine->window = NULL;
    Py_XDECREF(window);
}

int
fl_tlsengine_register(PyObject *module, FlState *st)
{
    st->window_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &window_spec, NULL);
    return st->window_type == NULL ? -1 : 0;
}
