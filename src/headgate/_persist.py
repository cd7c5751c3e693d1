"""Caches in files: a header, one record an entry, a checksum.

    magic and version | name of the serializer | number of records | records, each with its length | checksum

Numbers are eight bytes, little-endian; a record is ``[key, value, left, left by ttl, tags]`` as the
serializer writes it, with nanoseconds or null for no end; the checksum is BLAKE2b of all before it.
"""

from __future__ import annotations

import os

from headgate._lifetimes import NEVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    Row = tuple[Any, Any, int, int, tuple[str, ...]]
    Lease = tuple[Any, int, int, tuple[str, ...]]

_MAGIC = b"headgate cache 1\n"
_CHECKSUM = 16


def _checksum(data: bytes) -> bytes:
    from hashlib import blake2b

    return blake2b(data, digest_size=_CHECKSUM).digest()


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def chosen(serializer: Any) -> Any:
    """`serializer`, or json for None; it has ``dumps`` and ``loads``."""
    if serializer is None:
        import json

        return json
    for name in ("dumps", "loads"):
        if not callable(getattr(serializer, name, None)):
            raise TypeError(f"serializer must have dumps and loads, got {serializer!r}")
    return serializer


def _name(serializer: Any) -> bytes:
    return getattr(serializer, "__name__", type(serializer).__qualname__).encode()


def leases(rows: list[Row]) -> list[Lease]:
    """Key, nanoseconds left in all and by ttl, and tags, of the rows that have any of them."""
    return [(key, left, hard_left, tags) for key, _, left, hard_left, tags in rows if left != NEVER or tags]


def _record(row: Row, serializer: Any) -> bytes:
    key, value, left, hard_left, tags = row
    ends = [None if end == NEVER else end for end in (left, hard_left)]
    written = serializer.dumps([key, value, *ends, list(tags)])
    data = written.encode() if isinstance(written, str) else bytes(written)
    if serializer.loads(data)[0] != key:
        raise TypeError(f"key {key!r} does not survive {_name(serializer).decode()}")
    return data


def dump_rows(rows: list[Row], file: str | os.PathLike[str] | IO[bytes], serializer: Any) -> None:
    """Write `rows` to a path, which is exchanged as a whole, or to a binary file."""
    serializer = chosen(serializer)
    records = [_framed(_record(row, serializer)) for row in rows]
    body = b"".join([_MAGIC, _framed(_name(serializer)), len(rows).to_bytes(8, "little"), *records])
    data = body + _checksum(body)
    if not isinstance(file, str | os.PathLike):
        file.write(data)
        return
    target = os.fspath(file)
    fresh = f"{target}.{os.getpid()}.new"
    try:
        with open(fresh, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, target)
    except BaseException:
        if os.path.exists(fresh):
            os.unlink(fresh)
        raise


def load_rows(file: str | os.PathLike[str] | IO[bytes], serializer: Any) -> list[Row]:
    """The rows that ``dump_rows`` wrote; ValueError if the file is anything else, or was altered."""
    serializer = chosen(serializer)
    if isinstance(file, str | os.PathLike):
        with open(file, "rb") as source:
            data = source.read()
    else:
        data = file.read()
    if not data.startswith(_MAGIC):
        raise ValueError(f"file must be a dump of a cache of version 1, got {data[:len(_MAGIC)]!r}")
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    if _checksum(body) != checksum:
        raise ValueError(f"file must be whole, got {len(data)} bytes of another checksum")
    frames = _frames(body[len(_MAGIC):])
    name = next(frames)
    if name != _name(serializer):
        raise ValueError(f"serializer must be {name.decode()}, got {_name(serializer).decode()}")
    return [_row(serializer.loads(frame)) for frame in frames]


def _frames(data: bytes) -> Iterator[bytes]:
    """The name of the serializer, then the records."""
    size = int.from_bytes(data[:8], "little")
    yield data[8:8 + size]
    at = 16 + size
    while at < len(data):
        size = int.from_bytes(data[at:at + 8], "little")
        yield data[at + 8:at + 8 + size]
        at += 8 + size


def _row(record: Any) -> Row:
    key, value, *ends, tags = record
    hash(key)
    left, hard_left = [NEVER if end is None else end for end in ends]
    return key, value, left, hard_left, tuple(tags)
