/* sockop.h - the coroutine-like object behind each sock_*() method.
 *
 * Promises: to asyncio and to await a coroutine in all but its frame: nothing happens
 * before the first step, it steps once at a time and to its end once, and it warns if
 * it never was. An attempt is made at the first step and whenever the socket is ready;
 * the future that is awaited in between says no more than that it is. So an operation
 * that ends in CancelledError took nothing that the next one misses. */
#ifndef FL_SOCKOP_H
#define FL_SOCKOP_H
#include "core/loop.h"
#include "io/reader.h"

typedef struct FlSockOp FlSockOp;

typedef enum {
    FL_SOCKOP_FAILED = -1,
    FL_SOCKOP_BLOCKED,
    FL_SOCKOP_DONE,
    FL_SOCKOP_AWAITS,
    FL_SOCKOP_YIELDS,
} FlSockOutcome;

/* What differs between the methods. attempt() makes the call once: DONE with a new
 * reference in *result, BLOCKED to wait for side, AWAITS after fl_sockop_await(),
 * YIELDS to be asked again in the next turn, or FAILED with an exception. received()
 * gets what was awaited: 0, or -1. An operation with ended() has no socket but a
 * descriptor of its own, fd, which stays from one attempt to the next; ended() is
 * called where its end, whatever that is, leaves it with one, and raises nothing. */
typedef struct {
    const char *name;
    const char *parameters[3]; /* the socket first */
    int required;
    int count;
    FlReaderSide side;
    FlSockOutcome (*attempt)(FlSockOp *self, PyObject **result);
    int (*received)(FlSockOp *self, PyObject *value);
    void (*ended)(FlSockOp *self);
} FlSockKind;

typedef enum {
    FL_SOCKOP_CREATED,
    FL_SOCKOP_SUSPENDED,
    FL_SOCKOP_RUNNING,
    FL_SOCKOP_CLOSED,
} FlSockState;

/* Invariants: args and loop are set until FL_SOCKOP_CLOSED; awaiting is set exactly
 * while suspended, but for a turn only, and future with it where the wait is for fd; fd
 * is -1 from the start of an attempt until somebody has asked the socket; exported
 * tells that buffer must be released; direct, that the socket is a plain socket.socket,
 * whose system calls may be made without its methods. */
struct FlSockOp {
    PyObject_HEAD
    PyObject *weakrefs;
    FlLoop *loop;
    const FlSockKind *kind;
    PyObject *args[3]; /* the socket first */
    PyObject *awaiting;
    PyObject *future;
    PyObject *origin; /* cr_origin */
    Py_buffer buffer; /* what is being sent */
    Py_ssize_t sent;
    int fd;
    int phase; /* the attempt's own; 0 at first */
    FlSockState state;
    bool direct;
    bool exported;
};

/* A new operation, with the arguments that its method got. NULL with TypeError. */
PyObject *fl_sockop_new(FlLoop *loop, const FlSockKind *kind, PyObject *const *args,
                        Py_ssize_t nargs, PyObject *kwnames);

/* Has the operation await something else than its socket. AWAITS or FAILED. */
FlSockOutcome fl_sockop_await(FlSockOp *self, PyObject *awaitable);

int fl_sockop_register(PyObject *module, FlState *st);

#endif
