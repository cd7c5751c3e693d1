"""Lists, shows or removes the files in which processes share limits."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from headgate._base.durations import written_duration
from headgate._base.shared_files import open_file
from headgate._base.texts import escaped, shortened
from headgate.cli.errors import CommandError
from headgate.cli.shm.files import HOME, SharedFile, files_in, inspect_file, state
from headgate.cli.shm.headers import DamagedHeaderError
from headgate.cli.tables import Row, Table, printer
from headgate.errors import HeadgateError

_OWN = 0o600
_COLUMNS = ("file", "limit", "bytes", "used by")
_NAME, _LIMIT = 24, 36


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("shm", help="list, show or remove the files of shared limits",
                                 description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _action(actions, "ls", "list the files of shared limits in a directory")
    listing.add_argument("places", nargs="*", type=Path, default=[HOME], metavar="DIRECTORY",
                         help=f"directories or files (default: {HOME})")
    listing.set_defaults(run=_list)
    showing = _action(actions, "show", "show the settings and the state of a shared limit")
    showing.add_argument("file", type=Path, metavar="FILE", help="the path= of the limiters")
    showing.set_defaults(run=_show)
    removing = _action(actions, "rm", "remove files of shared limits that no process uses")
    removing.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files of shared limits only")
    removing.add_argument("--force", action="store_true",
                          help="remove files in use too; their processes keep a limit that no new one joins"
                               " (only root sees which files the processes of other users use)")
    removing.set_defaults(run=_remove)
    for action in (listing, showing):
        action.add_argument("--json", action="store_true", help="print JSON")


def _action(actions: Any, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=about, description=f"{about.capitalize()}."
    )
    return parser


def _list(args: argparse.Namespace) -> int:
    found = list(_found(args.places))
    if args.json:
        print(json.dumps([_as_json(file) for file in found], indent=1))
    elif found:
        for place, files in groupby(found, lambda file: file.path.parent):
            title = f"Files of shared limits in {place}"
            printer().table(Table(title, _COLUMNS, [_row(file) for file in files], texts=2))
    else:
        print("No files of shared limits found.")
    return 0


def _found(places: Iterable[Path]) -> Iterator[SharedFile]:
    for place in places:
        for path in files_in(place):
            try:
                file = inspect_file(path)
            except OSError as error:
                print(escaped(f"headgate shm: {path} skipped: {error.strerror}"), file=sys.stderr)
            else:
                if file is not None:
                    yield file


def _row(file: SharedFile) -> Row:
    name, limit = shortened(file.path.name, _NAME), shortened(_limit(**file.settings), _LIMIT)
    return Row((name, limit, _rounded(file.bytes), f"{len(file.processes):,}"))


def _limit(limiter: str, **settings: Any) -> str:
    """A limit in one line."""
    if limiter == "RateLimiter":
        return f"{limiter} {settings['rate']}"
    if limiter == "TokenBucket":
        return f"{limiter} {settings['capacity']}, {settings['refill_rate']}/s"
    if limiter == "ConcurrencyLimiter":
        bounds = "{limit}" if "limit" in settings else "{min_limit}-{max_limit}"
        return f"{limiter} {{algorithm}}, {bounds}".format(**settings)
    if limiter == "SLO":
        return f"{limiter} {written_duration(settings['window'])}"
    return limiter


def _rounded(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 10**6 else f"{size / 1e3:,.0f} kB"


def _as_json(file: SharedFile) -> dict[str, Any]:
    return file._asdict() | {"path": str(file.path), "mode": f"{file.mode:#o}"}


def _show(args: argparse.Namespace) -> int:
    file = _known(args.file)
    try:
        found = state(file)
    except DamagedHeaderError as error:
        raise CommandError(f"{file.path} is damaged") from error
    if args.json:
        print(json.dumps(_as_json(file) | {"state": found}, indent=1))
        return 0
    ours = {"file": file.path, "bytes": f"{file.bytes:,}", "mode": f"{file.mode:#o}"}
    lines = {"file": file.path} | file.settings | found | ours
    lines["processes"] = ", ".join(map(str, file.processes)) or "none"
    if isinstance(owing := lines.pop("owing", None), dict):
        lines |= {f"keys with debt at {rate}": f"{count:,}" for rate, count in owing.items()}
    if isinstance(availability := lines.pop("availability", None), dict):
        lines |= {f"availability over {window}": f"{value:.6%}" for window, value in availability.items()}
    if isinstance(permits := lines.pop("permits", None), dict):
        lines |= {f"permits of process {pid}": f"{count:,}" for pid, count in permits.items()}
    width = max(map(len, lines))
    for name, value in lines.items():
        print(escaped(f"{name:<{width}}  {value}"))
    return 0


def _known(path: Path) -> SharedFile:
    try:
        path.lstat()
        file = inspect_file(path)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    if file is None:
        raise CommandError(f"{path} is not a file of a shared limit")
    return file


def _remove(args: argparse.Namespace) -> int:
    files = [_known(path) for path in args.files]
    for file in files:
        if file.processes and not args.force:
            users = ", ".join(map(str, file.processes))
            raise CommandError(
                f"{file.path} is in use by process {users}; with --force new processes do not share its limit"
            )
    for file in files:
        try:
            open_file(os.fspath(file.path), _OWN).locked(file.path.unlink)
        except HeadgateError as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{file.path}: {error.strerror}") from error
        print(escaped(f"removed {file.path}"))
    return 0
