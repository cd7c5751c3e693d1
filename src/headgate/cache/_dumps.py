"""Caches in files: a header, one record an entry, a checksum.

    magic and version | name of the serializer | number of records | records, each with its length | checksum

Numbers are eight bytes, little-endian; a record is ``[key, value, left, left by ttl, tags]`` as the
serializer writes it, with nanoseconds or null for no end; the checksum is BLAKE2b of all before it.
"""

from __future__ import annotations

import os

from headgate._base.files import write_file
from headgate.cache._lifetimes import NEVER, checked_tags
from headgate.cache._views import _ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from headgate.cache._lifetimes import Row

_MAGIC = b"headgate cache 1\n"
_CHECKSUM = 16
_PLAIN = frozenset({bool, bytes, complex, float, int, str, type(None)})
_CONTAINERS = frozenset({dict, list, tuple})


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


def _record(row: Row, serializer: Any) -> bytes:
    key, value, left, ttl_left, tags = row
    ends = [None if end == NEVER else end for end in (left, ttl_left)]
    written = serializer.dumps([key, value, *ends, list(tags)])
    data = written.encode() if isinstance(written, str) else bytes(written)
    read_key, read_value = serializer.loads(data)[:2]
    if read_key != key or not _is_same(key, read_key):
        raise TypeError(f"key {key!r} does not survive {_name(serializer).decode()}")
    if not _is_same(value, read_value):
        raise TypeError(f"value {value!r} of key {key!r} does not survive {_name(serializer).decode()}")
    return data


def _is_same(old: Any, new: Any) -> bool:
    """Whether `new` is a copy of `old`: of the same types, with equal parts.

    Of an object that is neither a container nor a plain value of Python's own, only the type is compared.

    >>> _is_same({"a": [1, 2.0]}, {"a": [1, 2.0]}), _is_same((1, 2), [1, 2]), _is_same({1: 2}, {"1": 2})
    (True, False, False)
    """
    pairs: list[tuple[Any, Any]] = [(old, new)]
    seen = set()
    while pairs:
        old, new = pairs.pop()
        kind = type(old)
        if kind is not type(new):
            return False
        if kind in _PLAIN:
            if old != new and old == old:
                return False
        elif kind in _CONTAINERS and id(old) not in seen:
            seen.add(id(old))
            if len(old) != len(new):
                return False
            pairs += _parts(old, new) if kind is dict else zip(old, new, strict=True)
    return True


def _parts(old: dict[Any, Any], new: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """What must be the same in two dicts of one size; the order of plain keys does not matter."""
    if not _PLAIN.issuperset(map(type, (*old, *new))):
        return [*zip(old, new, strict=True), *zip(old.values(), new.values(), strict=True)]
    typed = {(type(key), key): value for key, value in new.items()}
    return [(value, typed.get((type(key), key), _ABSENT)) for key, value in old.items()]


def dump_rows(rows: list[Row], file: str | os.PathLike[str] | IO[bytes], serializer: Any) -> None:
    """Write `rows` to a path, which is exchanged as a whole, or to a binary file."""
    serializer = chosen(serializer)
    records = [_framed(_record(row, serializer)) for row in rows]
    body = b"".join([_MAGIC, _framed(_name(serializer)), len(rows).to_bytes(8, "little"), *records])
    data = body + _checksum(body)
    if isinstance(file, str | os.PathLike):
        write_file(file, data)
    else:
        file.write(data)


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
    frames = list(_frames(body[len(_MAGIC):]))
    if frames[0] != _name(serializer):
        raise ValueError(f"serializer must be {frames[0].decode()}, got {_name(serializer).decode()}")
    return [_row(serializer.loads(frame)) for frame in frames[1:]]


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
    """The row of a record; ValueError if it is anything else."""
    try:
        key, value, *ends, tags = record
        hash(key)
        left, ttl_left = [NEVER if end is None else end for end in ends]
        if not all(type(end) is int and 0 < end <= NEVER for end in (left, ttl_left)):
            raise ValueError
        if type(tags) is not list:
            raise TypeError
        return key, value, left, ttl_left, checked_tags(tuple(tags))
    except (TypeError, ValueError):
        raise ValueError(f"file must hold entries, got {record!r}") from None
