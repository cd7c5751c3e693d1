"""Replays a recorded log through caches: their hit ratios, by policy and size."""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from headgate.cli import keylog, sizes
from headgate.cli.badlines import BadLines
from headgate.cli.errors import CommandError
from headgate.cli.options import check_needs, delimiter, known_names, pattern, positive_float
from headgate.cli.outputs import add_output_options, check_outputs, deliver
from headgate.cli.progress import Progress
from headgate.cli.simulate import belady
from headgate.cli.simulate.engine import distinct_weight, policies
from headgate.cli.simulate.engine import run as run_caches
from headgate.cli.simulate.plot import draw
from headgate.cli.simulate.records import FORMATS, BadLine, Chunk, Layout, checker, read_requests
from headgate.cli.simulate.show import Simulation, as_json, show, write_csv
from headgate.cli.times import UNITS

_READING = ("key", "weight", "time", "time-unit", "delimiter", "header", "pattern", "ttl")
_DEFAULT_SIZES = "0.1%,0.5%,1%,5%,10%,25%"


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "simulate", help="replay a log through caches of all policies", description=__doc__
    )
    parser.set_defaults(run=run)
    option = parser.add_argument
    option("log", type=Path, metavar="LOG", help="plain, gzip, xz or zstd; '-' is standard input")
    option("--format", choices=FORMATS, default="auto", help="format of the log (default: detected)")
    option("--key", metavar="FIELD", help="column or field of the key; a number counts columns from 1")
    option("--weight", metavar="FIELD", help="column or field of the weight: sizes are then weights")
    option("--ttl", type=positive_float, metavar="SECONDS", help="lifetime of entries; needs times")
    option("--time", metavar="FIELD", help="column or field of the time of a request, for --ttl")
    option("--time-unit", choices=UNITS, help="unit of numeric times (default: s)")
    option("--delimiter", type=delimiter, metavar="CHAR",
           help=r"delimiter of CSV columns, \t for a tab (default: ',')")
    option(
        "--pattern",
        type=pattern,
        metavar="REGEX",
        help="for other logs: groups named key, weight and time, or one unnamed group",
    )
    option(
        "--policy",
        type=_policies,
        default=list(policies()),
        metavar="NAME[,NAME]",
        help=f"only these of {', '.join(policies())}, or {belady.NAME}, which knows all future requests and "
        "keeps them in memory (default: all but that one, which plots include)",
    )
    option(
        "--sizes",
        type=_sizes,
        default=_sizes(_DEFAULT_SIZES),
        metavar="SIZE[,SIZE]",
        help=f"numbers, 10k, 2m, or percentages of the distinct keys (default: {_DEFAULT_SIZES})".replace(
            "%", "%%"
        ),
    )
    option("--header", action=argparse.BooleanOptionalAction,
           help="the first line of CSV names the columns (default: yes, unless all columns are given by"
                " number and it contains a number)")
    option("--strict", action="store_true", help="stop at the first bad line instead of skipping it")
    option("--csv", type=Path, metavar="FILE", help="write the points as CSV")
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Count the keys of the log if sizes need it, then replay it through the caches."""
    check_outputs(args, args.csv)
    check_needs(args, "ttl", "time", "time-unit")
    names = [*args.policy, belady.NAME] if args.plot and belady.NAME not in args.policy else args.policy
    log = _Log(args)
    relative = any(size.endswith("%") for size in args.sizes)
    bad_lines = BadLines("simulate", args.log, strict=args.strict)
    readable = keylog.rereadable(args.log) if relative else nullcontext(args.log)
    with readable as path, Progress(None) as progress:
        distinct = _count_distinct(path, log, args.strict, progress) if relative else None
        maxsizes = sorted({sizes.entries(size, distinct or 0) for size in args.sizes})
        points = run_caches(log.requests(path, bad_lines), names, maxsizes, progress.step, args.ttl)
    if not points:
        raise CommandError(f"{args.log} has no keys")
    found = Simulation(args.log.name, log.weighted, args.ttl, distinct, bad_lines.count, points)
    if args.csv:
        write_csv(found, args.csv)
    deliver(args, partial(show, found), partial(as_json, found), partial(draw, found))
    return 0


class _Log:
    """Reads the log, and notes whether its requests have weights."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._layout = Layout(
            args.format,
            args.key,
            args.weight,
            args.pattern,
            args.delimiter or ",",
            args.time,
            args.time_unit or "s",
            header=args.header,
        )
        self._check = checker({option: getattr(args, option.replace("-", "_")) for option in _READING})
        self._timed = args.ttl is not None
        self.weighted = False

    def requests(self, path: Path, bad_line: BadLine) -> Iterator[Chunk]:
        """The requests, with times if entries have a lifetime."""
        for chunk in read_requests(path, self._layout, bad_line, self._check):
            self.weighted = chunk.weights is not None
            if self._timed and chunk.times is None:
                raise CommandError("--ttl needs the times of the requests: --time, or a group named time")
            yield chunk if self._timed else chunk._replace(times=None)


def _count_distinct(path: Path, log: _Log, strict: bool, progress: Progress) -> int:
    progress.step("counting the distinct keys")
    silent = BadLines("simulate", path, strict=strict, silent=True)
    return distinct_weight(log.requests(path, silent))


def _policies(text: str) -> list[str]:
    return known_names(text.lower(), [*policies(), belady.NAME])


def _sizes(text: str) -> list[str]:
    return [sizes.size(part) for part in text.split(",")]
