"""Measures both twins, textbook implementations and the installed peers side by side."""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from headgate.cli import keylog, sizes
from headgate.cli.bench import memory, startup
from headgate.cli.bench.benchmark import FULL, QUICK, Result, Scale, subject
from headgate.cli.bench.budgets import verdicts
from headgate.cli.bench.child import Failures
from headgate.cli.bench.export import as_json
from headgate.cli.bench.plot import draw
from headgate.cli.bench.replay import replay
from headgate.cli.bench.report import Report
from headgate.cli.bench.show import SECTIONS, Section, show_end, show_header, show_section
from headgate.cli.bench.worker import SUITES, benchmarks_of, measure
from headgate.cli.options import check_excludes, check_needs, known_names, positive_float, positive_int
from headgate.cli.outputs import Screen, add_output_options, check_outputs, write_results
from headgate.cli.progress import Progress


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "bench", help="compare headgate with its peers on this machine", description=__doc__
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and shorter loops: about 20 seconds"
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
    """Measure, print each table as soon as it is known, and write the report.

    Raises KeyboardInterrupt after an interrupt, when everything measured before it is reported.
    """
    check_outputs(args)
    check_needs(args, "trace", "trace-format", "trace-size")
    check_excludes(args, "trace", "only")
    scale = (QUICK if args.quick else FULL).times(args.scale)
    if args.rounds:
        scale = scale._replace(rounds=args.rounds, processes=1, starts=args.rounds)
    failures = Failures()
    screen = Screen(args)
    screen.show(show_header)
    found = _replay(args, scale, failures) if args.trace else _measure(args, scale, failures, screen)
    failures.report()
    write_results(args, partial(as_json, found), partial(draw, found))
    screen.show(partial(show_end, found))
    screen.close()
    if found.interrupted:
        raise KeyboardInterrupt
    return 0


def _measure(args: argparse.Namespace, scale: Scale, failures: Failures, screen: Screen) -> Report:
    """All sections of the suites; after an interrupt, what was measured before it."""
    suites = [name for names in args.only or [SUITES] for name in names]
    sections = [section for section in SECTIONS if section.suite in suites]
    steps = len(benchmarks_of(suites, scale)) * scale.processes + sum(map(_is_weighed, sections)) + 1
    results: dict[str, Result] = {}
    sizes: dict[str, Mapping[str, float]] = {}
    report = Report(scale, failures, results, sizes)
    with Progress(steps) as progress:
        try:
            for section in sections:
                try:
                    _measure_section(section, scale, progress, failures, results, sizes)
                finally:
                    with progress.hidden():
                        screen.show(partial(show_section, section, report))
            progress.step(startup.IMPORT)
            report = report._replace(starts=startup.start_times(scale.starts, scale.seconds))
        except KeyboardInterrupt:
            if not results:
                raise
            report = report._replace(interrupted=True)
    if subject() != "headgate compiled":
        return report
    return report._replace(verdicts=verdicts(results, sizes, report.starts))


def _measure_section(
    section: Section,
    scale: Scale,
    progress: Progress,
    failures: Failures,
    results: dict[str, Result],
    sizes: dict[str, Mapping[str, float]],
) -> None:
    chosen = [each for each in benchmarks_of([section.suite], scale) if each.slug in section.slugs]
    measure(chosen, scale, progress.step, failures, results)
    if _is_weighed(section):
        progress.step(f"{section.suite}: bytes an entry at {scale.entries:,} entries")
        sizes[section.suite] = memory.bytes_per_entry(section.suite, scale.entries, failures)


def _is_weighed(section: Section) -> bool:
    return bool(section.bytes_title)


def _replay(args: argparse.Namespace, scale: Scale, failures: Failures) -> Report:
    with Progress(2) as progress:
        replayed = replay(
            args.trace, args.trace_format or "auto", args.trace_size or "10%", scale, progress.step, failures
        )
    return Report(scale, failures, replay=replayed)


def _suites(text: str) -> list[str]:
    return known_names(text, SUITES)
