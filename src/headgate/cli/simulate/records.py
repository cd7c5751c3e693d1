"""Requests out of a log: a key, and a weight and a time where they are asked for."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from headgate.cli import keylog
from headgate.cli.errors import CommandError
from headgate.cli.times import nanoseconds

FORMATS = (*keylog.FORMATS, "csv", "jsonl", "regex")
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".xz", ".zst")
_CHUNK = 20_000


class Layout(NamedTuple):
    """How a log is written: where the key, the weight and the time of a request stand."""

    form: str = "auto"
    key: str | None = None
    weight: str | None = None
    pattern: re.Pattern[str] | None = None
    delimiter: str = ","
    time: str | None = None
    unit: str = "s"
    mismatch: str = "does not match the pattern"


class Chunk(NamedTuple):
    """Some requests in order; `weights` is None where every entry counts as one, `times` where no time is
    asked for. Times are nanoseconds."""

    keys: list[Any]
    weights: list[int] | None = None
    times: list[int] | None = None


class Request(NamedTuple):
    """One request of a log."""

    key: Any
    weight: int | None
    time: int | None


Entry = Request | ValueError
"""A request, or what is wrong with the line."""

BadLine = Callable[[int, str], None]
"""Told the number of a line and what is wrong with it; raises if that is fatal."""


def read_requests(path: Path, layout: Layout, bad_line: BadLine) -> Iterator[Chunk]:
    """The requests of a log, many at a time."""
    form = form_of(path, layout)
    if form in keylog.FORMATS:
        yield from map(Chunk, keylog.read_chunks(path, form))
        return
    with keylog.open_log(path) as log:
        lines = chain.from_iterable(text.split("\n") for text in keylog.text_blocks(log))
        yield from _chunks(_READERS[form](lines, layout), bad_line)


def form_of(path: Path, layout: Layout) -> str:
    """The format of a log, by the layout and by its name."""
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
        weights = [request.weight for request in good if request.weight is not None]
        times = [request.time for request in good if request.time is not None]
        if good:
            yield Chunk([request.key for request in good], weights or None, times or None)


def _csv(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """Columns by name, or by number from 1 where there is no header."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=layout.delimiter)
    header = [] if (layout.key or "").isdigit() else _header(reader)
    key = 0 if layout.key is None else _column(layout.key, header)
    columns = [key, _column(layout.weight, header), _column(layout.time, header)]
    for row in _rows(reader):
        if isinstance(row, ValueError):
            yield reader.line_num, row
        elif row:
            yield reader.line_num, _row_entry(row, columns, layout.unit)


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | ValueError]:
    """The rows, or what is wrong with one."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield ValueError(str(error))


def _header(reader: Iterator[list[str]]) -> list[str]:
    header = next(_rows(reader), [])
    if isinstance(header, ValueError):
        raise CommandError(f"no names of columns in the first line: {header}")
    return header


def _column(name: str | None, header: Sequence[str]) -> int | None:
    if name is None:
        return None
    if name in header:
        return header.index(name)
    if name.isdigit() and int(name) > 0:
        return int(name) - 1
    raise CommandError(f"no column {name!r}: the log has {', '.join(header)}")


def _row_entry(row: Sequence[str], columns: Sequence[int | None], unit: str) -> Entry:
    count = max(column or 0 for column in columns) + 1
    if len(row) < count:
        return ValueError(f"expected {count} columns or more, got {len(row)}")
    return _entry([None if column is None else row[column] for column in columns], unit)


def _jsonl(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """Fields by name; dots lead into objects."""
    if layout.key is None:
        raise CommandError("a log of JSON lines needs --key, the name of the field")
    names = [name and name.split(".") for name in (layout.key, layout.weight, layout.time)]
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _json_entry(line, names, layout.unit)


def _json_entry(line: str, names: Sequence[Any], unit: str) -> Entry:
    try:
        record = json.loads(line)
        return _entry([name and _field(record, name) for name in names], unit)
    except ValueError as error:
        return error


def _field(record: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(record, dict) or name not in record:
            raise ValueError(f"no field {'.'.join(path)!r}")
        record = record[name]
    if record is None:
        raise ValueError(f"the field {'.'.join(path)!r} is null")
    return record


def _regex(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """The group called key, or the first one, or the whole match; and those called weight or cost, and time.

    A weight group that takes no part in a match weighs 1.
    """
    pattern = layout.pattern
    if pattern is None:
        raise CommandError("the format regex needs --pattern")
    key = "key" if "key" in pattern.groupindex else min(1, pattern.groups)
    weight = next((name for name in ("weight", "cost") if name in pattern.groupindex), None)
    timed = "time" in pattern.groupindex
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        match = pattern.search(line)
        if match is None:
            yield number, ValueError(layout.mismatch)
        elif timed and match["time"] is None:
            yield number, ValueError("has no time")
        else:
            values = match[key], weight and (match[weight] or 1), match["time"] if timed else None
            yield number, _entry(values, layout.unit)


_READERS: dict[str, Callable[[Iterable[str], Layout], Iterator[tuple[int, Entry]]]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "regex": _regex,
}


def _entry(values: Sequence[Any], unit: str) -> Entry:
    key, weight, time = values
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        return ValueError(f"a key is a string or a whole number, got {key!r}")
    if weight is not None and not str(weight).isdecimal():
        return ValueError(f"a weight is a whole number, 0 or more, got {weight!r}")
    try:
        moment = None if time is None else nanoseconds(time, unit)
    except ValueError as error:
        return error
    return Request(key, None if weight is None else int(weight), moment)
