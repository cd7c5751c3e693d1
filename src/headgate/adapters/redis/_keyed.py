"""What the limiters by key for threads and for event loops have in common: all but the calls themselves."""

from __future__ import annotations

from time import monotonic_ns

from headgate._base.checks import checked_iterable
from headgate._base.keys import key_name
from headgate.adapters.redis._amounts import Windows, plan_of, time_of
from headgate.adapters.redis._calls import Call, Command, slot_of
from headgate.adapters.redis._failures import OnError
from headgate.adapters.redis._keys import Prefix
from headgate.errors import StoreError
from headgate.limit import _waiting
from headgate.limit._rate import Rate
from headgate.limit.keyed import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Never, SupportsFloat

    from headgate.adapters.redis._amounts import Plan
    from headgate.adapters.redis._counters import StoreCounts
    from headgate.adapters.redis._leases import Leases
    from headgate.adapters.redis._stores import Servers
    from headgate.limit._decision import Decision
    from headgate.limit._rate import Rates

    Key = str | bytes | int
    Request = tuple[Any, float]

MOST_KEYS = 128


class Clock:
    """An estimate of the server's time: what it was at the last reply, and the time since.

    It is never later than that time, so that what has passed since a reservation is never too little.
    """

    __slots__ = ("_offset", "is_known")

    def __init__(self) -> None:
        self.is_known = False
        self._offset = 0

    def learn(self, microseconds: int) -> None:
        self._offset = microseconds * 1000 - monotonic_ns()
        self.is_known = True

    def now(self) -> int:
        """Nanoseconds."""
        return monotonic_ns() + self._offset


class Part:
    """Requests of ``decide_many`` that go to one script."""

    __slots__ = ("indices", "keys")

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.keys: list[bytes] = []


class Keyed:
    """The settings of a limiter by key, and what it sends and returns."""

    __slots__ = ("_clock", "_leases", "_on_error", "_plan", "_prefix", "_servers", "_waiting")

    def __init__(
        self,
        servers: Servers,
        rate: Rates,
        burst: SupportsFloat | None,
        prefix: str,
        strict: bool,
        on_error: Any,
        leases: Leases | None,
    ) -> None:
        self._plan = plan_of(rate, burst, bool(strict))
        self._leases = leases
        self._prefix = Prefix(prefix)
        self._on_error = OnError(on_error, RateLimiter, servers.counts.degraded)
        self._servers = servers
        self._waiting = _waiting.Queues()
        self._clock = Clock()

    def _take(self, plan: Plan, key: Any, amount: float, mode: bytes) -> Call:
        """The call that decides."""
        return Call(plan.take, [self._prefix.key(key_name(key))], [plan.charge(amount), mode])

    def _refund(self, key: Any, cost: SupportsFloat) -> Call:
        plan = self._plan
        amount = plan.checked_refund("cost", cost)
        return Call(plan.give, [self._prefix.key(key_name(key))], [plan.refund(amount), b""])

    def _forget(self, key: Any) -> Command:
        name = self._prefix.key(key_name(key))
        return Command(name, b"DEL", name)

    def _settlement(self, plan: Plan, key: Any, cost: float, actual: float, reserved_at: int) -> Call:
        """The call that settles `cost`, taken at that time of the server, as if `actual` had been taken."""
        name = self._prefix.key(key_name(key))
        if actual > cost:
            return Call(plan.give, [name], [plan.charge(actual - cost), b"more"])
        return Call(plan.give, [name], [plan.unused(cost, actual), b"%d" % (reserved_at // 1000)])

    def _decided(self, plan: Plan, reply: bytes, amount: float) -> Decision:
        """The decision in a reply; that it came is noted."""
        self._clock.learn(time_of(reply))
        return plan.decision(reply, 0, amount)

    def _failed(self, error: StoreError, method: str, key: Any, cost: SupportsFloat) -> Decision:
        rate = min(self._plan.rates, key=lambda rate: rate.burst)
        return self._on_error.decide(error, rate, str(rate), method, key, cost)

    def _requests(self, requests: Iterable[tuple[Any, SupportsFloat]], plan: Plan) -> list[Request]:
        """The keys and costs of ``decide_many``, if all are valid."""
        found = []
        for request in checked_iterable("requests", requests):
            try:
                key, cost = request
            except (TypeError, ValueError):
                raise TypeError(f"requests must be pairs of a key and a cost, got {request!r}") from None
            key_name(key)
            found.append((key, plan.checked_cost(cost)))
        return found

    def _parts(self, requests: list[Request], plan: Plan) -> list[tuple[Part, Call]]:
        """The scripts for requests: one a slot with at most 128 keys, none of them twice."""
        names = [self._prefix.key(key_name(key)) for key, _ in requests]
        parts: list[Part] = []
        current: dict[int, Part] = {}
        for index, name in enumerate(names):
            slot = 0 if self._servers.is_one else slot_of(name)
            part = current.get(slot)
            if part is None or len(part.keys) >= MOST_KEYS or name in part.keys:
                part = current[slot] = Part()
                parts.append(part)
            part.indices.append(index)
            part.keys.append(name)
        charges = [[plan.charge(requests[at][1]) for at in part.indices] for part in parts]
        return [
            (part, Call(plan.take, part.keys, [*costs, b"each"]))
            for part, costs in zip(parts, charges, strict=True)
        ]

    def _decisions(
        self, plan: Plan, requests: list[Request], parts: list[tuple[Part, Call]], replies: list[Any]
    ) -> list[Decision]:
        decisions: list[Any] = [None] * len(requests)
        for (part, _), reply in zip(parts, replies, strict=True):
            for place, index in enumerate(part.indices):
                key, amount = requests[index]
                if isinstance(reply, StoreError):
                    decisions[index] = self._failed(reply, "decide", key, amount)
                else:
                    decisions[index] = plan.decision(reply, place * plan.reply_size, amount)
        return decisions

    def reconfigure(self, rate: Rates, *, burst: SupportsFloat | None = None) -> None:
        """Set another rate. The next request of a key, by whichever process, takes over what the key owes, in
        tokens, rounded up. Leases end.

        Raises what the constructor raises. Complexity: O(1).

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimiter
        >>> limiter = RedisRateLimiter(redis.Redis(), "10/s")
        >>> limiter.reconfigure("20/s")
        >>> limiter
        RedisRateLimiter('20/s', prefix='headgate')
        """
        self._plan = self._changed(rate, burst)
        if self._leases is not None:
            self._leases.forgive_all()
        self._waiting.notify_all()

    def _changed(self, rate: Rates, burst: SupportsFloat | None = None) -> Plan:
        return plan_of(rate, burst, isinstance(self._plan, Windows))

    def _changed_rates(self, rate: Rates, burst: SupportsFloat | None = None) -> tuple[Rate, ...]:
        """The tiers that ``reconfigure`` would set."""
        return self._changed(rate, burst).rates

    def counters(self) -> StoreCounts:
        """What the calls to the store came to.

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimiter
        >>> RedisRateLimiter(redis.Redis(), "10/s").counters().calls
        0
        """
        return self._servers.counts.read()

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The tiers, a tuple of `Rate`.

        >>> import redis
        >>> from headgate.adapters.redis import RedisRateLimiter
        >>> RedisRateLimiter(redis.Redis(), "10/s").rates
        (Rate(limit=10, period=1, burst=10),)
        """
        return self._plan.rates

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'; '.join(map(str, self.rates))!r}, prefix={self._prefix.text!r})"

    def __reduce__(self) -> Never:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it has connections")

    def _woken(self, key: Key, is_reset: bool = False) -> None:
        """Tokens of a key may have come."""
        if self._leases is not None:
            self._leases.forgive(key, is_reset)
        self._waiting.notify(key)

    def _check_settle(self, actual: float) -> None:
        """Raise if a reservation cannot be settled with so many tokens."""
        self._plan.checked_refund("actual", actual)

    def _check(self) -> None:
        """The state is in the store."""
