"""Recorded key logs: one key a line or binary records, plain or compressed."""

import gzip
import lzma
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain
from pathlib import Path
from shutil import copyfileobj
from struct import iter_unpack
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from headgate.cli.errors import CommandError, require

FORMATS = ("auto", "lines", "int32be")
STDIN = Path("-")
_RECORD = 4
_CHUNK = _RECORD << 18
_MAGIC = 6


def read_keys(path: Path, form: str = "auto") -> Iterator[str | int]:
    """The keys of a log in order, as read_chunks has them."""
    return chain.from_iterable(read_chunks(path, form))


def read_chunks(path: Path, form: str = "auto") -> Iterator[list[str] | list[int]]:
    """The keys of a log, many at a time: str from lines (empty ones are no keys), int from records.

    ``auto`` takes a log with a NUL byte near its start for big-endian 32-bit records.
    """
    with open_log(path) as log:
        if form == "auto":
            form = "int32be" if b"\0" in log.peek(_RECORD) else "lines"
        yield from _records(log, path) if form == "int32be" else _lines(log)


@contextmanager
def open_log(path: Path) -> Iterator[BufferedReader]:
    """The log, decompressed; ``-`` is standard input. What cannot be read is a CommandError."""
    try:
        with sys.stdin.buffer if path == STDIN else path.open("rb") as file:
            yield _decompressed(file)
    except _decoding_errors() as error:
        raise CommandError(f"cannot read {path}: {error}") from error


@contextmanager
def rereadable(log: Path) -> Iterator[Path]:
    """A path that can be read more than once: standard input goes through a temporary file."""
    if log != STDIN:
        yield log
        return
    with TemporaryDirectory() as directory:
        copy = Path(directory, "stdin")
        with copy.open("wb") as file:
            copyfileobj(sys.stdin.buffer, file)
        yield copy


def text_blocks(log: BufferedReader) -> Iterator[str]:
    """The text of a log in blocks of whole lines."""
    rest = b""
    if log.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
        log.read(len(BOM_UTF8))
    while block := log.read(_CHUNK):
        whole, newline, tail = block.rpartition(b"\n")
        if newline:
            yield (rest + whole).decode(errors="surrogateescape").replace("\r\n", "\n")
            rest = tail
        else:
            rest += tail
    yield rest.decode(errors="surrogateescape")


def _lines(log: BufferedReader) -> Iterator[list[str]]:
    for text in text_blocks(log):
        yield list(filter(None, text.split("\n")))


def _records(log: BufferedReader, path: Path) -> Iterator[list[int]]:
    while chunk := log.read(_CHUNK):
        if len(chunk) % _RECORD:
            raise CommandError(f"cannot read {path}: it ends in the middle of a 32-bit record")
        yield [key for (key,) in iter_unpack(">i", chunk)]


def _open_zstd(file: BinaryIO) -> Any:
    return require("zstandard", "a zstd log").ZstdDecompressor().stream_reader(file, read_across_frames=True)


def _decoding_errors() -> tuple[type[Exception], ...]:
    """What reading raises; zstandard's error only when it is in use."""
    zstandard = sys.modules.get("zstandard")
    return (OSError, EOFError, zlib.error, lzma.LZMAError, *([zstandard.ZstdError] if zstandard else []))


_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}


def _decompressed(file: Any) -> BufferedReader:
    magic = file.peek(_MAGIC)
    for prefix, opener in _OPENERS.items():
        if magic.startswith(prefix):
            return BufferedReader(opener(file))
    return BufferedReader(file)
