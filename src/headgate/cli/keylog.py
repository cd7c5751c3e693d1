"""Recorded key logs: one key per line or binary records, plain or compressed."""

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
from struct import Struct
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from headgate.cli.errors import CommandError, require

FORMATS = ("auto", "lines", "int32be", "oracleGeneral")
ORACLE = "oracleGeneral"
STDIN = Path("-")
_INT32 = Struct(">i")
_ORACLE = Struct("<IQIq")
"""A record of libCacheSim: time in seconds, key, size, and the number of the next request for the key."""
_CHUNK = 24 << 16
_MAGIC = 6
_NEVER_AGAIN = (-1, 2**63 - 1)
_MOST_REQUESTS = 2**48


def read_keys(path: Path, form: str = "auto") -> Iterator[str | int]:
    """The keys of a log in order, as from read_chunks."""
    return chain.from_iterable(read_chunks(path, form))


def read_chunks(path: Path, form: str = "auto") -> Iterator[list[str] | list[int]]:
    """The keys of a log in chunks: str from lines (empty ones are skipped), int from records."""
    with open_log(path) as log:
        form = form_of(log, path, form)
        if form == ORACLE:
            for keys, _, _ in oracle_requests(log, path):
                yield keys
        else:
            yield from simple_keys(log, path, form)


def form_of(log: BufferedReader, path: Path, form: str) -> str:
    """The format of a log. ``auto`` detects it by name and by the start of the log, which is not consumed.

    Binary records contain NUL bytes. Those of libCacheSim's oracleGeneral are recognized by times that never
    step back and by the numbers of later requests.
    """
    if form != "auto":
        return form
    if any(suffix.lower() == f".{ORACLE.lower()}" for suffix in path.suffixes):
        return ORACLE
    start = log.peek(_CHUNK)
    if b"\0" not in start:
        return "lines"
    return ORACLE if _is_oracle(start) else "int32be"


def _is_oracle(start: bytes) -> bool:
    """Whether all complete records at the start of a log are valid in the format oracleGeneral."""
    earlier = 0
    records = list(_ORACLE.iter_unpack(start[: len(start) // _ORACLE.size * _ORACLE.size]))
    for number, (time, _, _, following) in enumerate(records, 1):
        if time < earlier or not (following in _NEVER_AGAIN or number <= following < _MOST_REQUESTS):
            return False
        earlier = time
    return bool(records)


def oracle_requests(log: BufferedReader, path: Path) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """The keys, their sizes, and the times in nanoseconds."""
    for block in _blocks(log, path, _ORACLE):
        times, keys, sizes, _ = zip(*_ORACLE.iter_unpack(block), strict=True)
        yield list(keys), list(sizes), [time * 10**9 for time in times]


def simple_keys(log: BufferedReader, path: Path, form: str) -> Iterator[list[str] | list[int]]:
    """The keys of lines or of big-endian 32-bit records."""
    if form == "lines":
        yield from _lines(log)
    else:
        for block in _blocks(log, path, _INT32):
            yield [key for (key,) in _INT32.iter_unpack(block)]


@contextmanager
def open_log(path: Path) -> Iterator[BufferedReader]:
    """The log, decompressed; ``-`` is standard input. Raises CommandError if it cannot be read."""
    try:
        with sys.stdin.buffer if path == STDIN else path.open("rb") as file:
            yield _decompressed(file)
    except _decoding_errors() as error:
        raise CommandError(f"cannot read {path}: {error}") from error


@contextmanager
def rereadable(log: Path) -> Iterator[Path]:
    """A path that can be read more than once: standard input is copied to a temporary file."""
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


def _blocks(log: BufferedReader, path: Path, record: Struct) -> Iterator[bytes]:
    """The log in blocks of whole records."""
    while block := log.read(_CHUNK):
        if len(block) % record.size:
            bits = 8 * record.size
            raise CommandError(f"cannot read {path}: it ends in the middle of a {bits}-bit record")
        yield block


def _open_zstd(file: BinaryIO) -> Any:
    return require("zstandard", "a zstd log").ZstdDecompressor().stream_reader(file, read_across_frames=True)


def _decoding_errors() -> tuple[type[Exception], ...]:
    """The exceptions of reading; zstandard's only if it has been imported."""
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
