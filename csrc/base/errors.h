/* errors.h - the one place where an exception becomes a context for the loop's
 * exception handler.
 *
 * Promises: SystemExit and KeyboardInterrupt pass through, everything else reaches
 * loop.call_exception_handler() with asyncio's message and keys. */
#ifndef FL_ERRORS_H
#define FL_ERRORS_H
#include "base/state.h"
#include <errno.h>

/* True if the exception that is set must leave the loop. */
bool fl_errors_fatal(void);

/* Hands the exception that is set to loop.call_exception_handler(); message is
 * borrowed, the pairs (name, value) follow up to a NULL name, and a NULL value drops
 * its pair. Returns 0 with no exception set, or -1 with the one that must leave the
 * loop: a fatal one, or whatever the handler raised. */
int fl_errors_report(FlState *st, PyObject *loop, PyObject *message, ...);

/* The same with a C string. */
int fl_errors_report_text(FlState *st, PyObject *loop, const char *message,
                          PyObject *key, PyObject *value, PyObject *key2,
                          PyObject *value2);

/* Calls the handler about exc (may be NULL), whatever its type. */
int fl_errors_report_exception(FlState *st, PyObject *loop, const char *message,
                               PyObject *exc, PyObject *key, PyObject *value,
                               PyObject *key2, PyObject *value2);

/* Sets OSError (or the subclass of the code) from a libuv code; returns NULL. */
PyObject *fl_errors_from_uv(int code);

/* Whether a sandbox, or an old kernel, may be refusing the system call that set errno
 * to code as a whole, so that its plainer kin is worth a try. */
static inline bool
fl_errors_is_refused(int code)
{
    return code == ENOSYS || code == EPERM || code == EACCES;
}

/* A new OSError of errno's class; not set. NULL with an exception where memory is out.
 */
PyObject *fl_errors_new_os_error(int code);

#endif
