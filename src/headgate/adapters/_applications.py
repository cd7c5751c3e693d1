"""What the applications of `from_gate` have counted in this process, those of one gate together.

`RateLimits` count for themselves, wherever they are used; here is what the middlewares count for all other
limits, and for shedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from operator import attrgetter

from headgate.adapters._shedding import ShedStats
from headgate.adapters._stack import Stack
from headgate.limit import RateLimits
from headgate.limit._rules import LevelCounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from headgate.limit._rules import KeyCounter

_ONLY_LEVEL, _NO_LEVEL = "default", ""


class LimitCounts:
    """What the middlewares of some applications count for one limit. As in metrics, a limit without levels
    has one that is empty.
    """

    __slots__ = ("_middlewares", "_rates")

    def __init__(self, rates: Any, middlewares: list[Any]) -> None:
        self._rates, self._middlewares = rates, middlewares

    def stats(self) -> dict[str, LevelCounts]:
        """What each level has allowed and denied; policies that have denied nothing are 0."""
        each = [middleware.stats() for middleware in self._middlewares]
        return {self._shown(level): _sum(self._tiers(level), [counts[level] for counts in each])
                for level in each[0]}

    def count_denied(self, **counters: KeyCounter | None) -> None:
        """As ``RateLimits.count_denied``."""
        own = {level or _ONLY_LEVEL: counter for level, counter in counters.items()}
        for middleware in self._middlewares:
            middleware.count_denied(**own)

    @property
    def denied(self) -> dict[str, KeyCounter]:
        """The counters of denied keys, of the levels that have one for all applications."""
        first, *others = [middleware.denied for middleware in self._middlewares]
        return {self._shown(level): counter for level, counter in first.items()
                if all(other.get(level) is counter for other in others)}

    def _tiers(self, level: str) -> Iterable[Any]:
        tiers: Iterable[Any] = self._rates.get(level, ()) if isinstance(self._rates, Mapping) else self._rates
        return tiers

    def _shown(self, level: str) -> str:
        return level if isinstance(self._rates, Mapping) else _NO_LEVEL


class ShedCounts:
    """What the middlewares of some applications count for one limiter."""

    __slots__ = ("_middlewares",)

    def __init__(self, middlewares: list[Any]) -> None:
        self._middlewares = middlewares

    def stats(self) -> ShedStats:
        """What each priority has got; the state of the limiter is the same for all."""
        each: list[ShedStats] = [middleware.stats() for middleware in self._middlewares]
        return each[0]._replace(
            admitted=_total(map(attrgetter("admitted"), each)), shed=_total(map(attrgetter("shed"), each)))


def applications(gate: Any) -> Iterator[dict[str, Any]]:
    """What the applications of a gate count, by the names of the limits that the document has."""
    limiting: dict[str, list[Stack]] = {}
    shedding: dict[str, list[Stack]] = {}
    for stack in gate.applications:
        if not isinstance(stack, Stack):
            continue
        if stack.limit is not None and not isinstance(stack.limits, RateLimits):
            limiting.setdefault(stack.http.limit_name, []).append(stack)
        if stack.shed is not None:
            shedding.setdefault(stack.http.shed_name, []).append(stack)
    yield {name: LimitCounts(found[0].limits.rates, [stack.limit for stack in found])
           for name, found in limiting.items()}
    yield {name: ShedCounts([stack.shed for stack in found]) for name, found in shedding.items()}


def _sum(tiers: Iterable[Any], each: list[LevelCounts]) -> LevelCounts:
    allowed, denied = sum(counts.allowed for counts in each), sum(counts.denied for counts in each)
    policies = dict.fromkeys(map(str, tiers), 0) | _total(map(attrgetter("policies"), each))
    return LevelCounts(allowed, denied, policies)


def _total(each: Iterable[dict[Any, int]]) -> dict[Any, int]:
    total: Counter[Any] = Counter()
    for counts in each:
        total.update(counts)
    return dict(total)
