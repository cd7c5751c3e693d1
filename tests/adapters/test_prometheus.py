"""The collector for prometheus_client: names, labels, several sources, and errors."""

import gc
import re
import weakref
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import headgate
from headgate.adapters._families import FAMILIES
from headgate.adapters.prometheus import Collector, metric_name, register


@pytest.fixture
def registry():
    return CollectorRegistry()


def samples(registry, name):
    """{values of labels: value} of what is scraped."""
    metrics = parse(generate_latest(registry).decode())
    found = [sample for metric in metrics for sample in metric.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in found}


def test_names_and_values_of_a_scrape(registry):
    cache = headgate.LRUCache(10)
    limits = headgate.RateLimits(ip="1/h")
    slo = headgate.SLO(99)
    register({"pages": cache, "public": limits, "checkout": slo}, registry=registry)
    cache.get("absent"), limits.allow(ip="::1"), limits.allow(ip="::1"), slo.record(True, 3)
    assert samples(registry, "headgate_cache_misses_total") == {("pages",): 1}
    assert samples(registry, "headgate_cache_max_size") == {("pages",): 10}
    assert samples(registry, "headgate_limit_requests_total") == {
        ("ip", "public", "allowed"): 1, ("ip", "public", "denied"): 1}
    assert samples(registry, "headgate_slo_target_ratio") == {("checkout",): 0.99}
    assert samples(registry, "headgate_slo_burn_rate")["checkout", "300"] == 0
    assert samples(registry, "headgate_build_info") == {(headgate.backend, headgate.__version__): 1}


def test_names_follow_the_conventions():
    for family, terms in FAMILIES.items():
        name = metric_name(family)
        assert re.fullmatch(r"headgate(_[a-z]+)+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_info", "_created"))
        assert name.endswith("_seconds") == (terms.unit == "s")
        assert name.endswith("_bytes") == (terms.unit == "By")
        assert name.endswith("_ratio") == (terms.unit == "1")
    assert len({metric_name(family) for family in FAMILIES}) == len(FAMILIES)


def test_openmetrics_parse_what_is_scraped(registry):
    register({"pages": headgate.LRUCache(10), "hot": headgate.HotKeys(3)}, registry=registry)
    metrics = {metric.name: metric for metric in parse_openmetrics(generate_openmetrics(registry).decode())}
    assert metrics["headgate_cache_load_time_seconds"].unit == "seconds"
    assert metrics["headgate_cache_load_time_seconds"].type == "counter"
    assert metrics["headgate_build"].type == "info"


def test_labels_are_escaped(registry):
    hot = headgate.HotKeys(10)
    for key in ('a"b', "a\\b", "a\nb", "snow ☃", "lone \ud800", b"\xff\x00"):
        hot.add(key)
    register({"urls": hot}, registry=registry)
    keys = {key for _, key in samples(registry, "headgate_hotkeys_hottest")} | {
        key for key, _ in samples(registry, "headgate_hotkeys_hottest")}
    assert keys >= {'a"b', "a\\b", "a\nb", "snow ☃", "lone \\ud800", "\\xff\x00"}


def test_several_sources_of_a_registry_are_one_exposition(registry):
    first, second = {"a": headgate.LRUCache(1)}, {"b": headgate.LRUCache(2), "a": headgate.LRUCache(3)}
    collector = register(first, registry=registry)
    assert register(second, registry=registry, k=3) is collector
    assert samples(registry, "headgate_cache_max_size") == {("a",): 1, ("b",): 2}
    assert generate_latest(registry).count(b"# TYPE headgate_cache_max_size gauge") == 1
    collector.remove(first)
    assert samples(registry, "headgate_cache_max_size") == {("a",): 3, ("b",): 2}
    with pytest.raises(ValueError, match=r"^source must be one of this collector, got \{'a': "):
        collector.remove(first)


def test_a_second_collector_of_a_registry_is_refused_as_names_would_appear_twice(registry):
    registry.register(Collector({"a": headgate.LRUCache(1)}))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        register({"b": headgate.LRUCache(1)}, registry=registry)
    assert samples(registry, "headgate_cache_max_size") == {("a",): 1}


def test_a_refused_source_leaves_everything_as_it_was(registry):
    Counter("headgate_cache_hits", "Of another package.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            register({"b": headgate.LRUCache(1)}, registry=registry)
    assert b"headgate_cache_misses" not in generate_latest(registry)


def test_each_registry_has_its_own_sources_and_keeps_no_registry_alive():
    one, two = CollectorRegistry(), CollectorRegistry()
    register({"a": headgate.LRUCache(1)}, registry=one)
    register({"b": headgate.LRUCache(1)}, registry=two)
    assert samples(two, "headgate_cache_max_size") == {("b",): 1}
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_a_scrape_of_some_names_only(registry):
    register({"pages": headgate.LRUCache(10)}, registry=registry)
    text = generate_latest(registry.restricted_registry(["headgate_cache_hits_total"])).decode()
    assert [line for line in text.splitlines() if line[0] != "#"] == [
        'headgate_cache_hits_total{cache="pages"} 0.0']


def test_an_error_of_a_primitive_does_not_lose_the_scrape(registry):
    class Broken:
        def stats(self):
            raise OSError("gone")

    register({"broken": Broken(), "pages": headgate.LRUCache(10)}, registry=registry)
    assert samples(registry, "headgate_reading_errors") == {("OSError", "broken"): 1}
    assert samples(registry, "headgate_cache_hits_total") == {("pages",): 0}


def test_k_bounds_the_keys(registry):
    hot = headgate.HotKeys(50)
    for key in range(50):
        hot.add(f"key{key}")
    register({"urls": hot}, registry=registry, k=5)
    assert len(samples(registry, "headgate_hotkeys_hottest")) == 5


def test_a_gate_may_change_between_scrapes(registry):
    gate = SimpleNamespace(caches={"pages": headgate.LRUCache(10)})
    register(gate, registry=registry)
    gate.caches = {"sessions": headgate.LRUCache(20)}
    assert samples(registry, "headgate_cache_max_size") == {("sessions",): 20}


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"source": 3}, TypeError, "source must be a Gate or a mapping of names to primitives, got 3"),
    ({"source": {}, "k": -1}, ValueError, "k must not be negative, got -1"),
    ({"source": {}, "k": 1.5}, TypeError, "k must be an int, got 1.5"),
])
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error) as raised:
        Collector(**options)
    assert str(raised.value) == message
