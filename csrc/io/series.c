/* series.c - large writes that follow one another.
 *
 * Owns:   nothing: a series is its transport's.
 * Thread: the loop's own. */
#include "io/series.h"
#include "core/loop.h"

enum { SERIES_PAUSE_NS = 100 * 1000 }; /* ends one */

void
fl_series_sent(FlSeries *series, const FlTransport *transport)
{
    series->turn = fl_metrics_turns(&transport->loop->metrics);
    series->at = uv_hrtime();
}

bool
fl_series_goes_on(const FlSeries *series, const FlTransport *transport)
{
    FlLoop *loop = transport->loop;
    if (loop->thread == 0) return false;
    if (series->turn != fl_metrics_turns(&loop->metrics)) return false;
    if (transport->high_water < FL_SERIES_LARGE) return false;
    uint64_t now = uv_hrtime();
    return now < series->at || now - series->at < SERIES_PAUSE_NS;
}
