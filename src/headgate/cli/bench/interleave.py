"""Interleaved timing: every candidate runs once a round, so that a disturbance affects all of them.

Each statement is compiled into its own loop, because the interpreter specialises bytecode per code
object and a shared loop would be slower for the second candidate. An empty loop over the same keys runs
in every round too, and its median is subtracted from all samples.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import cycle, repeat
from statistics import median, quantiles
from typing import Any, NamedTuple

Trial = Callable[[], float]
"""Runs the statement many times and returns nanoseconds per operation."""

Announce = Callable[[str], None]
"""Called with the name of the candidate that runs next."""

_FINE_NS = 1_000
_LONGEST_NS = 20_000_000
_CALIBRATED_ON = 10_000
_LOOP = """
def loop(target, keys, passes, clock):
    value = "value"
    misses = 0
    start = clock()
    for _ in passes:
        for key in keys:
            {statement}
    return clock() - start, misses
"""


def _choose_clock() -> tuple[Callable[[], int], str]:
    """CPU time of the thread where its resolution suffices, as it excludes other processes on the core."""
    if time.get_clock_info("thread_time").resolution * 1e9 <= _FINE_NS:
        return time.thread_time_ns, "CPU time of the thread"
    return time.perf_counter_ns, "wall time"


clock, clock_name = _choose_clock()


def always(target: Any) -> Callable[..., Any]:
    """A function that returns `target` for any arguments: a `make` for a target that trials share."""
    return lambda *_: target


_silent: Announce = always(None)


class Candidate(NamedTuple):
    """What is measured: `kind` is compiled, pure, text, peer or baseline; `prepare` makes its trial, once."""

    name: str
    kind: str
    prepare: Callable[[], Trial]


class Comparison(NamedTuple):
    """Candidates that do the same work, and the empty loop whose cost is subtracted."""

    candidates: Sequence[Candidate]
    empty: Trial | None = None
    note: str = ""


class Ratio(NamedTuple):
    """Ratios of two timings, paired by round: median and quartiles."""

    median: float
    low: float
    high: float

    def straddles(self, limit: float) -> bool:
        """Whether the noise is wider than the distance to `limit`."""
        return self.low <= limit <= self.high


class Timing:
    """The samples of one candidate, in nanoseconds per operation."""

    def __init__(self, name: str, kind: str, samples: Sequence[float]) -> None:
        self.name = name
        self.kind = kind
        self.samples = samples

    @cached_property
    def median(self) -> float:
        return median(self.samples)

    @cached_property
    def quartiles(self) -> tuple[float, float]:
        return _quartiles(self.samples)

    @property
    def spread(self) -> float:
        """Half the interquartile range, as a fraction of the median."""
        low, high = self.quartiles
        return (high - low) / 2 / self.median

    def over(self, other: "Timing") -> Ratio:
        ratios = [mine / theirs for mine, theirs in zip(self.samples, other.samples, strict=True)]
        return Ratio(median(ratios), *_quartiles(ratios))


class Loop:
    """A trial: a statement on `target`, run once per `key`; it may use `value` and count `misses`.

    `make` returns a new target for each trial, so that the spread covers variations of memory layout.
    If `trial_ns` is 0, a trial is one pass over the keys. Otherwise the first one determines how many
    passes take `trial_ns`: by a second pass over the first keys, as one includes lazy initialization. Where
    a pass takes more than 20 ms, each trial takes the next part of the keys: a slow candidate varies no more
    than a fast one, and gets no more time.
    """

    def __init__(
        self, statement: str, keys: Sequence[Any], make: Callable[[], Any], trial_ns: int = 0
    ) -> None:
        scope: dict[str, Any] = {}
        exec(_LOOP.format(statement=statement), scope)
        self._loop = scope["loop"]
        self._keys = keys
        self._make = make
        self._trial_ns = trial_ns
        self._calibrated = not trial_ns
        self._passes = 1
        self._parts: Iterator[Sequence[Any]] = repeat(keys)
        self.target: Any = None
        self.misses = 0

    def __call__(self) -> float:
        self.target = self._make()
        return self._run() if self._calibrated else self._calibrate()

    def _calibrate(self) -> float:
        self._calibrated = True
        self._parts = repeat(self._keys[:_CALIBRATED_ON])
        self._run()
        once = self._run()
        whole = once * len(self._keys)
        self._passes = max(1, round(self._trial_ns / whole))
        count = math.ceil(whole / _LONGEST_NS)
        size = math.ceil(len(self._keys) / count)
        self._parts = cycle([self._keys[at : at + size] for at in range(0, len(self._keys), size)])
        return once

    def _run(self) -> float:
        keys = next(self._parts)
        elapsed: int
        elapsed, self.misses = self._loop(self.target, keys, repeat(None, self._passes), clock)
        return max(elapsed, 1) / (len(keys) * self._passes)


def empty_loop(keys: Sequence[Any], trial_ns: int = 0) -> Loop:
    return Loop("pass", keys, always(None), trial_ns)


def compare(
    comparison: Comparison,
    rounds: int,
    seconds: float,
    *,
    warm_up: bool = True,
    min_rounds: int = 3,
    announce: Announce = _silent,
) -> list[Timing]:
    """The candidates' timings after `rounds` rounds; fewer, but `min_rounds`, once `seconds` have passed."""
    trials = [_announced(candidate, announce) for candidate in comparison.candidates]
    if comparison.empty is not None:
        trials.append(comparison.empty)
    with _gc_paused():
        if warm_up:
            for trial in trials:
                trial()
        samples = _interleave(trials, rounds, seconds, min_rounds)
    overhead = median(samples.pop()) if comparison.empty is not None else 0.0
    return [
        Timing(candidate.name, candidate.kind, [max(sample - overhead, 0.1) for sample in taken])
        for candidate, taken in zip(comparison.candidates, samples, strict=True)
    ]


def _announced(candidate: Candidate, announce: Announce) -> Trial:
    """The trial of a candidate, announced before it is prepared and before each run."""
    announce(candidate.name)
    trial = candidate.prepare()

    def announced() -> float:
        announce(candidate.name)
        return trial()

    return announced


def _interleave(trials: Sequence[Trial], rounds: int, seconds: float, min_rounds: int) -> list[list[float]]:
    samples: list[list[float]] = [[] for _ in trials]
    start = time.perf_counter()
    for number in range(rounds):
        if number >= min_rounds and time.perf_counter() - start > seconds:
            break
        for first in range(len(trials)):
            at = (first + number) % len(trials)
            samples[at].append(trials[at]())
    return samples


@contextmanager
def _gc_paused() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _quartiles(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return low, high
