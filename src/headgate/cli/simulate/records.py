"""Requests from a log: keys, and weights and times if they are needed."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, starmap
from pathlib import Path
from typing import Any, NamedTuple

from headgate.cli import keylog
from headgate.cli.errors import CommandError
from headgate.cli.times import nanoseconds

FORMATS = (*keylog.FORMATS, "csv", "jsonl", "regex")
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_COMPRESSED = (".gz", ".xz", ".zst")
_CHUNK = 20_000
_WORDS = re.compile(r"\s*[^\W\d][\w .-]*", re.ASCII)
_MOST_WEIGHT = 2**63 - 1
_DIGITS = 18


class Layout(NamedTuple):
    """The format of a log: where to find the key, the weight and the time of a request.

    `header` says whether the first line of CSV names the columns; None decides by the options and the line.
    """

    form: str = "auto"
    key: str | None = None
    weight: str | None = None
    pattern: re.Pattern[str] | None = None
    delimiter: str = ","
    time: str | None = None
    unit: str = "s"
    mismatch: str = "does not match the pattern"
    header: bool | None = None


class Chunk(NamedTuple):
    """Some requests in order; `weights` is None if every entry weighs 1, `times` if times are not needed.
    Times are in nanoseconds."""

    keys: list[Any]
    weights: list[int] | None = None
    times: list[int] | None = None


class Request(NamedTuple):
    """One request of a log."""

    key: Any
    weight: int | None
    time: int | None


Entry = Request | ValueError
"""A request, or the error of its line."""

CheckFormat = Callable[[str], None]
"""Called with the format of a log once it is known; raises if the options do not fit."""

_FIELDS = ("csv", "jsonl")
_APPLICABLE = {
    "key": _FIELDS,
    "weight": _FIELDS,
    "cost": _FIELDS,
    "time": _FIELDS,
    "time-unit": (*_FIELDS, "regex"),
    "delimiter": ("csv",),
    "header": ("csv",),
    "pattern": ("regex",),
    "ttl": (*_FIELDS, "regex", keylog.ORACLE),
}
"""The formats in which an option has an effect."""

_HINTS = {
    "regex": ", whose pattern names the groups",
    keylog.ORACLE: ", whose records have all fields",
}

BadLine = Callable[[int, str], None]
"""Called with the number of a line and its error; raises if that is fatal."""


def read_requests(path: Path, layout: Layout, bad_line: BadLine, check: CheckFormat) -> Iterator[Chunk]:
    """The requests of a log, in chunks."""
    with keylog.open_log(path) as log:
        form = keylog.form_of(log, path, form_of(path, layout))
        check(form)
        if form == keylog.ORACLE:
            yield from starmap(Chunk, keylog.oracle_requests(log, path))
        elif form in keylog.FORMATS:
            yield from map(Chunk, keylog.simple_keys(log, path, form))
        else:
            lines = chain.from_iterable(text.split("\n") for text in keylog.text_blocks(log))
            yield from _chunks(_READERS[form](lines, layout), bad_line)


def checker(options: Mapping[str, Any]) -> CheckFormat:
    """A check that refuses formats in which a given option has no effect; `options` are values by name."""
    given = [name for name, value in options.items() if value is not None]

    def check(form: str) -> None:
        for name in given:
            if form not in _APPLICABLE[name]:
                formats = " or ".join(_APPLICABLE[name])
                raise CommandError(f"--{name} needs the format {formats}, not {form}{_HINTS.get(form, '')}")

    return check


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
    header, first = _header(reader, layout)
    key = 0 if layout.key is None else _column(layout.key, header)
    columns = [key, _column(layout.weight, header), _column(layout.time, header)]
    for number, row in chain(first, _rows(reader)):
        if isinstance(row, ValueError):
            yield number, row
        elif row:
            yield number, _row_entry(row, columns, layout.unit)


def _rows(reader: Any) -> Iterator[tuple[int, list[str] | ValueError]]:
    """The rows, or their errors, with line numbers."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, ValueError(str(error))
        else:
            yield reader.line_num, row


def _header(reader: Any, layout: Layout) -> tuple[list[str], list[tuple[int, list[str] | ValueError]]]:
    """The names of the columns if the first line has them, otherwise that line as a row.

    If all columns are given by number, the first line is a header only if it consists of words.
    """
    if layout.header is False:
        return [], []
    first = next(_rows(reader), (1, []))
    row = first[1]
    by_number = all(name is None or name.isdecimal() for name in (layout.key, layout.weight, layout.time))
    if layout.header is None and layout.key is not None and by_number:
        words = not isinstance(row, ValueError) and all(map(_WORDS.fullmatch, row))
        return (row, []) if words and not isinstance(row, ValueError) else ([], [first])
    if isinstance(row, ValueError):
        raise CommandError(f"no names of columns in the first line: {row}")
    return row, []


def _column(name: str | None, header: Sequence[str]) -> int | None:
    if name is None:
        return None
    if name in header:
        return header.index(name)
    if name.isdecimal() and int(name[:_DIGITS]) > 0:
        return int(name[:_DIGITS]) - 1
    raise CommandError(f"no column {name!r}: the log has {', '.join(header) or 'no names of columns'}")


def _row_entry(row: Sequence[str], columns: Sequence[int | None], unit: str) -> Entry:
    count = max(column or 0 for column in columns) + 1
    if len(row) < count:
        return ValueError(f"expected {count} columns or more, got {len(row)}")
    return _entry([None if column is None else row[column] for column in columns], unit)


def _jsonl(lines: Iterable[str], layout: Layout) -> Iterator[tuple[int, Entry]]:
    """Fields by name; dots separate the names of nested objects."""
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
    """The group named key, or the first group, or the whole match; the groups named weight or cost, and time.

    The weight is 1 if its group does not take part in the match.
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


def _is_weight(text: str) -> bool:
    return text.isdecimal() and len(text) <= len(str(_MOST_WEIGHT)) and int(text) <= _MOST_WEIGHT


def _entry(values: Sequence[Any], unit: str) -> Entry:
    key, weight, time = values
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        return ValueError(f"a key is a string or a whole number, got {key!r}")
    if weight is not None and not _is_weight(str(weight)):
        return ValueError(f"a weight is a whole number, 0 or more, and less than 2**63, got {weight!r}")
    try:
        moment = None if time is None else nanoseconds(time, unit)
    except ValueError as error:
        return error
    return Request(key, None if weight is None else int(weight), moment)
