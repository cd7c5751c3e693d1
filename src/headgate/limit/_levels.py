"""Several limits for one request, all or nothing: levels, and the prefixes of an address.

All limits but the first are asked, then each is charged, and those charged get their cost back if another
was quicker at a later one. So nothing is taken from anybody when a request is denied, and the worst that two
requests at once can do is to deny each other.
"""

from __future__ import annotations

import os
from math import inf
from operator import attrgetter

from headgate._base.addresses import packed_address, unmapped
from headgate._base.clock import checked_clock
from headgate._base.keys import key_name
from headgate._base.pickling import initialized
from headgate.limit import _waiting
from headgate.limit._networks import UNIX, carried, checked_length, masked, network_of
from headgate.limit._decision import Decision, with_details
from headgate.limit._rate import Rate, checked_rates, written
from headgate.limit._reservation import Reservation
from headgate.limit._rules import Deny, LevelCounts, LevelTally, Networks
from headgate.limit._units import checked_amount, checked_positive
from headgate.limit.keyed import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from os import PathLike
    from typing import Any, Literal, Never, Protocol, SupportsFloat

    Key = str | bytes | int
    Rates = str | Rate | Iterable[str | Rate]
    Prefixes = int | Iterable[int] | Mapping[int, float]

    class Limiter(Protocol):
        """What a level may be."""

        def allow(self, key: Any, cost: SupportsFloat = 1) -> bool: ...
        def decide(self, key: Any, cost: SupportsFloat = 1) -> Decision: ...
        def peek(self, key: Any, cost: SupportsFloat = 1) -> Decision: ...
        def refund(self, key: Any, cost: SupportsFloat = 1) -> None: ...
        def reset(self, key: Any) -> None: ...
        def reconfigure(self, rate: Rates) -> None: ...
        @property
        def rates(self) -> tuple[Rate, ...]: ...
        def _check(self) -> None: ...

    Asked = Sequence[tuple[str, Any, Any]]

_retry_after, _remaining = attrgetter("retry_after"), attrgetter("remaining")
_UNLIMITED = Decision(True, inf, inf, 0.0, 0.0, "")
_RESERVED = frozenset(("clock", "cost", "max_keys", "on_full", "self", "shadow", "timeout"))
_DENY = Deny()


def _allow(asked: Asked, cost: SupportsFloat) -> bool:
    """Take `cost` everywhere or nowhere; True if it was there."""
    return _denier(asked, cost) is None


def _denier(asked: Asked, cost: SupportsFloat) -> str | None:
    """Take `cost` everywhere or nowhere; the name of the limit that denies, None if it was there."""
    for name, limiter, key in asked[1:]:
        if not (limiter._has(key, cost) if type(limiter) is RateLimiter else limiter.peek(key, cost).allowed):
            return name
    taken = 0
    try:
        for name, limiter, key in asked:
            if not limiter.allow(key, cost):
                return name
            taken += 1
    finally:
        if 0 < taken < len(asked):
            _refund(asked[:taken], cost)
    return None


def _decide(asked: Asked, cost: SupportsFloat) -> Decision:
    """``_allow``, but say how matters stand."""
    seen = _peeks(asked[1:], cost)
    if not all(answer.allowed for _, answer in seen):
        return _summary(_peeks(asked[:1], cost) + seen)
    taken: list[tuple[str, Decision]] = []
    try:
        for name, limiter, key in asked:
            answer = limiter.decide(key, cost)
            if not answer.allowed:
                return _named(name, answer)
            taken.append((name, answer))
    finally:
        if len(taken) < len(asked):
            _refund(asked[: len(taken)], cost)
    return _summary(taken)


def _peeks(asked: Asked, cost: SupportsFloat) -> list[tuple[str, Decision]]:
    return [(name, limiter.peek(key, cost)) for name, limiter, key in asked]


def _refund(asked: Asked, cost: SupportsFloat) -> None:
    for _, limiter, key in asked:
        limiter.refund(key, cost)


def _reset(asked: Asked) -> None:
    for _, limiter, key in asked:
        limiter.reset(key)


def _summary(answers: list[tuple[str, Decision]]) -> Decision:
    """Of the limits that deny the one that does so for longest, or the one with the least remaining."""
    if not answers:
        return _UNLIMITED
    named = [_named(*each) for each in answers]
    denials = [answer for answer in named if not answer.allowed]
    if not denials:
        return min(named, key=_remaining)
    worst = max(denials, key=_retry_after)
    violated = tuple([policy for denial in denials for policy in denial.violated])
    return with_details(worst, violated)


def _named(name: str, answer: Decision) -> Decision:
    """What a limit said, with its name before each policy."""
    named = Decision(*answer[:5], f"{name}: {answer.policy}")
    return with_details(named, tuple([f"{name}: {each}" for each in answer.violated]), answer._more_after)


class _Plain:
    """A limiter of the user's, as a part of a reservation."""

    __slots__ = ("_limiter",)

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def _check_settled(self, actual: float) -> None:
        """Any number of tokens may have been used of a reservation."""

    def _settled(self, key: Any, cost: float, actual: float, _: int) -> None:
        if actual < cost:
            self._limiter.refund(key, cost - actual)
        elif actual > cost:
            self._limiter.allow(key, actual - cost)


def _reserve(asked: Asked, cost: SupportsFloat) -> Reservation:
    """``_decide``, as a reservation."""
    parts = _parts_of(asked)
    return Reservation(checked_amount("cost", cost), parts, None, _decide(asked, cost))


def _parts_of(asked: Asked) -> list[tuple[Any, Any, int]]:
    """The limits that a reservation has to settle with, and what time it is for each."""
    return [
        (limiter, key, limiter._now_ns()) if hasattr(limiter, "_settled") else (_Plain(limiter), key, 0)
        for _, limiter, key in asked
    ]


class AddressLimiter:
    """A `RateLimiter` for addresses that limits the networks they lie in, several at once.

    `v4` and `v6` are the lengths of the prefixes that are limited: one, several, or a mapping from length to
    how many times the rate that network has. An address is allowed if all its networks are, and takes its
    cost from all or none. IPv4 inside IPv6 is IPv4, as it is for `address_prefix`. The ``"unix"`` of
    `client_address` has one limit, at the smallest multiple.

    The other arguments are those of `RateLimiter`, for each table: there is one for each multiplier, with a
    key for each prefix. So with `path` there is a file for each: that of 1 is `path`, that of 2 has ``.x2``
    after it. With ``on_mismatch="adopt"`` the rate is that of the first file: of 1, or else of the smallest
    multiple.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type, and what `RateLimiter`
    raises for a path.

    Complexity: O(prefixes x tiers) for a decision.

    >>> limiter = AddressLimiter("2/s", v4={32: 1, 24: 2}, clock=lambda: 0)
    >>> [limiter.allow(f"192.0.2.{host}") for host in (1, 1, 1, 2, 3, 4)]
    [True, True, False, True, True, False]
    >>> limiter.decide("192.0.2.4").policy
    '/24: 4/s'
    """

    __slots__ = ("__weakref__", "_limiters", "_rates", "_shared", "_v4", "_v6")

    def __init__(
        self,
        rate: Rates,
        *,
        v4: Prefixes = 32,
        v6: Prefixes = 64,
        max_keys: int = 1_000_000,
        path: str | PathLike[str] | None = None,
        mode: int = 0o600,
        on_full: Literal["evict", "deny"] = "evict",
        strict: bool = False,
        on_mismatch: Literal["raise", "adopt"] = "raise",
        clock: Callable[[], int] | None = None,
    ) -> None:
        if hasattr(self, "_v6"):
            raise initialized(self)
        prefixes = [_prefixes("v4", v4, 32), _prefixes("v6", v6, 128)]
        self._rates = checked_rates(rate, None)
        self._shared = path is not None
        self._limiters: dict[float, RateLimiter] = {}
        multiples = {times for found in prefixes for times in found.values()}
        for times in sorted(multiples, key=lambda times: (times != 1, times)):
            wanted = _multiplied(self._rates, times)
            limiter = RateLimiter(
                wanted,
                max_keys=max_keys,
                path=_path_of(path, times),
                mode=mode,
                on_full=on_full,
                strict=strict,
                on_mismatch=on_mismatch,
                clock=clock,
            )
            if not self._limiters and limiter.rates != wanted:
                self._rates = _multiplied(limiter.rates, 1 / times)
            self._limiters[times] = limiter
        self._v4, self._v6 = (
            [(f"/{length}", length, self._limiters[times]) for length, times in found.items()]
            for found in prefixes
        )

    def _asked(self, address: str) -> Asked:
        if address == UNIX:
            return [(UNIX, self._limiters[min(self._limiters)], address)]
        packed = carried(unmapped(packed_address(address)))
        prefixes = self._v4 if len(packed) == 4 else self._v6
        return [
            (name, limiter, masked(packed, length) + bytes((length,))) for name, length, limiter in prefixes
        ]

    def allow(self, key: str, cost: SupportsFloat = 1) -> bool:
        """Take `cost` from all networks of the address `key` if all have it; True if so.

        Raises ValueError if `key` is no address, and what ``RateLimiter.allow`` raises for a cost.

        >>> AddressLimiter("2/s").allow("2001:db8::17")
        True
        """
        return _allow(self._asked(key), cost)

    def decide(self, key: str, cost: SupportsFloat = 1) -> Decision:
        """``allow``, but say how matters stand: for the network that denies for longest, or else for the one
        with the least remaining.

        Raises what ``allow`` raises.

        >>> AddressLimiter("2/s", clock=lambda: 0).decide("2001:db8::17").policy
        '/64: 2/s'
        """
        return _decide(self._asked(key), cost)

    def peek(self, key: str, cost: SupportsFloat = 1) -> Decision:
        """What ``decide`` would answer, but without taking anything.

        Raises what ``allow`` raises.

        >>> AddressLimiter("2/s", clock=lambda: 0).peek("2001:db8::17").remaining
        2.0
        """
        return _summary(_peeks(self._asked(key), cost))

    def reserve(self, key: str, cost: SupportsFloat = 1) -> Reservation:
        """Take `cost` from all networks of the address `key` if all have it, as a `Reservation`.

        Raises what ``allow`` raises.

        >>> limiter = AddressLimiter("20/s", clock=lambda: 0)
        >>> reservation = limiter.reserve("192.0.2.1", 15)
        >>> bool(reservation), reservation.settle(4), limiter.peek("192.0.2.1").remaining
        (True, None, 16.0)
        """
        return _reserve(self._asked(key), cost)

    def _now_ns(self) -> int:
        return next(iter(self._limiters.values()))._now_ns()

    def _check_settled(self, actual: float) -> None:
        next(iter(self._limiters.values()))._check_settled(actual)

    def _settled(self, key: str, cost: float, actual: float, booked: int) -> None:
        for _, limiter, network in self._asked(key):
            limiter._settled(network, cost, actual, booked)

    def refund(self, key: str, cost: SupportsFloat = 1) -> None:
        """Give back `cost` to all networks of the address `key`.

        Raises what ``allow`` raises.

        >>> limiter = AddressLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("192.0.2.1"), limiter.refund("192.0.2.1"), limiter.peek("192.0.2.1").remaining
        (True, None, 2.0)
        """
        _refund(self._asked(key), cost)

    def reset(self, key: str) -> None:
        """Forget what the networks of the address `key` owe.

        Raises ValueError if `key` is no address.

        >>> AddressLimiter("2/s").reset("192.0.2.1")
        """
        _reset(self._asked(key))

    def reconfigure(self, rate: Rates) -> None:
        """Set another rate, multiplied as before; debts are kept.

        Raises what the constructor raises, ValueError if processes share the limit. Complexity: O(max_keys).

        >>> limiter = AddressLimiter("2/s", clock=lambda: 0)
        >>> limiter.reconfigure("5/s"), limiter.peek("192.0.2.1").policy
        (None, '/32: 5/s')
        """
        rates = self._changed_rates(rate)
        for times, limiter in self._limiters.items():
            limiter.reconfigure(_multiplied(rates, times))
        self._rates = rates

    def _changed_rates(self, rate: Rates) -> tuple[Rate, ...]:
        """The tiers that ``reconfigure`` would set."""
        rates = checked_rates(rate, None)
        for times, limiter in self._limiters.items():
            limiter._changed_rates(_multiplied(rates, times))
        return rates

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The tiers of the rate that is multiplied.

        >>> AddressLimiter("2/s").rates
        (Rate(limit=2, period=1, burst=2),)
        """
        return self._rates

    def __repr__(self) -> str:
        return f"AddressLimiter({'; '.join(map(str, self._rates))!r})"

    def __reduce__(self) -> Never:
        raise TypeError("an AddressLimiter cannot be copied or pickled: its state belongs to one clock")

    def _check(self) -> None:
        for times, limiter in self._limiters.items():
            limiter._check()
            assert self._shared or limiter.rates == _multiplied(self._rates, times)


def _prefixes(name: str, prefixes: Prefixes, most: int) -> dict[int, float]:
    """The multiplier of the rate by the length of the prefix."""
    if isinstance(prefixes, int):
        prefixes = (prefixes,)
    try:
        pairs = dict(prefixes.items() if hasattr(prefixes, "items") else dict.fromkeys(prefixes, 1))
    except TypeError:
        raise TypeError(f"{name} must be an int, several or a mapping of them, got {prefixes!r}") from None
    if not pairs:
        raise ValueError(f"{name} must be at least one length, got {prefixes!r}")
    return {
        checked_length(name, length, most): checked_positive(name, times) for length, times in pairs.items()
    }


def _path_of(path: str | PathLike[str] | None, times: float) -> str | PathLike[str] | None:
    """The file of the table with this multiplier."""
    return path if path is None or times == 1 else f"{os.fsdecode(path)}.x{written(times)}"


def _multiplied(rates: tuple[Rate, ...], times: float) -> tuple[Rate, ...]:
    """These rates so many times; one may come at once where it may without."""
    return tuple([
        Rate(rate.limit * times, rate.period, max(rate.burst * times, min(1, rate.burst))) for rate in rates
    ])


def _checked_level(level: Any) -> str:
    """A name that a keyword and a header can have."""
    if not isinstance(level, str) or level in _RESERVED or not (level.isascii() and level.isprintable()):
        raise ValueError(f"level must be printable ASCII and none of {sorted(_RESERVED)}, got {level!r}")
    return level


def _limiter(limit: Any, max_keys: int, on_full: Any, clock: Callable[[], int] | None) -> Any:
    """The limiter that a level is, or one for the rate that it says."""
    if hasattr(limit, "consume"):
        raise TypeError(f"a level must be a rate or a limiter by key, got {limit!r}")
    if hasattr(limit, "decide"):
        return limit
    return RateLimiter(limit, max_keys=max_keys, on_full=on_full, clock=clock)


class RateLimits:
    """Limits on several levels, by address, user, endpoint and what else a request has, all or nothing.

    Each level is given by keyword, or in a mapping: as a rate (``"10/s"``, ``"100/min; 1000/h"``, a `Rate`),
    or as a limiter of your own: a `RateLimiter`, an `AddressLimiter` or what has their methods. A request
    names its keys by level and is allowed if all these levels allow it; then it takes its cost at each of
    them, else at none. A level that is not named, or whose key is None, has no say. The other arguments are
    those of `RateLimiter`, for each level.

    Levels named in `shadow` are counted, in ``counters``, and charged like the others, but never deny: a rate
    can be tried before it is enforced.

    Two requests at once that meet at several levels may both be denied where one could have been allowed.
    More than a level admits is never allowed, but for what ``RateLimiter.refund`` says of a refund that is
    late, as when a thread is paused between two levels.

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
        "__weakref__", "_clock", "_levels", "_networks", "_overrides", "_shadow", "_tallies", "_waiting"
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
        self._waiting = _waiting.Lines()
        if levels is not None and not hasattr(levels, "keys"):
            raise TypeError(f"levels must be a mapping of names to limits, got {levels!r}")
        wanted = {**(levels or {}), **more}
        if not wanted:
            raise ValueError("levels must be at least one, got none")
        self._levels: dict[str, Limiter] = {}
        for level, limit in wanted.items():
            self._levels[_checked_level(level)] = _limiter(limit, max_keys, on_full, clock)
        self._shadow = self._checked_shadow(shadow)
        self._networks = {level: Networks() for level in wanted}
        self._tallies = {level: LevelTally() for level in wanted}
        self._overrides: dict[str, dict[bytes, Any]] = {level: {} for level in wanted}

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
        """Under which names the overrides of keys are kept, if they are keys of that level at all."""
        limiter = self._limiter(level)
        for key in keys:
            limiter.peek(key, 0)
        return [key_name(key) for key in keys]

    def _asked(self, keys: dict[str, Any], cost: SupportsFloat = 0) -> Asked:
        if not keys:
            raise TypeError("the key of at least one level must be given")
        asked = []
        for level, key in keys.items():
            limiter: Limiter | None = self._levels.get(level) or self._limiter(level)
            if key is None:
                continue
            networks = self._networks[level]
            if networks.values:
                limiter = networks.get(key, limiter)
            if overrides := self._overrides[level]:
                limiter = overrides.get(key_name(key), limiter)
            if limiter is not None:
                asked.append((level, limiter, key))
        if not asked:
            checked_amount("cost", cost)
        return asked

    def _parted(self, keys: dict[str, Any], cost: SupportsFloat) -> tuple[Asked, Asked]:
        """The limits that may deny, and those that are only counted."""
        asked = self._asked(keys, cost)
        if not self._shadow:
            return asked, ()
        shadows = [each for each in asked if each[0] in self._shadow]
        return [each for each in asked if each[0] not in self._shadow], shadows

    def _allowed(self, asked: Asked, shadows: Asked, cost: SupportsFloat) -> Asked:
        """Count a request that was allowed, and charge levels that never deny; those that were charged."""
        for level, _, _ in asked:
            self._tallies[level].add_allowed()
        charged: list[tuple[str, Any, Any]] = []
        for level, limiter, key in shadows:
            limiter.peek(key, 0)  # raises if it is no key
            try:
                answer = limiter.decide(key, cost)
            except ValueError:  # more than a burst, at any time
                self._tallies[level].deny([str(rate) for rate in limiter.rates])
                continue
            if answer.allowed:
                self._tallies[level].add_allowed()
                charged.append((level, limiter, key))
            else:
                self._tallies[level].deny(answer.violated)
        return charged

    def _denied(self, asked: Asked, violated: Iterable[str]) -> None:
        """Count a request that was denied, by policies of these levels."""
        for level, _, _ in asked:
            start = f"{level}: "
            policies = [policy.removeprefix(start) for policy in violated if policy.startswith(start)]
            if policies:
                self._tallies[level].deny(policies)

    def allow(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> bool:
        """Take `cost` at all levels that `keys` names if all have it; True if so.

        Raises ValueError if there is no such level, TypeError if none is named; for a key and a cost what
        ``RateLimiter.allow`` raises. Nothing is taken then.

        >>> limits = RateLimits(user="2/s", endpoint="3/s", clock=lambda: 0)
        >>> [limits.allow(user=user, endpoint="/search") for user in ("ann", "ann", "ann", "bob", "eve")]
        [True, True, False, True, False]
        """
        asked, shadows = self._parted(keys, cost)
        denier = _denier(asked, cost)
        if denier is None:
            self._allowed(asked, shadows, cost)
            return True
        self._denied(asked, _summary(_peeks(asked, cost)).violated or (f"{denier}: ",))
        return False

    def decide(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """``allow``, but say how matters stand: for the level that denies for longest, or else for the one
        with the least remaining. If no level has a say, limit and remaining are infinite.

        Raises what ``allow`` raises.

        >>> RateLimits(user="2/s", endpoint="3/s", clock=lambda: 0).decide(user="ann", endpoint="/").policy
        'user: 2/s'
        """
        asked, shadows = self._parted(keys, cost)
        decision = _decide(asked, cost)
        if decision.allowed:
            self._allowed(asked, shadows, cost)
        else:
            self._denied(asked, decision.violated)
        return decision

    def peek(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Decision:
        """What ``decide`` would answer, but without taking anything.

        Raises what ``allow`` raises.

        >>> RateLimits(user="2/s", clock=lambda: 0).peek(user="ann").remaining
        2.0
        """
        return _summary(_peeks(self._parted(keys, cost)[0], cost))

    def reserve(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> Reservation:
        """Take `cost` at all levels that `keys` names if all have it, as a `Reservation`: it is false if one
        denies. What is used in the end is told to its ``settle``, and ``cancel`` gives all back.

        Raises what ``allow`` raises.

        >>> limits = RateLimits(user="1000/min", team="5000/min", clock=lambda: 0)
        >>> reservation = limits.reserve(user="ann", team="a", cost=800)
        >>> reservation.settle(300), limits.peek(user="ann").remaining, limits.peek(team="a").remaining
        (None, 700.0, 4700.0)
        """
        asked, shadows = self._parted(keys, cost)
        reservation = _reserve(asked, cost)
        if reservation:
            times = _parts_of(shadows)
            charged = self._allowed(asked, shadows, cost)
            reservation._add([part for part, each in zip(times, shadows, strict=True) if each in charged])
        elif reservation.decision is not None:
            self._denied(asked, reservation.decision.violated)
        return reservation

    def refund(self, *, cost: SupportsFloat = 1, **keys: Key | None) -> None:
        """Give back `cost` at each level, as when a request came to nothing.

        Raises what ``allow`` raises, but a cost may be above the burst.

        >>> limits = RateLimits(user="2/s", clock=lambda: 0)
        >>> limits.allow(user="ann"), limits.refund(user="ann"), limits.peek(user="ann").remaining
        (True, None, 2.0)
        """
        asked = self._asked(keys, cost)
        _refund(asked, cost)
        self._waiting.nudge_some(_parts(asked))

    def reset(self, **keys: Key | None) -> None:
        """Forget what the keys owe.

        Raises what ``allow`` raises.

        >>> limits = RateLimits(user="1/h", clock=lambda: 0)
        >>> limits.allow(user="ann"), limits.reset(user="ann"), limits.allow(user="ann")
        (True, None, True)
        """
        asked = self._asked(keys)
        _reset(asked)
        self._waiting.nudge_some(_parts(asked))

    def acquire(self, *, cost: SupportsFloat = 1, timeout: float | None = None, **keys: Key | None) -> bool:
        """Wait until `cost` can be taken at all levels that `keys` names; False if that is not within
        `timeout` seconds, None for any time.

        Those that name the same keys are served in the order in which they came. Nothing is held while one
        waits, so others may take meanwhile what a level has left. The thread sleeps; other threads and event
        loops go on. The time is waited to its end, since ``refund``, ``reset`` or another rule may bring
        tokens sooner; a `timeout` of 0 never waits.

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
        """``acquire`` for coroutines, on any event loop; cancelling gives the place back.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimits(ip="10/s", user="2/h").acquire_async(ip="::1", user="ann"))
        True
        """
        request = _Request(self, keys)
        return await _waiting.acquire_async(request, self._waiting.of(request.name()), cost, timeout)

    def reconfigure(self, **rates: Rates) -> None:
        """Set another rate for each level that is named; debts and overrides are kept.

        Raises what the constructor raises, ValueError if processes share a level; no level is changed then.
        Complexity: O(max_keys).

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
        self._waiting.nudge_all()

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
        self._waiting.nudge_all()

    def exempt(self, level: str, *keys: Any) -> None:
        """Let a level have no say over some keys, or over all addresses in some networks.

        A network is text such as ``"10.0.0.0/8"``, or one of `ipaddress`. Of several that an address lies in,
        the narrowest counts, and a rule for a single key comes before them.

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
        self._waiting.nudge_all()

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
        self._waiting.nudge_all()

    @property
    def rates(self) -> dict[str, tuple[Rate, ...]]:
        """The tiers of each level.

        >>> RateLimits(ip="10/s").rates
        {'ip': (Rate(limit=10, period=1, burst=10),)}
        """
        return {level: limiter.rates for level, limiter in self._levels.items()}

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


def _parts(asked: Asked) -> list[tuple[str, bytes]]:
    """What the names of lines consist of."""
    return [(level, key_name(key)) for level, _, key in asked]


class _Request:
    """The keys that a request names, as a bucket.

    All that wait go through the levels in one order, so that of those who meet at several one is allowed.
    """

    __slots__ = ("_keys", "_limits")

    def __init__(self, limits: RateLimits, keys: dict[str, Key | None]) -> None:
        self._limits = limits
        self._keys: dict[str, Any] = dict(sorted(keys.items()))

    def name(self) -> tuple[tuple[str, bytes], ...]:
        """What names the line in which the request waits."""
        return tuple(_parts(self._limits._asked(self._keys)))

    def consume(self, cost: SupportsFloat) -> bool:
        return self._limits.allow(cost=cost, **self._keys)

    def decide(self, cost: SupportsFloat) -> Decision:
        return self._limits.decide(cost=cost, **self._keys)

    def peek(self, cost: SupportsFloat) -> Decision:
        return self._limits.peek(cost=cost, **self._keys)
