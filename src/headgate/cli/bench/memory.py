"""Bytes an entry beyond key and value, or a key, as the resident set of a process of its own grows."""

import gc
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headgate.cli.bench import limiter, lru
from headgate.cli.bench.child import ChildError, Failures, announce, give_back, output_of
from headgate.cli.bench.work import cores
from headgate.cli.bench.workload import user_id

_STATM = Path("/proc/self/statm")
_KIB = 1024
_FILLERS = {"lru": lru.fillers, "limiter": limiter.fillers}

ROOMS = tuple(_FILLERS)


def bytes_per_entry(room: str, entries: int, failures: Failures) -> dict[str, float]:
    """The figure of all in a room that do not fail; nothing where the size of a process is not known."""
    if os.name != "posix":
        return {}
    names = [name for name in _FILLERS[room]() if name not in failures]
    pool = ThreadPoolExecutor(min(2, cores()))
    try:
        return _sizes({name: pool.submit(_in_subprocess, room, entries, name) for name in names}, failures)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_subprocess(room: str, entries: int, name: str) -> float:
    return float(output_of(f"from {__name__} import measure; measure({room!r}, {name!r}, {entries})"))


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


def measure(room: str, name: str, entries: int) -> None:
    """What the subprocess does: give back the figure of one of the room."""
    announce(name)
    give_back(str(growth(_FILLERS[room]()[name], entries)))


def growth(filled: Callable[[int, Sequence[str]], Any], entries: int) -> float:
    """By how much this process grows with each entry of what `filled` makes for so many and their keys."""
    keys = [user_id(number) for number in range(entries)]
    filled(1, keys[:1])
    gc.collect()
    before = _resident_bytes()
    full = filled(entries, keys)
    gc.collect()
    grown = _resident_bytes() - before
    del full
    return grown / entries
