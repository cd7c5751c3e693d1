"""Policies as header fields name them; shared by both twins of the fields."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from headgate.limit._rate import Rate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    Policies = str | Rate | Iterable[object] | Mapping[str, Iterable[object]]
    Style = Literal["draft", "legacy", "both"]
    Fields = list[tuple[bytes, bytes]]

MOST_INTEGER = 10**15 - 1
"""The largest Integer of RFC 9651."""
_STYLES = ("draft", "legacy", "both")


def checked_style(style: Style) -> Style:
    """`style`, if there is one of that name."""
    if style not in _STYLES:
        raise ValueError(f"style must be one of {', '.join(_STYLES)}, got {style!r}")
    return style


def checked_name(name: str) -> str:
    """What a policy is to be called."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a str or None, got {name!r}")
    return name


def whole(seconds: float) -> int:
    """Rounded up, within the Integers of RFC 9651."""
    return ceil(seconds) if seconds < MOST_INTEGER else MOST_INTEGER


def pause(retry_after: float) -> int:
    """The seconds after which a denied client may try again."""
    return max(1, whole(retry_after))


@lru_cache(maxsize=256)
def described(policy: str, name: str | None, policies: tuple[object, ...]) -> tuple[bytes, bytes, Rate]:
    """The name of a policy as a String of RFC 9651; the field with the quotas of it and of `policies`, each
    once; its rate.
    """
    named, quota, rate = _described(policy, policy if name is None else name)
    quotas = {other: _described(other, other)[1] for other in map(str, policies)}
    quotas[policy] = quota
    return named, b", ".join(quotas.values()), rate


@lru_cache(maxsize=256)
def _described(policy: str, name: str) -> tuple[bytes, bytes, Rate]:
    if not (name.isascii() and name.isprintable()):
        raise ValueError(f"name must be printable ASCII, got {name!r}")
    rate = Rate.parse(policy.rpartition(": ")[2])
    quoted = '"{}"'.format(name.replace("\\", r"\\").replace('"', r"\"")).encode()
    window = max(1, whole(rate.burst * rate.period / rate.limit if rate.limit else rate.period))
    return quoted, b"%b;q=%d;w=%d" % (quoted, rate.burst, window), rate


def listed(policies: Policies) -> tuple[str, ...]:
    """The texts of policies, however they are given."""
    if isinstance(policies, str | Rate):
        return (str(policies),)
    if hasattr(policies, "items"):
        return tuple([f"{level}: {rate}" for level, rates in policies.items() for rate in rates])
    if not hasattr(policies, "__iter__"):
        raise TypeError(f"policies must be rates, their texts or rates by level, got {policies!r}")
    return tuple(map(str, policies))
