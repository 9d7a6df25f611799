/* transport.h - what every transport is: protocol, context, descriptor, water marks.
 *
 * Promises: each descriptor has one owner and is closed exactly once by it: the socket
 * or file object that was passed in or asked for, or else the transport. A protocol
 * hears connection_made() once and connection_lost() once, in the connection's own
 * context. Every getter works after close. */
#ifndef FL_TRANSPORT_H
#define FL_TRANSPORT_H
#include "core/callargs.h"
#include "core/loop.h"
#include "core/view.h"
#include "io/addr.h"

typedef struct FlTransport FlTransport;

enum {
    FL_TRANSPORT_CLOSING = 1 << 0,
    FL_TRANSPORT_PAUSED = 1 << 1,          /* pause_reading() */
    FL_TRANSPORT_PROTOCOL_PAUSED = 1 << 2, /* pause_writing() was called */
    FL_TRANSPORT_EOF = 1 << 3,             /* write_eof() */
    FL_TRANSPORT_STARTED = 1 << 4,         /* connection_made() is over: may watch */
    FL_TRANSPORT_ATTACHED = 1 << 5,        /* counted by the server */
    FL_TRANSPORT_CLOSED = 1 << 6,          /* the descriptor is gone */
    FL_TRANSPORT_BUFFERED = 1 << 7,        /* the protocol is a BufferedProtocol */
    FL_TRANSPORT_OVERDUE = 1 << 8,         /* connection_lost() could not be scheduled:
                                            * the next turn tries, and owns a reference */
    FL_TRANSPORT_READ_EOF = 1 << 9,        /* nothing more will come: no reading */
    FL_TRANSPORT_UNCLOSED = 1 << 10,       /* ended by the collector and nobody else */
};

/* What differs between sockets, pipes and datagrams. */
typedef struct {
    const char *noun;                  /* "socket transport" in messages */
    int traffic;                       /* FL_TRAFFIC_* that it counts as */
    size_t (*buffered)(FlTransport *); /* bytes that wait to be written */
    void (*discard)(FlTransport *);    /* forget them */
    void (*unbind)(FlTransport *);     /* forget the protocol's bound methods */
    uint32_t (*wanted)(FlTransport *); /* events to watch for just now */
    int (*lost)(FlTransport *,
                PyObject *exc);     /* behind connection_lost(); may be NULL */
    void (*release)(FlTransport *); /* before the descriptor goes; may be NULL */
    /* What get_extra_info() is asked for the first time: a new reference, or NULL
     * without an exception for an unknown name. May be NULL. */
    PyObject *(*make_extra)(FlTransport *, PyObject *name);
} FlTransportKind;

/* Invariants: watcher.fd is the descriptor until FL_TRANSPORT_CLOSED; if sock is set it
 * owns the descriptor, else the transport does; protocol is NULL after
 * connection_lost() and before init; conn_lost > 0 means that connection_lost() was
 * called or is due. */
struct FlTransport {
    PyObject_HEAD
    PyObject *extra;    /* asyncio.BaseTransport's own slot: a dict */
    PyObject *mixin[4]; /* those of asyncio's _FlowControlMixin, which stay empty */
    PyObject *weakrefs;
    PyObject *dict; /* of a user's own attributes, such as a patched write() */
    FlLoop *loop;
    PyObject *protocol;
    PyObject *context;
    PyObject *sock;
    PyObject *server;
    const FlTransportKind *kind;
    FlTraffic *traffic; /* of the loop */
    FlWatcher watcher;
    FlKeptAddress *peer; /* known from accept or connect, until somebody asks for it */
    FlKeptAddress *own_name; /* from when the descriptor is gone */
    size_t high_water;
    size_t low_water;
    int conn_lost;
    FL_SHARED unsigned flags;
};

/* Has the loop call the method of that name soon, and returns None: a transport may be
 * closed from anywhere, also by the collector. */
PyObject *fl_transport_call_there(PyObject *op, const char *name);

/* Fills a fresh, zeroed transport. sock may be NULL: then the transport owns fd.
 * context may be NULL: a copy of the current one. On -1 the descriptor is still the
 * caller's. */
int fl_transport_init(FlTransport *self, FlLoop *loop, const FlTransportKind *kind,
                      FlWatcherCall call, int fd, PyObject *sock, PyObject *protocol,
                      PyObject *context, PyObject *server);

/* Schedules connection_made(), then the waiter (may be NULL or None), then the
 * watching. 0 or -1. */
int fl_transport_start(FlTransport *self, PyObject *waiter);

/* Watches for what kind->wanted() says. 0, or -1 with OSError. */
int fl_transport_watch(FlTransport *self);

/* Around a protocol's callbacks: enters the connection's own context. False if that is
 * entered already (a nested loop): then there is nothing to leave. */
bool fl_transport_enter(FlTransport *self);
void fl_transport_leave(FlTransport *self, bool entered);

/* The same where rc is not 0 exactly if an exception is set. Returns rc. */
static inline int
fl_transport_left(FlTransport *self, bool entered, int rc)
{
    if (FL_UNLIKELY(rc != 0) || !entered) {
        fl_transport_leave(self, entered);
    }
    else if (PyContext_Exit(self->context) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    return rc;
}

/* Takes the socket out, which is the caller's then; NULL where there is none. */
PyObject *fl_transport_take_sock(FlTransport *self);

/* Puts another protocol, or NULL, in the place of the one that is. */
void fl_transport_put_protocol(FlTransport *self, PyObject *protocol);

/* self->extra, made if need be; borrowed. NULL with MemoryError. In a critical section
 * of self, as everything that other threads may ask for. */
PyObject *fl_transport_extra(FlTransport *self);

/* "O&" of PyArg_Parse*() for the argument extra: None or a dict, borrowed. */
int fl_transport_convert_extra(PyObject *arg, void *extra);

/* Takes the exception that is set: reports it unless it is an OSError, and closes the
 * connection with it. 0, or -1 with an exception that must leave the loop. */
int fl_transport_fatal(FlTransport *self, const char *message);

/* Closes at once, without what waits to be written. exc may be NULL. 0 or -1. */
int fl_transport_force_close(FlTransport *self, PyObject *exc);

/* Schedules connection_lost(exc), once. exc may be NULL. 0 or -1. */
int fl_transport_lose(FlTransport *self, PyObject *exc);

/* Begins to close: no more reading; connection_lost() when nothing waits. 0 or -1. */
int fl_transport_close(FlTransport *self);

/* logger.warning(text). 0 or -1. */
int fl_transport_warn(FlTransport *self, const char *text);

/* Debug mode: logger.debug(format, self). 0 or -1. */
int fl_transport_debug(FlTransport *self, const char *format);

/* Debug mode: logger.debug("%r: %s", self, message, exc_info=exc). 0 or -1. */
int fl_transport_debug_error(FlTransport *self, const char *message, PyObject *exc);

/* OSError of the code as the current exception, then fl_transport_fatal(). */
int fl_transport_fatal_errno(FlTransport *self, int code, const char *message);

/* Takes the exception that is set and reports it as one out of the transport's method
 * of that name, which asyncio would have run as a callback; the connection lives on. 0,
 * or -1 with an exception that must leave the loop. */
int fl_transport_callback_failed(FlTransport *self, PyObject *name);

/* Closes the descriptor through its owner. What that raises is reported. */
void fl_transport_release(FlTransport *self);

int fl_transport_traverse(PyObject *op, visitproc visit, void *arg);
int fl_transport_clear(PyObject *op);
void fl_transport_warn_unclosed(PyObject *op); /* ResourceWarning; raises nothing */
void fl_transport_finalize(PyObject *op);      /* ResourceWarning for an unclosed one */

/* For the types that are built on this. The methods common to all transports:
 * get_extra_info is apart, since only sockets make their values lazily. */
#define FL_TRANSPORT_METHODS                                                           \
    {"is_closing", fl_transport_is_closing, METH_NOARGS,                               \
     PyDoc_STR(                                                                        \
         "is_closing($self)\n--\n\nReturn True once the transport is closing.")},      \
        {"get_protocol", fl_transport_get_protocol, METH_NOARGS,                       \
         PyDoc_STR("get_protocol($self)\n--\n\nReturn the current protocol.")},        \
        {"set_protocol", (PyCFunction)(void (*)(void))fl_transport_set_protocol,       \
         METH_FASTCALL | METH_KEYWORDS,                                                \
         PyDoc_STR("set_protocol($self, protocol)\n--\n\nSet a new protocol.")},       \
        {"get_extra_info", (PyCFunction)(void (*)(void))fl_transport_get_extra_info,   \
         METH_VARARGS | METH_KEYWORDS,                                                 \
         PyDoc_STR("get_extra_info($self, name, default=None)\n--\n\n"                 \
                   "Return what is known of the connection by that name.")},           \
        {"_call_connection_lost", fl_transport_call_connection_lost, METH_O, NULL},    \
        {"_connection_made", fl_transport_connection_made, METH_NOARGS, NULL},         \
        {"_force_close", fl_transport_force_close_method, METH_O, NULL},               \
    {                                                                                  \
        "_fatal_error", (PyCFunction)(void (*)(void))fl_transport_fatal_error,         \
            METH_VARARGS, NULL                                                         \
    }
#define FL_TRANSPORT_READ_METHODS                                                      \
    {"pause_reading", fl_transport_pause_reading, METH_NOARGS,                         \
     PyDoc_STR("pause_reading($self)\n--\n\nPause the receiving end.")},               \
        {"resume_reading", fl_transport_resume_reading, METH_NOARGS,                   \
         PyDoc_STR("resume_reading($self)\n--\n\nResume the receiving end.")},         \
    {                                                                                  \
        "is_reading", fl_transport_is_reading, METH_NOARGS,                            \
            PyDoc_STR("is_reading($self)\n--\n\nReturn True if it is receiving.")      \
    }

PyObject *fl_transport_is_closing(PyObject *, PyObject *);
PyObject *fl_transport_get_protocol(PyObject *, PyObject *);
PyObject *fl_transport_set_protocol(PyObject *, PyObject *const *, Py_ssize_t,
                                    PyObject *);
PyObject *fl_transport_get_extra_info(PyObject *, PyObject *, PyObject *);
PyObject *fl_transport_call_connection_lost(PyObject *, PyObject *);
PyObject *fl_transport_connection_made(PyObject *, PyObject *);
PyObject *fl_transport_force_close_method(PyObject *, PyObject *);
PyObject *fl_transport_fatal_error(PyObject *, PyObject *);
PyObject *fl_transport_pause_reading(PyObject *, PyObject *);
PyObject *fl_transport_resume_reading(PyObject *, PyObject *);
PyObject *fl_transport_is_reading(PyObject *, PyObject *);

extern PyMemberDef fl_transport_members[]; /* offsets and private names */

/* The private names of asyncio's transports that other code looks at. */
#define FL_TRANSPORT_OBJECTS                                                           \
    {"_protocol", fl_view_get_object, NULL, NULL,                                      \
     (void *)offsetof(FlTransport, protocol)},                                         \
    {                                                                                  \
        "_server", fl_view_get_object, NULL, NULL,                                     \
            (void *)offsetof(FlTransport, server)                                      \
    }
#define FL_TRANSPORT_GETSET                                                            \
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},        \
        {"_closing", fl_transport_get_flag, NULL, NULL, (void *)FL_TRANSPORT_CLOSING}, \
        {"_paused", fl_transport_get_flag, NULL, NULL, (void *)FL_TRANSPORT_PAUSED},   \
        {"_eof", fl_transport_get_flag, NULL, NULL, (void *)FL_TRANSPORT_EOF},         \
        {"_protocol_paused", fl_transport_get_flag, NULL, NULL,                        \
         (void *)FL_TRANSPORT_PROTOCOL_PAUSED},                                        \
        {"_conn_lost", fl_transport_get_conn_lost, NULL, NULL, NULL},                  \
        {"_sock_fd", fl_transport_get_fd, NULL, NULL, NULL}, FL_TRANSPORT_OBJECTS,     \
        {"_high_water", fl_transport_get_size, fl_transport_set_size, NULL,            \
         (void *)offsetof(FlTransport, high_water)},                                   \
        {"_low_water", fl_transport_get_size, fl_transport_set_size, NULL,             \
         (void *)offsetof(FlTransport, low_water)},                                    \
    {                                                                                  \
        "_extra", fl_transport_get_extra, NULL, NULL, NULL                             \
    }
PyObject *fl_transport_get_flag(PyObject *, void *);
PyObject *fl_transport_get_fd(PyObject *, void *);
PyObject *fl_transport_get_conn_lost(PyObject *, void *);
PyObject *fl_transport_get_size(PyObject *, void *);
/* Bytes of a limit, rounded down to whole ones; no more than there can be. 0 or -1. */
int fl_transport_parse_size(PyObject *value, size_t *size);
int fl_transport_set_size(PyObject *, PyObject *, void *);
PyObject *fl_transport_get_extra(PyObject *, void *);

/* RuntimeError and -1 if the descriptor belongs to an open transport already, or 0. */
int fl_transport_check_free(FlLoop *loop, int fd);

/* Undoes fl_transport_init() for one that could not be started: the descriptor is the
 * caller's again. */
void fl_transport_abandon(FlTransport *self);

/* A new, zeroed object of a transport type. */
FlTransport *fl_transport_alloc(PyTypeObject *type);

/* Ends an object: for tp_dealloc, with the type's own clear function. */
void fl_transport_dealloc(PyObject *op, inquiry clear);

/* Makes a transport type over asyncio's class, or over a tuple of them whose first is
 * the largest. New reference or NULL. */
PyTypeObject *fl_transport_make_type(PyObject *module, PyType_Spec *spec,
                                     PyObject *bases);

#endif
