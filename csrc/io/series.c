/* series.c - large writes that follow one another.
 *
 * Owns:   nothing: a series is its transport's.
 * Thread: the loop's own. */
#include "io/series.h"
#include "core/turn.h"

enum { SERIES_PAUSE_NS = 100 * 1000 }; /* ends one */

void
fl_series_sent(FlSeries *series, const FlTransport *transport)
{
    if (transport->high_water < FL_SERIES_LARGE) return;
    series->turn = fl_metrics_turns(&transport->loop->metrics);
    series->at = uv_hrtime();
}

bool
fl_series_goes_on(const FlSeries *series, const FlTransport *transport)
{
    FlLoop *loop = transport->loop;
    if (series->turn != fl_metrics_turns(&loop->metrics)) return false;
    if (transport->high_water < FL_SERIES_LARGE) return false;
    uint64_t now = uv_hrtime();
    return now < series->at || now - series->at < SERIES_PAUSE_NS;
}

bool
fl_series_may_wait(const FlSeries *series, const FlTransport *transport, size_t size)
{
    if (transport->loop->thread == 0) return false;
    if (size < FL_SERIES_LARGE && size <= transport->high_water) return true;
    return size < FL_SERIES_LIMIT && fl_series_goes_on(series, transport);
}

void
fl_series_wait(const FlTransport *transport, FlFlush *flush, size_t size)
{
    if (FL_LIKELY(size < FL_SERIES_LARGE)) {
        fl_turn_flush_later(transport->loop, flush);
    }
    else {
        fl_turn_flush_at_end(transport->loop, flush);
    }
}

void
fl_series_count(FlSeries *series, const FlTransport *transport, size_t size)
{
    uint64_t turn = fl_metrics_turns(&transport->loop->metrics);
    if (series->counted_turn != turn) {
        series->counted_turn = turn;
        series->counted = 0;
    }
    series->counted += size;
}

bool
fl_series_is_long(const FlSeries *series, const FlTransport *transport, size_t size)
{
    if (FL_LIKELY(series->counted < FL_SERIES_TURN)) return false;
    FlLoop *loop = transport->loop;
    bool heeded = !(transport->flags & FL_TRANSPORT_PROTOCOL_PAUSED);
    return loop->thread != 0 && transport->high_water >= FL_SERIES_LARGE &&
           (heeded || size < FL_SERIES_LIMIT) &&
           series->counted_turn == fl_metrics_turns(&loop->metrics);
}
