"""Recorded key logs: one key a line or binary records, plain or compressed."""

import gzip
import lzma
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from struct import iter_unpack
from typing import Any

from headgate.cli.errors import CommandError

FORMATS = ("auto", "lines", "int32be")
_RECORD = 4
_CHUNK = _RECORD << 16
_OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.GzipFile, b"\xfd7zXZ\0": lzma.LZMAFile}


def read_keys(path: Path, form: str = "auto") -> Iterator[str | int]:
    """The keys of a log in order: str from lines (blank ones are no keys), int from records.

    ``auto`` takes a log with a NUL byte near its start for big-endian 32-bit records.
    """
    try:
        with _open(path) as log:
            if form == "auto":
                form = "int32be" if b"\0" in log.peek(_RECORD) else "lines"
            yield from _records(log, path) if form == "int32be" else _lines(log)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise CommandError(f"cannot read {path}: {error}") from error


def _open(path: Path) -> BufferedReader:
    with path.open("rb") as file:
        magic = file.read(6)
    for prefix, opener in _OPENERS.items():
        if magic.startswith(prefix):
            return BufferedReader(opener(path))
    return path.open("rb")


def _lines(log: BufferedReader) -> Iterator[str]:
    for line in log:
        if key := line.strip():
            yield key.decode(errors="surrogateescape")


def _records(log: BufferedReader, path: Path) -> Iterator[int]:
    while chunk := log.read(_CHUNK):
        if len(chunk) % _RECORD:
            raise CommandError(f"cannot read {path}: it ends in the middle of a 32-bit record")
        for (key,) in iter_unpack(">i", chunk):
            yield key
