"""Hints for names that are not known."""

from __future__ import annotations

from difflib import get_close_matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 64
_MOST_COMPARED = 200
_MOST_LISTED = 20


def meant(name: str, known: Sequence[str]) -> str:
    """What was meant instead of a name, if one of those known is like it; else an empty text.

    >>> meant("cachs", ["caches", "limits"]), meant("x", ["caches"])
    ('did you mean "caches"?', '')
    """
    if len(name) > _LONGEST or len(known) > _MOST_COMPARED:
        return ""
    close = get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else ""


def listed(names: Sequence[str]) -> str:
    """Some names in one line.

    >>> listed(["a", "b"]), listed([])
    ('a, b', 'none')
    """
    more = ", ..." if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more or "none"
