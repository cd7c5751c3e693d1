"""The load of each node over its ideal one as bars, and what a change moves as a matrix."""

from typing import Any

from headgate.cli.ring.analysis import Analysis, Change, Load
from headgate.cli.ring.names import with_short_names

_BAR_INCHES = 0.24
_LEAST_INCHES = 2.4
_TALLEST = 60
_MOST_NAMES = 120


def draw(analysis: Analysis, figure: Any) -> None:
    """Fill the figure."""
    analysis = with_short_names(analysis)
    change = analysis.change
    height = max(_LEAST_INCHES, _BAR_INCHES * min(_TALLEST, len(analysis.final_loads)) + 1.2)
    if change is None:
        figure.set_size_inches(7, height)
        _bars(figure.subplots(), analysis.loads, f"load of {analysis.requests:,} requests")
        return
    figure.set_size_inches(13, height)
    before, after, moves = figure.subplots(1, 3)
    _bars(before, analysis.loads, "before")
    _bars(after, change.loads, "after")
    _matrix(figure, moves, change)


def _bars(axes: Any, loads: list[Load], title: str) -> None:
    nodes = [load.node for load in loads]
    axes.barh(nodes, [load.fullness for load in loads], color="#3d5a80", label="load")
    axes.plot(
        [load.owned / load.ideal for load in loads], nodes, "o", color="#c1666b", markersize=4, label="owned"
    )
    axes.axvline(1, color="#222222", linewidth=1, linestyle="--")
    axes.invert_yaxis()
    axes.set_xlabel("times the ideal share", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left")
    axes.margins(y=0.01)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    _name(axes.yaxis, nodes)


def _matrix(figure: Any, axes: Any, change: Change) -> None:
    old, new = list(change.kept()), change.gainers
    shares = [[100 * change.moves.get((was, now), 0.0) for now in new] for was in old]
    image = axes.imshow(shares, cmap="Blues", aspect="auto", vmin=0)
    axes.set_xticks(range(len(new)), new, rotation=90)
    axes.set_yticks(range(len(old)), old)
    axes.set_xlabel("to", fontsize=8)
    axes.set_ylabel("from", fontsize=8)
    axes.set_title(f"moves: {change.moved:.2%} of all keys", fontsize=9, loc="left")
    figure.colorbar(image, ax=axes).set_label("% of all keys", fontsize=8)
    _name(axes.xaxis, new)
    _name(axes.yaxis, old)


def _name(axis: Any, nodes: list[str]) -> None:
    """Names as far as they can be read."""
    axis.set_tick_params(labelsize=7)
    if len(nodes) > _MOST_NAMES:
        axis.set_ticks([])
