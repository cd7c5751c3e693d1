"""Short names of nodes for tables and plots."""

from collections.abc import Collection
from itertools import takewhile
from string import ascii_letters, digits

from headgate.cli.ring.analysis import Analysis, Load

_NAME = 20
_HEAD = 7


def short_names(names: Collection[str]) -> dict[str, str]:
    """A short form of each name; the short forms are distinct.

    The middle of a long name is cut, as nodes are mostly numbered at the end; if that makes two names equal,
    the suffix that all long names share, such as a domain and a port, is cut first.

    >>> short_names(["a-cache-in-the-cellar-1", "b"])
    {'a-cache-in-the-cellar-1': 'a-cache~the-cellar-1', 'b': 'b'}
    """
    for end in ("", _shared_end([name for name in names if len(name) > _NAME])):
        short = {name: _short(name, end) for name in names}
        if len(set(short.values())) == len(short):
            return short
    return {name: name for name in names}


def with_short_names(analysis: Analysis) -> Analysis:
    """The analysis with short names."""
    short = short_names({load.node for load in (*analysis.loads, *analysis.final_loads)})

    def renamed(loads: list[Load]) -> list[Load]:
        return [load._replace(node=short[load.node]) for load in loads]

    loads, change = renamed(analysis.loads), analysis.change
    if change is not None:
        moves = {(short[was], short[now]): share for (was, now), share in change.moves.items()}
        change = change._replace(old_loads=loads, loads=renamed(change.loads), moves=moves)
    return analysis._replace(loads=loads, change=change)


def _shared_end(names: list[str]) -> str:
    """The shared suffix from its first punctuation mark on, so that no number is cut."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*map(reversed, names), strict=False))
    end = "".join([column[0] for column in alike])[::-1]
    return end.lstrip(ascii_letters + digits)


def _short(name: str, end: str) -> str:
    if len(name) <= _NAME:
        return name
    stem = f"{name.removesuffix(end)}~" if end else name
    return stem if len(stem) <= _NAME else f"{stem[:_HEAD]}~{stem[_HEAD + 1 - _NAME :]}"
