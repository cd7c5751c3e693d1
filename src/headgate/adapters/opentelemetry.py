"""Metrics for OpenTelemetry, by its API: observable instruments, read when a reader collects.

The table of the instruments is in docs/metrics.md.
"""

from __future__ import annotations

from functools import partial
from threading import Lock

import headgate
from headgate._base.checks import checked_int
from headgate.adapters._extras import extra
from headgate.adapters._families import FAMILIES
from headgate.adapters._readings import check_source, readings

with extra("opentelemetry"):
    from opentelemetry.metrics import Observation, get_meter_provider

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider

    from headgate.adapters._families import Sample

__all__ = ["Observer"]

_NAMES = {
    "balancer", "bucket", "budget", "cache", "hotkeys", "limit", "limiter", "objective", "placement",
    "primitive", "throttle",
}
"""The labels that name a primitive."""


class Observer:
    """Observes the primitives of a `source`: a ``Gate`` of headgate.config, or a mapping of names to them.

    Its instruments are made by a meter of `meter_provider`, by default the global one. They are read when a
    reader collects, all primitives at once. The `k` hottest keys of each `HotKeys` are attributes; no other
    attribute comes from keys, and at most 1,000 nodes or servers of a primitive have observations. An error
    of one primitive loses its observations only, and is ``headgate.reading.errors``. The meter keeps the
    observer alive.

    Raises TypeError if `source` is none, ValueError if `k` is negative.

    Complexity: O(primitives) for a collection.

    >>> from headgate import LRUCache
    >>> from opentelemetry.sdk.metrics import MeterProvider
    >>> from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    >>> reader = InMemoryMetricReader()
    >>> observer = Observer({"pages": LRUCache(10)}, meter_provider=MeterProvider([reader]))
    >>> [scope] = reader.get_metrics_data().resource_metrics[0].scope_metrics
    >>> scope.scope.name, [metric.name for metric in scope.metrics][:2]
    ('headgate', ['headgate.build', 'headgate.cache.hits'])
    """

    def __init__(self, source: Any, *, meter_provider: MeterProvider | None = None, k: int = 10) -> None:
        check_source(source)
        self._k = checked_int("k", k)
        if self._k < 0:
            raise ValueError(f"k must not be negative, got {k!r}")
        self._source = source
        self._unread: dict[str, list[Sample]] = {}
        self._lock = Lock()
        self._is_closed = False
        provider = get_meter_provider() if meter_provider is None else meter_provider
        meter = provider.get_meter("headgate", headgate.__version__)
        for name in FAMILIES:
            self._instrument(meter, name)

    def _instrument(self, meter: Meter, name: str) -> None:
        terms = FAMILIES[name]
        makers = {
            "counter": meter.create_observable_counter,
            "amount": meter.create_observable_up_down_counter,
        }
        make: Any = makers.get(terms.kind, meter.create_observable_gauge)
        make(name, [partial(self._observed, name)], terms.unit, terms.help)

    def _observed(self, name: str, options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, _attributes(labels)) for labels, value in self._samples(name)]

    def _samples(self, name: str) -> list[Sample]:
        """The samples of a family. A collection reads each family once, so one that asks for a family a
        second time is the next, which reads all primitives again.
        """
        with self._lock:
            samples = self._unread.pop(name, None)
            if samples is None:
                found = {} if self._is_closed else self._read()
                self._unread = {family: found.get(family, []) for family in FAMILIES}
                samples = self._unread.pop(name)
        return samples

    def _read(self) -> dict[str, list[Sample]]:
        return {family.name: family.samples for family in readings(self._source, k=self._k)}

    def close(self) -> None:
        """Observes nothing from now on; the API has no means to remove an instrument."""
        with self._lock:
            self._is_closed = True
            self._unread, self._source = {}, {}


def attribute_name(label: str) -> str:
    """The attribute of a label.

    >>> attribute_name("cache"), attribute_name("result"), attribute_name("error")
    ('headgate.cache.name', 'headgate.result', 'error.type')
    """
    if label == "error":
        return "error.type"
    return f"headgate.{label}.name" if label in _NAMES else f"headgate.{label}"


def _attributes(labels: dict[str, str]) -> dict[str, str]:
    return {attribute_name(label): value for label, value in labels.items() if value}
