"""Hit ratio over size: a curve per policy, labelled at its end, and Belady's algorithm as the upper bound."""

from collections.abc import Sequence
from typing import Any

from headgate.cli.simulate import belady
from headgate.cli.simulate.engine import Point
from headgate.cli.simulate.show import Simulation

_MARGIN = 0.06
_APART = 0.045
_BOUND = "0.45"


def draw(found: Simulation, figure: Any) -> None:
    """Draw the figure."""
    figure.set_size_inches(8, 5)
    axes = figure.subplots()
    ends = []
    for number, policy in enumerate(found.policies):
        curve = found.curve(policy)
        bound = policy == belady.NAME
        colour = _BOUND if bound else f"C{number}"
        sizes, ratios = [point.maxsize for point in curve], list(map(_percent, curve))
        axes.plot(sizes, ratios, "d--" if bound else "o-", color=colour, markersize=4)
        ends.append((ratios[-1], policy, colour))
    low, high = _range(found.points)
    axes.set_ylim(low, high)
    axes.set_xscale("log")
    axes.set_xticks(found.sizes, [f"{size:,}" for size in found.sizes], rotation=45, ha="right", fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("weight" if found.weighted else "entries")
    axes.set_ylabel("hit ratio, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{found.log}: {found.requests:,} requests", fontsize=10, loc="left")
    for at, (end, policy, colour) in zip(_places(ends, low, high), sorted(ends), strict=True):
        axes.annotate(
            policy,
            (found.sizes[-1], end),
            (1.03, (at - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=colour,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6},
        )


def _percent(point: Point) -> float:
    return 100 * point.hit_ratio


def _range(points: Sequence[Point]) -> tuple[float, float]:
    """The range of the hit ratios with a margin: at least one percentage point, within 0 and 100."""
    ratios = list(map(_percent, points))
    low, high = min(ratios), max(ratios)
    margin = max(_MARGIN * (high - low), 0.5)
    return max(0.0, low - margin), min(100.0, high + margin)


def _places(ends: Sequence[tuple[float, str, str]], low: float, high: float) -> list[float]:
    """The positions of the labels, from the lowest: close to the ends of their curves, without overlap."""
    apart = _APART * (high - low)
    places: list[float] = []
    for end, *_ in sorted(ends):
        places.append(max(end, places[-1] + apart) if places else end)
    excess = max(0.0, places[-1] - high)
    for at in range(len(places) - 1, -1, -1):
        highest = places[at + 1] - apart if at + 1 < len(places) else places[-1] - excess
        places[at] = min(places[at], highest)
    return places
