"""Tables for a terminal, for plain text and for Markdown, from one description."""

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from shutil import get_terminal_size
from textwrap import fill
from typing import Any, NamedTuple, TextIO

from headgate._base.texts import escaped, shortened

_PROSE_WIDTH = 100
_GAP = 2
_SHORTEST = 12
_UNBOUNDED = (2**31, 24)


class Row(NamedTuple):
    """Cells, the first one a label; an emphasised row is highlighted where the output supports it."""

    cells: Sequence[str]
    emphasis: bool = False


class Table(NamedTuple):
    """A heading, column titles (the first `texts` columns are aligned left, the others right), rows.

    Headings and prose may have names of files: what a terminal would act on is printed escaped.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    texts: int = 1


class Plain:
    """Aligned plain text."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def text(self, prose: str) -> None:
        width = min(get_terminal_size().columns, _PROSE_WIDTH)
        print(fill(escaped(prose), width, break_on_hyphens=False), file=self._out)

    def table(self, table: Table) -> None:
        """Fitted to the terminal if the output is one, in full width otherwise."""
        print(f"\n{escaped(table.title)}", file=self._out)
        for at, part in enumerate(fitted(table, get_terminal_size(_UNBOUNDED).columns)):
            if at:
                self.gap()
            for line in aligned(part):
                print(line, file=self._out)

    def gap(self) -> None:
        print(file=self._out)


class Markdown:
    """GitHub's tables."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def text(self, prose: str) -> None:
        print(escaped(prose), file=self._out)

    def table(self, table: Table) -> None:
        print(f"\n**{escaped(table.title)}**\n", file=self._out)
        print(_markdown_row(map(_one_line, table.columns)), file=self._out)
        print("|" + "---|" * table.texts + "---:|" * (len(table.columns) - table.texts), file=self._out)
        for row in table.rows:
            cells = [" ".join(cell.split()) for cell in row.cells]
            print(
                _markdown_row(f"**{cell}**" if row.emphasis and cell else cell for cell in cells),
                file=self._out,
            )

    def gap(self) -> None:
        print(file=self._out)


class Rich:
    """Tables by rich, which honours NO_COLOR and COLUMNS."""

    def __init__(self, out: TextIO) -> None:
        console = import_module("rich.console")
        self.console = console.Console(file=out, highlight=False)
        self._group = console.Group
        self._table = import_module("rich.table").Table
        self._text = import_module("rich.text").Text
        self._box = import_module("rich.box").SIMPLE_HEAD

    def text(self, prose: str) -> None:
        width = min(self.console.width, _PROSE_WIDTH)
        self.console.print(fill(escaped(prose), width, break_on_hyphens=False), markup=False)

    def table(self, table: Table) -> None:
        """In parts as wide as the terminal, or wider if a single column needs it."""
        width = self.console.width
        parts = fitted(table, width)
        self.console.print()
        self.console.print(self._text(escaped(table.title), style="bold"))
        for at, part in enumerate(parts):
            if at:
                self.gap()
            self.console.width = max(width, _width(column_widths(part)))
            self.console.print(self._drawn(part))
            self.console.width = width

    def drawn(self, table: Table, width: int) -> Any:
        """A table with its title as something to place on a screen, in parts no wider than `width`."""
        parts: list[Any] = [self._text(escaped(table.title), style="bold")]
        for part in fitted(table, width):
            parts += [self._drawn(part), self._text("")]
        return self._group(*parts)

    def _drawn(self, table: Table) -> Any:
        shown = self._table(box=self._box, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
        for at, title in enumerate(table.columns):
            side = "left" if at < table.texts else "right"
            shown.add_column(self._text(title), justify=side, no_wrap=True)
        for row in table.rows:
            shown.add_row(*map(self._text, row.cells), style="bold cyan" if row.emphasis else None)
        return shown

    def gap(self) -> None:
        self.console.print()


Printer = Plain | Markdown | Rich


def printer(out: TextIO | None = None) -> Printer:
    """The printer for `out`, by default standard output: rich on a terminal if it is installed."""
    out = sys.stdout if out is None else out
    if out.isatty() and find_spec("rich"):
        return Rich(out)
    return Plain(out)


def column_widths(table: Table) -> list[int]:
    """The widths of the columns in plain text."""
    columns = zip(table.columns, *(row.cells for row in table.rows), strict=True)
    return [max(map(len, (*title.split("\n"), *cells))) for title, *cells in columns]


def fitted(table: Table, width: int) -> list[Table]:
    """The table in parts no wider than `width`, each with the labels. Only labels are shortened, and
    not below twelve characters: those of the first column, or the last texts if there are no numbers.

    >>> table = Table("", ("severity", ""), [Row(("critical", "The error budget is overspent."))], texts=2)
    >>> [row.cells for part in fitted(table, 30) for row in part.rows]
    [['critical', 'The error...erspent.']]
    """
    widths = column_widths(table)
    if _width(widths) <= width:
        return [table]
    if len(widths) == table.texts:
        return [_with_short_texts(table, table.texts - 1, width)]
    short = _with_short_texts(table, 0, width - _GAP - max(widths[table.texts :]))
    widths = column_widths(short)
    parts: list[list[int]] = []
    for at in range(table.texts, len(widths)):
        columns = [*range(table.texts), *(parts[-1] if parts else []), at]
        if not parts or _width([widths[column] for column in columns]) > width:
            parts.append([])
        parts[-1].append(at)
    return [_part(short, [*range(table.texts), *part]) for part in parts]


def _with_short_texts(table: Table, column: int, most: int) -> Table:
    """The table with one of its label columns shortened so that these together fit into `most`."""
    widths = column_widths(table)[: table.texts]
    left = max(_SHORTEST, most - _width(widths) + widths[column])
    rows = [row._replace(cells=[shortened(cell, left) if at == column else cell
                                for at, cell in enumerate(row.cells)]) for row in table.rows]
    return table._replace(rows=rows)


def _part(table: Table, columns: Sequence[int]) -> Table:
    rows = [row._replace(cells=[row.cells[at] for at in columns]) for row in table.rows]
    return table._replace(columns=[table.columns[at] for at in columns], rows=rows)


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def aligned(table: Table) -> list[str]:
    """The lines of a table in plain text, with a rule under the column titles."""
    titles = [title.split("\n") for title in table.columns]
    height = max(map(len, titles))
    header = [[*([""] * (height - len(lines))), *lines] for lines in titles]
    grid = [*zip(*header, strict=True), *(row.cells for row in table.rows)]
    widths = column_widths(table)
    lines = [_aligned_row(cells, widths, table.texts) for cells in grid]
    return [*lines[:height], "-" * max(map(len, lines)), *lines[height:]]


def _aligned_row(cells: Sequence[str], widths: Sequence[int], texts: int) -> str:
    padded = [
        cell.ljust(width) if at < texts else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _one_line(title: str) -> str:
    return "<br>".join(" ".join(line.split()) for line in title.split("\n"))


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
