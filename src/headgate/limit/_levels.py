"""RateLimits: several levels for one request, all or nothing."""

from __future__ import annotations

from headgate._base.clock import checked_clock
from headgate._base.keys import key_name
from headgate._base.pickling import initialized
from headgate.limit import _waiting
from headgate.limit._joint import refund_all, reset_all
from headgate.limit._networks import network_of
from headgate.limit._rate import checked_rates
from headgate.limit._rules import Deny, LevelCounts, LevelTally, Networks, key_counters, set_key_counters
from headgate.limit.joint import Levels
from headgate.limit.keyed import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Literal, Never, SupportsFloat

    from headgate.limit._decision import Decision
    from headgate.limit._joint import Applied, Limiter
    from headgate.limit._rate import Rate, Rates
    from headgate.limit._rules import KeyCounter
    from headgate.limit.reservation import Reservation

    Key = str | bytes | int

_RESERVED = frozenset(("clock", "cost", "max_keys", "on_full", "self", "shadow", "timeout"))
_DENY = Deny()


def _checked_level(level: Any) -> str:
    """A name that a keyword and a header can have."""
    if not isinstance(level, str) or level in _RESERVED or not (level.isascii() and level.isprintable()):
        raise ValueError(f"level must be printable ASCII and none of {sorted(_RESERVED)}, got {level!r}")
    return level


def _limiter(limit: Any, max_keys: int, on_full: Any, clock: Callable[[], int] | None) -> Any:
    """The limiter of a level: the given one, or one for the given rate."""
    if hasattr(limit, "consume") or hasattr(getattr(limit, "rates", None), "items"):
        raise TypeError(f"a level must be a rate or a limiter by key, got {limit!r}")
    if isinstance(limit, RateLimiter):
        return limit
    if hasattr(limit, "decide"):
        from inspect import iscoroutinefunction

        if iscoroutinefunction(limit.decide):
            raise TypeError(f"a level must not be asynchronous, got {limit!r}")
        return limit
    return RateLimiter(limit, max_keys=max_keys, on_full=on_full, clock=clock)


class RateLimits:
    """Limits on several levels, by address, user, endpoint and what else a request has, all or nothing.

    Each level is given by keyword, or in a mapping: as a rate (``"10/s"``, ``"100/min; 1000/h"``, a `Rate`),
    or as a limiter: a `RateLimiter`, an `AddressLimiter` or an object with their methods. A request names its
    keys by level and is allowed if all these levels allow it; then it takes its cost at each of them, else at
    none. A level that is not named, or whose key is None, does not apply. The other arguments are those of
    `RateLimiter`, for each level.

    Levels named in `shadow` are counted, in ``counters``, and charged like the others, but never deny: a rate
    can be tried before it is enforced.

    Of two simultaneous requests with several levels in common, both may be denied where one could be allowed.
    No more than a level admits is ever allowed, except after a late refund (see ``RateLimiter.refund``), as
    when a thread is paused between two levels.

    Raises ValueError or TypeError if a level or an argument is out of range or of a wrong type.

    Complexity: O(levels x tiers) for a decision.

    >>> limits = RateLimits(ip="2/s", user="100/min; 1000/h", clock=lambda: 0)
    >>> limits.decide(ip="192.0.2.1", user="ann").policy
    'ip: 2/s'
    >>> limits.allow(ip="192.0.2.1", user="bob"), limits.allow(ip="192.0.2.1", user="bob")
    (True, False)
    >>> limits.peek(user="bob").remaining
    99.0
    """

    __slots__ = (
        "__weakref__", "_clock", "_joint", "_levels", "_networks", "_overrides", "_tallies", "_waiting"
    )

    def __init__(
        self,
        levels: Mapping[str, Rates | Limiter] | None = None,
        /,
        *,
        max_keys: int = 1_000_000,
        on_full: Literal["evict", "deny"] = "evict",
        clock: Callable[[], int] | None = None,
        shadow: Iterable[str] = (),
        **more: Rates | Limiter,
    ) -> None:
        if hasattr(self, "_overrides"):
            raise initialized(self)
        self._clock = checked_clock(clock)
        self._waiting = _waiting.Queues()
        if levels is not None and not hasattr(levels, "keys"):
            raise TypeError(f"levels must be a mapping of names to limits, got {levels!r}")
        wanted = {**(levels or {}), **more}
        if not wanted:
            raise ValueError("levels must be at least one, got none")
        self._levels: dict[str, Limiter] = {}
        for level, limit in wanted.items():
            self._levels[_checked_level(level)] = _limiter(limit, max_keys, on_full, clock)
        names = self._checked_shadow(shadow)
        self._networks = {level: Networks() for level in wanted}
        self._tallies = {level: LevelTally() for level in wanted}
        self._overrides: dict[str, dict[bytes, Any]] = {level: {} for level in wanted}
        self._joint = Levels(self._levels, self._networks, self._overrides, self._tallies, names)

    def _checked_shadow(self, shadow: Iterable[str]) -> frozenset[str]:
        if isinstance(shadow, str) or not hasattr(shadow, "__iter__"):
            raise TypeError(f"shadow must be names of levels, got {shadow!r}")
        names = frozenset(shadow)
        if not names <= self._levels.keys():
            raise ValueError(f"shadow must be some of {', '.join(self._levels)}, got {shadow!r}")
        return names

    def _limiter(self, level: str) -> Limiter:
        try:
            return self._levels[level]
        except KeyError:
            raise ValueError(f"level must be one of {', '.join(self._levels)}, got {level!r}") from None

    def _names(self, level: str, *keys: Key) -> list[bytes]:
        """The names under which overrides of keys are stored, if they are valid keys of that level."""
        limiter = self._limiter(level)
        for key in keys:
            limiter.peek(key, 0)
        return [key_name(key) for key in keys]

    def allow(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> bool:
        """Take `cost` at all levels that `keys` names if all allow it; True if so.

        Raises ValueError if there is no such level, TypeError if none is named; for a key and a cost what
        ``RateLimiter.allow`` raises. Nothing is taken then.

        >>> limits = RateLimits(user="2/s", endpoint="3/s", clock=lambda: 0)
        >>> [limits.allow(user=user, endpoint="/search") for user in ("ann", "ann", "ann", "bob", "eve")]
        [True, True, False, True, False]
        """
        return self._joint.allow(keys, cost)

    def decide(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """As ``allow``, but return a `Decision`: that of the level that denies for longest, or else of the
        one with the least remaining. If no level applies, limit and remaining are infinite.

        Raises what ``allow`` raises.

        >>> RateLimits(user="2/s", endpoint="3/s", clock=lambda: 0).decide(user="ann", endpoint="/").policy
        'user: 2/s'
        """
        return self._joint.decide(keys, cost)

    def peek(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """What ``decide`` would return, but without taking anything.

        Raises what ``allow`` raises.

        >>> RateLimits(user="2/s", clock=lambda: 0).peek(user="ann").remaining
        2.0
        """
        return self._joint.peek(keys, cost)

    def reserve(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Reservation:
        """Take `cost` at all levels that `keys` names if all allow it, as a `Reservation`, which is false if
        one denies. Its ``settle`` takes what is used in the end, and ``cancel`` gives all back.

        Raises what ``allow`` raises.

        >>> limits = RateLimits(user="1000/min", team="5000/min", clock=lambda: 0)
        >>> reservation = limits.reserve(user="ann", team="a", cost=800)
        >>> reservation.settle(300), limits.peek(user="ann").remaining, limits.peek(team="a").remaining
        (None, 700.0, 4700.0)
        """
        return self._joint.reserve(keys, cost)

    def refund(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> None:
        """Refund `cost` at each level, for example because a request failed.

        Raises what ``allow`` raises, but a cost may be above the burst.

        >>> limits = RateLimits(user="2/s", clock=lambda: 0)
        >>> limits.allow(user="ann"), limits.refund(user="ann"), limits.peek(user="ann").remaining
        (True, None, 2.0)
        """
        applied = self._joint.applied(keys, cost)
        refund_all(applied, cost)
        self._waiting.notify_matching(_key_names(applied))

    def reset(self, **keys: Key | None) -> None:
        """Forget what the keys owe.

        Raises what ``allow`` raises.

        >>> limits = RateLimits(user="1/h", clock=lambda: 0)
        >>> limits.allow(user="ann"), limits.reset(user="ann"), limits.allow(user="ann")
        (True, None, True)
        """
        applied = self._joint.applied(keys, 0)
        reset_all(applied)
        self._waiting.notify_matching(_key_names(applied))

    def acquire(self, *, cost: SupportsFloat = 1, timeout: float | None = None, **keys: Key | None) -> bool:
        """Wait until `cost` can be taken at all levels that `keys` names; False if that is not within
        `timeout` seconds, None for any time.

        Waiters that name the same keys are served first come, first served. Nothing is held while one waits,
        so others may meanwhile take what remains at a level. The thread sleeps; other threads and event loops
        go on. The call returns early only if it succeeds, since ``refund``, ``reset`` or another rule may
        bring tokens sooner; a `timeout` of 0 never waits.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.

        >>> limits = RateLimits(ip="10/s", user="2/h")
        >>> limits.acquire(ip="::1", user="ann", cost=2), limits.acquire(ip="::1", user="ann", timeout=0.01)
        (True, False)
        """
        request = _Request(self, keys)
        return _waiting.acquire(request, self._waiting.of(request.name()), cost, timeout)

    async def acquire_async(
        self, *, cost: SupportsFloat = 1, timeout: float | None = None, **keys: Key | None
    ) -> bool:
        """``acquire`` for coroutines, on any event loop of asyncio; a cancelled call leaves the queue.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimits(ip="10/s", user="2/h").acquire_async(ip="::1", user="ann"))
        True
        """
        request = _Request(self, keys)
        return await _waiting.acquire_async(request, self._waiting.of(request.name()), cost, timeout)

    def reconfigure(self, **rates: Rates) -> None:
        """Set another rate for each level that is named; debts and overrides are kept.

        Levels that processes share get it in all of them, one file after another; see
        ``RateLimiter.reconfigure``.

        Raises what the constructor raises, ValueError if a shared level cannot have that rate; no level is
        changed then. Complexity: O(max_keys).

        >>> limits = RateLimits(user="10/s", clock=lambda: 0)
        >>> limits.reconfigure(user="20/s"), limits.peek(user="ann").limit
        (None, 20)
        """
        changes = [(self._limiter(level), checked_rates(rate, None)) for level, rate in rates.items()]
        for limiter, changed in changes:
            if hasattr(limiter, "_changed_rates"):
                limiter._changed_rates(changed)
        for limiter, changed in changes:
            limiter.reconfigure(changed)
        self._waiting.notify_all()

    def set_shadow(self, *levels: str) -> None:
        """Set which levels are counted and charged, but never deny; all others do.

        Raises ValueError if there is no such level; nothing is changed then.

        >>> limits = RateLimits(user="1/h", shadow=["user"], clock=lambda: 0)
        >>> limits.allow(user="ann"), limits.allow(user="ann"), limits.set_shadow(), limits.allow(user="ann")
        (True, True, None, False)
        """
        self._joint.set_shadow(self._checked_shadow(levels))
        self._waiting.notify_all()

    def override(self, level: str, key: Key, rate: Rates) -> None:
        """Give one key of a level, written as requests write it, a rate of its own. It starts with its whole
        burst, or keeps its debts if it had a rate of its own before.

        Raises ValueError if there is no such level, ValueError or TypeError if `key` or `rate` is none.
        Memory: some hundred bytes for each key.

        >>> limits = RateLimits(user="2/s", clock=lambda: 0)
        >>> limits.override("user", "ann", "100/s")
        >>> limits.peek(user="ann").policy, limits.peek(user="bob").policy
        ('user: 100/s', 'user: 2/s')
        """
        (name,) = self._names(level, key)
        overrides = self._overrides[level]
        before = overrides.get(name)
        if not isinstance(before, RateLimiter):
            overrides[name] = RateLimiter(rate, max_keys=1, clock=self._clock)
        else:
            before.reconfigure(rate)
        self._waiting.notify_all()

    def exempt(self, level: str, *keys: Any) -> None:
        """Exempt some keys, or all addresses in some networks, from a level.

        A network is text such as ``"10.0.0.0/8"``, or one of `ipaddress`. Of several that contain an
        address, the narrowest counts, and a rule for a single key takes precedence.

        Raises what ``override`` raises.

        >>> limits = RateLimits(ip="1/h")
        >>> limits.exempt("ip", "127.0.0.1", "::1")
        >>> [limits.allow(ip="::1") for _ in range(3)]
        [True, True, True]
        """
        self._rule(level, keys, None)

    def deny(self, level: str, *keys: Any) -> None:
        """Let a level deny some keys, or all addresses in some networks, as ``"0/s"`` does.

        Keys and networks are those of ``exempt``. Raises what ``override`` raises.

        >>> limits = RateLimits(ip="10/s")
        >>> limits.deny("ip", "192.0.2.0/24", "2001:db8::/32"), limits.exempt("ip", "192.0.2.1")
        (None, None)
        >>> [limits.allow(ip=address) for address in ("192.0.2.7", "192.0.2.1", "2001:db8::17", "::1")]
        [False, True, False, True]
        >>> limits.decide(ip="192.0.2.7").retry_after
        inf
        """
        self._rule(level, keys, _DENY)

    def _rule(self, level: str, keys: tuple[Any, ...], value: Any) -> None:
        names, networks = self._sorted(level, keys)
        self._networks[level].update(networks, value)
        self._overrides[level].update(dict.fromkeys(names, value))
        self._waiting.notify_all()

    def _sorted(self, level: str, keys: tuple[Any, ...]) -> tuple[list[bytes], list[tuple[int, int, int]]]:
        """The names of single keys, and networks."""
        self._limiter(level)
        texts = [str(key) if hasattr(key, "with_prefixlen") else key for key in keys]
        found = {text: network_of(text) for text in texts if isinstance(text, str) and "/" in text}
        plain = [text for text in texts if not isinstance(text, str) or not found.get(text)]
        names = self._names(level, *plain)
        return names, [network for network in found.values() if network is not None]

    def counters(self) -> dict[str, LevelCounts]:
        """How many requests each level allowed and denied, and how often each of its policies denied.

        A request that is denied counts at the levels that deny it, at the others not at all; one that waits
        may count more than once. Complexity: O(levels x policies).

        >>> limits = RateLimits(ip="9/s", user="1/min", shadow=["user"], clock=lambda: 0)
        >>> [limits.allow(ip="::1", user="ann") for _ in range(3)]
        [True, True, True]
        >>> limits.counters()["user"]
        LevelCounts(allowed=1, denied=2, policies={'1/min': 2})
        """
        return {level: tally.counts() for level, tally in self._tallies.items()}

    def count_denied(self, **counters: KeyCounter | None) -> None:
        """Have each denied key of a level added to a counter, such as a `HotKeys`; None ends it.

        Requests that are allowed cost nothing more. Keys are cut after 256 characters. ``add(key)`` is called
        in the call that denies, which raises what it raises.

        Raises ValueError if there is no such level, TypeError if a counter has no ``add``; nothing changes
        then.

        >>> from headgate import HotKeys
        >>> limits = RateLimits(user="1/h")
        >>> limits.count_denied(user=HotKeys(100, half_life=300))
        >>> [limits.allow(user="ann") for _ in range(3)], limits.denied["user"].top(1)
        ([True, False, False], [HotKey(key='ann', count=2, error=0)])
        """
        set_key_counters(self._tallies, counters)

    @property
    def denied(self) -> dict[str, KeyCounter]:
        """The counters of denied keys by level, of those that have one.

        >>> RateLimits(user="1/h").denied
        {}
        """
        return key_counters(self._tallies)

    def restore(self, level: str, *keys: Any) -> None:
        """Undo ``override``, ``exempt`` and ``deny`` for some keys or networks.

        Raises what ``override`` raises.

        >>> limits = RateLimits(ip="1/h")
        >>> limits.exempt("ip", "::1"), limits.restore("ip", "::1")
        (None, None)
        >>> limits.allow(ip="::1"), limits.allow(ip="::1")
        (True, False)
        """
        names, networks = self._sorted(level, keys)
        self._networks[level].remove(networks)
        for name in names:
            self._overrides[level].pop(name, None)
        self._waiting.notify_all()

    @property
    def rates(self) -> dict[str, tuple[Rate, ...]]:
        """The tiers of each level.

        >>> RateLimits(ip="10/s").rates
        {'ip': (Rate(limit=10, period=1, burst=10),)}
        """
        return {level: limiter.rates for level, limiter in self._levels.items()}

    @property
    def policies(self) -> tuple[str, ...]:
        """The tiers of all levels as text, for ``Decision.fields`` and ``Decision.headers``.

        >>> RateLimits(ip="10/s", user="100/min; 1000/h").policies
        ('ip: 10/s', 'user: 100/min', 'user: 1000/h')
        """
        return self._joint.policies()

    def __repr__(self) -> str:
        levels = [f"{level}={'; '.join(map(str, rates))!r}" for level, rates in self.rates.items()]
        return f"RateLimits({', '.join(levels)})"

    def __reduce__(self) -> Never:
        raise TypeError("a RateLimits cannot be copied or pickled: its state belongs to one clock")

    def _check(self) -> None:
        assert self._levels.keys() == self._overrides.keys()
        overrides = [limiter for found in self._overrides.values() for limiter in found.values() if limiter]
        for limiter in [*self._levels.values(), *overrides]:
            limiter._check()


def _key_names(applied: Applied) -> list[tuple[str, bytes]]:
    """What the names of queues consist of."""
    return [(level, key_name(key)) for level, _, key in applied]


class _Request:
    """The keys that a request names, as a bucket.

    All waiters charge the levels in one order, so that of those with several in common one is allowed.
    """

    __slots__ = ("_keys", "_limits")

    def __init__(self, limits: RateLimits, keys: dict[str, Key | None]) -> None:
        self._limits = limits
        self._keys: dict[str, Any] = dict(sorted(keys.items()))

    def name(self) -> tuple[tuple[str, bytes], ...]:
        """What identifies the queue in which the request waits."""
        return tuple(_key_names(self._limits._joint.applied(self._keys, 0)))

    def consume(self, cost: SupportsFloat) -> bool:
        return self._limits.allow(cost=cost, **self._keys)

    def decide(self, cost: SupportsFloat) -> Decision:
        return self._limits.decide(cost=cost, **self._keys)

    def peek(self, cost: SupportsFloat) -> Decision:
        return self._limits.peek(cost=cost, **self._keys)
