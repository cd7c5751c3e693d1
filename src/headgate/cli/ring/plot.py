"""The load of each node relative to the ideal as bars, and the moves of a change as a matrix.

Of many nodes only the most and the least loaded are drawn, above a histogram of all nodes.
"""

from collections.abc import Sequence
from typing import Any

from headgate.cli.ring.analysis import Analysis, Change, Load
from headgate.cli.ring.names import with_short_names

_BAR_INCHES = 0.24
_LEAST_INCHES = 2.4
_HISTOGRAM_INCHES = 2.2
_MOST_BARS = 40
_MOST_COLUMNS = 24
_BINS = 40
_LOAD, _OWNED = "#3d5a80", "#c1666b"


def draw(analysis: Analysis, figure: Any) -> None:
    """Draw the figure."""
    analysis = with_short_names(analysis)
    change = analysis.change
    columns = [(f"load of {analysis.requests:,} requests" if change is None else "before", analysis.loads)]
    if change is not None:
        columns.append(("after", change.loads))
    many = any(len(loads) > _MOST_BARS for _, loads in columns)
    bars = min(_MOST_BARS + 1, max(len(loads) for _, loads in columns))
    heights = [max(_LEAST_INCHES, _BAR_INCHES * bars + 1.2), *([_HISTOGRAM_INCHES] if many else [])]
    figure.set_size_inches(7 if change is None else 13, sum(heights))
    width = len(columns) + (change is not None)
    grid = figure.subplots(len(heights), width, squeeze=False, height_ratios=heights)
    for at, (title, loads) in enumerate(columns):
        _bars(grid[0][at], loads, title)
        if many:
            _histogram(grid[1][at], loads)
    if change is not None:
        _matrix(figure, grid[0][-1], change)
        if many:
            grid[1][-1].set_visible(False)


def _bars(axes: Any, loads: Sequence[Load], title: str) -> None:
    """A bar per node, in the order of the nodes; of many nodes the most and the least loaded, by load."""
    shown = list(loads)
    if len(loads) > _MOST_BARS:
        ranked = sorted(loads, key=lambda load: load.relative_load, reverse=True)
        half = _MOST_BARS // 2
        shown = [*ranked[:half], *ranked[-half:]]
        title = f"{title}: {half} most, {half} least loaded of {len(loads):,}"
        axes.axhline(half - 0.5, color="#222222", linewidth=0.8, linestyle=":")
    places = range(len(shown))
    axes.barh(places, [load.relative_load for load in shown], color=_LOAD, label="load")
    owned = [load.owned / load.ideal for load in shown]
    axes.plot(owned, places, "o", color=_OWNED, markersize=4, label="owned")
    axes.axvline(1, color="#222222", linewidth=1, linestyle="--")
    axes.invert_yaxis()
    axes.set_yticks(places, [load.node for load in shown])
    axes.set_xlabel("load relative to the ideal", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left", pad=20)
    axes.margins(y=0.01)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    axes.tick_params(labelsize=7)


def _histogram(axes: Any, loads: Sequence[Load]) -> None:
    """A histogram of the loads."""
    axes.hist([load.relative_load for load in loads], bins=_BINS, color=_LOAD)
    axes.axvline(1, color="#222222", linewidth=1, linestyle="--")
    axes.set_xlabel("load of all nodes relative to the ideal", fontsize=8)
    axes.set_ylabel("nodes", fontsize=8)
    axes.tick_params(labelsize=7)


def _matrix(figure: Any, axes: Any, change: Change) -> None:
    """The moves by old and new node; of many nodes those that lose or gain most."""
    (old, losers), (new, gainers) = _largest(change, 0, _MOST_BARS), _largest(change, 1, _MOST_COLUMNS)
    shares = [[100 * change.moves.get((was, now), 0.0) for now in new] for was in old]
    image = axes.imshow(shares, cmap="Blues", aspect="auto", vmin=0)
    axes.set_xticks(range(len(new)), new, rotation=90)
    axes.set_yticks(range(len(old)), old)
    axes.set_xlabel(_counted("to", new, gainers), fontsize=8)
    axes.set_ylabel(_counted("from", old, losers), fontsize=8)
    axes.set_title(f"moves: {change.moved:.2%} of all keys", fontsize=9, loc="left", pad=20)
    figure.colorbar(image, ax=axes).set_label("% of all keys", fontsize=8)
    axes.tick_params(labelsize=7)


def _largest(change: Change, side: int, most: int) -> tuple[list[str], int]:
    """The nodes on one side of the moves, by name, or of many those that move most; and the number of all."""
    totals: dict[str, float] = {}
    for move, share in change.moves.items():
        totals[move[side]] = totals.get(move[side], 0.0) + share
    if len(totals) <= most:
        return sorted(totals), len(totals)
    return sorted(totals, key=lambda node: -totals[node])[:most], len(totals)


def _counted(word: str, shown: Sequence[str], count: int) -> str:
    return word if len(shown) == count else f"{word}: the first {len(shown)} of {count:,} nodes"
