/* tlswrite.h - the writing half of a TLS connection.
 *
 * Promises: small writes of a turn share records, several records leave in one system
 * call. What the transport below does not take waits: encrypted what was offered to it,
 * FL_SERIES_LIMIT at most, the rest as plain bytes, of which bytes objects are not
 * copied. fl_tls_flush() and fl_tls_control_writing() are declared in
 * tls.h. */
#ifndef FL_TLSWRITE_H
#define FL_TLSWRITE_H
#include "io/tls.h"

/* Sends what OpenSSL has for the peer, and nothing of the program's. 0 or -1. */
int fl_tlswrite_send(FlTls *self);

/* The methods write() and writelines(). */
PyObject *fl_tlswrite_write(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
PyObject *fl_tlswrite_writelines(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

/* asyncio's own hook for tests: queues data and sends nothing. */
PyObject *fl_tlswrite_append(PyObject *, PyObject *);

#endif
