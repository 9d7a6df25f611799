"""Metrics in the formats of others."""

import asyncio
import gc
import math
import threading
import time

import pytest
from conftest import factory_of, run_python

import fastloop
from fastloop import metrics as module


@pytest.fixture
def loop_name():
    """asyncio's loops have nothing of this."""
    return "fastloop"


async def work():
    for _ in range(500):
        await asyncio.sleep(0)
    await asyncio.sleep(0.005)
    await asyncio.to_thread(int)


def samples_of(text):
    """{(name, labels): value} of a text, by Prometheus' own parser."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return families, {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_text_is_what_its_parser_takes(loop):
    loop.run_until_complete(work())
    text = module.prometheus(loop)
    families, samples = samples_of(text)
    metrics = module.snapshot(loop)
    assert samples["fastloop_iterations_total", ()] == metrics.iterations
    assert samples["fastloop_busy_seconds_total", ()] == metrics.busy_ns / 1e9
    assert samples["fastloop_sent_bytes_total", (("kind", "tcp"),)] == 0
    kinds = {family.name: family.type for family in families}
    assert kinds["fastloop_scheduling_lag_seconds"] == "histogram"
    assert kinds["fastloop_ready"] == "gauge"
    assert kinds["fastloop_accepts"] == "counter"


def test_prometheus_histograms_are_cumulative(loop):
    loop.run_until_complete(work())
    _, samples = samples_of(module.prometheus(loop))
    for name in ("scheduling_lag", "callback_duration", "executor_wait"):
        series = f"fastloop_{name}_seconds"
        counts = sorted(
            (float(dict(labels)["le"]), value)
            for (found, labels), value in samples.items()
            if found == f"{series}_bucket"
        )
        assert counts[-1] == (math.inf, samples[f"{series}_count", ()])
        assert [c for _, c in counts] == sorted(c for _, c in counts)
    assert samples["fastloop_callback_duration_seconds_count", ()] > 0


def test_prometheus_labels_and_prefix(loop):
    hostile = 'a"b\\c\nd'
    text = module.prometheus(loop, prefix="web", labels={"name": hostile})
    _, samples = samples_of(text)
    assert samples["web_ready", (("name", hostile),)] == 0


@pytest.mark.parametrize("labels", [{"a-b": "x"}, {"le": "x"}, {"kind": "x"}, {"": ""}])
def test_prometheus_labels_that_do_not_fit(loop, labels):
    with pytest.raises(ValueError, match="label"):
        module.prometheus(loop, labels=labels)
    with pytest.raises(ValueError, match="prefix"):
        module.prometheus(loop, prefix="a b")


def test_prometheus_from_another_thread(loop):
    texts = []

    async def main():
        thread = threading.Thread(target=lambda: texts.append(module.prometheus(loop)))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0)
        thread.join()

    loop.run_until_complete(main())
    assert samples_of(texts[0])[1]["fastloop_iterations_total", ()] > 0


def test_report(loop):
    seen = []

    async def main():
        reporter = module.report(loop, seen.append, 0.01)
        while len(seen) < 3:
            await asyncio.sleep(0.005)
        assert not reporter.cancelled()
        reporter.cancel()
        assert reporter.cancelled()
        count = len(seen)
        await asyncio.sleep(0.03)
        assert len(seen) == count

    loop.run_until_complete(main())
    assert [m.iterations for m in seen] == sorted(m.iterations for m in seen)
    assert all(0 <= m.utilisation <= 1 for m in seen)


def test_report_goes_on_when_the_callback_raises(loop):
    seen = []
    contexts = []

    def callback(metrics):
        seen.append(metrics)
        raise ZeroDivisionError

    async def main():
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        reporter = module.report(loop, callback, 0.005)
        while len(seen) < 2:
            await asyncio.sleep(0.005)
        reporter.cancel()

    loop.run_until_complete(main())
    assert len(contexts) == len(seen)


def test_report_needs_a_callback(loop):
    with pytest.raises(TypeError, match="callable"):
        module.report(loop, None)


@pytest.mark.parametrize("interval", [0, -1, math.nan])
def test_report_needs_an_interval(loop, interval):
    with pytest.raises(ValueError, match="interval"):
        module.report(loop, print, interval)


def test_the_utilisation_of_a_report_is_its_own():
    """loop.metrics() in between does not change it."""
    loop = factory_of("fastloop")()
    seen = []

    async def main():
        reporter = module.report(loop, seen.append, 0.05)
        while not seen:
            loop.metrics()
            await asyncio.sleep(0.001)
        reporter.cancel()

    loop.run_until_complete(main())
    loop.close()
    assert 0 < seen[0].utilisation < 1


def points_of(reader):
    """{(name, attributes): value} of what OpenTelemetry exports."""
    data = reader.get_metrics_data()
    return {
        (metric.name, tuple(sorted(point.attributes.items()))): point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


@pytest.fixture
def sdk():
    """Imported before there is a loop, for what an import opens is not the loop's."""
    pytest.importorskip("opentelemetry.sdk.metrics.export")
    return pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


def test_open_telemetry_s_instruments(sdk, loop):
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    instruments = module.open_telemetry(loop, meter=provider.get_meter("test"))
    loop.run_until_complete(work())
    points = points_of(reader)
    metrics = module.snapshot(loop)
    assert points["fastloop.eventloop.iterations", ()] == metrics.iterations
    assert points["fastloop.eventloop.busy_time", ()] == metrics.busy_ns / 1e9
    assert 0 < points["fastloop.eventloop.utilization", ()] < 1
    p99 = points["fastloop.eventloop.delay", (("quantile", "0.99"),)]
    assert p99 == metrics.scheduling_lag.p99_ns / 1e9
    key = (("network.io.direction", "receive"), ("network.transport", "tcp"))
    assert points["fastloop.network.io", key] == 0
    assert len({name for name, _ in points}) > 20
    instruments.close()
    provider.shutdown()


def test_open_telemetry_of_a_loop_that_has_gone(sdk):
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    loop = fastloop.new_event_loop()
    instruments = module.open_telemetry(loop, meter=provider.get_meter("test"))
    assert len(points_of(reader)) > 20
    loop.close()
    del loop
    gc.collect()
    data = reader.get_metrics_data()
    assert data is None or not data.resource_metrics
    instruments.close()
    provider.shutdown()


def test_open_telemetry_s_spans(sdk, loop):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    loop.slow_callback_duration = 0.01

    def span_of(name):
        """On a busy machine others may be slow, too."""
        found = exporter.get_finished_spans()
        exporter.clear()
        [span] = [each for each in found if name in each.name]
        return span

    instruments = module.open_telemetry(loop, tracer=provider.get_tracer("test"))

    def slow():
        time.sleep(0.02)

    loop.call_soon(slow)
    loop.run_until_complete(asyncio.sleep(0))
    span = span_of("<locals>.slow")
    assert span.name.startswith("slow callback ")
    assert span.end_time - span.start_time >= 10_000_000
    assert span.attributes["code.file.path"] == __file__
    assert span.attributes["code.line.number"] == slow.__code__.co_firstlineno
    loop.call_soon(time.sleep, 0.02)  # whose source nobody has
    loop.run_until_complete(asyncio.sleep(0))
    span = span_of("sleep")
    assert "code.file.path" not in span.attributes
    instruments.close()
    assert loop.slow_callback_hook is None
    provider.shutdown()


def test_open_telemetry_leaves_a_hook_alone(sdk, loop):
    loop.slow_callback_hook = print
    instruments = module.open_telemetry(loop)
    assert loop.slow_callback_hook is print
    instruments.close()
    assert loop.slow_callback_hook is print


def test_without_open_telemetry():
    run_python(
        "-c",
        """if True:
        import sys
        sys.modules["opentelemetry"] = None
        import fastloop
        loop = fastloop.new_event_loop()
        fastloop.metrics.prometheus(loop)
        try:
            fastloop.metrics.open_telemetry(loop)
        except ImportError as exc:
            assert "fastloop-uv[otel]" in str(exc), exc
        else:
            raise SystemExit(1)
        loop.close()
        """,
    )
