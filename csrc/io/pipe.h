/* pipe.h - what the transports over the ends of pipes have in common.
 *
 * An end is one of a pipe, a socket, a terminal or another character device.
 *
 * Promises: the file object that was passed in owns its descriptor and closes it, once;
 * what the file description's O_NONBLOCK was, it is again behind the last transport
 * over it; several transports may share a descriptor. */
#ifndef FL_PIPE_H
#define FL_PIPE_H
#include "io/transport.h"
#include <sys/stat.h>

/* Invariants: fileno is the file object's number; watcher.fd is that, or the duplicate
 * of it if duplicate is set, and what is read or written. restores means that it fell
 * to this transport to make the file description blocking again. */
typedef struct {
    FlTransport base;
    dev_t device;
    ino_t inode;
    int fileno;
    int full;   /* how often it was found full, up to a few */
    bool large; /* was made so */
    bool duplicate;
    bool restores;
} FlPipe;

/* pipe.fileno(), and what stands behind it: -1 with that call's exception, OSError, or
 * ValueError with the text refusal, if it is of no kind that transports take. */
int fl_pipe_fileno(FlLoop *loop, PyObject *pipe, const char *refusal,
                   struct stat *status);

/* Fills a fresh transport and makes the descriptor non-blocking. 0, or -1 with an
 * exception, and the descriptor is still the caller's. */
int fl_pipe_open(FlPipe *self, FlLoop *loop, const FlTransportKind *kind,
                 FlWatcherCall call, int fd, const struct stat *status, PyObject *pipe,
                 PyObject *protocol, PyObject *extra);

/* Undoes fl_pipe_open() for one that could not be started. */
void fl_pipe_abandon(FlPipe *self);

/* What a pipe holds, unless the program asked for more or less. */
#define FL_PIPE_USUAL ((ssize_t)64 * 1024)

/* It was found full: a pipe of the usual size, where that happens again and again, gets
 * a larger one, if the system has it to give. */
void fl_pipe_was_full(FlPipe *self);

/* Debug mode: logger.info("%r was closed by peer", self). 0 or -1. */
int fl_pipe_log_closed(FlPipe *self);

/* The words around fd= in asyncio's repr; event is the one that means polling. */
const char *fl_pipe_prefix(FlPipe *self);
const char *fl_pipe_state(FlPipe *self, uint32_t event);

/* For the kinds of transports that are built on this. */
void fl_pipe_release(FlTransport *base);
void fl_pipe_unbind(FlTransport *base);

#define FL_PIPE_GETSET                                                                 \
    FL_TRANSPORT_GETSET, {"_pipe", fl_pipe_get_pipe, fl_pipe_set_pipe, NULL, NULL},    \
    {                                                                                  \
        "_fileno", fl_pipe_get_fileno, NULL, NULL, NULL                                \
    }
PyObject *fl_pipe_get_pipe(PyObject *, void *);
int fl_pipe_set_pipe(PyObject *, PyObject *, void *);
PyObject *fl_pipe_get_fileno(PyObject *, void *);

/* loop._pipe_transport(pipe): the transport that has this file object, or None. Needs
 * no memory. */
PyObject *fl_pipe_find_transport(PyObject *op, PyObject *pipe);

#endif
