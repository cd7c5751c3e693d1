"""What a level of `RateLimits` has besides its limit: rules for networks, a limit of nothing, counters."""

from __future__ import annotations

from collections import namedtuple
from itertools import count
from math import inf

from headgate._base.forks import new_lock
from headgate.limit._decision import Decision
from headgate.limit._networks import network_of
from headgate.limit._rate import Rate
from headgate.limit._units import checked_amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple, Protocol, SupportsFloat

    class _Counts(NamedTuple):
        allowed: int
        denied: int
        policies: dict[str, int]

    Network = tuple[int, int, int]

    class KeyCounter(Protocol):
        def add(self, key: Any, /) -> object: ...
else:
    _Counts = namedtuple("_Counts", "allowed denied policies")

_LONGEST_KEY = 256
"""How much of a denied key is kept, which the client may have chosen."""
_NOTHING = Rate(0, 1)
_DENIAL = Decision(False, 0, 0.0, inf, inf, str(_NOTHING))
_FREE = Decision(True, 0, 0.0, 0.0, 0.0, str(_NOTHING))


class LevelCounts(_Counts):
    """How many requests a level allowed and denied, and how often each of its policies denied.

    >>> limits = RateLimits(ip="1/s", clock=lambda: 0)
    >>> limits.allow(ip="::1"), limits.allow(ip="::1"), limits.counters()["ip"]
    (True, False, LevelCounts(allowed=1, denied=1, policies={'1/s': 1}))
    """

    __slots__ = ()


class Deny:
    """A limit of nothing, without any state."""

    __slots__ = ()

    rates = (_NOTHING,)

    def allow(self, key: Any, cost: SupportsFloat = 1) -> bool:
        return checked_amount("cost", cost) == 0

    def decide(self, key: Any, cost: SupportsFloat = 1) -> Decision:
        return _FREE if self.allow(key, cost) else _DENIAL

    peek = decide

    def refund(self, key: Any, cost: SupportsFloat = 1) -> None:
        """Nothing was taken."""

    def reset(self, key: Any) -> None:
        """Nothing is owed."""

    def _check(self) -> None:
        """There is nothing that could be wrong."""


class Networks:
    """A value for each of some networks; the narrowest one that contains an address counts.

    A change makes another dict, so that a lookup sees a consistent set of networks.
    """

    __slots__ = ("_lock", "values")

    def __init__(self) -> None:
        self._lock = new_lock()
        self.values: dict[tuple[int, int], dict[int, Any]] = {}

    def update(self, networks: Iterable[Network], value: Any) -> None:
        with self._lock:
            values = {shape: dict(found) for shape, found in self.values.items()}
            for bits, length, fixed in networks:
                values.setdefault((bits, length), {})[fixed] = value
            self.values = dict(sorted(values.items(), reverse=True))

    def remove(self, networks: Iterable[Network]) -> None:
        with self._lock:
            values = {shape: dict(found) for shape, found in self.values.items()}
            for bits, length, fixed in networks:
                values.get((bits, length), {}).pop(fixed, None)
            self.values = {shape: found for shape, found in values.items() if found}

    def get(self, key: Any, default: Any) -> Any:
        """The value for a key that is the text of an address, or of a network, within one of them."""
        inner = network_of(key)
        if inner is None:
            return default
        bits, own, fixed = inner
        for (width, length), found in self.values.items():
            if width == bits and length <= own and fixed >> own - length in found:
                return found[fixed >> own - length]
        return default


class Tally:
    """A counter to which any number of threads may add."""

    __slots__ = ("add", "numbers")

    def __init__(self) -> None:
        self.numbers = count()
        self.add = self.numbers.__next__

    def __int__(self) -> int:
        return int(repr(self.numbers)[len("count(") : -1])


class LevelTally:
    """What a level has allowed and denied."""

    __slots__ = ("_denied", "_policies", "add_allowed", "allowed", "keys")

    def __init__(self) -> None:
        self.keys: KeyCounter | None = None
        self.allowed, self._denied = Tally(), Tally()
        self.add_allowed = self.allowed.add
        self._policies: dict[str, Tally] = {}

    def deny(self, policies: Iterable[str], key: Any) -> None:
        """Count a denial of a key by these policies."""
        self._denied.add()
        if self.keys is not None:
            self.keys.add(key[:_LONGEST_KEY] if isinstance(key, (str, bytes)) else key)
        for policy in policies:
            tally = self._policies.get(policy)
            if tally is None:
                tally = self._policies.setdefault(policy, Tally())
            tally.add()

    def counts(self) -> LevelCounts:
        policies = {policy: int(tally) for policy, tally in self._policies.copy().items()}
        return LevelCounts(int(self.allowed), int(self._denied), policies)


def set_key_counters(tallies: dict[str, LevelTally], counters: dict[str, KeyCounter | None]) -> None:
    """Have the keys of denials at some levels counted, or no longer; all levels, or none if one is wrong."""
    for level, counter in counters.items():
        if level not in tallies:
            raise ValueError(f"level must be one of {', '.join(tallies)}, got {level!r}")
        if counter is not None and not callable(getattr(counter, "add", None)):
            raise TypeError(f"{level} must have a method add, as HotKeys has, or be None, got {counter!r}")
    for level, counter in counters.items():
        tallies[level].keys = counter


def key_counters(tallies: dict[str, LevelTally]) -> dict[str, KeyCounter]:
    """The counters of denied keys, of those levels that have one."""
    return {level: tally.keys for level, tally in tallies.items() if tally.keys is not None}
