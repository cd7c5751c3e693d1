"""The contents of a file of a shared limit, and the processes that map it."""

import errno
import os
import stat
import time
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from headgate._base.shared_files import boot_id, read_bytes
from headgate.cli.errors import CommandError
from headgate.cli.shm.headers import HEADER_SIZE, DamagedHeaderError, parse_header
from headgate.limit import _files, _ledger
from headgate.limit._generations import epoch_of, is_settled
from headgate.limit._rate import checked_rates
from headgate.limit._tables import checked_windows, count_lines, scale_of, tables_of
from headgate.limit._units import scale, units_at
from headgate.slo import _files as _objectives

HOME = Path("/dev/shm")
"""Where files of shared limits usually are."""
_CELLS = 8
_CONTROL = 8
_EVICTIONS = 1
_WORD = 8
_TIMES = 2**40
_WORDS = 2**64
_BLOCK = 2**17
_NO_FILES = (errno.EISDIR, errno.ELOOP, errno.ENXIO)
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class SharedFile(NamedTuple):
    """A file and the settings in its header."""

    path: Path
    settings: dict[str, Any]
    bytes: int
    mode: int
    processes: list[int]


def files_in(place: Path) -> list[Path]:
    """The files of a directory, or a file itself."""
    try:
        return sorted(place.iterdir()) if stat.S_ISDIR(place.stat().st_mode) else [place]
    except OSError as error:
        raise CommandError(f"{place}: {error.strerror}") from error


def inspect_file(path: Path) -> SharedFile | None:
    """The file at `path`, or None if it is not a file of a shared limit."""
    try:
        file = _opened(path)
    except OSError as error:
        if error.errno in _NO_FILES:
            return None
        raise
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        content = file.read(HEADER_SIZE)
    try:
        settings = parse_header(content)
    except DamagedHeaderError:
        settings = {"limiter": "damaged"}
    if settings is None:
        return None
    return SharedFile(path, settings, status.st_size, status.st_mode & 0o777, users(path, status))


def _opened(path: Path) -> BufferedReader:
    """Open a file without following links and without waiting on pipes."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | _CAREFULLY))


def state(file: SharedFile) -> dict[str, Any]:
    """The current debts, permits or tokens; empty for a storage, or if the file is from before the last boot.
    While the rate of a limit is being switched, its debts are in units of both rates: there is a note only.

    The file is read and not mapped, as its owner may truncate it meanwhile. Raises DamagedHeaderError for
    contents that no limiter has written.
    """
    with _opened(file.path) as content:
        start = content.read(HEADER_SIZE)
        settings = parse_header(start)
        if settings is None:
            raise DamagedHeaderError("the header is gone")
        if settings["limiter"] == "ConcurrencyLimiter":
            return _ledger.state_of(start)
        if objective := _objectives.header_of(start):
            return _objective(start + content.read(file.bytes), objective)
        header = _files.header_of(start)
        if header is None or header.version != _files.VERSION or header.boot != boot_id():
            return {}
        if settings["limiter"] == "HeadgateStorage":
            return {}
        elapsed = time.monotonic_ns() - header.epoch
        if settings["limiter"] == "TokenBucket":
            return _bucket(settings, content, elapsed)
        if not is_settled(start):
            return {"switch": "not complete: under way, or left to the next process that opens the file"}
        elapsed = time.monotonic_ns() - epoch_of(header.epoch, header.generation, settings["strict"])
        return _tiers(settings, content, file.bytes, elapsed)


def _objective(content: bytes, header: _objectives.Header) -> dict[str, Any]:
    if header.version != _objectives.VERSION:
        return {}
    try:
        return _objectives.state_of(content, header, time.monotonic_ns())
    except ValueError as error:
        raise DamagedHeaderError(f"a damaged file: {error}") from error


def users(path: Path, status: os.stat_result) -> list[int]:
    """The processes that map a file, of those whose maps this process may read."""
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x} {status.st_ino} "
    name = f" {path.resolve()}\n"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        maps = read_bytes(str(process / "maps")).decode(errors="replace")
        if device in maps or name in maps:
            found.append(int(process.name))
    return sorted(found)


def _bucket(settings: dict[str, Any], content: BufferedReader, elapsed: int) -> dict[str, Any]:
    """The available tokens."""
    bits, multiplier, shift, burst = scale(settings["capacity"], settings["refill_rate"])
    (word,) = _words(content, _files.HEADER, 1)
    debt = (word - units_at(elapsed, multiplier, shift) + _WORDS // 2) % _WORDS - _WORDS // 2
    return {"available": max(0, burst - max(0, debt)) / 2**bits}


def _tiers(
    settings: dict[str, Any], content: BufferedReader, length: int, elapsed: int
) -> dict[str, Any]:
    """The number of keys with debt in each table, and of keys that were evicted with debt."""
    rates = checked_rates(settings["rate"], None)
    tables = tables_of(rates, checked_windows(rates) if settings["strict"] else ())
    names = [settings["rate"]] if settings["strict"] else map(str, rates)
    size = (length - _files.HEADER) // len(tables)
    cells = _CELLS * count_lines(settings["max_keys"])
    owing, evictions = {}, 0
    for number, (name, rate) in enumerate(zip(names, tables, strict=True)):
        start = _files.HEADER + size * number
        _, multiplier, shift, _ = scale_of(rate)
        now = units_at(elapsed, multiplier, shift)
        owing[name] = _count_owing(content, start + _WORD * _CONTROL, cells, now)
        (evicted,) = _words(content, start + _WORD * _EVICTIONS, 1)
        evictions += evicted
    return {"owing": owing, "evictions": evictions}


def _count_owing(content: BufferedReader, start: int, cells: int, now: int) -> int:
    """Count by blocks, as a table may be larger than memory."""
    owing = 0
    for at in range(0, cells, _BLOCK):
        words = _words(content, start + _WORD * at, min(_BLOCK, cells - at))
        owing += sum(0 < (word - now) % _TIMES < _TIMES // 2 for word in words if word)
    return owing


def _words(content: BufferedReader, start: int, count: int) -> memoryview:
    content.seek(start)
    found = content.read(_WORD * count)
    if len(found) != _WORD * count:
        raise DamagedHeaderError("the file is shorter than its header says")
    return memoryview(found).cast("Q")
