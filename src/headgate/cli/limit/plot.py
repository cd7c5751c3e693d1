"""Requests over time, and what each rate denied of them."""

from datetime import UTC, datetime
from typing import Any

from headgate.cli.limit.show import Simulation
from headgate.cli.times import is_date, written_span

_SPANS = 200


def draw(found: Simulation, figure: Any) -> None:
    """Fill the figure."""
    figure.set_size_inches(8, 5)
    axes = figure.subplots()
    width = found.width(_SPANS)
    for trial in found.trials:
        spans = found.spans(trial, width)
        starts = [_moment(span.start) for span in spans]
        if trial is found.trials[0]:
            axes.fill_between(
                starts, [span.requests for span in spans], step="post", alpha=0.25, label="requests"
            )
        axes.step(starts, [span.denied for span in spans], where="post", label=f"denied by {trial.rate}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"in {written_span(width)}")
    axes.set_xlabel("UTC" if is_date(found.traffic.start) else "seconds")
    axes.grid(alpha=0.3)
    axes.set_title(f"{found.log}: {found.traffic.requests:,} requests", fontsize=10, loc="left")
    axes.legend(fontsize=9)
    figure.autofmt_xdate()


def _moment(start: int) -> float | datetime:
    return datetime.fromtimestamp(start // 10**9, UTC) if is_date(start) else start / 1e9
