"""The document that the page shows: what `readings` finds, as rows, with rates and what needs attention."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from math import isfinite
from time import monotonic, time

import headgate
from headgate._base.texts import escaped
from headgate.adapters._families import FAMILIES
from headgate.adapters._readings import check_source, label_text, primitives, readings
from headgate.adapters.dashboard._masking import checked_mask
from headgate.adapters.dashboard._problems import problems_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from headgate.adapters._families import Family
    from headgate.adapters.dashboard._masking import Mask

    Row = dict[str, Any]

SCHEMA, VERSION = "headgate.dashboard", 1
SECTIONS = {
    "caches": ("headgate.cache.", ("cache",)),
    "http_caches": ("headgate.http_cache.", ("cache",)),
    "near": ("headgate.near.", ("cache",)),
    "limits": ("headgate.limit.", ("limit", "level")),
    "stores": ("headgate.store.", ("limit",)),
    "buckets": ("headgate.bucket.", ("bucket",)),
    "concurrency": ("headgate.concurrency.", ("limiter",)),
    "shedding": ("headgate.shed.", ("limiter",)),
    "throttles": ("headgate.throttle.", ("throttle",)),
    "retry_budgets": ("headgate.retry_budget.", ("budget",)),
    "placements": ("headgate.placement.", ("placement",)),
    "balancers": ("headgate.balancer.", ("balancer",)),
    "objectives": ("headgate.slo.", ("objective",)),
}
"""The families of each section, and the labels by which it has rows."""
_MOST_KEYS = 10
_COUNTED, _HALF_LIFE = 256, 300
"""How many denied keys a level counts, and after how many seconds its counts are halved."""
_LEAST_INTERVAL = 0.05
_MOST_SERIES = 24


class Documents:
    """Takes documents from a source; rates are those since the one before.

    >>> from headgate import LRUCache
    >>> cache = LRUCache(10)
    >>> document = Documents({"pages": cache}, True, 1.0).take()
    >>> document["caches"][0]["name"], document["caches"][0]["max_size"], document["problems"]
    ('pages', 10, [])
    """

    __slots__ = ("_before", "_every", "_mask", "_source", "_taken_at")

    def __init__(self, source: Any, mask: Mask, every: float) -> None:
        check_source(source)
        self._source, self._mask, self._every = source, checked_mask(mask), every
        self._before: dict[tuple[str, ...], float] = {}
        self._taken_at: float | None = None
        self._keys()

    def take(self) -> dict[str, Any]:
        """The document of now. Complexity: that of `readings`."""
        families, now = readings(self._source, k=1), monotonic()
        seconds = None if self._taken_at is None else max(now - self._taken_at, _LEAST_INTERVAL)
        counts = {(family.name, *labels.values()): value for family in families if family.kind == "counter"
                  for labels, value in family.samples}
        rates = {} if seconds is None else {
            at: max(0.0, value - self._before[at]) / seconds
            for at, value in counts.items() if at in self._before}
        self._before, self._taken_at = counts, now
        sections = {name: _rows(families, prefix, by, rates) for name, (prefix, by) in SECTIONS.items()}
        denied, hottest, errors = self._keys()
        errors += [(escaped(labels["primitive"]), labels["error"]) for family in families
                   if family.name == "headgate.reading.errors" for labels, _ in family.samples]
        return {
            "schema": SCHEMA, "version": VERSION, "at": time(), "interval": seconds, "every": self._every,
            "host": platform.node(), "process": os.getpid(), "headgate": headgate.__version__,
            "backend": headgate.backend,
            "problems": problems_in(sections, dict.fromkeys(errors)),
            **sections,
            "denied": denied,
            "hotkeys": hottest,
            "series": _series(sections),
        }

    def _keys(self) -> tuple[list[Row], list[Row], list[tuple[str, str]]]:
        """The denied keys and the hottest keys of all primitives, and what raised, which has none."""
        denied: list[Row] = []
        hottest: list[Row] = []
        errors = []
        for kind, name, primitive in primitives(self._source):
            row = {"name": escaped(label_text(name))}
            try:
                if kind == "hotkeys":
                    hottest.append(self._row(row, primitive))
                elif hasattr(primitive, "count_denied"):
                    denied += self._denied(row, kind, primitive)
            except Exception as error:
                errors.append((row["name"], type(error).__name__))
        return denied, hottest, errors

    def _denied(self, row: Row, kind: str, limits: Any) -> list[Row]:
        """The denied keys of all levels, each of which gets a counter of them if it has none."""
        counts = limits.stats() if kind == "middleware" else limits.counters()
        missing = counts.keys() - limits.denied.keys()
        limits.count_denied(**{
            level: headgate.HotKeys(_COUNTED, half_life=_HALF_LIFE) for level in missing})
        return [self._row(row | {"level": level}, counter)
                for level, counter in limits.denied.items() if hasattr(counter, "top")]

    def _row(self, row: Row, counter: Any) -> Row:
        keys = [{"key": self._mask(key), "count": count, "error": error}
                for key, count, error in counter.top(_MOST_KEYS)]
        return row | {"total": counter.total, "keys": keys}


def _rows(
    families: Iterable[Family], prefix: str, by: tuple[str, ...], rates: Mapping[tuple[str, ...], float]
) -> list[Row]:
    """A row for each value of the labels `by`: a field for each family, and for the rate of each counter.

    A family with more labels than those is a field of values by the others. Those by key are left out: keys
    are shown by ``_keys`` alone, which masks them.
    """
    rows: dict[tuple[str, ...], Row] = {}
    for family in families:
        if not family.name.startswith(prefix) or "key" in FAMILIES[family.name].labels:
            continue
        field = family.name.removeprefix(prefix).replace(".", "_")
        for labels, value in family.samples:
            names = tuple(escaped(labels[label]) for label in by)
            row = rows.setdefault(names, dict(zip(("name", *by[1:]), names, strict=True)))
            rest = [escaped(text) for label, text in labels.items() if label not in by]
            _put(row, field, rest, value)
            rate = rates.get((family.name, *labels.values()))
            if rate is not None:
                _put(row, f"{field}_per_second", rest, rate)
    return list(rows.values())


def _put(row: Row, field: str, rest: list[str], value: float) -> None:
    """A number that JSON has none for is null."""
    number = value if isfinite(value) else None
    if rest:
        row.setdefault(field, {})[" ".join(filter(None, rest))] = number
    else:
        row[field] = number


def _series(sections: Mapping[str, list[Row]]) -> dict[str, dict[str, float | None]]:
    """What the charts show: a number for each line of each."""
    lines: dict[str, dict[str, float | None]] = {
        "hit_ratio": dict(_hit_ratios(sections)), "allowed": {}, "denied": {}, "inflight": {}, "limit": {},
        "burn": {}}
    for row in sections["limits"]:
        rates = row.get("requests_per_second")
        if rates:
            name = f"{row['name']}: {row['level']}" if row["level"] else row["name"]
            lines["allowed"][name], lines["denied"][name] = rates.get("allowed"), rates.get("denied")
    for row in sections["concurrency"]:
        lines["inflight"][row["name"]], lines["limit"][row["name"]] = row.get("inflight"), row.get("limit")
    for row in sections["objectives"]:
        windows = row.get("burn_rate", {})
        if windows:
            lines["burn"][row["name"]] = windows[min(windows, key=float)]
    return {name: dict(list(values.items())[:_MOST_SERIES]) for name, values in lines.items()}


def _hit_ratios(sections: Mapping[str, list[Row]]) -> Iterator[tuple[str, float | None]]:
    """Those since the document before, null where there were no lookups."""
    for row in sections["caches"] + sections["near"]:
        if "hits_per_second" in row and "misses_per_second" in row:
            yield row["name"], _share(row["hits_per_second"], row["misses_per_second"])
    for row in sections["http_caches"]:
        rates = row.get("requests_per_second")
        if rates:
            found = rates.get("hit", 0) + rates.get("stale", 0)
            yield row["name"], _share(found, rates.get("miss", 0) + rates.get("revalidation", 0))


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest else None
