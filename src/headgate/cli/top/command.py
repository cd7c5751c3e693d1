"""Shows what running workers do, live: their shared files, which are read and not touched, and dashboards."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from headgate.cli.errors import CommandError
from headgate.cli.options import positive_float
from headgate.cli.shm.files import HOME
from headgate.cli.tables import Table, printer
from headgate.cli.top.files import Files
from headgate.cli.top.remote import Remote
from headgate.cli.top.show import tables_of_document, tables_of_files

SCHEMA, VERSION = "headgate.top", 1
_LEAST_INTERVAL = 0.1


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "top", help="show limits, permits and objectives of running workers, live", description=__doc__)
    parser.set_defaults(run=run)
    option = parser.add_argument
    option("places", nargs="*", type=Path, metavar="FILE",
           help=f"the path= of limiters and objectives, or directories (default: {HOME})")
    option("--url", help="a dashboard, as http://127.0.0.1:8000/headgate/")
    option("--header", action="append", default=[], type=_field, metavar="NAME:VALUE",
           help="a header field for the dashboard; with NAME:@FILE the value is read from a file")
    option("--every", type=_interval, default=1.0, metavar="SECONDS",
           help="time between two readings (default: %(default)s)")
    option("--once", action="store_true", help="print one reading and end")
    option("--json", action="store_true", help="print one reading as JSON and end")


def run(args: argparse.Namespace) -> int:
    if args.header and args.url is None:
        raise CommandError("--header needs --url")
    sources = Sources(args.places, args.url, dict(args.header))
    if args.json:
        print(json.dumps(sources.read(), indent=1))
    elif args.once or not sys.stdout.isatty():
        _print(sources.read())
    else:
        _follow(sources, args.every)
    return 0


class Sources:
    """The files and the dashboard that were named; the files of /dev/shm if none was."""

    def __init__(self, places: list[Path], url: str | None, fields: dict[str, str]) -> None:
        self._files = Files(places or [HOME]) if places or url is None else None
        self._remote = None if url is None else Remote(url, fields)

    def read(self) -> dict[str, Any]:
        """One reading of everything. Raises CommandError if something cannot be read."""
        found: dict[str, Any] = {"schema": SCHEMA, "version": VERSION, "at": time.time()}
        if self._files is not None:
            found["files"] = self._files.read()
        if self._remote is not None:
            found["dashboard"] = self._remote.read()
        return found


def tables_of(reading: dict[str, Any]) -> list[Table]:
    """The tables of a reading. Raises CommandError if the document of a dashboard is not one."""
    try:
        shown = tables_of_document(reading["dashboard"]) if "dashboard" in reading else []
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandError(f"the document of the dashboard is damaged: {error!r}") from error
    return shown + tables_of_files(reading.get("files", ()))


def _print(reading: dict[str, Any]) -> None:
    tables = tables_of(reading)
    for table in tables:
        printer().table(table)
    if not tables:
        print("Nothing found: no files of shared limits, and nothing at a dashboard.")


def _follow(sources: Sources, every: float) -> None:
    """Redraw until a key ends it; what cannot be read now may be there again later."""
    from headgate.cli.top.screen import Screen

    first = tables_of(sources.read())
    with Screen() as screen:
        tables, note = first, ""
        try:
            while True:
                screen.draw(_head(note), tables or [Table("Nothing found", ("",), [])])
                if not screen.wait(every):
                    return
                try:
                    tables, note = tables_of(sources.read()), ""
                except CommandError as error:
                    note = str(error)
        except KeyboardInterrupt:
            return


def _head(note: str) -> str:
    clock = time.strftime("%H:%M:%S")
    return f"headgate top  {clock}  {note}" if note else f"headgate top  {clock}  q ends"


def _interval(text: str) -> float:
    seconds = positive_float(text)
    if seconds < _LEAST_INTERVAL:
        raise argparse.ArgumentTypeError(f"must be at least {_LEAST_INTERVAL}, got {text}")
    return seconds


def _field(text: str) -> tuple[str, str]:
    """A header field. Arguments of commands can be seen by others of the machine, contents of files not."""
    name, colon, value = text.partition(":")
    value = value.strip()
    if value.startswith("@"):
        try:
            value = Path(os.path.expanduser(value[1:])).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{value[1:]}: {error}") from error
    if not colon or not name.strip().isascii() or not value.isprintable() or not value.isascii():
        raise argparse.ArgumentTypeError("must be NAME:VALUE in ASCII")
    return name.strip(), value
