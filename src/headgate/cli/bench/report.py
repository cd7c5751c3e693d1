"""Everything one run found out, and the sentence that sums it up."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from headgate.cli.bench.budgets import Verdict
from headgate.cli.bench.race import Timing
from headgate.cli.bench.replay import Replay
from headgate.cli.bench.work import Result, Scale, subject


class Report(NamedTuple):
    """Everything one run found out."""

    scale: Scale
    results: Mapping[str, Result]
    memory: Mapping[str, Mapping[str, float]]
    starts: Sequence[Timing]
    verdicts: Sequence[Verdict]
    replay: Replay | None
    failures: Mapping[str, str]

    @property
    def all_results(self) -> list[Result]:
        """The works in order, the replay as the last."""
        return [*self.results.values(), *([self.replay.result] if self.replay else [])]


def summary(report: Report) -> str:
    """One sentence, whatever came out."""
    if report.replay is not None:
        return _replay_summary(report.replay)
    works = list(report.results.values())
    rivals = {result.work.slug: _faster_rival(result) for result in works}
    lost = [f"{slug} ({rival.name})" for slug, rival in rivals.items() if rival]
    behind = f" (behind in {', '.join(lost)})" if lost else ""
    parts = [f"{subject()} was beaten by no rival in {len(works) - len(lost)} of {len(works)} works{behind}"]
    if subject() != "headgate pure":
        gain = median(result.timing("headgate pure").over(result.subject).median for result in works)
        parts.append(f"{gain:.0f} x as fast as its pure twin in the median")
    if report.verdicts:
        parts.append(_budget_summary(report.verdicts))
    return "; ".join(parts) + "."


def number(value: float) -> str:
    """Three digits, as far as they say something."""
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float) -> str:
    """The same, but a small ratio as a fraction."""
    return f"1/{1 / value:.3g}" if 0 < value < 0.5 else number(value)


def _faster_rival(result: Result) -> Timing | None:
    """The fastest of those that beat the subject beyond noise; neither a twin nor a baseline is a rival."""
    ahead = [
        timing
        for timing in result.timings
        if timing.kind in ("peer", "text") and timing.over(result.subject).high < 1
    ]
    return min(ahead, key=lambda timing: timing.median, default=None)


def _budget_summary(verdicts: Sequence[Verdict]) -> str:
    missed = [
        f"{verdict.what} ({amount(verdict.measured)}, not {amount(verdict.limit)})"
        for verdict in verdicts
        if not verdict.met
    ]
    met = f"{len(verdicts) - len(missed)} of {len(verdicts)} budgets met"
    return f"{met}, missed: {', '.join(missed)}" if missed else met


def _replay_summary(replay: Replay) -> str:
    mine = replay.result.subject
    rivals = [timing for timing in replay.result.timings if timing.kind != "baseline" and timing is not mine]
    best = min(rivals, key=lambda timing: timing.median)
    ratio = best.over(mine)
    noise = ", within noise" if ratio.straddles(1) else ""
    return (
        f"An LRU cache of {replay.maxsize:,} entries answers "
        f"{replay.hits[mine.name] / replay.requests:.2%} of {replay.log}; "
        f"{mine.name} takes {number(mine.median)} ns a request and "
        f"{best.name}, the best of the others, {number(ratio.median)} x that{noise}."
    )
