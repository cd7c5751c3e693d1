"""The report of a run, and its summary in one sentence."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from headgate.cli.bench.benchmark import Result, Scale, subject
from headgate.cli.bench.budgets import Verdict
from headgate.cli.bench.interleave import Timing
from headgate.cli.bench.replay import Replay


class Report(NamedTuple):
    """All results of a run."""

    scale: Scale
    failures: Mapping[str, str]
    results: Mapping[str, Result] = {}
    memory: Mapping[str, Mapping[str, float]] = {}
    starts: Sequence[Timing] = ()
    verdicts: Sequence[Verdict] = ()
    replay: Replay | None = None
    interrupted: bool = False

    @property
    def all_results(self) -> list[Result]:
        """The results in order, the replay last."""
        return [*self.results.values(), *([self.replay.result] if self.replay else [])]


def summary(report: Report) -> str:
    """The report in one sentence."""
    if report.replay is not None:
        return _replay_summary(report.replay)
    benchmarks = list(report.results.values())
    faster = {result.benchmark.slug: _faster_peer(result) for result in benchmarks}
    lost = [f"{slug}, {peer.name}" for slug, peer in faster.items() if peer]
    behind = f" (slower in {'; '.join(lost)})" if lost else ""
    won = len(benchmarks) - len(lost)
    parts = [f"{subject()} is no slower than any peer in {won} of {len(benchmarks)} benchmarks{behind}"]
    if subject() != "headgate pure":
        gain = median(result.timing("headgate pure").over(result.subject).median for result in benchmarks)
        parts.append(f"{gain:.0f} times as fast as the pure twin (median)")
    if report.verdicts:
        parts.append(_budget_summary(report.verdicts))
    return "; ".join(parts) + "."


def number(value: float) -> str:
    """Three significant digits; a whole number from 100 on."""
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float) -> str:
    """The same, but ratios below 0.5 as fractions."""
    return f"1/{1 / value:.3g}" if 0 < value < 0.5 else number(value)


def _faster_peer(result: Result) -> Timing | None:
    """The fastest peer or textbook class that is faster than the subject by more than the noise."""
    ahead = [
        timing
        for timing in result.timings
        if timing.kind in ("peer", "text") and timing.over(result.subject).high < 1
    ]
    return min(ahead, key=lambda timing: timing.median, default=None)


def _budget_summary(verdicts: Sequence[Verdict]) -> str:
    missed = [
        f"{verdict.what} ({amount(verdict.measured)} > {amount(verdict.limit)})"
        for verdict in verdicts
        if not verdict.met
    ]
    met = f"{len(verdicts) - len(missed)} of {len(verdicts)} budgets met"
    return f"{met}, missed: {', '.join(missed)}" if missed else met


def _replay_summary(replay: Replay) -> str:
    mine = replay.result.subject
    others = [timing for timing in replay.result.timings if timing.kind != "baseline" and timing is not mine]
    best = min(others, key=lambda timing: timing.median)
    ratio = best.over(mine)
    noise = ", within noise" if ratio.straddles(1) else ""
    return (
        f"An LRU cache of {replay.maxsize:,} entries hits on "
        f"{replay.hits[mine.name] / replay.requests:.2%} of the requests in {replay.log}; "
        f"{mine.name} takes {number(mine.median)} ns a request, and "
        f"{best.name}, the fastest of the others, {number(ratio.median)} times that{noise}."
    )
