"""Files in which processes share the state of a limit: how one is created, recognized, locked and refused.

    words  | magic | layout | boot | time namespace | epoch | secret | secret |
    text   | which limiter, of which twin, with which settings: a line each |
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
import weakref
from ast import literal_eval
from collections import namedtuple
from contextlib import suppress
from operator import index
from os import urandom
from time import monotonic, sleep

from headgate._base.checks import checked_int
from headgate._base.forks import new_lock, renew
from headgate.errors import HeadgateError
from headgate.limit._rate import checked_rates
from headgate.limit._units import checked_positive

try:
    import fcntl
    import mmap
except ImportError:  # Windows, WASI, browsers
    SHARES_FILES = False
else:
    SHARES_FILES = True

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike
    from typing import Any

    from headgate.limit._rate import Rate

HEADER = 4096
_MAGIC = int.from_bytes(b"hgLimit\n", "little")
_MAKING = b"hgMaking"
VERSION = 2
_AT_MAGIC, _AT_VERSION, _AT_BOOT, _AT_NAMESPACE, _AT_EPOCH = range(5)
_SECRET = slice(40, 56)
_TEXT = slice(64, HEADER)
_WORD = 2**64
_BUCKET = 16
_BLOCK = bytes(2**20)
_MODES = 0o777
_OWN, _OTHERS = 0o600, 0o077
_ADOPTED = "rate", "capacity", "refill_rate"
_PATIENCE, LONG_PATIENCE = 1.0, 30.0
_LEAST_PAUSE, _MOST_PAUSE = 2e-5, 1e-3


def read_bytes(path: str) -> bytes:
    """The content of a file of the system, nothing if there is none."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def boot_id() -> int:
    """A number of this start of the system, 0 where it is unknown."""
    text = read_bytes("/proc/sys/kernel/random/boot_id").replace(b"-", b"").strip()
    return int(text[:16], 16) if text else 0


def namespace(kind: str) -> int:
    """A number of our namespace of a kind, as "pid" and "time" are, 0 where there are none."""
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0


def checked_mode(mode: int) -> int:
    """The permissions of a file that its owner can read and write."""
    number = checked_int("mode", mode)
    if number & ~_MODES or number & _OWN != _OWN:
        raise ValueError(f"mode must be permissions from 0o600 to 0o777, got {number:#o}")
    return number


class Header(namedtuple("Header", ["version", "boot", "namespace", "epoch", "settings"])):
    """The fields of the header of a file, the settings as reprs."""

    __slots__ = ()


def header_of(content: bytes) -> Header | None:
    """The header with which `content` begins, None if it is no file of a shared limit."""
    if len(content) < HEADER:
        return None
    words = memoryview(content)[:HEADER].cast("Q")
    if words[_AT_MAGIC] != _MAGIC:
        return None
    epoch = (words[_AT_EPOCH] + _WORD // 2) % _WORD - _WORD // 2
    text = content[_TEXT].rstrip(b"\0").decode(errors="replace")
    return Header(words[_AT_VERSION], words[_AT_BOOT], words[_AT_NAMESPACE], epoch, _settings(text))


def checked_path(path: str | PathLike[str]) -> str:
    """The path of a file, as `os.fspath` has it."""
    try:
        return os.fspath(path)
    except TypeError:
        raise TypeError(f"path must be a str or an os.PathLike, got {path!r}") from None


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


def _adopted_rates(path: str | PathLike[str], rates: tuple[Rate, ...], strict: bool) -> tuple[Rate, ...]:
    """The tiers of the `RateLimiter` in the file at `path`, or `rates` if there is none of that kind."""
    there = settings_there(path, "RateLimiter")
    text = there.get("rate")
    return checked_rates(text, None) if isinstance(text, str) and there.get("strict") == strict else rates


def _adopted_terms(path: str | PathLike[str], terms: tuple[float, float]) -> tuple[float, float]:
    """Capacity and refill rate of the `TokenBucket` in the file at `path`, or `terms` if there is none."""
    there = settings_there(path, "TokenBucket")
    capacity, refill_rate = there.get("capacity", terms[0]), there.get("refill_rate", terms[1])
    return checked_positive("capacity", capacity), checked_positive("refill_rate", refill_rate)


def _adopting(adopted: Callable[[], Any], attach: Callable[[Any], SharedTable]) -> tuple[SharedTable, Any]:
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


class FileLock:
    """An open file, and a lock on it between all threads and processes that open it so.

    A process has one for each file, however many objects use it: with a second one it would wait for itself
    where a finalizer uses another object during a call of the first. A thread may take the lock again for the
    same reason. What takes it locks the file too, since it may have come before the interrupted call did.
    """

    __slots__ = ("__weakref__", "_depth", "_lock", "descriptor", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path
        self._lock = new_lock()
        self._depth = 0
        renew(self)

    def locked(self, function: Callable[..., Any], *args: Any, patience: float = _PATIENCE) -> Any:
        """What ``function(*args)`` returns, called while the file is locked.

        An exception out of a signal handler leaves nothing locked: wherever it comes, ``with`` frees the lock
        of threads, and nothing is called on the way to the line that frees the file's.

        Raises HeadgateError if another process holds the lock for longer than `patience` seconds, as one that
        is stopped may do.
        """
        with self._lock:
            try:
                self._depth += 1
                self._lock_file(patience)
                return function(*args)
            finally:
                self._depth -= 1
                if not self._depth and self.descriptor >= 0:
                    fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def _lock_file(self, patience: float) -> None:
        if self.descriptor < 0:
            raise HeadgateError(f"path could not be opened again after a fork, got {self.path!r}")
        pause, end = _LEAST_PAUSE, None
        while not self._try_to_lock():
            now = monotonic()
            end = now + patience if end is None else end
            if now >= end:
                raise HeadgateError(f"path is locked by a process that is stopped, got {self.path!r}")
            sleep(pause)
            pause = min(2 * pause, _MOST_PAUSE)

    def _try_to_lock(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _renew(self) -> None:
        """In a child: open the file again, since the child would share a lock that the parent holds."""
        inherited, self.descriptor, self._depth = self.descriptor, -1, 0
        own = f"/proc/self/fd/{inherited}"
        with suppress(OSError):  # raised to callers that use it, not by the fork
            self.descriptor = os.open(own if os.path.exists(own) else self.path, os.O_RDWR | os.O_CLOEXEC)
        if inherited >= 0:
            os.close(inherited)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        """Needs no names of modules, which may be gone when an interpreter ends."""
        if self.descriptor >= 0:
            close(self.descriptor)


_files: weakref.WeakValueDictionary[tuple[int, int], FileLock] = weakref.WeakValueDictionary()
_opening = new_lock()


def open_file(path: str, mode: int) -> FileLock:
    """The file that `path` names, made if it is absent."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    status = os.fstat(descriptor)
    opened = FileLock(descriptor, path)
    with _opening:
        return _files.setdefault((status.st_dev, status.st_ino), opened)


class SharedFile:
    """What is laid out in a file that processes share."""

    __slots__ = ("__weakref__", "_file", "_mode", "_path")

    def __init__(self, path: str | PathLike[str], mode: int) -> None:
        self._path = checked_path(path)
        self._mode = checked_mode(mode)
        if not SHARES_FILES:
            raise ValueError(f"path must be None on a system without fcntl and mmap, got {path!r}")
        self._open()

    def _open(self) -> None:
        """Open what the path names, in place of a file that was removed."""
        self._file = open_file(self._path, self._mode)

    def locked(self, function: Callable[..., Any], *args: Any) -> Any:
        """What ``function(*args)`` returns, called while no other thread or process does so.

        Raises HeadgateError if another process holds the lock and is stopped.
        """
        return self._file.locked(function, *args)

    def _check_owner(self, status: os.stat_result) -> None:
        """A private file must belong to this user, since its owner may truncate a file that we map."""
        if not self._mode & _OTHERS and status.st_uid != os.geteuid():
            raise ValueError(
                f"path must be a file of user {os.geteuid()}, got {self._path!r} of user {status.st_uid}"
            )

    def _check_mode(self, status: os.stat_result) -> None:
        found = stat.S_IMODE(status.st_mode)
        if found != self._mode:
            raise ValueError(f"mode must be {found:#o} as of {self._path!r}, got {self._mode:#o}")

    def _allocate(self, size: int) -> None:
        """Allocate an empty file, with its blocks where the system can, so that no write fails later."""
        file = self._file.descriptor
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file, 0, size)
            else:
                os.ftruncate(file, size)
        except OSError as error:
            os.ftruncate(file, 0)
            problem = f"path must have space for {size} bytes: {error.strerror}"
            raise OSError(error.errno, problem, self._path) from None


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
        self.map = mmap.mmap(file, size)
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
            raise ValueError(f"path must have layout {VERSION}, got {there.version} in {self._path!r}")
        for name, wanted in sorted(_settings(self._text).items(), key=_can_be_adopted):
            found = there.settings.get(name)
            if found != wanted:
                raise ValueError(f"{name} must be {found} as in {self._path!r}, got {wanted}{_remedy(name)}")
        if there.boot == boot_id() and there.namespace != namespace("time"):
            raise ValueError(f"path must belong to processes with one clock, got {self._path!r}")

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
        return f"a limit that processes share cannot be reconfigured, got {self._path!r}"


def shared_limiter(
    path: str | PathLike[str],
    mode: int,
    twin: str,
    rates: tuple[Rate, ...],
    max_keys: int,
    on_full: str,
    strict: bool,
    size_of: Callable[[tuple[Rate, ...]], int],
    now: int,
    adopt: bool,
) -> tuple[SharedTable, tuple[Rate, ...]]:
    """The file of a `RateLimiter`, with ``size_of(rates)`` bytes for its tables, and its tiers: `rates`, or
    to `adopt` those of the file.
    """

    def attach(rates: tuple[Rate, ...]) -> SharedTable:
        settings = {
            "limiter": "RateLimiter",
            "twin": twin,
            "rate": "; ".join(map(str, rates)),
            "max_keys": index(max_keys),
            "on_full": on_full,
            "strict": strict,
        }
        return SharedTable(path, mode, settings, size_of(rates), now)

    return _adopting(lambda: _adopted_rates(path, rates, strict) if adopt else rates, attach)


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


def _can_be_adopted(setting: tuple[str, str]) -> bool:
    return setting[0] in _ADOPTED


def _remedy(name: str) -> str:
    """What to do if a file has another rate than the wanted one."""
    if name not in _ADOPTED:
        return ""
    return "; on_mismatch='adopt' takes what is there, and another path begins another limit"


def _plain(number: float) -> float:
    """The same for all numbers that are equal."""
    return int(number) if number == int(number) else number


def _settings(text: str) -> dict[str, str]:
    rows = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in rows}
