"""The report of a simulation as tables, JSON and CSV."""

import csv
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from headgate._base.files import write_file
from headgate.cli.simulate.advice import advice
from headgate.cli.simulate.engine import Point
from headgate.cli.tables import Printer, Row, Table

SCHEMA = "headgate.simulate"
SCHEMA_VERSION = 1
_COLUMNS = (
    "policy",
    "maxsize",
    "requests",
    "hits",
    "hit_ratio",
    "weight",
    "weight_hit_ratio",
    "ns_per_request",
)


class Simulation(NamedTuple):
    """A log and its points; `distinct` is the number or weight of its keys if that was counted."""

    log: str
    weighted: bool
    ttl: float | None
    distinct: int | None
    bad_lines: int
    points: Sequence[Point]

    @property
    def requests(self) -> int:
        return self.points[0].requests

    @property
    def policies(self) -> list[str]:
        return list(dict.fromkeys(point.policy for point in self.points))

    @property
    def sizes(self) -> list[int]:
        return sorted({point.maxsize for point in self.points})

    def curve(self, policy: str) -> list[Point]:
        return [point for point in self.points if point.policy == policy]


def show(found: Simulation, to: Printer) -> None:
    """A table with a column per policy, and a sentence of advice."""
    lifetime = "" if found.ttl is None else f", entries expire after {found.ttl:g} s"
    title = f"{found.log}: hit ratio of {found.requests:,} requests{lifetime}"
    to.table(_ratio_table(title, found, _hit_ratio))
    if found.weighted:
        to.table(_ratio_table("The same by weight", found, _weight_hit_ratio))
    if found.bad_lines:
        to.gap()
        to.text(f"Lines skipped: {found.bad_lines:,}.")
    to.gap()
    to.text(advice(found.points))


def as_json(found: Simulation) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "log": found.log,
        "requests": found.requests,
        "distinct": found.distinct,
        "weighted": found.weighted,
        "ttl": found.ttl,
        "bad_lines": found.bad_lines,
        "points": [_record(point) for point in found.points],
        "advice": advice(found.points),
    }


def write_csv(found: Simulation, path: Path) -> None:
    text = StringIO()
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    writer.writerows(map(_record, found.points))
    write_file(path, text.getvalue().encode())


def _record(point: Point) -> dict[str, Any]:
    return {name: getattr(point, name) for name in _COLUMNS}


def _ratio_table(title: str, found: Simulation, ratio: Callable[[Point], float]) -> Table:
    curves = [found.curve(policy) for policy in found.policies]
    rows = [
        Row([f"{size:,}", _share(size, found.distinct), *(f"{ratio(curve[at]):.2%}" for curve in curves)])
        for at, size in enumerate(found.sizes)
    ]
    times = Row(["ns a request", "", *map(_time, curves)])
    unit = "weight" if found.weighted else "entries"
    return Table(
        title, [unit, f"of all\n{'weight' if found.weighted else 'keys'}", *found.policies], [*rows, times]
    )


def _time(curve: Sequence[Point]) -> str:
    times = [point.ns_per_request for point in curve if point.ns_per_request is not None]
    return f"{median(times):.0f}" if times else "-"


def _share(size: int, distinct: int | None) -> str:
    return "" if distinct is None else f"{size / distinct:.1%}"


def _hit_ratio(point: Point) -> float:
    return point.hit_ratio


def _weight_hit_ratio(point: Point) -> float:
    return point.weight_hit_ratio
