"""Documents, their changes and problems as tables and as JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from headgate._base.texts import shortened
from headgate.cli.tables import Printer, Row, Table, column_widths
from headgate.config import Change, Document, Problem

_GAP = 2
_WIDE = (2**31, 24)
_SHORTEST = 10


def show_document(file: Path, document: Document, to: Printer) -> None:
    """What a document names, and how it is set."""
    rows = [Row((place, _settings(fields))) for place, fields in _objects(document)]
    if not rows:
        to.text(f"{file} is valid, and empty.")
        return
    to.table(_narrowed(Table(f"{file} is valid", ("name", "settings"), rows, texts=2)))


def _objects(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a document has, each with its fields as they were written."""
    for section, objects in document.sections.items():
        for name in objects:
            yield f"{section}.{name}", document.shown(section, name)
    if (http := document.shown("http")) is not None:
        yield "http", http


def _settings(fields: dict[str, Any]) -> str:
    return ", ".join([f"{name}: {_written(value)}" for name, value in fields.items() if value is not None])


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def show_changes(old: Path, new: Path, changes: Sequence[Change], to: Printer) -> None:
    """What changes, and what becomes of it in a process that runs."""
    if not changes:
        to.text(f"{old} and {new} say the same.")
        return
    rows = [Row((change.place, change.old, change.new, _how(change)), not change.live) for change in changes]
    to.table(_narrowed(Table("Changes", ("field", "old", "new", "applied"), rows, texts=4)))
    refused = [change.place for change in changes if not change.live]
    if refused:
        to.gap()
        to.text(f"A running process refuses {new}: what is not applied live needs an object with a new name.")


def _how(change: Change) -> str:
    if change.field is None:
        return "removed" if change.old else "added"
    return "live" if change.live else "refused"


def _narrowed(table: Table) -> Table:
    """The table as wide as the terminal: names are shortened to half of it, then values, then names again."""
    width = get_terminal_size(_WIDE).columns
    widths = column_widths(table)
    names, values = range(1), range(1, min(3, len(widths)))
    for columns, least in ((names, width // 2), (values, _SHORTEST), (names, _SHORTEST)):
        while sum(widths) + _GAP * (len(widths) - 1) > width:
            widest = max(columns, key=widths.__getitem__)
            if widths[widest] <= least:
                break
            widths[widest] -= 1
    rows = [
        row._replace(cells=[shortened(cell, most) for cell, most in zip(row.cells, widths, strict=True)])
        for row in table.rows
    ]
    return table._replace(rows=rows)


def document_as_json(document: Document) -> dict[str, Any]:
    return {"valid": True, "objects": dict(_objects(document))}


def changes_as_json(changes: Iterable[Change]) -> list[dict[str, Any]]:
    return [change._asdict() | {"place": change.place} for change in changes]


def problems_as_json(problems: Iterable[Problem]) -> dict[str, Any]:
    return {"valid": False, "errors": [_problem_as_json(problem) for problem in problems]}


def unknown_as_json(unknown: Iterable[Problem]) -> dict[str, Any]:
    return {"valid": True, "unknown": [_problem_as_json(problem) for problem in unknown]}


def _problem_as_json(problem: Problem) -> dict[str, Any]:
    mark = problem.mark._asdict() if problem.mark else {"source": None, "line": None, "column": None}
    return {"place": problem.place, "message": problem.message, "hint": problem.hint} | mark
