/* tls.h - the state machine of a TLS connection.
 *
 * FlTls is both ends of the hinge: the transport that the program has, and the protocol
 * of the transport below. Below is a socket transport of ours, whose bytes come and go
 * without a call into Python, or any other (TLS in TLS, somebody else's): then through
 * the methods that asyncio gives transports and protocols.
 *
 * Promises: asyncio's order of calls, exceptions and messages. What was written is
 * encrypted little further than the transport below takes it. close() sends what was
 * written, then the closing alert, and reads nothing more for the program; it ends when
 * the peer has answered, soon after if it is silent, at the shutdown timeout in any
 * case. When the transport below is closing, so is this one. */
#ifndef FL_TLS_H
#define FL_TLS_H
#include "base/buffers.h"
#include "io/stream.h"
#include "io/tlsengine.h"

/* UNWRAPPED is before the handshake, and after the end. */
typedef enum {
    FL_TLS_UNWRAPPED,
    FL_TLS_HANDSHAKE,
    FL_TLS_WRAPPED,
    FL_TLS_FLUSHING, /* closing: what was written is still on its way */
    FL_TLS_SHUTDOWN, /* the closing alert was sent */
} FlTlsState;

/* What the program's protocol has heard so far. */
typedef enum {
    FL_TLS_APP_INIT,
    FL_TLS_APP_MADE,
    FL_TLS_APP_EOF,
    FL_TLS_APP_LOST,
} FlTlsApp;

/* Invariants: base has no descriptor: FL_TRANSPORT_CLOSED is set from the start. below
 * is NULL before connection_made(), and kept after the loss for get_extra_info() alone:
 * over says that it is lost. stream is below if that is ours and open. busy while
 * OpenSSL is at work, which may call the program (message callbacks): then nothing else
 * may enter it. out holds plain bytes. */
typedef struct {
    FlTransport base;
    FlFlush flush;
    FlTlsEngine engine;
    FlBuffers out;
    FlSeries series;
    PyObject *below;
    FlStream *stream; /* borrowed from below */
    PyObject *waiter;
    PyObject *sslcontext;
    PyObject *handshake_timeout;
    PyObject *shutdown_timeout;
    PyObject *timer;  /* handle of the handshake's or the shutdown's limit */
    PyObject *linger; /* handle of the wait for the peer's closing alert */
    FlBound bound;
    uint64_t started; /* debug mode: uv_hrtime() of the handshake's start */
    size_t read_high;
    size_t read_low;
    FlTlsState state;
    FlTlsApp app;
    bool busy;
    bool sending; /* the transport below is given something */
    bool over;
    bool below_full;     /* pause_writing() of the transport below */
    bool below_paused;   /* we paused its reading */
    bool eof;            /* the transport below has no more */
    bool notified;       /* the peer sent its closing alert */
    bool secured;        /* the handshake is done */
    bool accepted;       /* made by a server: nobody waits for its handshake */
    bool resume_pending; /* _resume() is scheduled */
    bool counted;        /* among the open ones */
    bool bulky;          /* a large batch was sent */
} FlTls;

/* What was written and the socket did not take, as far as is known: plain bytes here,
 * encrypted ones below. */
static inline size_t
fl_tls_waiting(const FlTls *self)
{
    return self->out.size + (self->stream != NULL ? self->stream->out.size : 0);
}

/* It is open no more. */
static inline void
fl_tls_uncount(FlTls *self)
{
    if (!self->counted) return;
    self->counted = false;
    self->base.traffic->closed++;
}

/* Below the events of the transport below: each 0, or -1 with an exception that the
 * transport below has to deal with. */
int fl_tls_connection_made(FlTls *self, PyObject *below);
int fl_tls_connection_lost(FlTls *self, PyObject *exc);
int fl_tls_received(FlTls *self, const char *data, size_t size);
int fl_tls_eof_received(FlTls *self);
int fl_tls_drained(FlTls *self);

/* connection_lost() could not be scheduled for want of memory, and FL_TRANSPORT_OVERDUE
 * is set: tries again, with MemoryError. 0 or -1. */
int fl_tls_lost_overdue(FlTls *self);

/* The next step of the handshake. 0 or -1. */
int fl_tls_handshake(FlTls *self);

/* Takes the exception that is set as the handshake's end. 0 or -1. */
int fl_tls_handshake_failed(FlTls *self);

/* eof_received() of the program's protocol, once. 0 or -1. */
int fl_tls_call_eof_received(FlTls *self);

/* Encrypts and sends what waits, as far as it goes; then pause_writing() and its kin. 0
 * or -1. */
int fl_tls_flush(FlTls *self);

/* Hands the program what has arrived, unless it paused that. 0 or -1. */
int fl_tls_read(FlTls *self, const char *data, size_t size);

/* Goes on with what was fed while OpenSSL was at work, or with what was paused, in the
 * next turn. 0 or -1. */
int fl_tls_resume_later(FlTls *self);

/* Pauses or resumes the transport below by the limits for reading. 0 or -1. */
int fl_tls_control_reading(FlTls *self);

/* pause_writing() and resume_writing() by the water marks, of what waits. 0 or -1. */
int fl_tls_control_writing(FlTls *self);

/* As transport.close() and transport.abort(). exc may be NULL. 0 or -1. */
int fl_tls_close(FlTls *self);
int fl_tls_abort(FlTls *self, PyObject *exc);

/* Goes on with a close, as far as it gets. 0 or -1. */
int fl_tls_shut(FlTls *self);

/* The closing alert was written: waits for the peer's, but not for long. 0 or -1. */
int fl_tls_wait_for_peer(FlTls *self);

/* Timers: the handshake or the shutdown took too long; the peer is silent. 0 or -1. */
int fl_tls_handshake_late(FlTls *self);
int fl_tls_shutdown_late(FlTls *self);
int fl_tls_lingered(FlTls *self);

/* Takes the exception that is set: the end of the connection, with a report unless it
 * is an OSError. 0, or -1 with an exception that must leave the loop. */
int fl_tls_fatal(FlTls *self, const char *message);

/* True if the transport below is closing or lost; -1 with an exception. */
int fl_tls_below_closing(FlTls *self);

/* With an exception set: 0, and none, if it is that somebody else's transport lacks a
 * method which asyncio would not call; else -1. */
int fl_tls_below_cannot_tell(void);

/* A call of a method of the transport below. 0 or -1. */
int fl_tls_below_call(FlTls *self, PyObject *name, PyObject *arg);

/* Runs method (by name) after delay, a number; *handle owns the timer. 0 or -1. */
int fl_tls_schedule(FlTls *self, PyObject **handle, PyObject *delay, PyObject *name);
int fl_tls_unschedule(PyObject **handle);

/* Tells whoever waits for the handshake; exc may be NULL. 0 or -1. */
int fl_tls_wake(FlTls *self, PyObject *exc);

#endif
