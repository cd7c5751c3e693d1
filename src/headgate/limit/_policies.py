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
    """The seconds that a denied client is told to wait."""
    return max(1, whole(retry_after))


@lru_cache(maxsize=256)
def policy_of(policy: str, name: str) -> tuple[bytes, bytes, Rate]:
    """The name as a String of RFC 9651, the field with the quota of a policy, and its rate."""
    if not (name.isascii() and name.isprintable()):
        raise ValueError(f"name must be printable ASCII, got {name!r}")
    rate = Rate.parse(policy.rpartition(": ")[2])
    quoted = '"{}"'.format(name.replace("\\", r"\\").replace('"', r"\"")).encode()
    window = max(1, whole(rate.burst * rate.period / rate.limit if rate.limit else rate.period))
    return quoted, b"%b;q=%d;w=%d" % (quoted, rate.burst, window), rate


def quotas_of(policies: Policies, own: str, quota: bytes) -> bytes:
    """The field that lists all policies, each once, of which our `own` has this `quota`."""
    if type(policies) is tuple:
        try:
            return _all_quotas(policies, own, quota)
        except TypeError:  # not all of them are hashable
            return _all_quotas(tuple(map(str, policies)), own, quota)
    if isinstance(policies, str | Rate):
        policies = (policies,)
    elif hasattr(policies, "items"):
        policies = [f"{level}: {rate}" for level, rates in policies.items() for rate in rates]
    if not hasattr(policies, "__iter__"):
        raise TypeError(f"policies must be rates, their texts or rates by level, got {policies!r}")
    return _all_quotas(tuple(map(str, policies)), own, quota)


@lru_cache(maxsize=256)
def _all_quotas(policies: tuple[object, ...], own: str, quota: bytes) -> bytes:
    quotas = {policy: policy_of(policy, policy)[1] for policy in map(str, policies)}
    quotas[own] = quota
    return b", ".join(quotas.values())
