"""What a file of a shared limit holds, and which processes map it."""

import mmap
import os
import struct
import time
from array import array
from ast import literal_eval
from pathlib import Path
from typing import Any, NamedTuple

from headgate import _leases, _shared
from headgate._rate import checked_rates
from headgate._tables import checked_windows, count_lines, scale_of, tables_of
from headgate._units import scale, units_at

_CELLS = 8
_CONTROL = 8
_EVICTIONS = 1
_WORD = 8
_TIMES = 2**40
_WORDS = 2**64


class SharedFile(NamedTuple):
    """A file, and what it says of its limit."""

    path: Path
    settings: dict[str, Any]
    bytes: int
    mode: int
    processes: list[int]


def look(path: Path) -> SharedFile | None:
    """The file at `path`, None if it is not that of a shared limit."""
    if not path.is_file() or path.is_symlink():
        return None
    with path.open("rb") as file:
        content = file.read(_leases.SIZE)
        status = os.fstat(file.fileno())
    if header := _shared.header_of(content):
        settings = _settings(header)
    elif _leases.is_ledger(content):
        settings = _leases.settings_of(content)
    else:
        return None
    return SharedFile(path, settings, status.st_size, status.st_mode & 0o777, users(path, status))


def _settings(header: _shared.Header) -> dict[str, Any]:
    if header.version != _shared.VERSION:
        return {"limiter": f"of layout {header.version}"}
    try:
        return {name: literal_eval(value) for name, value in header.settings.items()}
    except (SyntaxError, ValueError):
        return {"limiter": "damaged"}


def state(file: SharedFile) -> dict[str, Any]:
    """What is owed, held or free by now; nothing if that was before the system was started."""
    with file.path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if file.settings["limiter"] == "ConcurrencyLimiter":
            return _leases.state_of(content[:])
        header = _shared.header_of(content[: _shared.HEADER])
        if header is None or header.version != _shared.VERSION or header.boot != _shared.boot_id():
            return {}
        elapsed = time.monotonic_ns() - header.epoch
        if file.settings["limiter"] == "TokenBucket":
            return _bucket(file.settings, content, elapsed)
        return _tiers(file.settings, content, elapsed)


def users(path: Path, status: os.stat_result) -> list[int]:
    """The processes that map a file, of those that we may look into."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino} "
    name = f" {path.resolve()}\n"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        maps = _shared.read_bytes(str(process / "maps")).decode(errors="replace")
        if device in maps or name in maps:
            found.append(int(process.name))
    return sorted(found)


def _bucket(settings: dict[str, Any], content: mmap.mmap, elapsed: int) -> dict[str, Any]:
    """The tokens that are left."""
    bits, multiplier, shift, burst = scale(settings["capacity"], settings["refill_rate"])
    (word,) = struct.unpack_from("=Q", content, _shared.HEADER)
    debt = (word - units_at(elapsed, multiplier, shift) + _WORDS // 2) % _WORDS - _WORDS // 2
    return {"available": max(0, burst - max(0, debt)) / 2**bits}


def _tiers(settings: dict[str, Any], content: mmap.mmap, elapsed: int) -> dict[str, Any]:
    """How many keys owe something at each table, and how many gave way while they did."""
    rates = checked_rates(settings["rate"], None)
    tables = tables_of(rates, checked_windows(rates) if settings["strict"] else ())
    names = [settings["rate"]] if settings["strict"] else map(str, rates)
    size = (len(content) - _shared.HEADER) // len(tables)
    cells = _CELLS * count_lines(settings["max_keys"])
    owing, evictions = {}, 0
    for number, (name, rate) in enumerate(zip(names, tables, strict=True)):
        start = _shared.HEADER + size * number
        first = start + _WORD * _CONTROL
        words = array("Q", content[first : first + _WORD * cells])
        _, multiplier, shift, _ = scale_of(rate)
        now = units_at(elapsed, multiplier, shift)
        owing[name] = sum(0 < (word - now) % _TIMES < _TIMES // 2 for word in words if word)
        evictions += struct.unpack_from("=Q", content, start + _WORD * _EVICTIONS)[0]
    return {"owing": owing, "evictions": evictions}
