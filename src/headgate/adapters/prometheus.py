"""Metrics for Prometheus, by its client package, pulled when they are scraped.

The names are those of the families, by Prometheus' conventions: ``headgate.cache.hits`` is
``headgate_cache_hits_total``. The table is in docs/metrics.md.
"""

from __future__ import annotations

from threading import Lock
from weakref import WeakKeyDictionary

from headgate._base.checks import checked_int
from headgate.adapters._extras import extra
from headgate.adapters._families import FAMILIES
from headgate.adapters._readings import check_source, readings

with extra("prometheus"):
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector as _Collector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Collector", "register"]

_UNITS = {"s": "seconds", "By": "bytes", "1": "ratio"}
_KINDS = {"counter": "counter", "amount": "gauge", "gauge": "gauge", "info": "info"}
_SUFFIXES = {"counter": "_total", "info": "_info"}


class Collector(_Collector):
    """Collects the metrics of a `source`: a ``Gate`` of headgate.config, or a mapping of names to primitives.

    A registry takes one collector, which several sources may be added to: see `register`. Of samples with
    equal names and labels that of the first source counts. The `k` hottest keys of each `HotKeys` are
    labels; no other label comes from keys, and at most 1,000 nodes or servers of a primitive have samples.
    An error of one primitive loses its samples only, and is ``headgate_reading_errors``.

    Raises TypeError if `source` is none, ValueError if `k` is negative.

    Complexity: O(primitives) for a scrape.

    >>> from headgate import LRUCache
    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> registry = CollectorRegistry()
    >>> registry.register(Collector({"pages": LRUCache(10)}))
    >>> b'headgate_cache_hits_total{cache="pages"} 0.0' in generate_latest(registry)
    True
    """

    def __init__(self, source: Any, *, k: int = 10) -> None:
        self._sources: list[tuple[Any, int]] = []
        self.add(source, k=k)

    def add(self, source: Any, *, k: int = 10) -> None:
        """Collects from another source too. Raises what the constructor raises."""
        check_source(source)
        if checked_int("k", k) < 0:
            raise ValueError(f"k must not be negative, got {k!r}")
        self._sources = [*self._sources, (source, k)]

    def remove(self, source: Any) -> None:
        """Collects no longer from a source. Raises ValueError if it does not."""
        left = [pair for pair in self._sources if pair[0] is not source]
        if len(left) == len(self._sources):
            raise ValueError(f"source must be one of this collector, got {source!r}")
        self._sources = left

    def collect(self) -> Iterator[Metric]:
        """The metrics that have samples."""
        metrics: dict[str, Metric] = {}
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for source, k in self._sources:
            for family in readings(source, k=k):
                if family.name not in metrics:
                    metrics[family.name] = _metric(family.name)
                metric = metrics[family.name]
                name = metric.name + _SUFFIXES.get(metric.type, "")
                for labels, value in family.samples:
                    identity = name, tuple(labels.values())
                    if identity not in seen:
                        seen.add(identity)
                        metric.add_sample(name, labels, value)
        yield from metrics.values()

    def describe(self) -> Iterator[Metric]:
        """All metrics without samples, by which a registry knows the names."""
        return map(_metric, FAMILIES)


_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()
_lock = Lock()


def register(source: Any, *, registry: CollectorRegistry = REGISTRY, k: int = 10) -> Collector:
    """Collects the metrics of `source` in a registry, together with those registered before.

    Returns the collector of that registry, by whose ``remove`` the source leaves it again. Raises what
    `Collector` raises, ValueError if the registry has metrics of these names already.

    >>> from headgate import LRUCache, TokenBucket
    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> registry = CollectorRegistry()
    >>> _ = register({"pages": LRUCache(10)}, registry=registry)
    >>> collector = register({"mails": TokenBucket(5, 1)}, registry=registry)
    >>> b'headgate_bucket_capacity{bucket="mails"} 5.0' in generate_latest(registry)
    True
    """
    with _lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = Collector(source, k=k)
            registry.register(collector)
            _collectors[registry] = collector
        else:
            collector.add(source, k=k)
    return collector


def metric_name(family: str) -> str:
    """The name of a family's metric, without the suffix of its samples.

    >>> metric_name("headgate.near.oldest_entry.age"), metric_name("headgate.limit.rate")
    ('headgate_near_oldest_entry_age_seconds', 'headgate_limit_rate_per_second')
    """
    unit = FAMILIES[family].unit
    suffix = "per_second" if unit.endswith("}/s") else _UNITS.get(unit, "")
    return "_".join(filter(None, (family.replace(".", "_"), suffix)))


def _metric(family: str) -> Metric:
    terms = FAMILIES[family]
    return Metric(metric_name(family), terms.help, _KINDS[terms.kind], _UNITS.get(terms.unit, ""))
