/* sock.c - the calls of sock_recv() and its kin, each made once per attempt.
 *
 * Owns:   nothing; sockop.c steps the attempts and waits between them.
 * Thread: the loop's own. */
#include "io/sock.h"
#include "base/stock.h"
#include "core/turn.h"
#include "io/peers.h"
#include "io/connect.h"
#include "io/sockop.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where sock_connect() stands: FlSockOp.phase. */
enum { CONNECT_RESOLVE, CONNECT_START, CONNECT_WAIT };

/* Above this many bytes the copy in the kernel is worth handing the GIL over. */
enum { SOCK_GIL_BYTES = 128 * 1024 };

static PyObject *
sock_of(FlSockOp *self)
{
    return self->args[0];
}

/* Whether the exception that is set only says that the call would block; then it is
 * cleared. */
static bool
sock_would_block(void)
{
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
        !PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        return false;
    }
    PyErr_Clear();
    return true;
}

/* The socket's own method, with the arguments behind the socket. */
static FlSockOutcome
sock_call(FlSockOp *self, PyObject *name, Py_ssize_t nargs, PyObject **result)
{
    *result = PyObject_VectorcallMethod(name, self->args, (size_t)nargs + 1, NULL);
    if (*result != NULL) return FL_SOCKOP_DONE;
    return sock_would_block() ? FL_SOCKOP_BLOCKED : FL_SOCKOP_FAILED;
}

static FlTraffic *
sock_traffic(FlSockOp *self)
{
    return &self->loop->metrics.traffic[FL_TRAFFIC_SOCK];
}

/* How many bytes moved, by what a socket's method returned: data, their number, or a
 * pair that begins with either. */
static size_t
sock_result_size(PyObject *result)
{
    if (PyTuple_Check(result) && PyTuple_GET_SIZE(result) > 0) {
        result = PyTuple_GET_ITEM(result, 0);
    }
    if (PyBytes_Check(result)) return (size_t)PyBytes_GET_SIZE(result);
    Py_ssize_t size = PyLong_Check(result) ? PyLong_AsSsize_t(result) : 0;
    if (size >= 0) return (size_t)size;
    PyErr_Clear();
    return 0;
}

/* The same for a method that receives. */
static FlSockOutcome
sock_receive(FlSockOp *self, PyObject *name, Py_ssize_t nargs, PyObject **result)
{
    FlSockOutcome outcome = sock_call(self, name, nargs, result);
    if (outcome == FL_SOCKOP_DONE) {
        fl_traffic_in(sock_traffic(self), sock_result_size(*result));
    }
    return outcome;
}

/* The descriptor as of now, since the program may close the socket at any time. */
static int
sock_refresh_fd(FlSockOp *self)
{
    PyObject *number =
        PyObject_CallMethodNoArgs(sock_of(self), self->loop->st->str_fileno);
    if (number == NULL) return -1;
    int fd = fl_compat_long_as_int(number);
    Py_DECREF(number);
    if (fd == -1 && PyErr_Occurred()) return -1;
    self->fd = fd;
    return 0;
}

/* A system call of a direct socket failed. */
static FlSockOutcome
sock_errno(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) return FL_SOCKOP_BLOCKED;
    PyErr_SetFromErrno(PyExc_OSError);
    return FL_SOCKOP_FAILED;
}

/* recv(2), again where a signal came in between. Its result, or -1 with errno, or -2
 * with the exception of a signal handler. Never blocks, whatever the mode of the
 * socket. */
static Py_ssize_t
sock_recv_call(int fd, char *data, size_t length)
{
    Py_ssize_t n;
    do {
        if (FL_UNLIKELY(length > SOCK_GIL_BYTES)) {
            Py_BEGIN_ALLOW_THREADS n = recv(fd, data, length, MSG_DONTWAIT);
            Py_END_ALLOW_THREADS
        }
        else {
            n = recv(fd, data, length, MSG_DONTWAIT);
        }
        if (n < 0 && errno == EINTR && PyErr_CheckSignals() < 0) return -2;
    } while (n < 0 && errno == EINTR);
    return n;
}

static Py_ssize_t
sock_send_call(int fd, const char *data, size_t length)
{
    Py_ssize_t n;
    do {
        if (FL_UNLIKELY(length > SOCK_GIL_BYTES)) {
            Py_BEGIN_ALLOW_THREADS n =
                send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
            Py_END_ALLOW_THREADS
        }
        else {
            n = send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        if (n < 0 && errno == EINTR && PyErr_CheckSignals() < 0) return -2;
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Something was sent: a peer in this process may be readable by now. */
static void
sock_sent(FlSockOp *self, size_t bytes)
{
    fl_traffic_out(sock_traffic(self), bytes);
    fl_turn_look_soon(self->loop);
}

static FlSockOutcome
attempt_recv(FlSockOp *self, PyObject **result)
{
    FlState *st = self->loop->st;
    if (!self->direct || !PyLong_CheckExact(self->args[1])) {
        return sock_receive(self, st->str_recv, 1, result);
    }
    Py_ssize_t size = PyLong_AsSsize_t(self->args[1]);
    if (size <= 0) {
        PyErr_Clear(); /* the method says it better */
        return sock_receive(self, st->str_recv, 1, result);
    }
    if (sock_refresh_fd(self) < 0 || fl_loop_reserve(self->loop) < 0) {
        return FL_SOCKOP_FAILED;
    }

    /* What has arrived is mostly far less than what was asked for: a copy of it is
     * cheaper than memory of that size, which the system may have to clear first. */
    PyObject *bytes = NULL;
    char *data;
    if (size <= FL_SLAB_SIZE) {
        data = fl_loop_slab(self->loop);
        if (data == NULL) return FL_SOCKOP_FAILED;
    }
    else {
        bytes = PyBytes_FromStringAndSize(NULL, size);
        if (bytes == NULL) return FL_SOCKOP_FAILED;
        data = PyBytes_AS_STRING(bytes);
    }
    Py_ssize_t n = sock_recv_call(self->fd, data, (size_t)size);
    if (n < 0) {
        Py_XDECREF(bytes);
        return n == -2 ? FL_SOCKOP_FAILED : sock_errno();
    }
    fl_traffic_in(sock_traffic(self), (size_t)n);
    /* Nothing fails from here on: the bytes are out of the kernel. */
    *result =
        bytes == NULL ? fl_loop_bytes(self->loop, n) : fl_compat_bytes_shrink(bytes, n);
    return FL_SOCKOP_DONE;
}

static FlSockOutcome
attempt_recv_into(FlSockOp *self, PyObject **result)
{
    FlState *st = self->loop->st;
    Py_buffer buffer;
    if (!self->direct) return sock_receive(self, st->str_recv_into, 1, result);
    if (PyObject_GetBuffer(self->args[1], &buffer, PyBUF_WRITABLE) < 0) {
        PyErr_Clear(); /* the method says it better */
        return sock_receive(self, st->str_recv_into, 1, result);
    }
    if (buffer.len == 0) {
        PyBuffer_Release(&buffer);
        return sock_receive(self, st->str_recv_into, 1, result);
    }
    FlSockOutcome outcome = FL_SOCKOP_FAILED;
    if (sock_refresh_fd(self) == 0) {
        Py_ssize_t n = sock_recv_call(self->fd, buffer.buf, (size_t)buffer.len);
        if (n >= 0) {
            fl_traffic_in(sock_traffic(self), (size_t)n);
            *result = PyLong_FromSsize_t(n);
            outcome = *result == NULL ? FL_SOCKOP_FAILED : FL_SOCKOP_DONE;
        }
        else if (n == -1) {
            outcome = sock_errno();
        }
    }
    PyBuffer_Release(&buffer);
    return outcome;
}

static FlSockOutcome
attempt_recvfrom(FlSockOp *self, PyObject **result)
{
    return sock_receive(self, self->loop->st->str_recvfrom, 1, result);
}

static FlSockOutcome
attempt_recvfrom_into(FlSockOp *self, PyObject **result)
{
    int given = self->args[2] == NULL ? 0 : PyObject_IsTrue(self->args[2]);
    if (given < 0) return FL_SOCKOP_FAILED;
    if (!given) {
        Py_ssize_t size = PyObject_Size(self->args[1]);
        if (size < 0) return FL_SOCKOP_FAILED;
        Py_XSETREF(self->args[2], PyLong_FromSsize_t(size));
        if (self->args[2] == NULL) return FL_SOCKOP_FAILED;
    }
    return sock_receive(self, self->loop->st->str_recvfrom_into, 2, result);
}

static FlSockOutcome
attempt_sendto(FlSockOp *self, PyObject **result)
{
    FlSockOutcome outcome = sock_call(self, self->loop->st->str_sendto, 2, result);
    if (outcome == FL_SOCKOP_DONE) {
        sock_sent(self, sock_result_size(*result));
    }
    return outcome;
}

/* Pins what is to be sent, until the end. 0 or -1. */
static int
sendall_export(FlSockOp *self)
{
    if (self->exported) return 0;
    if (PyObject_GetBuffer(self->args[1], &self->buffer, PyBUF_SIMPLE) < 0) return -1;
    self->exported = true;
    return 0;
}

/* What is left, as a memoryview of bytes. New reference or NULL. */
static PyObject *
sendall_rest(FlSockOp *self)
{
    PyObject *rest = NULL;
    PyObject *view = PyMemoryView_FromObject(self->args[1]);
    if (view == NULL) return NULL;
    PyObject *bytes = PyObject_CallMethod(view, "cast", "s", "B");
    if (bytes != NULL) {
        rest = PySequence_GetSlice(bytes, self->sent, self->buffer.len);
        Py_DECREF(bytes);
    }
    Py_DECREF(view);
    return rest;
}

/* Through the socket's own send(). FL_SOCKOP_DONE for a call that went through. */
static FlSockOutcome
sendall_by_method(FlSockOp *self)
{
    PyObject *data = self->sent == 0 ? Py_NewRef(self->args[1]) : sendall_rest(self);
    if (data == NULL) return FL_SOCKOP_FAILED;
    PyObject *count =
        PyObject_CallMethodOneArg(sock_of(self), self->loop->st->str_send, data);
    Py_DECREF(data);
    if (count == NULL && !sock_would_block()) return FL_SOCKOP_FAILED;
    if (count != NULL) {
        Py_ssize_t n = PyLong_AsSsize_t(count);
        Py_DECREF(count);
        if (n == -1 && PyErr_Occurred()) return FL_SOCKOP_FAILED;
        sock_sent(self, n > 0 ? (size_t)n : 0);
        if (__builtin_add_overflow(self->sent, n, &self->sent)) {
            self->sent = n < 0 ? PY_SSIZE_T_MIN : PY_SSIZE_T_MAX;
        }
    }
    if (sendall_export(self) < 0) return FL_SOCKOP_FAILED;
    return count != NULL ? FL_SOCKOP_DONE : FL_SOCKOP_BLOCKED;
}

static FlSockOutcome
sendall_directly(FlSockOp *self)
{
    if (sendall_export(self) < 0 || sock_refresh_fd(self) < 0) return FL_SOCKOP_FAILED;
    Py_ssize_t n = sock_send_call(self->fd, (const char *)self->buffer.buf + self->sent,
                                  (size_t)(self->buffer.len - self->sent));
    if (n < 0) return n == -2 ? FL_SOCKOP_FAILED : sock_errno();
    sock_sent(self, (size_t)n);
    self->sent += n;
    return FL_SOCKOP_DONE;
}

static FlSockOutcome
attempt_sendall(FlSockOp *self, PyObject **result)
{
    FlSockOutcome outcome =
        self->direct ? sendall_directly(self) : sendall_by_method(self);
    if (outcome != FL_SOCKOP_DONE) return outcome;
    if (self->sent < self->buffer.len) return FL_SOCKOP_BLOCKED;
    *result = Py_NewRef(Py_None);
    return FL_SOCKOP_DONE;
}

/* The socket and the address of a connection that was accepted. Owns fd: where memory
 * is out, the peer sees a connection that ends, and none that nobody has. New
 * reference. */
static PyObject *
accept_pair(FlState *st, int fd, int family, int type, int proto, const FlAddress *peer)
{
    PyObject *pair = NULL;
    PyObject *address = fl_addr_to_object(peer);
    PyObject *sock =
        address == NULL
            ? NULL
            : fl_addr_new_socket(st, family, type | SOCK_NONBLOCK, proto, fd);
    if (sock == NULL) {
        close(fd);
    }
    else {
        pair = PyTuple_Pack(2, sock, address);
        Py_DECREF(sock);
    }
    Py_XDECREF(address);
    return pair;
}

/* accept(2) of a plain socket: the method's loses the descriptor when memory is out
 * behind it, and blocks no less. AWAITS where this is not for it to do. */
static FlSockOutcome
accept_directly(FlSockOp *self, PyObject **result)
{
    FlState *st = self->loop->st;
    PyObject *sock = sock_of(self);
    int family, type, proto;
    if (!self->direct) return FL_SOCKOP_AWAITS;
    if (fl_addr_socket_number(st, sock, st->str_family, &family) < 0 ||
        fl_addr_socket_number(st, sock, st->str_type, &type) < 0 ||
        fl_addr_socket_number(st, sock, st->str_proto, &proto) < 0 ||
        sock_refresh_fd(self) < 0) {
        return FL_SOCKOP_FAILED;
    }
    int flags = fcntl(self->fd, F_GETFL);
    if (!fl_addr_is_known(family) || flags < 0 || !(flags & O_NONBLOCK)) {
        return FL_SOCKOP_AWAITS;
    }
    FlAddress peer;
    int fd;
    do {
        peer.length = sizeof(peer.u);
        fd = accept4(self->fd, &peer.u.any, &peer.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EINTR && PyErr_CheckSignals() < 0) {
            return FL_SOCKOP_FAILED;
        }
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return sock_errno();
    *result = accept_pair(st, fd, family, type, proto, &peer);
    return *result == NULL ? FL_SOCKOP_FAILED : FL_SOCKOP_DONE;
}

static FlSockOutcome
attempt_accept(FlSockOp *self, PyObject **result)
{
    FlState *st = self->loop->st;
    FlSockOutcome direct = accept_directly(self, result);
    if (direct != FL_SOCKOP_AWAITS) return direct;
    /* asyncio asks for the number first, and so for what is no socket says so. */
    PyObject *number = PyObject_CallMethodNoArgs(sock_of(self), st->str_fileno);
    if (number == NULL) return FL_SOCKOP_FAILED;
    Py_DECREF(number);
    PyObject *accepted;
    FlSockOutcome outcome = sock_call(self, st->str_accept, 0, &accepted);
    if (outcome != FL_SOCKOP_DONE) return outcome;

    PyObject *pair = PySequence_Tuple(accepted);
    Py_DECREF(accepted);
    if (pair == NULL) return FL_SOCKOP_FAILED;
    if (PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_ValueError, "accept() must return a pair");
        Py_DECREF(pair);
        return FL_SOCKOP_FAILED;
    }
    PyObject *done = PyObject_CallMethodOneArg(PyTuple_GET_ITEM(pair, 0),
                                               st->str_setblocking, Py_False);
    if (done == NULL) {
        Py_DECREF(pair);
        return sock_would_block() ? FL_SOCKOP_BLOCKED : FL_SOCKOP_FAILED;
    }
    Py_DECREF(done);
    *result = pair;
    return FL_SOCKOP_DONE;
}

/* Begins loop._ensure_resolved(), which knows literals and asks getaddrinfo() for the
 * rest. */
static FlSockOutcome
connect_resolve(FlSockOp *self, PyObject *family)
{
    FlState *st = self->loop->st;
    PyObject *loop = (PyObject *)self->loop;
    PyObject *resolving = NULL;
    PyObject *proto = NULL;
    PyObject *type = PyObject_GetAttr(sock_of(self), st->str_type);
    PyObject *names =
        PyTuple_Pack(4, st->str_family, st->str_type, st->str_proto, st->str_loop);
    if (type != NULL && names != NULL) {
        proto = PyObject_GetAttr(sock_of(self), st->str_proto);
    }
    if (proto != NULL) {
        PyObject *stack[] = {loop, self->args[1], family, type, proto, loop};
        resolving =
            PyObject_VectorcallMethod(st->str__ensure_resolved, stack, 2, names);
    }
    FlSockOutcome outcome = FL_SOCKOP_FAILED;
    if (resolving != NULL) {
        outcome = fl_sockop_await(self, resolving);
        Py_DECREF(resolving);
    }
    Py_XDECREF(proto);
    Py_XDECREF(names);
    Py_XDECREF(type);
    return outcome;
}

/* Takes the address out of getaddrinfo()'s list. */
static int
received_connect(FlSockOp *self, PyObject *infos)
{
    PyObject *info = PySequence_GetItem(infos, 0);
    if (info == NULL) return -1;
    PyObject *address = PySequence_GetItem(info, 4);
    Py_DECREF(info);
    if (address == NULL) return -1;
    Py_SETREF(self->args[1], address);
    self->phase = CONNECT_START;
    return 0;
}

/* Whether the connection that was begun stands by now. */
static FlSockOutcome
connect_check(FlSockOp *self, PyObject **result)
{
    PyObject *value =
        PyObject_CallMethod(sock_of(self), "getsockopt", "ii", SOL_SOCKET, SO_ERROR);
    if (value == NULL) return sock_would_block() ? FL_SOCKOP_BLOCKED : FL_SOCKOP_FAILED;
    int failed = PyObject_IsTrue(value);
    if (failed == 0) {
        Py_DECREF(value);
        *result = Py_NewRef(Py_None);
        return FL_SOCKOP_DONE;
    }
    if (failed > 0) {
        fl_connect_failed(value, self->args[1]);
    }
    Py_DECREF(value);
    return sock_would_block() ? FL_SOCKOP_BLOCKED : FL_SOCKOP_FAILED;
}

/* False, perhaps with an exception, if there is a need to wait for the connection. */
static bool
connect_is_done(FlSockOp *self)
{
    FlAddress peer;
    return self->direct && sock_refresh_fd(self) == 0 &&
           fl_connect_stands(self->fd, &peer);
}

/* Connects a plain socket to a literal address: what the general way needs two
 * coroutines, three enums and an exception for. BLOCKED with the phase as it was, if
 * this is something else. */
static FlSockOutcome
connect_directly(FlSockOp *self, PyObject **result)
{
    FlState *st = self->loop->st;
    PyObject *sock = sock_of(self), *address = self->args[1];
    FlPeerName name;
    int family, type, proto;
    if (!self->direct || !PyTuple_CheckExact(address)) return FL_SOCKOP_BLOCKED;
    if (fl_addr_socket_number(st, sock, st->str_family, &family) < 0 ||
        fl_addr_socket_number(st, sock, st->str_type, &type) < 0 ||
        fl_addr_socket_number(st, sock, st->str_proto, &proto) < 0) {
        return FL_SOCKOP_FAILED;
    }
    /* Shorter addresses of IPv6 come back from asyncio with all four parts. */
    if (PyTuple_GET_SIZE(address) != (family == AF_INET6 ? 4 : 2) ||
        (type != SOCK_STREAM && type != SOCK_DGRAM) ||
        (proto != 0 && proto != IPPROTO_TCP && proto != IPPROTO_UDP) ||
        !fl_peers_convert(family, address, &name) || !fl_connect_is_native(st) ||
        !fl_stock_method((PyObject *)self->loop, st->str__ensure_resolved,
                         st->ensure_resolved)) {
        return FL_SOCKOP_BLOCKED;
    }
    /* In this order: a hook is Python code, which may close the socket. */
    if (PySys_Audit("socket.connect", "OO", sock, address) < 0 ||
        sock_refresh_fd(self) < 0) {
        return FL_SOCKOP_FAILED;
    }
    self->phase = CONNECT_WAIT;
    if (connect(self->fd, &name.u.any, name.length) < 0) {
        if (errno != EINPROGRESS) {
            PyErr_SetFromErrno(PyExc_OSError);
            return sock_would_block() ? FL_SOCKOP_BLOCKED : FL_SOCKOP_FAILED;
        }
        if (!connect_is_done(self)) {
            return PyErr_Occurred() ? FL_SOCKOP_FAILED : FL_SOCKOP_BLOCKED;
        }
    }
    *result = Py_NewRef(Py_None);
    return FL_SOCKOP_DONE;
}

static FlSockOutcome
attempt_connect(FlSockOp *self, PyObject **result)
{
    FlState *st = self->loop->st;
    if (self->phase == CONNECT_RESOLVE) {
        FlSockOutcome direct = connect_directly(self, result);
        if (direct != FL_SOCKOP_BLOCKED || self->phase == CONNECT_WAIT) return direct;
        PyObject *family = PyObject_GetAttr(sock_of(self), st->str_family);
        if (family == NULL) return FL_SOCKOP_FAILED;
        long number = PyLong_Check(family) ? PyLong_AsLong(family) : -1;
        PyErr_Clear();
        if (number == AF_INET || number == AF_INET6) {
            FlSockOutcome outcome = connect_resolve(self, family);
            Py_DECREF(family);
            return outcome;
        }
        Py_DECREF(family);
        self->phase = CONNECT_START;
    }
    if (self->phase == CONNECT_WAIT) return connect_check(self, result);

    FlSockOutcome outcome = sock_call(self, st->str_connect, 1, result);
    if (outcome == FL_SOCKOP_BLOCKED) {
        /* Also after EINTR: the connection goes on by itself. */
        self->phase = CONNECT_WAIT;
        if (connect_is_done(self)) {
            *result = Py_NewRef(Py_None);
            return FL_SOCKOP_DONE;
        }
        if (PyErr_Occurred()) return FL_SOCKOP_FAILED;
    }
    else if (outcome == FL_SOCKOP_DONE) {
        Py_SETREF(*result, Py_NewRef(Py_None));
    }
    return outcome;
}

#define SOCK_METHOD(name, side, received, required, count, ...)                        \
    static const FlSockKind                                                            \
        kind_##name = {"sock_" #name, {__VA_ARGS__},  required, count,                 \
                       side,          attempt_##name, received};                       \
    static PyObject *sock_##name(PyObject *op, PyObject *const *args,                  \
                                 Py_ssize_t nargs, PyObject *kwnames)                  \
    {                                                                                  \
        return fl_sockop_new((FlLoop *)op, &kind_##name, args, nargs, kwnames);        \
    }
SOCK_METHOD(recv, FL_READER_READ, NULL, 2, 2, "sock", "n")
SOCK_METHOD(recv_into, FL_READER_READ, NULL, 2, 2, "sock", "buf")
SOCK_METHOD(recvfrom, FL_READER_READ, NULL, 2, 2, "sock", "bufsize")
SOCK_METHOD(recvfrom_into, FL_READER_READ, NULL, 2, 3, "sock", "buf", "nbytes")
SOCK_METHOD(sendall, FL_READER_WRITE, NULL, 2, 2, "sock", "data")
SOCK_METHOD(sendto, FL_READER_WRITE, NULL, 3, 3, "sock", "data", "address")
SOCK_METHOD(connect, FL_READER_WRITE, received_connect, 2, 2, "sock", "address")
SOCK_METHOD(accept, FL_READER_READ, NULL, 1, 1, "sock")

#define SOCK_ENTRY(name, signature, doc)                                               \
    {"sock_" #name, (PyCFunction)(void (*)(void))sock_##name,                          \
     METH_FASTCALL | METH_KEYWORDS,                                                    \
     PyDoc_STR("sock_" #name "($self, " signature ")\n--\n\n" doc)}
static PyMethodDef sock_methods[] = {
    SOCK_ENTRY(recv, "sock, n", "Coroutine: receive at most n bytes. Return bytes."),
    SOCK_ENTRY(
        recv_into, "sock, buf",
        "Coroutine: receive into a writable buffer. Return the number of bytes."),
    SOCK_ENTRY(
        recvfrom, "sock, bufsize",
        "Coroutine: receive a datagram, of which at most bufsize bytes are kept.\n"
        "Return (bytes, address)."),
    SOCK_ENTRY(
        recvfrom_into, "sock, buf, nbytes=0",
        "Coroutine: receive a datagram, of which at most nbytes bytes (0: the\n"
        "length of buf) are kept, into a writable buffer. Return (number of bytes,\n"
        "address)."),
    SOCK_ENTRY(
        sendall, "sock, data",
        "Coroutine: send all of data. Return None. After an exception nobody can\n"
        "tell how much was sent."),
    SOCK_ENTRY(sendto, "sock, data, address",
               "Coroutine: send a datagram. Return the number of bytes."),
    SOCK_ENTRY(connect, "sock, address",
               "Coroutine: connect to an address, whose host may be a name. OSError\n"
               "where the connection is refused."),
    SOCK_ENTRY(
        accept, "sock",
        "Coroutine: accept a connection. Return (non-blocking socket, address)."),
    {NULL, NULL, 0, NULL},
};

int
fl_sock_register(PyObject *module, FlState *st)
{
    if (fl_sockop_register(module, st) < 0) return -1;
    return fl_loop_add_methods(st, sock_methods);
}
