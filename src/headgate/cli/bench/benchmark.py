"""Benchmarks: what is measured, and how much of it."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from headgate._base.backend import backend
from headgate.cli.bench.interleave import Comparison, Timing

_SIZES = ("trial_ns", "hot", "requests", "distinct", "nodes", "many_nodes", "keys", "entries")


class Scale(NamedTuple):
    """The sizes, rounds and time limits of a run."""

    rounds: int
    processes: int
    seconds: float
    trial_ns: int
    hot: int
    requests: int
    distinct: int
    nodes: int
    many_nodes: int
    replicas: int
    keys: int
    entries: int
    starts: int

    def times(self, factor: float) -> "Scale":
        """The same with sizes multiplied by `factor`; rounds and time limits stay."""
        sizes = {
            name: max(10, round(getattr(self, name) * factor))
            for name in _SIZES
        }
        return self._replace(**sizes)


# A table that grows by doubling is as full at 125,000 and 250,000 entries as at 1,000,000.
QUICK = Scale(
    rounds=6,
    processes=2,
    seconds=1.0,
    trial_ns=2_000_000,
    hot=1_000,
    requests=20_000,
    distinct=20_000,
    nodes=100,
    many_nodes=1_000,
    replicas=160,
    keys=50_000,
    entries=125_000,
    starts=7,
)
FULL = QUICK._replace(
    rounds=25,
    processes=5,
    seconds=5.0,
    trial_ns=10_000_000,
    requests=200_000,
    distinct=100_000,
    keys=100_000,
    entries=250_000,
    starts=21,
)


class Benchmark(NamedTuple):
    """One column of a table: `slug` is suite.name; `build` makes the comparison just before it runs."""

    slug: str
    title: str
    detail: str
    build: Callable[[], Comparison]

    @property
    def suite(self) -> str:
        return self.slug.partition(".")[0]


class Result(NamedTuple):
    """A benchmark and the timings of its candidates; `note` comes from the comparison."""

    benchmark: Benchmark
    timings: Sequence[Timing]
    note: str

    @property
    def subject(self) -> Timing:
        return self.timing(subject())

    def joined(self, other: "Result") -> "Result":
        """With the samples of another process, without the candidates that failed there."""
        timings = [
            Timing(mine.name, mine.kind, [*mine.samples, *other.timing(mine.name).samples])
            for mine in self.timings
            if other.has(mine.name)
        ]
        return self._replace(timings=timings)

    def timing(self, name: str) -> Timing:
        return next(timing for timing in self.timings if timing.name == name)

    def has(self, name: str) -> bool:
        return any(timing.name == name for timing in self.timings)


def twins() -> list[str]:
    """The twins that are measured: the compiled one only where it is active."""
    return ["compiled", "pure"] if backend == "compiled" else ["pure"]


def subject() -> str:
    """The candidate that all ratios refer to."""
    return f"headgate {twins()[0]}"


def cores() -> int:
    return os.cpu_count() or 1
