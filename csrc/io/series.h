/* series.h - large writes in a row, that leave together.
 *
 * A large write goes at once, so that the peer works on it meanwhile. Those behind it,
 * in the same turn and without a pause between them, wait for one another: the kernel
 * sends four times 256 KiB for a sixth less than one after the other, and wakes the
 * peer less often. The socket has taken all so far, so they do not count as its buffer;
 * but not where little may wait, for whoever wants to know when it has left. */
#ifndef FL_SERIES_H
#define FL_SERIES_H
#include "core/loop.h"

enum {
    FL_SERIES_LARGE = 16 * 1024,     /* a write that goes at once */
    FL_SERIES_PAUSE_NS = 100 * 1000, /* ends a series */
};

/* When a large write was last sent. */
typedef struct {
    uint64_t turn;
    uint64_t at; /* uv_hrtime() behind it */
} FlSeries;

/* Whether a write of now may wait for the next, or for the end of the turn. */
static inline bool
fl_series_goes_on(const FlSeries *series, FlLoop *loop, size_t high_water, uint64_t now)
{
    return series->turn == fl_metrics_turns(&loop->metrics) &&
           high_water >= FL_SERIES_LARGE &&
           (now < series->at || now - series->at < FL_SERIES_PAUSE_NS);
}

static inline void
fl_series_sent(FlSeries *series, FlLoop *loop)
{
    series->turn = fl_metrics_turns(&loop->metrics);
    series->at = uv_hrtime();
}

#endif
