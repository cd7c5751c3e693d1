"""What ``import headgate`` adds to the start of an interpreter."""

import subprocess
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from statistics import median

from headgate.cli.bench.child import command
from headgate.cli.bench.race import Contestant, Field, Timing, always, race

BARE = "bare interpreter"
IMPORT = "import headgate"


def start_times(starts: int, seconds: float) -> list[Timing]:
    """What an interpreter that does nothing costs from start to exit, and one that imports headgate.

    CPU time of the process where the system tells it, else wall time.
    """
    contestants = [
        Contestant(BARE, "baseline", always(_Start("pass"))),
        Contestant(IMPORT, "ours", always(_Start(IMPORT))),
    ]
    return race(Field(contestants), starts, seconds)


def import_ms(timings: Sequence[Timing]) -> float:
    """What the import costs beyond the bare interpreter: the median over the rounds, in milliseconds."""
    bare, importing = timings
    return median(more - less for more, less in zip(importing.samples, bare.samples, strict=True)) / 1e6


class _Start:
    def __init__(self, statement: str) -> None:
        self._command = command(statement)

    def __call__(self) -> float:
        start = _spent()
        subprocess.run(self._command, check=True, stderr=subprocess.DEVNULL)
        return (_spent() - start) * 1e9


def _spent() -> float:
    """Seconds that child processes have used the CPU, or seconds on the wall."""
    if find_spec("resource") is None:
        return time.perf_counter()
    resource = import_module("resource")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(usage.ru_utime + usage.ru_stime)
