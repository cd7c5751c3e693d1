"""The analysis of a placement as tables and as JSON."""

from collections.abc import Sequence
from typing import Any

from headgate.cli.ring import placements
from headgate.cli.ring.analysis import Analysis, Change, Load, largest_relative_ownership
from headgate.cli.ring.names import with_short_names
from headgate.cli.ring.placements import Placement, described
from headgate.cli.tables import Printer, Row, Table, aligned
from headgate.placement import HashRing

SCHEMA = "headgate.ring"
SCHEMA_VERSION = 1
_MOST_ROWS = 24
_WIDTH = 80
_BAR = 12
_UNEVEN = 1.1
_FINER = 4
_SMALL = 0.002


def show(analysis: Analysis, to: Printer) -> None:
    """Tables of load before and after a change and of moves, and a summary."""
    title = f"Load of {analysis.requests:,} requests {_settings(analysis.placement)}"
    shown = with_short_names(analysis)
    to.table(_load_table(title, shown.loads))
    if shown.change is not None:
        title = f"The same after the change {_settings(shown.change.placement)}"
        to.table(_load_table(title, shown.change.loads))
        to.table(_moves_table(shown.change))
    to.gap()
    to.text(summary(analysis))


def _settings(placement: Placement) -> str:
    return f"(nodes: {len(placement)}, {described(placement)})"


def as_json(analysis: Analysis) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        **placements.as_json(analysis.placement),
        "requests": analysis.requests,
        "nodes": _loads_json(analysis.loads),
        "change": None if analysis.change is None else _change_json(analysis.change),
        "summary": summary(analysis),
    }


def summary(analysis: Analysis) -> str:
    """One sentence: the most loaded node, the keys that the change moves, and how to even out the load."""
    top = max(analysis.final_loads, key=lambda load: load.relative_load)
    parts = [f"{top.node} has the highest load, {top.relative_load:.2f} times its ideal share"]
    if analysis.change is not None:
        parts.insert(0, _change_summary(analysis.change, analysis.requests))
    ring = analysis.final_placement
    if top.relative_load > _UNEVEN and isinstance(ring, HashRing) and ring.scheme == placements.OWN_SCHEME:
        replicas = ring.replicas * _FINER
        finer = largest_relative_ownership(HashRing(ring.weights, replicas))
        parts.append(f"with --replicas {replicas} no node would own more than {finer:.2f} times its share")
    return "; ".join(parts) + "."


def _change_summary(change: Change, requests: int) -> str:
    return (
        f"The change moves {'' if change.exact else 'about '}{change.moved:.2%} of all keys and "
        f"{change.moved_requests / requests:.2%} of these requests; "
        f"with ideal shares it would move {change.minimum:.2%} of the keys"
    )


def _load_table(title: str, loads: Sequence[Load]) -> Table:
    ranked = sorted(loads, key=lambda load: load.relative_load, reverse=True)
    highest = ranked[0].relative_load
    rows = _shortened([_load_row(load, highest) for load in ranked])
    bar = "|".rjust(round(_BAR / highest)) + "ideal"
    columns = ["", "weight", "ideal", "owned", "load", "x ideal", bar.ljust(_BAR)]
    return Table(title, columns, rows)


def _load_row(load: Load, highest: float) -> Row:
    bar = "#" * round(_BAR * load.relative_load / highest)
    return Row(
        [
            load.node,
            f"{load.weight:g}",
            _share(load.ideal),
            _share(load.owned),
            _share(load.share),
            f"{load.relative_load:.2f}",
            bar.ljust(_BAR),
        ]
    )


def _moves_table(change: Change) -> Table:
    """The matrix if it is narrow enough, otherwise the largest moves."""
    matrix = _matrix(change)
    if max(map(len, aligned(matrix))) <= _WIDTH:
        return matrix
    ranked = sorted(change.moves.items(), key=lambda move: move[1], reverse=True)
    rows = [Row([was, now, f"{share:.3%}"]) for (was, now), share in ranked[:_MOST_ROWS]]
    title = f"Moves: the {len(rows)} largest of {len(ranked)}, in shares of all keys"
    return Table(title, ["from", "to", "share"], rows)


def _matrix(change: Change) -> Table:
    """A row for each node that loses keys, a column for each that gains keys."""
    rows = [
        Row([was, _share(kept), *(_share(change.moves.get((was, now))) for now in change.gainers)])
        for was, kept in change.kept().items()
    ]
    columns = ["from", "stays", *(f"to\n{now}" for now in change.gainers)]
    return Table("Moves, in shares of all keys", columns, _shortened(rows))


def _shortened(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) <= _MOST_ROWS:
        return rows
    half = _MOST_ROWS // 2
    left_out = Row([f"... {len(rows) - 2 * half} more", *[""] * (len(rows[0].cells) - 1)])
    return [*rows[:half], left_out, *rows[-half:]]


def _share(share: float | None) -> str:
    if share is None:
        return "-"
    if share == 1:
        return "100%"
    return f"{share:.2%}" if share >= _SMALL or not share else f"{share:.4%}"


def _loads_json(loads: Sequence[Load]) -> list[dict[str, Any]]:
    return [load._asdict() | {"relative_load": load.relative_load} for load in loads]


def _change_json(change: Change) -> dict[str, Any]:
    return {
        **placements.as_json(change.placement),
        "nodes": _loads_json(change.loads),
        "exact": change.exact,
        "moved": change.moved,
        "minimum": change.minimum,
        "moved_requests": change.moved_requests,
        "moves": [{"from": was, "to": now, "share": share} for (was, now), share in change.moves.items()],
    }
