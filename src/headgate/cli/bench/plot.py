"""The results as a plot: a panel per benchmark, a dot per candidate, times on a logarithmic axis."""

from typing import Any

from headgate.cli.bench.benchmark import Result, subject
from headgate.cli.bench.report import Report, number
from headgate.cli.bench.show import unit_of
from headgate.cli.machine import machine

_COLOURS = {
    "compiled": "#0b6e4f",
    "pure": "#4f9d69",
    "peer": "#3d5a80",
    "text": "#c1666b",
    "baseline": "#6b7280",
}
_PANELS_A_ROW = 2
_INCHES_A_DOT = 0.3
_INCHES_A_PANEL = 1.1
_PANEL_WIDTH = 5.6
_TITLE_HEIGHT = 0.8


def draw(report: Report, figure: Any) -> None:
    """Draw the figure."""
    results = report.all_results
    columns = min(_PANELS_A_ROW, len(results))
    rows = [results[start : start + columns] for start in range(0, len(results), columns)]
    heights = [_INCHES_A_PANEL + _INCHES_A_DOT * max(len(result.timings) for result in row) for row in rows]
    figure.set_size_inches(_PANEL_WIDTH * columns, sum(heights) + _TITLE_HEIGHT)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for axes, result in zip(grid.flat, results, strict=False):
        _panel(axes, result)
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    figure.suptitle(_title(), fontsize=10)


def _title() -> str:
    facts = machine()
    return (
        f"headgate {facts['headgate']} bench on {facts['cpu']}, {facts['python']}\n"
        f"median and quartiles, log scale; in brackets: times {subject()}"
    )


def _panel(axes: Any, result: Result) -> None:
    factor, unit = unit_of(result.timings)
    timings = sorted(result.timings, key=lambda timing: timing.median, reverse=True)
    for at, timing in enumerate(timings):
        low, high = (quartile / factor for quartile in timing.quartiles)
        value = timing.median / factor
        colour = _COLOURS[timing.kind]
        axes.errorbar(value, at, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=3)
        label = f"{number(value)} ({number(timing.over(result.subject).median)}x)"
        axes.annotate(
            label, (high, at), (7, 0), textcoords="offset points", va="center", fontsize=8, color=colour
        )
    axes.set_yticks(range(len(timings)), [timing.name for timing in timings], fontsize=8)
    axes.set_ylim(-0.6, len(timings) - 0.4)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(timings[-1].median / factor / 2, timings[0].median / factor * 8)
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    detail = ", ".join(filter(None, (result.benchmark.detail, result.note)))
    axes.set_title(f"{result.benchmark.suite}: {result.benchmark.title} ({detail})", fontsize=9, loc="left")
