"""The time that ``import headgate`` adds to the start of an interpreter."""

import subprocess
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from statistics import median

from headgate.cli.bench.child import command
from headgate.cli.bench.interleave import Candidate, Comparison, Timing, always, compare

BARE = "bare interpreter"
IMPORT = "import headgate"


def start_times(starts: int, seconds: float) -> list[Timing]:
    """The times of an interpreter that does nothing, from start to exit, and of one that imports headgate.

    CPU time of the process where the system reports it, else wall time.
    """
    candidates = [
        Candidate(BARE, "baseline", always(_Start("pass"))),
        Candidate(IMPORT, "ours", always(_Start(IMPORT))),
    ]
    return compare(Comparison(candidates), starts, seconds)


def import_ms(timings: Sequence[Timing]) -> float:
    """The cost of the import beyond the bare interpreter: the median over the rounds, in milliseconds."""
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
    """CPU seconds of child processes, or wall time in seconds."""
    if find_spec("resource") is None:
        return time.perf_counter()
    resource = import_module("resource")
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(usage.ru_utime + usage.ru_stime)
