"""Which twin is active: the only reader of ``HEADGATE_PURE``.

Unset, the compiled twin is preferred and the pure one is the fallback; ``0`` requires
the compiled twin; ``1`` ignores it. Both twins stay importable side by side.
"""

from __future__ import annotations

import os
from _imp import extension_suffixes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal


def _has_compiled() -> bool:
    """Whether the compiled twin was built; importlib would do, but imports slowly."""
    stem = os.path.join(os.path.dirname(os.path.dirname(__file__)), "hashing", "_compiled")
    return any(os.path.exists(stem + suffix) for suffix in extension_suffixes())


def _choose(wish: str | None) -> tuple[Literal["compiled", "pure"], str]:
    """The backend and the reason for it.

    >>> _choose("1")
    ('pure', 'HEADGATE_PURE=1')
    """
    if wish not in (None, "", "0", "1"):
        raise ImportError(f"HEADGATE_PURE must be unset, 0 or 1, got {wish!r}")
    if wish == "1":
        return "pure", "HEADGATE_PURE=1"
    if _has_compiled():
        return "compiled", "HEADGATE_PURE=0" if wish == "0" else "the compiled twin is installed"
    if wish == "0":
        raise ImportError("HEADGATE_PURE=0 requires the compiled twin, which is not installed")
    return "pure", "the compiled twin is not installed"


_chosen = _choose(os.environ.get("HEADGATE_PURE"))
backend: Final[Literal["compiled", "pure"]] = _chosen[0]
reason: Final[str] = _chosen[1]
