"""Requests over time, and those that each rate denied."""

from datetime import UTC, datetime
from typing import Any

from headgate.cli.limit.show import Simulation
from headgate.cli.times import is_date, written_span

_SPANS = 200


def draw(found: Simulation, figure: Any) -> None:
    """Draw the figure."""
    figure.set_size_inches(8, 5)
    axes = figure.subplots()
    width = found.width(_SPANS)
    for number, trial in enumerate(found.trials):
        spans = found.spans(trial, width)
        edges = [_moment(span.start) for span in spans]
        edges.append(_moment(spans[-1].start + width * 10**9))
        if not number:
            axes.stairs([span.requests for span in spans], edges, fill=True, color="0.85", label="requests")
        denied = [span.denied for span in spans]
        axes.stairs(denied, edges, color=f"C{number}", linewidth=1.5, label=f"denied by {trial.rate}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"requests in {written_span(width)}")
    axes.set_xlabel("UTC" if is_date(found.traffic.start) else "seconds")
    axes.grid(alpha=0.3)
    axes.set_title(f"{found.log}: {found.traffic.requests:,} requests", fontsize=10, loc="left")
    axes.legend(fontsize=9)
    figure.autofmt_xdate()


def _moment(start: int) -> float | datetime:
    return datetime.fromtimestamp(start // 10**9, UTC) if is_date(start) else start / 1e9
