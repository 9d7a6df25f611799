/* streamread.c - the reading half of a stream transport.
 *
 * Owns:   nothing: the bound methods that it looks up are the transport's.
 * Thread: the loop's own. */
#include "io/streamread.h"
#include "base/errors.h"
#include "io/feed.h"
#include "io/streamedge.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    STREAM_LARGE_READ = 32 * 1024, /* above, reads go into a bytes object */
    STREAM_FLOOD = 4, /* so many large reads without a write between them: a flood */
    STREAM_FLOOD_READ = 128 * 1024, /* what a read takes then, */
    STREAM_FLOOD_READS = 4,         /* and how many follow each other */
};

static int
stream_received_eof(FlStream *self)
{
    FlTransport *base = &self->base;
    if (fl_transport_debug(base, "%r received EOF") < 0) return -1;
    if (base->protocol == NULL) return 0; /* whoever logs may take turns */
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *result =
        PyObject_CallMethodNoArgs(protocol, base->loop->st->str_eof_received);
    Py_DECREF(protocol);
    int keep_open = result == NULL ? -1 : PyObject_IsTrue(result);
    Py_XDECREF(result);
    if (keep_open < 0) {
        return fl_transport_fatal(base,
                                  "Fatal error: protocol.eof_received() call failed.");
    }
    if (!keep_open) return fl_transport_close(base);
    /* The protocol may write on, but nothing more will come. */
    base->flags |= FL_TRANSPORT_READ_EOF;
    return fl_transport_watch(base);
}

/* Bytes that were received, or could not be for want of memory, cannot be delivered:
 * the connection ends, as in asyncio, for going on would leave a hole in the stream. */
static int
stream_read_failed(FlStream *self)
{
    return fl_transport_fatal(&self->base, "Fatal read error on socket transport");
}

/* The result n of a recv() of size bytes: false if there is nothing to tell the
 * protocol. */
static bool
stream_recv_worked(FlStream *self, ssize_t n, Py_ssize_t size, int code, int *rc)
{
    if (FL_LIKELY(n > 0)) {
        self->emptied = n < size;
        fl_traffic_in(self->base.traffic, (size_t)n);
        return true;
    }
    if (n == 0) {
        *rc = stream_received_eof(self);
    }
    else if (code == EAGAIN || code == EWOULDBLOCK || code == EINTR) {
        *rc = 0;
    }
    else {
        *rc = fl_transport_fatal_errno(&self->base, code,
                                       "Fatal read error on socket transport");
    }
    return false;
}

/* Large reads go into a bytes object of the size that those before suggest, which saves
 * the copy; what is more than that, into the slab. A message that comes in two pieces
 * lowers the guess a little only: the next may come in one. */
static PyObject *
stream_recv_large(FlStream *self, int *rc)
{
    Py_ssize_t size = self->predicted;
    char *slab = fl_loop_slab(self->base.loop);
    PyObject *data = slab == NULL ? NULL : PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL) {
        *rc = stream_read_failed(self);
        return NULL;
    }
    struct iovec vectors[2] = {
        {.iov_base = PyBytes_AS_STRING(data), .iov_len = (size_t)size},
        {.iov_base = slab, .iov_len = (size_t)(FL_SLAB_SIZE - size)},
    };
    int fd = self->base.watcher.fd;
    Py_ssize_t room = Py_MAX(size, FL_SLAB_SIZE);
    ssize_t n = readv(fd, vectors, size < FL_SLAB_SIZE ? 2 : 1);
    if (FL_UNLIKELY(n < 0) && fl_errors_is_refused(errno)) {
        room = size;
        n = recv(fd, vectors[0].iov_base, (size_t)size, 0);
    }
    int code = errno;
    if (!stream_recv_worked(self, n, room, code, rc)) {
        Py_DECREF(data);
        return NULL;
    }
    self->predicted = n > size ? n : size - (size - n) / 8;
    if (n < size) return fl_compat_bytes_shrink(data, n);
    if (n > size) {
        if (_PyBytes_Resize(&data, n) < 0) {
            *rc = stream_read_failed(self);
            return NULL;
        }
        memcpy(PyBytes_AS_STRING(data) + size, slab, (size_t)(n - size));
    }
    return data;
}

/* Many large reads in a row are a flood; a write ends it. To sleep and be woken then
 * costs more than to read, and reads of all that is there empty the socket each time.
 * Shorter ones, one behind the other while they come back full, find that more has come
 * meanwhile, and stay in the processor's cache: 95 us a MiB, where reads of 256 KiB
 * took 140. */
static inline void
stream_count_flood(FlStream *self, bool large)
{
    if (FL_UNLIKELY(large) && self->flood < STREAM_FLOOD) {
        self->flood++;
    }
}

static inline bool
stream_is_flooded(const FlStream *self)
{
    return FL_UNLIKELY(self->flood == STREAM_FLOOD);
}

static PyObject *
stream_recv_flood(FlStream *self, int *rc)
{
    Py_ssize_t size = STREAM_FLOOD_READ;
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL) {
        *rc = stream_read_failed(self);
        return NULL;
    }
    ssize_t n = recv(self->base.watcher.fd, PyBytes_AS_STRING(data), (size_t)size, 0);
    int code = errno;
    if (!stream_recv_worked(self, n, size, code, rc)) {
        Py_DECREF(data);
        return NULL;
    }
    if (n == size) return data;
    /* Floods ebb away, and what is guessed with them. */
    self->predicted -= (self->predicted - n) / 8;
    return fl_compat_bytes_shrink(data, n);
}

static int
stream_received_badly(FlStream *self)
{
    return fl_transport_fatal(&self->base,
                              "Fatal error: protocol.data_received() call failed.");
}

static int
stream_feed(FlStream *self, const char *data, Py_ssize_t length)
{
    PyObject *protocol = Py_NewRef(self->base.protocol);
    int fed = fl_feed_data(self->base.loop, protocol, data, length);
    Py_DECREF(protocol);
    return fed;
}

/* Looks up how the protocol receives. Without it, the first data will tell. False if
 * there is nothing to read for it after that. */
static bool
stream_bind(FlStream *self)
{
    FlTransport *base = &self->base;
    PyObject *receive = fl_bound_look_up(base, &self->bound, &self->bound.receive,
                                         base->loop->st->str_data_received);
    if (receive == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(receive);
    return (base->watcher.events & EPOLLIN) && self->sink == NULL &&
           !(base->flags & FL_TRANSPORT_BUFFERED);
}

static PyObject *
stream_recv_small(FlStream *self, int *rc)
{
    char *slab = fl_loop_slab(self->base.loop);
    if (slab == NULL) {
        *rc = stream_read_failed(self);
        return NULL;
    }
    Py_ssize_t size = stream_is_flooded(self) ? STREAM_FLOOD_READ : FL_SLAB_SIZE;
    ssize_t n = recv(self->base.watcher.fd, slab, (size_t)size, 0);
    int code = errno;
    if (!stream_recv_worked(self, n, size, code, rc)) return NULL;
    bool large = self->predicted > STREAM_LARGE_READ;
    self->predicted = n;
    if (self->bound.feeds) {
        int fed = stream_feed(self, slab, n);
        if (FL_LIKELY(fed != 0)) {
            stream_count_flood(self, large);
            *rc = fed > 0 ? 0 : stream_received_badly(self);
            return NULL;
        }
    }
    PyObject *data = PyBytes_FromStringAndSize(slab, n);
    if (data == NULL) {
        *rc = stream_read_failed(self);
    }
    return data;
}

static int
stream_read(FlStream *self)
{
    FlTransport *base = &self->base;
    int rc = 0;
    if (FL_UNLIKELY(self->bound.receive == NULL) && !stream_bind(self)) return 0;
    bool large = self->predicted > STREAM_LARGE_READ;
    PyObject *data = !large || self->bound.feeds ? stream_recv_small(self, &rc)
                     : stream_is_flooded(self)   ? stream_recv_flood(self, &rc)
                                                 : stream_recv_large(self, &rc);
    if (data == NULL) return rc;
    stream_count_flood(self, large);
    if (FL_UNLIKELY(self->bound.receive == NULL) && base->protocol == NULL) {
        /* closed meanwhile */
        Py_DECREF(data);
        return 0;
    }
    PyObject *receive = fl_bound_get(base, &self->bound, &self->bound.receive,
                                     base->loop->st->str_data_received);
    PyObject *result = receive == NULL ? NULL : PyObject_CallOneArg(receive, data);
    Py_XDECREF(receive);
    Py_DECREF(data);
    if (FL_UNLIKELY(result == NULL)) return stream_received_badly(self);
    Py_DECREF(result);
    return 0;
}

/* The protocol's buffer, exported for writing. 0 or -1 with an exception. */
static int
stream_get_buffer(FlStream *self, Py_buffer *view)
{
    FlState *st = self->base.loop->st;
    PyObject *get_buffer = fl_bound_get(&self->base, &self->bound, &self->bound.receive,
                                        st->str_get_buffer);
    if (get_buffer == NULL) return -1;
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *buffer = hint == NULL ? NULL : PyObject_CallOneArg(get_buffer, hint);
    Py_XDECREF(hint);
    Py_DECREF(get_buffer);
    if (buffer == NULL) return -1;
    int rc = -1;
    Py_ssize_t length = PyObject_Size(buffer);
    if (length == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    else if (length > 0) {
        rc = PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE);
    }
    Py_DECREF(buffer);
    return rc;
}

static int
stream_read_into_buffer(FlStream *self)
{
    FlTransport *base = &self->base;
    Py_buffer view;
    /* For comparison alone, but owned: another could have its address. */
    PyObject *protocol = Py_XNewRef(base->protocol);
    if (stream_get_buffer(self, &view) < 0) {
        Py_XDECREF(protocol);
        return fl_transport_fatal(base,
                                  "Fatal error: protocol.get_buffer() call failed.");
    }
    /* If get_buffer() installed another protocol, what waits in the socket is not for
     * this buffer. If it closed us, reading on as asyncio does spares the peer a reset.
     */
    bool replaced = base->protocol != protocol;
    Py_XDECREF(protocol);
    if (replaced) {
        PyBuffer_Release(&view);
        return 0;
    }
    Py_ssize_t size = view.len;
    ssize_t n = recv(base->watcher.fd, view.buf, (size_t)size, 0);
    int code = errno;
    PyBuffer_Release(&view);
    int rc;
    if (!stream_recv_worked(self, n, size, code, &rc)) return rc;
    if (FL_UNLIKELY(base->protocol == NULL)) return 0; /* its __release_buffer__() */
    PyObject *updated = fl_bound_get(base, &self->bound, &self->bound.updated,
                                     base->loop->st->str_buffer_updated);
    PyObject *count = PyLong_FromSsize_t(n);
    PyObject *result =
        updated == NULL || count == NULL ? NULL : PyObject_CallOneArg(updated, count);
    Py_XDECREF(count);
    Py_XDECREF(updated);
    if (result == NULL) {
        return fl_transport_fatal(
            base, "Fatal error: protocol.buffer_updated() call failed.");
    }
    Py_DECREF(result);
    return 0;
}

/* The protocol is one of ours: it gets the slab itself. */
static int
stream_read_sink(FlStream *self)
{
    FlLoop *loop = self->base.loop;
    char *slab = fl_loop_slab_borrow(loop);
    if (slab == NULL) return stream_read_failed(self);
    ssize_t n = recv(self->base.watcher.fd, slab, FL_SLAB_SIZE, 0);
    int code = errno, rc;
    if (!stream_recv_worked(self, n, FL_SLAB_SIZE, code, &rc)) {
        fl_loop_slab_return(loop, slab);
        return rc;
    }
    PyObject *protocol = Py_NewRef(self->base.protocol);
    rc = self->sink->received(protocol, slab, (size_t)n);
    Py_DECREF(protocol);
    fl_loop_slab_return(loop, slab);
    if (rc == 0) return 0;
    return fl_transport_fatal(&self->base,
                              "Fatal error: protocol.buffer_updated() call failed.");
}

static int
stream_read_once(FlStream *self)
{
    if (self->sink != NULL) return stream_read_sink(self);
    if (self->base.flags & FL_TRANSPORT_BUFFERED) return stream_read_into_buffer(self);
    int rc = stream_read(self);
    /* The protocol may have closed, paused or changed. */
    for (int left = STREAM_FLOOD_READS - 1;
         stream_is_flooded(self) && left > 0 && rc == 0 && !self->emptied &&
         (self->base.watcher.events & EPOLLIN) && self->sink == NULL &&
         !(self->base.flags & FL_TRANSPORT_BUFFERED);
         left--) {
        rc = stream_read(self);
    }
    return rc;
}

int
fl_streamread_ready(FlStream *self, uint32_t events)
{
    self->emptied = false;
    /* To read where nothing but urgent data is throws that away. */
    bool readable = events & ~(uint32_t)(EPOLLOUT | EPOLLPRI);
    int rc = FL_LIKELY(readable) ? stream_read_once(self) : 0;
    return fl_streamedge_settle(self, events, rc);
}
