/* series.h - large writes that follow one another.
 *
 * A large write goes at once, so that the peer works on it meanwhile. Those behind it,
 * in the same turn and without a pause between them, wait for one another: the kernel
 * sends four times 256 KiB for a sixth less than one after the other, and wakes the
 * peer less often. The socket has taken all so far, so they do not count as its buffer.
 *
 * Promises: what waits so is less than FL_SERIES_LIMIT, and waits for the end of the
 * turn at most; nothing does where little may wait, for whoever wants to know when it
 * has left. */
#ifndef FL_SERIES_H
#define FL_SERIES_H
#include "io/transport.h"

enum {
    FL_SERIES_LARGE = 16 * 1024, /* below, writes wait for the turn's end anyway */
    FL_SERIES_LIMIT = 1024 * 1024,
};

/* Of the large write that was sent last: its turn, and uv_hrtime() behind it. */
typedef struct {
    uint64_t turn;
    uint64_t at;
} FlSeries;

/* A large write of this transport was sent. */
void fl_series_sent(FlSeries *series, const FlTransport *transport);

/* Whether a write that comes now follows it. */
bool fl_series_goes_on(const FlSeries *series, const FlTransport *transport);

#endif
