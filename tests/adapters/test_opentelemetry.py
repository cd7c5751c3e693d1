"""The observers for OpenTelemetry, collected by the readers of its SDK."""

import re

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, InMemoryMetricReader, Sum

import headgate
from headgate.adapters import _readings
from headgate.adapters._families import FAMILIES
from headgate.adapters.opentelemetry import Observer


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def collected(reader):
    """{name: metric} of what a reader collects."""
    data = reader.get_metrics_data()
    scopes = [] if data is None else [
        scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


def points(metric):
    return {tuple(sorted(point.attributes.items())): point.value for point in metric.data.data_points}


def test_instruments_have_the_kinds_and_units_of_their_families(reader, provider):
    cache = headgate.LRUCache(10)
    Observer({"pages": cache, "checkout": headgate.SLO(99)}, meter_provider=provider)
    cache["a"] = 1
    cache.get("a"), cache.get("b")
    found = collected(reader)
    hits, entries = found["headgate.cache.hits"], found["headgate.cache.entries"]
    assert (hits.unit, hits.description) == ("{hit}", "Lookups that hit.")
    assert isinstance(hits.data, Sum) and hits.data.is_monotonic
    assert hits.data.aggregation_temporality == AggregationTemporality.CUMULATIVE
    assert isinstance(entries.data, Sum) and not entries.data.is_monotonic
    assert isinstance(found["headgate.slo.availability"].data, Gauge)
    assert points(hits) == {(("headgate.cache.name", "pages"),): 1}
    assert points(entries) == {(("headgate.cache.name", "pages"),): 1}
    assert points(found["headgate.build"]) == {
        (("headgate.backend", headgate.backend), ("headgate.version", headgate.__version__)): 1}
    assert found.keys() <= FAMILIES.keys()


def test_names_and_units_follow_the_conventions():
    for name, terms in FAMILIES.items():
        assert re.fullmatch(r"headgate(\.[a-z]+(_[a-z]+)*)+", name)
        assert re.fullmatch(r"s|By|1||\{[a-z]+\}(/s)?", terms.unit)
        assert terms.help.endswith(".")
    for name in FAMILIES:  # a metric is no namespace of another one
        assert not any(other.startswith(f"{name}.") for other in FAMILIES)


def test_labels_that_do_not_apply_are_no_attributes(reader, provider):
    Observer({"api": headgate.RateLimiter("2/s")}, meter_provider=provider)
    assert points(collected(reader)["headgate.limit.rate"]) == {
        (("headgate.limit.name", "api"), ("headgate.policy", "2/s")): 2}


def test_a_collection_reads_the_primitives_once(reader, provider, monkeypatch):
    calls = []
    monkeypatch.setattr("headgate.adapters.opentelemetry.readings",
                        lambda source, k: calls.append(k) or _readings.readings(source, k=k))
    cache = headgate.LRUCache(10)
    Observer({"pages": cache}, meter_provider=provider, k=3)
    for count in range(1, 4):
        cache.get("absent")
        assert points(collected(reader)["headgate.cache.misses"]) == {
            (("headgate.cache.name", "pages"),): count}
        assert calls == [3] * count


def test_several_readers_see_the_same(reader):
    other = InMemoryMetricReader()
    provider = MeterProvider([reader, other], shutdown_on_exit=False)
    cache = headgate.LRUCache(10)
    Observer({"pages": cache}, meter_provider=provider)
    for count in range(1, 4):
        cache.get("absent")
        for each in (reader, other):
            assert points(collected(each)["headgate.cache.misses"]) == {
                (("headgate.cache.name", "pages"),): count}
    provider.shutdown()


def test_an_error_of_a_primitive_loses_only_its_observations(reader, provider):
    class Broken:
        def stats(self):
            raise OSError("gone")

    Observer({"broken": Broken(), "pages": headgate.LRUCache(10)}, meter_provider=provider)
    found = collected(reader)
    assert points(found["headgate.reading.errors"]) == {
        (("error.type", "OSError"), ("headgate.primitive.name", "broken")): 1}
    assert points(found["headgate.cache.hits"]) == {(("headgate.cache.name", "pages"),): 0}


def test_a_closed_observer_observes_nothing(reader, provider):
    observer = Observer({"pages": headgate.LRUCache(10)}, meter_provider=provider)
    assert collected(reader)
    observer.close()
    assert not collected(reader)


def test_the_global_provider_is_the_default(reader, provider, monkeypatch):
    monkeypatch.setattr("headgate.adapters.opentelemetry.get_meter_provider", lambda: provider)
    Observer({"pages": headgate.LRUCache(10)})
    assert "headgate.cache.hits" in collected(reader)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"source": 3}, TypeError, "source must be a Gate or a mapping of names to primitives, got 3"),
    ({"source": {}, "k": -1}, ValueError, "k must not be negative, got -1"),
])
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error) as raised:
        Observer(**options)
    assert str(raised.value) == message
