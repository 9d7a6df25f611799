/* series.h - large writes that follow one another.
 *
 * A large write goes at once, so that the peer works on it meanwhile. Those behind it,
 * in the same turn and without a pause between them, wait for one another: the kernel
 * sends four times 256 KiB for a sixth less than one after the other, and wakes the
 * peer less often. The socket has taken all so far, so they do not count as its buffer.
 *
 * Promises: what waits so is less than FL_SERIES_LIMIT, and waits for the end of the
 * turn at most; nothing does where the loop is not running, or where little may wait,
 * for whoever wants to know when it has left. */
#ifndef FL_SERIES_H
#define FL_SERIES_H
#include "io/transport.h"

enum {
    FL_SERIES_LARGE = 16 * 1024, /* below, a write waits for the turn's end anyway */
    FL_SERIES_LIMIT = 1024 * 1024,
    FL_SERIES_TURN = 8 * FL_SERIES_LIMIT, /* much to send in one turn: 2 ms */
};

/* Of the large write that was sent last: its turn, and uv_hrtime() behind it. And how
 * much was sent, in which turn. */
typedef struct {
    uint64_t turn;
    uint64_t at;
    uint64_t counted_turn;
    size_t counted;
} FlSeries;

/* What this transport had to send was sent, and did not wait for the turn's end. */
void fl_series_sent(FlSeries *series, const FlTransport *transport);

/* Whether a large write that comes now follows one that was sent. */
bool fl_series_goes_on(const FlSeries *series, const FlTransport *transport);

/* Whether what is queued, size bytes, waits for the end of the turn, and for what may
 * follow. */
bool fl_series_may_wait(const FlSeries *series, const FlTransport *transport,
                        size_t size);

/* Has it wait: a large write to the turn's end, a small one no longer than it must. */
void fl_series_wait(const FlTransport *transport, FlFlush *flush, size_t size);

/* So much was sent, a large write or more: twice as much counts where it was encrypted,
 * for that takes as long. */
void fl_series_count(FlSeries *series, const FlTransport *transport, size_t size);

/* Whether so much was sent in this turn that it is for others now: drain() does not
 * wait for a peer that keeps up, and one connection would hold the loop. Then what is
 * queued, size bytes, waits for the turn's end, and counts for pause_writing(). Where
 * the program does not heed that, no more than FL_SERIES_LIMIT and a write wait so. */
bool fl_series_is_long(const FlSeries *series, const FlTransport *transport,
                       size_t size);

#endif
