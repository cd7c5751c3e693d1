"""Replays a recorded log against a rate: how many requests it would have denied, of which keys, and when."""

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any

from headgate.cli.badlines import BadLines
from headgate.cli.errors import CommandError
from headgate.cli.limit.engine import Trial, feed, networks
from headgate.cli.limit.plot import draw
from headgate.cli.limit.show import Simulation, as_json, show
from headgate.cli.options import delimiter, pattern, positive_int
from headgate.cli.outputs import add_output_options, check_outputs, deliver
from headgate.cli.progress import Progress
from headgate.cli.simulate.records import Layout, checker, form_of, read_requests
from headgate.cli.times import UNITS

_LINES = re.compile(r"^\s*(?P<time>\S+)\s+(?P<key>\S+)(?:\s+(?P<cost>\d+))?\s*$")
"""The default format: time, key and, optionally, cost in every line."""

_ACCESS = re.compile(r"^(?P<key>\S+) [^[]*\[(?P<time>[^]]+)\]")
"""Access logs of nginx and Apache; the key is the address."""

_ABOUT = "test a rate limit on a recorded log"
_READING = ("key", "cost", "time", "delimiter", "header", "pattern")
_FORMATS = ("auto", "lines", "access", "csv", "jsonl", "regex")


def add_parser(commands: Any) -> None:
    limit = commands.add_parser("limit", help=_ABOUT, description=f"{_ABOUT.capitalize()}.")
    parser = limit.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "simulate", help="show which requests a rate would have denied", description=__doc__
    )
    parser.set_defaults(run=run)
    option = parser.add_argument
    option("log", type=Path, metavar="LOG", help="plain, gzip, xz or zstd; '-' is standard input")
    option(
        "--rate",
        action="append",
        required=True,
        metavar="RATE",
        help="'10/s', '100/min, burst 20', tiers '1/s; 10/min'; repeatable, to compare",
    )
    option("--format", choices=_FORMATS, default="auto",
           help="format of the log (default: by name); lines: TIME KEY [COST]; access: an access log")
    option("--time", metavar="FIELD", help="column or field of the time (default: time)")
    option("--key", metavar="FIELD", help="column or field of the key (default: key)")
    option("--cost", metavar="FIELD", help="column or field of the cost (default: every request costs 1)")
    option("--v4", type=int, metavar="BITS", help="keys are addresses: limit IPv4 networks with this prefix")
    option("--v6", type=int, metavar="BITS", help="IPv6 networks with this prefix (default with --v4: 64)")
    option("--time-unit", choices=UNITS, help="unit of numeric times (default: s)")
    option("--delimiter", type=delimiter, metavar="CHAR",
           help=r"delimiter of CSV columns, \t for a tab (default: ',')")
    option("--header", action=argparse.BooleanOptionalAction,
           help="the first line of CSV names the columns (default: yes, unless all columns are given by"
                " number and it contains a number)")
    option("--pattern", type=pattern, metavar="REGEX", help="for other logs: groups named time, key and cost")
    option("--top", type=positive_int, default=10, metavar="N", help="keys to list (default: %(default)s)")
    option("--max-keys", type=positive_int, default=1_000_000, metavar="N",
           help="capacity of the limiter in keys (default: %(default)s)")
    option("--every-window", action="store_true",
           help="never allow more than the limit in any window, as RateLimiter(..., strict=True)")
    option("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Replay the log through the limiters of all rates in one pass."""
    check_outputs(args)
    try:
        trials = [Trial(rate, args.max_keys, args.every_window) for rate in args.rate]
        key_of = networks(args.v4, args.v6)
    except ValueError as error:
        raise CommandError(str(error)) from error
    bad_lines = BadLines("limit", args.log, strict=args.strict)
    with Progress(None) as progress:
        chunks = read_requests(args.log, _layout(args), bad_lines, lambda _: None)
        traffic = feed(chunks, trials, progress.step, key_of)
    if not traffic.requests:
        raise CommandError(f"{args.log} has no requests")
    found = Simulation(args.log.name, traffic, trials, args.top, bad_lines.count)
    deliver(args, partial(show, found), partial(as_json, found), partial(draw, found))
    return 0


def _layout(args: argparse.Namespace) -> Layout:
    layout = Layout(
        args.format,
        args.key or "key",
        args.cost,
        args.pattern,
        args.delimiter or ",",
        args.time or "time",
        args.time_unit or "s",
        header=args.header,
    )
    form = form_of(args.log, layout)
    checker({option: getattr(args, option.replace("-", "_")) for option in _READING})(
        "lines" if form == "auto" else form
    )
    if form in ("auto", "lines"):
        return layout._replace(form="regex", pattern=_LINES, mismatch="is not TIME KEY [COST]; see --format")
    if form == "access":
        if args.time_unit is not None:
            raise CommandError("--time-unit is for numeric times; an access log has dates")
        return layout._replace(form="regex", pattern=_ACCESS, mismatch="is not a line of an access log")
    if form == "regex" and (args.pattern is None or not {"time", "key"} <= args.pattern.groupindex.keys()):
        raise CommandError("the format regex needs --pattern with groups named time and key")
    return layout
