"""Files that processes map and share: how one is opened, locked and refused.

The lock is the kernel's, which drops it with the process that holds it. No wait for it is without end, since
a process that is stopped may hold it.
"""

from __future__ import annotations

import os
import stat
import weakref
from time import monotonic, sleep

from headgate._base.checks import checked_int
from headgate._base.forks import new_lock, renew
from headgate.errors import HeadgateError

try:
    import fcntl
    import mmap
except ImportError:  # Windows, WASI, browsers
    SHARES_FILES = False
else:
    SHARES_FILES = True

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any

_MODES = 0o777
_OWN, _OTHERS = 0o600, 0o077
_PATIENCE, LONG_PATIENCE = 1.0, 30.0
_FREE = 1
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


def checked_path(path: str | PathLike[str]) -> str:
    """The path of a file, as `os.fspath` has it."""
    try:
        return os.fspath(path)
    except TypeError:
        raise TypeError(f"path must be a str or an os.PathLike, got {path!r}") from None


class FileLock:
    """An open file, and a lock on it between all threads and processes that open it so.

    A process has one for each file, however many objects use it: with a second one it would wait for itself
    where a finalizer uses another object during a call of the first. A thread may take the lock again for the
    same reason. What takes it locks the file too, since it may have come before the interrupted call did.
    `edits` is for a count of what such calls write, whichever object they use, and whether the file is free:
    a finalizer or signal handler may fork, and in the child the interrupted call does not hold it. So the
    fork counts as an edit there, and the call starts over once it has called ``retake``.
    """

    __slots__ = ("__weakref__", "_depth", "_lock", "descriptor", "edits", "path")

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor = descriptor
        self.path = path
        self._lock = new_lock()
        self._depth = 0
        self.edits = [0, True]
        renew(self)

    def locked(self, function: Callable[..., Any], *args: Any, patience: float = _PATIENCE) -> Any:
        """What ``function(*args)`` returns, called while the file is locked.

        An exception out of a signal handler leaves nothing locked: wherever it comes, ``with`` frees the lock
        of threads, and nothing is called on the way to the line that frees the file's.

        Raises HeadgateError if another process holds the lock for longer than `patience` seconds, as one that
        is stopped may do.
        """
        with self._lock:
            depth = self._depth
            try:
                self._depth = depth + 1
                self._lock_file(patience)
                return function(*args)
            finally:
                self._depth = depth
                if not depth and self.descriptor >= 0:
                    self.edits[_FREE] = True
                    fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def retake(self) -> None:
        """Within a call of ``locked``: lock the file again if that is free, in the child of a fork.

        Raises HeadgateError if another process holds the lock, as ``locked`` does.
        """
        if self.edits[_FREE]:
            self._depth = max(self._depth, 1)
            self._lock_file(_PATIENCE)

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
        self.edits[_FREE] = False
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.edits[_FREE] = True
            return False
        return True

    def _renew(self) -> None:
        """In a child: open the file again, since the child would share a lock that the parent holds. It has
        the same descriptor, which an interrupted call may have read.
        """
        inherited, self.descriptor, self._depth = self.descriptor, -1, 0
        self.edits[:] = self.edits[0] + 1, True
        if inherited < 0:
            return
        own = f"/proc/self/fd/{inherited}"
        try:
            again = os.open(own if os.path.exists(own) else self.path, os.O_RDWR | os.O_CLOEXEC)
            self.descriptor = os.dup2(again, inherited, inheritable=False)
            os.close(again)
        except OSError:  # raised to callers that use it, not by the fork
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

    def retake(self) -> None:
        """Within a call of ``locked``: lock the file again if a fork has freed it, in the child."""
        self._file.retake()

    def _mapped(self, size: int) -> mmap.mmap:
        """The first `size` bytes of the file, mapped."""
        return mmap.mmap(self._file.descriptor, size)

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
