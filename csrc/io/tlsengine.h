/* tlsengine.h - TLS in memory: the interpreter's own SSLObject between two MemoryBIOs.
 *
 * Promises: one OpenSSL, the ssl module's, with any SSLContext as the program made it.
 * An SSLObject of the ssl module is called below its Python methods; one of another
 * class through them. No policy: when to read and write is the state machine's
 * business (tls.h). */
#ifndef FL_TLSENGINE_H
#define FL_TLSENGINE_H
#include "base/state.h"

typedef struct FlWindow FlWindow;

/* Invariants: fed counts all bytes that incoming ever got; boundary is the position in
 * that stream behind the last complete record, as far as its headers could be read:
 * opaque says that they could not, and only OpenSSL knows. rest is what the record
 * that has begun still lacks. left is how many plain bytes OpenSSL has of a record that
 * was read in part; ahead says that it has taken a part of one that is not complete
 * yet. later is what is still to be fed of the bytes that are being decrypted: what
 * OpenSSL calls may bring others, which come behind it. object is NULL until
 * fl_tlsengine_init(). */
typedef struct {
    PyObject *object;   /* the ssl.SSLObject, as the program sees it */
    PyObject *native;   /* its _ssl._SSLSocket, or NULL for a class of somebody else */
    PyObject *incoming; /* ssl.MemoryBIO: from the peer */
    PyObject *outgoing; /* to the peer */
    FlWindow *window;
    uint64_t fed;
    uint64_t boundary;
    size_t rest;
    unsigned records; /* ends of records in what the last call was given */
    uint8_t header[5];
    uint8_t header_length;
    bool opaque;
    bool ahead;
    Py_ssize_t left;
    const char *later;
    size_t later_size;
} FlTlsEngine;

enum { FL_TLS_RECORD = 16 * 1024 }; /* plaintext in one record, at most */

/* OpenSSL wants more from the peer; the peer said that no more will come; or there is
 * more to read at once. */
typedef enum {
    FL_TLS_ERROR = -1,
    FL_TLS_DONE = 0,
    FL_TLS_AGAIN = 1,
    FL_TLS_EOF = 2,
    FL_TLS_MORE = 3
} FlTlsResult;

/* sslcontext.wrap_bio() between two new BIOs. 0 or -1. */
int fl_tlsengine_init(FlTlsEngine *engine, FlState *st, PyObject *sslcontext,
                      bool server_side, PyObject *hostname);

/* Hands bytes of the peer to OpenSSL. 0 or -1. */
int fl_tlsengine_feed(FlTlsEngine *engine, FlState *st, const char *data, size_t size);

/* How many bytes the complete records have of which something is still to be read, or
 * more: no fewer than the plain bytes in them. 0 if a read would be in vain; -1 with an
 * exception. */
Py_ssize_t fl_tlsengine_ready(FlTlsEngine *engine, FlState *st);

/* Bytes in incoming or outgoing; -1 with an exception. */
Py_ssize_t fl_tlsengine_pending(FlState *st, PyObject *bio);

/* Feeds size bytes and decrypts what is complete into one bytes object: *plain, or NULL
 * if there is nothing; set with FL_TLS_EOF, too. */
FlTlsResult fl_tlsengine_decrypt(FlTlsEngine *engine, FlState *st, const char *data,
                                 size_t size, PyObject **plain);

/* Decrypts from one record into memory. *count is 0 unless FL_TLS_DONE. */
FlTlsResult fl_tlsengine_read(FlTlsEngine *engine, FlState *st, char *data,
                              Py_ssize_t size, Py_ssize_t *count);

/* Encrypts up to one record. *count is 0 unless FL_TLS_DONE. */
FlTlsResult fl_tlsengine_write(FlTlsEngine *engine, FlState *st, const char *data,
                               size_t size, size_t *count);

FlTlsResult fl_tlsengine_handshake(FlTlsEngine *engine, FlState *st);
FlTlsResult fl_tlsengine_shutdown(FlTlsEngine *engine, FlState *st);

/* What waits for the peer: a bytes object, perhaps empty, or NULL. */
PyObject *fl_tlsengine_take(FlTlsEngine *engine, FlState *st);

int fl_tlsengine_traverse(FlTlsEngine *engine, visitproc visit, void *arg);
void fl_tlsengine_clear(FlTlsEngine *engine);

int fl_tlsengine_register(PyObject *module, FlState *st);

#endif
