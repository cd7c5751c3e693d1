"""What ``import headgate`` adds to the start of an interpreter."""

import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from headgate.cli.bench.race import Contestant, Field, Timing, race

BARE = "bare interpreter"
IMPORT = "import headgate"


def start_times(starts: int, seconds: float) -> list[Timing]:
    """Wall time from start to exit of an interpreter that does nothing, and of one that imports headgate."""
    contestants = [Contestant(BARE, "baseline", _Start("pass")), Contestant(IMPORT, "ours", _Start(IMPORT))]
    return race(Field(contestants), starts, seconds)


def import_ms(timings: Sequence[Timing]) -> float:
    """What the import costs beyond the bare interpreter: the median over the rounds, in milliseconds."""
    bare, importing = timings
    return median(more - less for more, less in zip(importing.samples, bare.samples, strict=True)) / 1e6


class _Start:
    def __init__(self, statement: str) -> None:
        self._command = [sys.executable, "-c", statement]

    def __call__(self) -> float:
        start = time.perf_counter_ns()
        subprocess.run(self._command, check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter_ns() - start
