"""Bytes per entry beyond key and value, or per key: the growth of the resident set of a separate process."""

import gc
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headgate.cli.bench import limiter, lru
from headgate.cli.bench.benchmark import cores
from headgate.cli.bench.child import ChildError, Failures, announce, give_back, output_of
from headgate.cli.bench.workload import user_id

_STATM = Path("/proc/self/statm")
_KIB = 1024
_FILLERS = {"lru": lru.fillers, "limiter": limiter.fillers}


def bytes_per_entry(suite: str, entries: int, failures: Failures) -> dict[str, float]:
    """Bytes per entry of all in a suite that do not fail; empty where the size of a process is unknown."""
    if os.name != "posix":
        return {}
    names = [name for name in _FILLERS[suite]() if name not in failures]
    pool = ThreadPoolExecutor(min(2, cores()))
    try:
        return _sizes({name: pool.submit(_in_subprocess, suite, entries, name) for name in names}, failures)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_subprocess(suite: str, entries: int, name: str) -> float:
    return float(output_of(f"from {__name__} import measure; measure({suite!r}, {name!r}, {entries})"))


def _sizes(figures: Mapping[str, Future[float]], failures: Failures) -> dict[str, float]:
    sizes = {}
    for name, figure in figures.items():
        try:
            sizes[name] = figure.result()
        except ChildError as error:
            failures.add(error)
    return sizes


def _resident_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) * _KIB


def measure(suite: str, name: str, entries: int) -> None:
    """Run in the subprocess: give back the figure of one of the suite."""
    announce(name)
    give_back(str(growth(_FILLERS[suite]()[name], entries)))


def growth(filled: Callable[[int, Sequence[str]], Any], entries: int) -> float:
    """The growth of this process per entry when `filled` is called with `entries` and as many keys."""
    keys = [user_id(number) for number in range(entries)]
    filled(1, keys[:1])
    gc.collect()
    before = _resident_bytes()
    full = filled(entries, keys)
    gc.collect()
    grown = _resident_bytes() - before
    del full
    return grown / entries
