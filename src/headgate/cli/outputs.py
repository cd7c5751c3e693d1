"""The outputs of a report: text, Markdown, JSON, a plot."""

import argparse
import json
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from headgate._base.files import write_file
from headgate.cli.errors import CommandError, require
from headgate.cli.tables import Markdown, Printer, printer

_PLOT = "--plot"
_STDOUT = Path("-")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write JSON ('-': to standard output, instead of text)"
    )
    parser.add_argument(_PLOT, type=Path, metavar="FILE.svg", help="write a plot; needs headgate[cli]")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


def check_outputs(args: argparse.Namespace, *more: Path | None) -> None:
    """Check the outputs before the work starts; `more` are further files that the command writes."""
    if args.markdown and args.json == _STDOUT:
        raise CommandError("--markdown has no effect with --json -")
    if args.plot:
        _check_plot(args.plot)
    for path in filter(None, (args.json, args.plot, *more)):
        if not path.parent.is_dir():
            raise CommandError(f"cannot write {path}: {path.parent} is not a directory")
        if path.is_dir():
            raise CommandError(f"cannot write {path}: it is a directory")


def _check_plot(path: Path) -> None:
    known = require("matplotlib.figure", _PLOT).Figure().canvas.get_supported_filetypes()
    if path.suffix and path.suffix[1:].lower() not in known:
        raise CommandError(f"{_PLOT} must end in one of {', '.join(known)}, got {path}")


class Screen:
    """The text, printed part by part as it becomes known; nothing with ``--json -``.

    If its reader closes the pipe and files were requested, the rest is not printed, and `close` raises
    BrokenPipeError; otherwise `show` does.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._printer: Printer | None = None
        if args.json != _STDOUT:
            self._printer = Markdown(sys.stdout) if args.markdown else printer()
        self._writes_files = bool(args.json or args.plot)
        self._broken: BrokenPipeError | None = None

    def show(self, part: Callable[[Printer], None]) -> None:
        if self._printer is None or self._broken:
            return
        try:
            part(self._printer)
            sys.stdout.flush()
        except BrokenPipeError as error:
            if not self._writes_files:
                raise
            self._broken = error

    def close(self) -> None:
        if self._broken:
            raise self._broken


def deliver(
    args: argparse.Namespace,
    show: Callable[[Printer], None],
    as_json: Callable[[], dict[str, Any]],
    draw: Callable[[Any], None],
) -> None:
    """Write the requested files, then print the text, as its reader may close the pipe early."""
    write_results(args, as_json, draw)
    screen = Screen(args)
    screen.show(show)
    screen.close()


def write_results(
    args: argparse.Namespace, as_json: Callable[[], dict[str, Any]], draw: Callable[[Any], None]
) -> None:
    """Write the requested JSON and plot. `draw` is called with the figure to draw on."""
    if args.json and args.json != _STDOUT:
        write_file(args.json, json.dumps(as_json(), indent=1).encode() + b"\n")
    if args.plot:
        _save(draw, args.plot)
    if args.json == _STDOUT:
        print(json.dumps(as_json(), indent=1))


def _save(draw: Callable[[Any], None], path: Path) -> None:
    """Save a plot. SVGs keep text as text, which is small and can be searched."""
    figure = require("matplotlib.figure", _PLOT).Figure(layout="constrained")
    draw(figure)
    with require("matplotlib", _PLOT).rc_context({"svg.fonttype": "none"}):
        image = BytesIO()
        figure.savefig(image, format=path.suffix[1:].lower() or "png")
    write_file(path if path.suffix else path.with_suffix(".png"), image.getvalue())
