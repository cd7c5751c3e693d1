"""Progress of a command, on standard error if that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from shutil import get_terminal_size
from types import TracebackType
from typing import Any, Self

from headgate._base.texts import shortened


class Progress:
    """``with Progress(total) as progress: progress.step("what begins now")``; total None if it is unknown."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._done = -1
        self._shown = sys.stderr.isatty()
        self._bar: Any = _rich_bar() if self._shown and find_spec("rich") else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total)
        return self

    def step(self, label: str) -> None:
        """The previous step is done, and the step `label` begins."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=label)
        elif self._shown:
            count = "" if self._total is None else f"[{self._done + 1}/{self._total}] "
            self._rewrite(shortened(count + label, get_terminal_size().columns - 1))

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Off the terminal while something else is printed there; the next step shows it again."""
        self._hide()
        yield
        if self._bar is not None:
            self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown:
            self._rewrite("")

    def _rewrite(self, line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _rich_bar() -> Any:
    progress = import_module("rich.progress")
    console = import_module("rich.console").Console(stderr=True)
    columns = (
        progress.BarColumn(bar_width=24),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    return progress.Progress(*columns, console=console, transient=True)
