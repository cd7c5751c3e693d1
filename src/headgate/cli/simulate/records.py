"""Requests out of a log: a key, and a weight where the log has one."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from headgate.cli import keylog
from headgate.cli.errors import CommandError

FORMATS = (*keylog.FORMATS, "csv", "jsonl", "regex")
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".xz", ".zst")
_CHUNK = 20_000


class Layout(NamedTuple):
    """How a log is written: where the key and the weight of a request stand."""

    form: str = "auto"
    key: str | None = None
    weight: str | None = None
    pattern: re.Pattern[str] | None = None
    delimiter: str = ","


class Chunk(NamedTuple):
    """Some requests in order; `weights` is None where every entry counts as one."""

    keys: list[Any]
    weights: list[int] | None = None


Entry = tuple[Any, int | None] | ValueError
"""The key and the weight, or what is wrong with the line."""

BadLine = Callable[[int, str], None]
"""Told the number of a line and what is wrong with it; raises if that is fatal."""


def read_requests(path: Path, layout: Layout, bad_line: BadLine) -> Iterator[Chunk]:
    """The requests of a log, many at a time."""
    form = _form_of(path, layout)
    if form in keylog.FORMATS:
        yield from map(Chunk, keylog.read_chunks(path, form))
        return
    with keylog.open_log(path) as log:
        lines = chain.from_iterable(text.split("\n") for text in keylog.text_blocks(log))
        yield from _chunks(_READERS[form](lines, layout), bad_line)


def _form_of(path: Path, layout: Layout) -> str:
    if layout.form != "auto":
        return layout.form
    if layout.pattern is not None:
        return "regex"
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSED]
    return _SUFFIXES.get(suffixes[-1] if suffixes else "", "auto")


def _chunks(entries: Iterator[tuple[int, Entry]], bad_line: BadLine) -> Iterator[Chunk]:
    while batch := list(islice(entries, _CHUNK)):
        good = []
        for number, entry in batch:
            if isinstance(entry, ValueError):
                bad_line(number, str(entry))
            else:
                good.append(entry)
        weights = [weight for _, weight in good if weight is not None]
        yield Chunk([key for key, _ in good], weights or None)


def _csv(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """Columns by name, or by number from 1 where there is no header."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=layout.delimiter)
    header = [] if (layout.key or "").isdigit() else next(reader, [])
    key = 0 if layout.key is None else _column(layout.key, header)
    weight = None if layout.weight is None else _column(layout.weight, header)
    for row in reader:
        if row:
            yield reader.line_num, _row_entry(row, key, weight)


def _column(name: str, header: Sequence[str]) -> int:
    if name in header:
        return header.index(name)
    if name.isdigit() and int(name) > 0:
        return int(name) - 1
    raise CommandError(f"no column {name!r}: the log has {', '.join(header)}")


def _row_entry(row: Sequence[str], key: int, weight: int | None) -> Entry:
    columns = max(key, weight or 0) + 1
    if len(row) < columns:
        return ValueError(f"expected {columns} columns or more, got {len(row)}")
    return _entry(row[key], None if weight is None else row[weight])


def _jsonl(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """Fields by name; dots lead into objects."""
    if layout.key is None:
        raise CommandError("a log of JSON lines needs --key, the name of the field")
    key = layout.key.split(".")
    weight = None if layout.weight is None else layout.weight.split(".")
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _json_entry(line, key, weight)


def _json_entry(line: str, key: Sequence[str], weight: Sequence[str] | None) -> Entry:
    try:
        record = json.loads(line)
        return _entry(_field(record, key), None if weight is None else _field(record, weight))
    except ValueError as error:
        return error


def _field(record: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(record, dict) or name not in record:
            raise ValueError(f"no field {'.'.join(path)!r}")
        record = record[name]
    return record


def _regex(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """The group called key, or the first one, or the whole match; and the group called weight."""
    pattern = layout.pattern
    if pattern is None:
        raise CommandError("the format regex needs --pattern")
    key = "key" if "key" in pattern.groupindex else min(1, pattern.groups)
    weighted = "weight" in pattern.groupindex
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        match = pattern.search(line)
        if match is None:
            yield number, ValueError("does not match the pattern")
        else:
            yield number, _entry(match[key], match["weight"] if weighted else None)


_READERS: dict[str, Callable[[Iterable[str], Layout], Iterator[tuple[int, Entry]]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "regex": _regex,
}


def _entry(key: Any, weight: Any) -> Entry:
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        return ValueError(f"a key is a string or a whole number, got {key!r}")
    return (key, None) if weight is None else _weighed(key, weight)


def _weighed(key: Any, weight: Any) -> Entry:
    if not str(weight).isdecimal():
        return ValueError(f"a weight is a whole number, 0 or more, got {weight!r}")
    return key, int(weight)
