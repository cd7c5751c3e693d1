"""Shows what an availability means: downtime, the alerts of its objective, and what redundancy buys."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from headgate._base.durations import checked_duration
from headgate._base.files import write_file
from headgate.cli.errors import CommandError
from headgate.cli.options import number, positive_int
from headgate.cli.slo.analysis import Redundancy, analyse
from headgate.cli.slo.show import as_json, show
from headgate.cli.tables import Markdown, printer

_STDOUT = Path("-")
_MOST_REPLICAS = 100


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "slo", help="show downtime, alerts and redundancy of an availability", description=__doc__
    )
    parser.set_defaults(run=run)
    option = parser.add_argument
    option("target", nargs="?", type=_percent, metavar="TARGET", help="availability in percent, as 99.95")
    option("--window", type=_window, default="30 d", metavar="DURATION",
           help="window of the objective (default: %(default)s)")
    option("--replicas", type=positive_int, metavar="N", help="equal replicas, with --each")
    option("--each", type=_percent, metavar="PERCENT", help="availability of each of the replicas")
    option("--json", type=Path, metavar="FILE",
           help="write JSON ('-': to standard output, instead of text)")
    option("--markdown", action="store_true", help="print Markdown tables")


def run(args: argparse.Namespace) -> int:
    """Compute all tables and print those that were asked for."""
    if args.target is None and args.each is None:
        raise CommandError("TARGET, or --replicas with --each, is needed")
    if (args.replicas is None) != (args.each is None):
        raise CommandError("--replicas and --each need each other")
    if args.markdown and args.json == _STDOUT:
        raise CommandError("--markdown has no effect with --json -")
    if args.replicas is not None and args.replicas > _MOST_REPLICAS:
        raise CommandError(f"--replicas must be at most {_MOST_REPLICAS}, got {args.replicas}")
    redundancy = None if args.each is None else Redundancy(args.replicas, args.each)
    try:
        found = analyse(args.target, args.window, redundancy)
    except ValueError as error:
        raise CommandError(str(error)) from error
    text = partial(json.dumps, as_json(found), indent=1)
    if args.json == _STDOUT:
        print(text())
        return 0
    if args.json:
        write_file(args.json, text().encode() + b"\n")
    show(found, Markdown(sys.stdout) if args.markdown else printer())
    return 0


def _percent(text: str) -> float:
    """Percent of an option, which a sign may follow."""
    percent = number(text.removesuffix("%"))
    if not 0 < percent < 100:
        raise argparse.ArgumentTypeError(f"must be a percentage between 0 and 100, got {text}")
    if percent < 1:
        raise argparse.ArgumentTypeError(f"must be in percent, as 99.9, got {text}")
    return percent


def _window(text: str) -> str:
    try:
        checked_duration("--window", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--window ")) from error
    return text
