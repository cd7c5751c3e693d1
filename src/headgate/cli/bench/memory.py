"""Bytes an entry beyond key and value, as the resident set of a process of its own grows."""

import gc
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headgate.cli.bench import lru
from headgate.cli.bench.child import output_of
from headgate.cli.bench.work import cores
from headgate.cli.bench.workload import user_id

_STATM = Path("/proc/self/statm")
_KIB = 1024


def bytes_per_entry(entries: int) -> dict[str, float]:
    """The figure of every cache, or nothing where the system does not tell a process's size."""
    if os.name != "posix":
        return {}
    names = [cache.name for cache in lru.caches()]
    pool = ThreadPoolExecutor(min(2, cores()))
    try:
        return dict(zip(names, pool.map(lambda name: _in_subprocess(name, entries), names), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)


def _in_subprocess(name: str, entries: int) -> float:
    return float(output_of(f"from {__name__} import measure; print(measure({name!r}, {entries}))"))


def _resident_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout) * _KIB


def measure(name: str, entries: int) -> float:
    """The figure of the cache called `name`, in this process."""
    cache = next(cache for cache in lru.caches() if cache.name == name)
    keys = [user_id(number) for number in range(entries)]
    lru.filled(cache, 1, keys[:1])
    gc.collect()
    before = _resident_bytes()
    full = lru.filled(cache, entries, keys)
    gc.collect()
    grown = _resident_bytes() - before
    del full
    return grown / entries
