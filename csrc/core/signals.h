/* signals.h - Python's signals while the loop waits.
 *
 * libuv takes EINTR for itself, so signal.set_wakeup_fd() writes to a socket pair that
 * the loop watches.
 *
 * Promises: handlers of signal.signal() run as soon as a waiting loop is woken, and
 * what they raise leaves run_forever(); numbers that arrived reach
 * loop._process_self_data(). */
#ifndef FL_SIGNALS_H
#define FL_SIGNALS_H
#include "core/poll.h"

typedef struct {
    FlWatcher watcher; /* fd is -1 while no wake-up descriptor is watched */
    FlLoop *loop;      /* borrowed: the watcher is embedded in it */
} FlSignals;

void fl_signals_init(FlSignals *signals, FlLoop *loop);

extern PyMethodDef fl_signals_methods[]; /* _watch_wakeup_fd */

#endif
