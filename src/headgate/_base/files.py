"""Files that are written as a whole."""

from __future__ import annotations

import os
import stat
from os import urandom

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Make `data` the content of `path`, so that a reader finds the old content or the new, and never a part.

    The data goes to a new file in the same folder, under an unpredictable name, which takes the
    place of `path` once it is on the disk. A regular file keeps its mode; a link is replaced, not followed;
    a device or a pipe is written to. Raises OSError, with `path` as it was.
    """
    target = os.path.abspath(os.fsdecode(path))
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with open(target, "wb") as out:
            out.write(data)
        return
    folder = os.path.dirname(target)
    fresh = os.path.join(folder, f".headgate-{urandom(8).hex()}.new")
    descriptor = os.open(fresh, _NEW, 0o666 if mode is None else 0o600)
    try:
        with open(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            if mode is not None:
                os.chmod(fresh, stat.S_IMODE(mode))
            os.fsync(out.fileno())
        os.replace(fresh, target)
    except BaseException:
        os.unlink(fresh)
        raise
    _sync_folder(folder)


def _mode(path: str) -> int | None:
    """The mode of the file at `path`, links followed; None if there is no file."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _sync_folder(folder: str) -> None:
    """Have the new name on the disk too, where a folder can be opened for that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        pass
