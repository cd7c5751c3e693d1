"""Files in which processes share the state of a limit: how one is created, recognized, locked and refused.

    words  | magic | layout | boot | time namespace | epoch | secret | secret |
    text   | which limiter, of which twin, with which settings: a line each |
    rates  | of a `RateLimiter`: see `headgate.limit._generations` |
    cells  | from byte 4096 on: what the limiter keeps |

A header is read and written under a lock that the kernel drops with the process that holds it, and by one
call to the system. No wait for that lock is without end, since a process that is stopped may hold it. Until
all blocks are allocated the header marks the file as incomplete; if the holder of the lock finds that mark,
the process that created the file was killed, and it is created anew. Times in the cells are counted from the
epoch, by a clock that starts with the system; so after a restart the cells are cleared, under that lock,
before any process maps them.
"""

from __future__ import annotations

import os
import stat
from ast import literal_eval
from collections import namedtuple
from operator import index
from os import urandom

from headgate._base.shared_files import LONG_PATIENCE, SharedFile, boot_id, checked_path, namespace
from headgate.limit._generations import (
    BLOCKS,
    SWITCHES,
    block_at,
    block_of,
    checked_switch,
    in_force,
    rates_in,
    text_of_rates,
)
from headgate.limit._rate import checked_rates
from headgate.limit._tables import checked_windows, longest_log
from headgate.limit._units import checked_positive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike
    from typing import Any

    from headgate.limit._rate import Rate

    _Wanted = tuple[tuple[Rate, ...], int]

HEADER = 4096
_MAGIC = int.from_bytes(b"hgLimit\n", "little")
_MAKING = b"hgMaking"
VERSION = 3
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_NAMESPACE, _AT_EPOCH = range(5)
_SECRET = slice(40, 56)
_TEXT = slice(64, BLOCKS)
_WORD = 2**64
_BUCKET = 16
_BLOCK = bytes(2**20)
_ADOPTED = "rate", "capacity", "refill_rate"


class Header(namedtuple("Header", ["version", "boot", "namespace", "epoch", "settings", "generation"])):
    """The fields of the header of a file, the settings as reprs, and the number of switches of its rate."""

    __slots__ = ()


def header_of(content: bytes) -> Header | None:
    """The header with which `content` begins, None if it is no file of a shared limit."""
    if len(content) < HEADER:
        return None
    words = memoryview(content)[:HEADER].cast("Q")
    if words[_AT_MAGIC] != _MAGIC:
        return None
    epoch = (words[_AT_EPOCH] + _WORD // 2) % _WORD - _WORD // 2
    settings = _settings(content[_TEXT].rstrip(b"\0").decode(errors="replace"))
    generation, rate = in_force(content[:HEADER])
    if settings.get("limiter") == repr("RateLimiter") and rate is not None:
        settings["rate"] = repr(rate)
    return Header(words[_AT_VERSION], words[_AT_BOOT], words[_AT_NAMESPACE], epoch, settings, generation)


def settings_there(path: str | PathLike[str], limiter: str) -> dict[str, Any]:
    """The settings in the file at `path` of a limiter of that kind; nothing if it is another file."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        file = os.open(checked_path(path), flags)
    except OSError:
        return {}
    try:
        header = header_of(os.read(file, HEADER))
    except OSError:
        header = None
    finally:
        os.close(file)
    if header is None or header.version != VERSION:
        return {}
    try:
        settings = {name: literal_eval(value) for name, value in header.settings.items()}
    except (SyntaxError, ValueError):
        return {}
    return settings if settings.get("limiter") == limiter else {}


def _there(path: str | PathLike[str], rates: tuple[Rate, ...], strict: bool, adopt: bool) -> _Wanted:
    """The tiers of the `RateLimiter` in the file at `path`, if they are to be adopted, and the entries that
    its logs have; or `rates`, and as many entries as they need, if there is none of that kind.
    """
    there = settings_there(path, "RateLimiter")
    text, entries = there.get("rate"), there.get("entries")
    is_alike = there.get("strict") == strict
    if is_alike and adopt and isinstance(text, str):
        rates = checked_rates(text, None)
    needed = longest_log(checked_windows(rates)) if strict else 0
    return rates, max(entries, needed) if is_alike and isinstance(entries, int) else needed


def _adopted_terms(path: str | PathLike[str], terms: tuple[float, float]) -> tuple[float, float]:
    """Capacity and refill rate of the `TokenBucket` in the file at `path`, or `terms` if there is none."""
    there = settings_there(path, "TokenBucket")
    capacity, refill_rate = there.get("capacity", terms[0]), there.get("refill_rate", terms[1])
    return checked_positive("capacity", capacity), checked_positive("refill_rate", refill_rate)


def _adopting(adopted: Callable[[], Any], attach: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The table that `attach` opens with the settings that the file has, and these settings.

    Another process may make the file after it was looked for, so one that does not fit is looked at again.
    """
    while True:
        wanted = adopted()
        try:
            return attach(wanted), wanted
        except ValueError:
            if adopted() == wanted:
                raise


class SharedTable(SharedFile):
    """The file of a limiter: `cells` bytes behind a header, mapped.

    The state begins at `epoch`; `secret` is the key of its hash, the same for all processes.
    """

    __slots__ = ("_text", "epoch", "map", "secret")

    def __init__(
        self,
        path: str | PathLike[str],
        mode: int,
        settings: Mapping[str, object],
        cells: int,
        now: int,
    ) -> None:
        super().__init__(path, mode)
        self._text = "".join(f"{name}={value!r}\n" for name, value in settings.items())
        while not self._file.locked(self._attach, HEADER + cells, now, patience=LONG_PATIENCE):
            self._open()

    def _attach(self, size: int, now: int) -> bool:
        """Map the file; False if it was removed meanwhile."""
        file = self._file.descriptor
        status = os.fstat(file)
        if not status.st_nlink:
            return False
        if not stat.S_ISREG(status.st_mode):
            raise self._foreign()
        self._check_owner(status)
        header = os.pread(file, HEADER, 0)
        if not header or header.startswith(_MAKING):
            self._make(size)
        else:
            self._check_header(header, status)
            if status.st_size != size:
                raise ValueError(f"path must have {size} bytes, got {status.st_size} in {self._path!r}")
        self.map = self._mapped(size)
        self._begin(now)
        return True

    def _foreign(self) -> ValueError:
        return ValueError(f"path must be a file of a shared limit, got {self._path!r}")

    def _check_header(self, content: bytes, status: os.stat_result) -> None:
        there = header_of(content)
        if there is None:
            raise self._foreign()
        self._check_mode(status)
        if there.version != VERSION:
            remedy = "stop its processes and remove it, or give another path"
            raise ValueError(
                f"path must have layout {VERSION}, got {there.version} in {self._path!r}: {remedy}"
            )
        for name, wanted in sorted(self._wanted().items(), key=_importance):
            found = there.settings.get(name)
            if found != wanted:
                raise ValueError(f"{name} must be {found} as in {self._path!r}, got {wanted}{_remedy(name)}")
        if there.boot == boot_id() and there.namespace != namespace("time"):
            raise ValueError(f"path must belong to processes with one clock, got {self._path!r}")

    def _wanted(self) -> dict[str, str]:
        """The settings that the file must have, as reprs."""
        return _settings(self._text)

    def _make(self, size: int) -> None:
        file = self._file.descriptor
        os.fchmod(file, self._mode)
        os.ftruncate(file, 0)
        os.pwrite(file, _MAKING, 0)
        self._allocate(size)

    def _begin(self, now: int) -> None:
        """Clear the cells if the file is new, or if the system has been restarted since."""
        there = header_of(self.map[:HEADER])
        if there is None or there.boot != boot_id():
            for start in range(HEADER, len(self.map), len(_BLOCK)):
                end = min(start + len(_BLOCK), len(self.map))
                self.map[start:end] = _BLOCK[: end - start]
            os.pwrite(self._file.descriptor, self._header(now), 0)
            self.epoch = now
        else:
            self.epoch = there.epoch
        self.secret = bytes(self.map[_SECRET])

    def _header(self, now: int) -> bytes:
        header = bytearray(HEADER)
        words = memoryview(header).cast("Q")
        words[_AT_MAGIC], words[_AT_VERSION] = _MAGIC, VERSION
        words[_AT_BOOT], words[_AT_NAMESPACE] = boot_id(), namespace("time")
        words[_AT_EPOCH] = now % _WORD
        header[_SECRET] = urandom(16)
        text = self._text.encode()
        header[_TEXT.start : _TEXT.start + len(text)] = text
        return bytes(header)

    @property
    def refusal(self) -> str:
        remedy = "another path begins another limit"
        return f"a limit that processes share cannot be reconfigured, got {self._path!r}: {remedy}"


class SharedRates(SharedTable):
    """The file of a `RateLimiter`, whose logs have so many `entries` if it is strict; see `_generations`. Its
    rate was `rates` when it was opened.
    """

    __slots__ = ("_rate", "entries", "rates")

    def __init__(
        self,
        path: str | PathLike[str],
        mode: int,
        settings: Mapping[str, object],
        cells: int,
        now: int,
        rates: tuple[Rate, ...],
        entries: int,
    ) -> None:
        self.rates = rates
        self._rate = text_of_rates(rates)
        self.entries = entries
        super().__init__(path, mode, {**settings, "entries": entries}, cells, now)

    def _wanted(self) -> dict[str, str]:
        return super()._wanted() | {"rate": repr(self._rate)}

    def _header(self, now: int) -> bytes:
        header = bytearray(super()._header(now))
        header[block_at(0)] = block_of(0, self._rate)
        return bytes(header)

    def rates_of(self, generation: int) -> tuple[Rate, ...] | None:
        """The tiers of a generation, None if they are no longer there, or not yet."""
        return rates_in(self.map[block_at(generation)], generation)

    def write(self, generation: int, rates: tuple[Rate, ...], edit: int) -> None:
        """Write the tiers of the next generation, which is not in force; nothing if that has come meanwhile,
        as a finalizer or signal handler may switch within this call, or has forked since the count of `edit`.
        """
        place, block = block_at(generation), block_of(generation, text_of_rates(rates))
        words, edits = memoryview(self.map)[SWITCHES : SWITCHES + 8].cast("Q"), self.edits
        if words[0] == generation - 1 and edits[0] == edit:
            self.map[place] = block

    def check_switch(self, old: tuple[Rate, ...], rates: tuple[Rate, ...]) -> None:
        """Raise if the rate cannot be switched."""
        checked_switch(self._path, old, rates, self.entries)

    @property
    def edits(self) -> list[int]:
        """The count of what the pure twin writes, one for all objects of this process that use the file, and
        whether that is free; see `FileLock`.
        """
        return self._file.edits

    @property
    def damage(self) -> ValueError:
        return ValueError(f"path must be a file that is not damaged, got {self._path!r}")


def shared_limiter(
    path: str | PathLike[str],
    mode: int,
    twin: str,
    rates: tuple[Rate, ...],
    max_keys: int,
    on_full: str,
    strict: bool,
    size_of: Callable[[tuple[Rate, ...], int], int],
    now: int,
    adopt: bool,
) -> SharedRates:
    """The file of a `RateLimiter`, with ``size_of(rates, entries)`` bytes for its tables, at `rates` or, to
    `adopt` it, at the rate of the file.
    """

    def attach(wanted: _Wanted) -> SharedRates:
        rates, entries = wanted
        settings = {
            "limiter": "RateLimiter",
            "twin": twin,
            "max_keys": index(max_keys),
            "on_full": on_full,
            "strict": strict,
        }
        return SharedRates(path, mode, settings, size_of(rates, entries), now, rates, entries)

    table: SharedRates = _adopting(lambda: _there(path, rates, strict, adopt), attach)[0]
    return table


def shared_bucket(
    path: str | PathLike[str], mode: int, twin: str, terms: tuple[float, float], now: int, adopt: bool
) -> tuple[SharedTable, tuple[float, float]]:
    """The file of a `TokenBucket`, its word and the largest debt, and its capacity and refill rate: `terms`,
    or to `adopt` those of the file.
    """

    def attach(terms: tuple[float, float]) -> SharedTable:
        settings = {
            "limiter": "TokenBucket",
            "twin": twin,
            "capacity": _plain(terms[0]),
            "refill_rate": _plain(terms[1]),
        }
        return SharedTable(path, mode, settings, _BUCKET, now)

    return _adopting(lambda: _adopted_terms(path, terms) if adopt else terms, attach)


def _importance(setting: tuple[str, str]) -> int:
    """Which of several settings that differ is to be named: what follows from another one comes last."""
    name = setting[0]
    return 2 if name == "entries" else 1 if name in _ADOPTED else 0


def _remedy(name: str) -> str:
    """What to do if a file has another rate than the wanted one."""
    if name not in _ADOPTED:
        return ""
    live = ", reconfigure() then changes it for all," if name == "rate" else ""
    return f"; on_mismatch='adopt' takes what is there{live} and another path begins another limit"


def _plain(number: float) -> float:
    """The same for all numbers that are equal."""
    return int(number) if number == int(number) else number


def _settings(text: str) -> dict[str, str]:
    rows = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in rows}
