"""The screen of a terminal, redrawn until a key ends it."""

import os
import select
import sys
import time
from types import TracebackType
from typing import Any, Self

from headgate.cli.errors import require
from headgate.cli.tables import Rich, Table, fitted

try:
    import termios
    import tty
except ImportError:  # Windows
    HAS_KEYS = False
else:
    HAS_KEYS = True

_TWO_COLUMNS, _THREE_COLUMNS = 120, 190
_GUTTER = 4


class Screen:
    """``with Screen() as screen:`` draw and wait, in the alternate screen of the terminal."""

    def __init__(self) -> None:
        live = require("rich.live", "top without --once")
        self._rich = Rich(sys.stdout)
        self._group = require("rich.console", "").Group
        self._grid = require("rich.table", "").Table.grid
        self._text = require("rich.text", "").Text
        self._live = live.Live(console=self._rich.console, screen=True, auto_refresh=False)
        self._keys = _Keys()

    def __enter__(self) -> Self:
        self._keys.start()
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self._keys.stop()

    def draw(self, head: str, tables: list[Table]) -> None:
        """A heading, and as many of the tables as fit, in order."""
        width, height = self._rich.console.size
        columns, own = laid_out(tables, width, height - 1)
        hidden = len(tables) - sum(map(len, columns))
        head = f"{head}  {hidden} more in a larger window" if hidden else head
        title = self._text(head, style="bold", no_wrap=True, overflow="ellipsis")
        grid = self._grid(padding=(0, _GUTTER, 0, 0))
        for _ in columns:
            grid.add_column(width=own)
        drawn = ([self._rich.drawn(table, own) for table in column] for column in columns)
        grid.add_row(*(self._group(*column) for column in drawn))
        self._live.update(self._group(title, grid), refresh=True)

    def wait(self, seconds: float) -> bool:
        """Wait for the next reading; False if a key ends the command."""
        return self._keys.wait(seconds)


def laid_out(tables: list[Table], width: int, height: int) -> tuple[list[list[Table]], int]:
    """Tables in as many columns as are readable, and their width; each under those that end first.

    What does not fit is left out, but the first table of a column, which is cut off.

    >>> one, two, three = (Table(name, ("a",), []) for name in ("one", "two", "three"))
    >>> laid_out([one, two, three], 80, 8) == ([[one, two]], 80)
    True
    >>> laid_out([one, two, three], 124, 8) == ([[one, three], [two]], 60)
    True
    """
    count = 1 + (width >= _TWO_COLUMNS) + (width >= _THREE_COLUMNS)
    own = (width - _GUTTER * (count - 1)) // count
    columns: list[list[Table]] = [[] for _ in range(count)]
    heights = [0] * count
    for table in tables:
        at, lines = heights.index(min(heights)), _height(table, own)
        if not heights[at] or heights[at] + lines <= height:
            columns[at].append(table)
            heights[at] += lines
    return columns, own


def _height(table: Table, width: int) -> int:
    """The lines of a table with its title and the gaps after its parts."""
    titles = max(title.count("\n") + 1 for title in table.columns)
    return 1 + len(fitted(table, width)) * (titles + 2 + len(table.rows))


class _Keys:
    """Keys as they are pressed, where standard input is a terminal of a POSIX system."""

    def __init__(self) -> None:
        self._file = -1
        self._before: Any = None

    def start(self) -> None:
        if HAS_KEYS and sys.stdin.isatty():
            self._file = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)

    def stop(self) -> None:
        if self._file >= 0:
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def wait(self, seconds: float) -> bool:
        if self._file < 0:
            time.sleep(seconds)
            return True
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._file], [], [], left)[0]:
                pressed = os.read(self._file, 64)
                if not pressed or pressed[:1] in (b"q", b"Q"):
                    return False
        return True
