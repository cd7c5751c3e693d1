"""Replays a recorded log through caches: their hit ratios, by policy and size."""

import argparse
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from headgate.cli import keylog, sizes
from headgate.cli.badlines import BadLines
from headgate.cli.errors import CommandError
from headgate.cli.options import delimiter, known_names, pattern, positive_float
from headgate.cli.outputs import add_output_options, check_outputs, deliver
from headgate.cli.progress import Progress
from headgate.cli.simulate.engine import distinct_weight, policies
from headgate.cli.simulate.engine import run as run_caches
from headgate.cli.simulate.plot import draw
from headgate.cli.simulate.records import FORMATS, Layout, read_requests
from headgate.cli.simulate.show import Simulation, as_json, show, write_csv
from headgate.cli.times import UNITS

_DEFAULT_SIZES = "0.1%,0.5%,1%,5%,10%,25%"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "simulate", help="replay a log through caches of all policies", description=__doc__
    )
    parser.set_defaults(run=run)
    option = parser.add_argument
    option("log", type=Path, metavar="LOG", help="plain, gzip, xz or zstd; '-' is standard input")
    option("--format", choices=FORMATS, default="auto", help="what the log is (default: by name and content)")
    option("--key", metavar="FIELD", help="column or field of the key; a number counts columns from 1")
    option("--weight", metavar="FIELD", help="column or field of the weight: sizes are then weights")
    option("--ttl", type=positive_float, metavar="SECONDS", help="entries live so long; needs times")
    option("--time", metavar="FIELD", help="column or field of the time of a request, for --ttl")
    option("--time-unit", choices=UNITS, default="s", help="of times that are numbers (default: s)")
    option("--delimiter", type=delimiter, default=",", metavar="CHAR",
           help=r"between the columns of CSV, \t for a tab (default: ',')")
    option(
        "--pattern",
        type=pattern,
        metavar="REGEX",
        help="for other logs: groups named key, weight and time, or one",
    )
    option(
        "--policy",
        type=_policies,
        default=list(policies()),
        metavar="NAME[,NAME]",
        help=f"only these of {', '.join(policies())}",
    )
    option(
        "--sizes",
        type=_sizes,
        default=_sizes(_DEFAULT_SIZES),
        metavar="SIZE[,SIZE]",
        help=f"numbers, 10k, 2m, or shares of the distinct keys (default: {_DEFAULT_SIZES})".replace(
            "%", "%%"
        ),
    )
    option("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    option("--csv", type=Path, metavar="FILE", help="write the points as CSV")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read the log once to count its keys if sizes need that, then feed the caches."""
    check_outputs(args, args.csv)
    layout = Layout(
        args.format, args.key, args.weight, args.pattern, args.delimiter, args.time, args.time_unit
    )
    groups = args.pattern.groupindex if args.pattern else {}
    weighted = args.weight is not None or "weight" in groups
    if args.ttl is not None and args.time is None and "time" not in groups:
        raise CommandError("--ttl needs the times of the requests: --time, or a group named time")
    relative = any(size.endswith("%") for size in args.sizes)
    bad_lines = BadLines("simulate", args.log, strict=args.strict)
    readable = keylog.rereadable(args.log) if relative else nullcontext(args.log)
    with readable as path, Progress(None) as progress:
        distinct = _count_distinct(path, layout, args.strict, progress) if relative else None
        maxsizes = sorted({sizes.entries(size, distinct or 0) for size in args.sizes})
        requests = read_requests(path, layout, bad_lines)
        points = run_caches(requests, args.policy, maxsizes, progress.step, args.ttl)
    if not points:
        raise CommandError(f"{args.log} has no keys")
    found = Simulation(args.log.name, weighted, args.ttl, distinct, bad_lines.count, points)
    if args.csv:
        write_csv(found, args.csv)
    deliver(args, partial(show, found), partial(as_json, found), partial(draw, found))
    return 0


def _count_distinct(path: Path, layout: Layout, strict: bool, progress: Progress) -> int:
    progress.step("counting the distinct keys")
    silent = BadLines("simulate", path, strict=strict, silent=True)
    return distinct_weight(read_requests(path, layout, silent))


def _policies(text: str) -> list[str]:
    return known_names(text, policies())


def _sizes(text: str) -> list[str]:
    return [sizes.size(part) for part in text.split(",")]
