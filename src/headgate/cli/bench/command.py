"""Measures both twins, textbook implementations and the installed peers side by side."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from headgate.cli import keylog, sizes
from headgate.cli.bench import memory, startup
from headgate.cli.bench.benchmark import FULL, QUICK, Scale, subject
from headgate.cli.bench.budgets import verdicts
from headgate.cli.bench.child import Failures
from headgate.cli.bench.export import as_json
from headgate.cli.bench.plot import draw
from headgate.cli.bench.replay import replay
from headgate.cli.bench.report import Report
from headgate.cli.bench.show import show
from headgate.cli.bench.worker import SUITES, benchmarks_of, measure
from headgate.cli.options import check_excludes, check_needs, known_names, positive_float, positive_int
from headgate.cli.outputs import add_output_options, check_outputs, deliver
from headgate.cli.progress import Progress


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench", help="compare headgate with its peers on this machine", description=__doc__
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and shorter loops: within a minute"
    )
    parser.add_argument(
        "--only",
        action="append",
        type=_suites,
        metavar="SUITE[,SUITE]",
        help=f"only these of {', '.join(SUITES)}",
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="replay this key log through the LRU caches instead"
    )
    parser.add_argument(
        "--trace-format",
        choices=keylog.FORMATS,
        help="format of the log (default: auto)",
    )
    parser.add_argument(
        "--trace-size",
        type=sizes.size,
        metavar="SIZE",
        help="entries of each cache: 500, 10k, or a share of the distinct keys (default: 10%%)",
    )
    add_output_options(parser)
    parser.add_argument("--rounds", type=positive_int, metavar="N", help="rounds, in one process")
    parser.add_argument("--scale", type=positive_float, default=1.0, metavar="X", help="multiply all sizes")


def run(args: argparse.Namespace) -> int:
    """Measure, then print and write the report."""
    check_outputs(args)
    check_needs(args, "trace", "trace-format", "trace-size")
    check_excludes(args, "trace", "only")
    scale = (QUICK if args.quick else FULL).times(args.scale)
    if args.rounds:
        scale = scale._replace(rounds=args.rounds, processes=1, starts=args.rounds)
    failures = Failures()
    found = _replay(args, scale, failures) if args.trace else _measure(args, scale, failures)
    failures.report()
    deliver(args, partial(show, found), partial(as_json, found), partial(draw, found))
    return 0


def _measure(args: argparse.Namespace, scale: Scale, failures: Failures) -> Report:
    suites = [name for names in args.only or [SUITES] for name in names]
    benchmarks = benchmarks_of(suites, scale)
    weighed = [suite for suite in memory.SUITES if suite in suites]
    with Progress(len(benchmarks) * scale.processes + len(weighed) + 1) as progress:
        results = measure(benchmarks, scale, progress.step, failures)
        per_entry = {}
        for suite in weighed:
            progress.step(f"{suite}: bytes an entry at {scale.entries:,} entries")
            per_entry[suite] = memory.bytes_per_entry(suite, scale.entries, failures)
        progress.step(startup.IMPORT)
        starts = startup.start_times(scale.starts, scale.seconds)
    held = verdicts(results, per_entry, starts) if subject() == "headgate compiled" else []
    return Report(scale, results, per_entry, starts, held, None, failures)


def _replay(args: argparse.Namespace, scale: Scale, failures: Failures) -> Report:
    with Progress(2) as progress:
        replayed = replay(
            args.trace, args.trace_format or "auto", args.trace_size or "10%", scale, progress.step, failures
        )
    return Report(scale, {}, {}, [], [], replayed, failures)


def _suites(text: str) -> list[str]:
    return known_names(text, SUITES)
