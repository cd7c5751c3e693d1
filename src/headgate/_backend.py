"""Which twin is active: the only reader of ``HEADGATE_PURE``.

Unset, the compiled twin is preferred and the pure one is the fallback; ``0`` requires
the compiled twin; ``1`` ignores it. Both twins stay importable side by side.
"""

import os
from importlib.util import find_spec
from typing import Final, Literal

_COMPILED = "headgate._compiled.hashing"


def _choose(wish: str | None) -> tuple[Literal["compiled", "pure"], str]:
    """The backend and the reason for it.

    >>> _choose("1")
    ('pure', 'HEADGATE_PURE=1')
    """
    if wish not in (None, "", "0", "1"):
        raise ImportError(f"HEADGATE_PURE must be unset, 0 or 1, got {wish!r}")
    if wish == "1":
        return "pure", "HEADGATE_PURE=1"
    if find_spec(_COMPILED) is not None:
        return "compiled", "HEADGATE_PURE=0" if wish == "0" else "the compiled twin is installed"
    if wish == "0":
        raise ImportError("HEADGATE_PURE=0 requires the compiled twin, which is not installed")
    return "pure", "the compiled twin is not installed"


_chosen = _choose(os.environ.get("HEADGATE_PURE"))
backend: Final[Literal["compiled", "pure"]] = _chosen[0]
reason: Final[str] = _chosen[1]
