"""What the limits by level for threads and for event loops have in common: all but the calls themselves.

    one server, or a prefix with a hash tag: one script takes the cost at all levels or at none
    else:                                    check all, charge all, refund those charged if one denies
"""

from __future__ import annotations

from headgate._base.keys import key_name
from headgate.adapters.redis._amounts import Tiers, plan_of
from headgate.adapters.redis._calls import Call, Command
from headgate.adapters.redis._failures import OnError
from headgate.adapters.redis._keys import Prefix
from headgate.errors import StoreError
from headgate.limit import _waiting
from headgate.limit._decision import Decision
from headgate.limit._joint import UNLIMITED, named, worst
from headgate.limit._levels import RateLimits
from headgate.limit._units import checked_amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Never, SupportsFloat

    from headgate.adapters.redis._counters import StoreCounts
    from headgate.adapters.redis._stores import Servers
    from headgate.limit._rate import Rate, Rates

_RESERVED = frozenset(("cost", "levels", "on_error", "prefix", "self", "timeout"))


def _checked_level(level: Any) -> str:
    """A name that a keyword and a header can have."""
    if not isinstance(level, str) or level in _RESERVED or not (level.isascii() and level.isprintable()):
        raise ValueError(f"level must be printable ASCII and none of {sorted(_RESERVED)}, got {level!r}")
    return level


def _plan(rate: Rates) -> Tiers:
    plan = plan_of(rate, None, False)
    assert isinstance(plan, Tiers)
    return plan


def _key_names(keys: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """What the names of queues consist of."""
    return [(level, key_name(key)) for level, key in keys.items() if key is not None]


class Applied:
    """The levels that a request names: their names, their tiers and their keys in the store."""

    __slots__ = ("keys", "levels", "plans")

    def __init__(self) -> None:
        self.levels: list[str] = []
        self.plans: list[Tiers] = []
        self.keys: list[bytes] = []

    def decisions(self, reply: bytes, cost: float) -> list[tuple[str, Decision]]:
        """The decision of each level in the reply to one script."""
        found, at = [], 0
        for level, plan in zip(self.levels, self.plans, strict=True):
            found.append((level, plan.decision(reply, at, cost)))
            at += plan.reply_size
        return found


def summary(decisions: list[tuple[str, Decision]]) -> Decision:
    """The decision of the level that denies for longest, or else of the one with the least remaining."""
    if all(decision.allowed for _, decision in decisions):
        level, tightest = min(decisions, key=lambda each: each[1].remaining)
        return named(level, tightest)
    return worst(decisions)


class Leveled:
    """The settings of limits by level, and what they send and return."""

    __slots__ = ("_on_error", "_plans", "_policies", "_prefix", "_servers", "_waiting")

    def __init__(
        self,
        servers: Servers,
        levels: Mapping[str, Rates] | None,
        more: Mapping[str, Rates],
        prefix: str,
        on_error: Any,
    ) -> None:
        if levels is not None and not hasattr(levels, "keys"):
            raise TypeError(f"levels must be a mapping of names to rates, got {levels!r}")
        wanted = {**(levels or {}), **more}
        if not wanted:
            raise ValueError("levels must be at least one, got none")
        self._plans = {_checked_level(level): _plan(rate) for level, rate in wanted.items()}
        self._policies = self._texts()
        self._prefix = Prefix(prefix)
        self._on_error = OnError(on_error, RateLimits, servers.counts.degraded)
        local = self._on_error.local
        if local is not None and not self._plans.keys() <= local.rates.keys():
            raise ValueError(f"on_error must have the levels {', '.join(self._plans)}, got {on_error!r}")
        self._servers = servers
        self._waiting = _waiting.Queues()

    def _texts(self) -> tuple[str, ...]:
        return tuple([f"{level}: {rate}" for level, plan in self._plans.items() for rate in plan.rates])

    @property
    def _is_joint(self) -> bool:
        """Whether all levels of a request can take part in one script."""
        return self._servers.is_one or self._prefix.has_tag

    def _plan_of(self, level: str) -> Tiers:
        try:
            return self._plans[level]
        except KeyError:
            raise ValueError(f"level must be one of {', '.join(self._plans)}, got {level!r}") from None

    def _applied(self, keys: Mapping[str, Any]) -> Applied:
        if not keys:
            raise TypeError("the key of at least one level must be given")
        applied = Applied()
        for level, key in keys.items():
            plan = self._plan_of(level)
            if key is not None:
                applied.levels.append(level)
                applied.plans.append(plan)
                applied.keys.append(self._prefix.key(b"%b\0%b" % (level.encode(), key_name(key))))
        return applied

    def _checked_cost(self, applied: Applied, cost: SupportsFloat) -> float:
        amount = checked_amount("cost", cost)
        for plan in applied.plans:
            plan.checked_cost(cost)
        return amount

    def _checked_refund(self, cost: SupportsFloat) -> float:
        """An amount that may be above the burst."""
        return checked_amount("cost", cost)

    def _calls(self, applied: Applied, charges: list[bytes], mode: bytes, give: bool = False) -> list[Call]:
        """One call for all levels, or one for each."""
        script = Tiers.give if give else Tiers.take
        if self._is_joint:
            return [Call(script, applied.keys, [*charges, mode])]
        both = zip(applied.keys, charges, strict=True)
        return [Call(script, [key], [charge, mode]) for key, charge in both]

    def _takes(self, applied: Applied, cost: float, mode: bytes) -> list[Call]:
        return self._calls(applied, [plan.charge(cost) for plan in applied.plans], mode)

    def _refunds(self, applied: Applied, cost: float) -> list[Call]:
        return self._calls(applied, [plan.refund(cost) for plan in applied.plans], b"", True)

    def _settlements(self, applied: Applied, cost: float, actual: float, reserved_at: int) -> list[Call]:
        if actual > cost:
            return self._calls(applied, [plan.charge(actual - cost) for plan in applied.plans], b"more", True)
        charges = [plan.unused(cost, actual) for plan in applied.plans]
        return self._calls(applied, charges, b"%d" % (reserved_at // 1000), True)

    def _deletions(self, applied: Applied) -> list[Command]:
        return [Command(key, b"DEL", key) for key in applied.keys]

    def _checked(self, replies: list[Any]) -> bytes:
        """All replies as one. Raises StoreError if one is an error."""
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return b"".join(replies)

    def _undone(self, applied: Applied, decisions: list[tuple[str, Decision]], cost: float) -> list[Call]:
        """The calls that refund levels that were charged although another one denied."""
        charged = Applied()
        for place, (_, decision) in enumerate(decisions):
            if decision.allowed:
                charged.levels.append(applied.levels[place])
                charged.plans.append(applied.plans[place])
                charged.keys.append(applied.keys[place])
        return self._refunds(charged, cost) if charged.keys else []

    def _failed(
        self, error: StoreError, applied: Applied, method: str, cost: SupportsFloat, keys: Mapping[str, Any]
    ) -> Decision:
        rates = [
            (rate, f"{level}: {rate}")
            for level, plan in zip(applied.levels, applied.plans, strict=True)
            for rate in plan.rates
        ]
        rate, policy = min(rates, key=lambda each: each[0].burst)
        return self._on_error.decide(error, rate, policy, method, cost=cost, **keys)

    def _woken(self, keys: Mapping[str, Any]) -> None:
        """Tokens of these keys may have come."""
        self._waiting.notify_matching(_key_names(keys))

    def _queue(self, keys: Mapping[str, Any]) -> _waiting.Queue:
        """The queue of requests that name the same keys."""
        self._applied(keys)
        return self._waiting.of(tuple(sorted(_key_names(keys))))

    def reconfigure(self, **rates: Rates) -> None:
        """Set another rate for each level that is named. What keys owe is taken over by their next request,
        by whichever process.

        Raises what the constructor raises; no level is changed then. Complexity: O(1).

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimits
        >>> limits = RedisRateLimits(redis.Redis(), user="10/s")
        >>> limits.reconfigure(user="20/s"), limits.rates["user"]
        (None, (Rate(limit=20, period=1, burst=20),))
        """
        changed = {level: (self._plan_of(level), _plan(rate))[1] for level, rate in rates.items()}
        self._plans = {**self._plans, **changed}
        self._policies = self._texts()
        self._waiting.notify_all()

    def counters(self) -> StoreCounts:
        """What the calls to the store came to.

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimits
        >>> RedisRateLimits(redis.Redis(), user="10/s").counters().calls
        0
        """
        return self._servers.counts.read()

    @property
    def rates(self) -> dict[str, tuple[Rate, ...]]:
        """The tiers of each level.

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimits
        >>> RedisRateLimits(redis.Redis(), user="10/s").rates
        {'user': (Rate(limit=10, period=1, burst=10),)}
        """
        return {level: plan.rates for level, plan in self._plans.items()}

    @property
    def policies(self) -> tuple[str, ...]:
        """The tiers of all levels as text, for ``Decision.fields`` and ``Decision.headers``.

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimits
        >>> RedisRateLimits(redis.Redis(), user="10/s").policies
        ('user: 10/s',)
        """
        return self._policies

    def __repr__(self) -> str:
        levels = [f"{level}={'; '.join(map(str, rates))!r}" for level, rates in self.rates.items()]
        return f"{type(self).__name__}({', '.join(levels)}, prefix={self._prefix.text!r})"

    def __reduce__(self) -> Never:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it has connections")

    def _check_settle(self, actual: float) -> None:
        """A reservation may be settled with any number of tokens."""


def unlimited(cost: SupportsFloat) -> Decision:
    """The decision where no level applies."""
    checked_amount("cost", cost)
    return UNLIMITED
