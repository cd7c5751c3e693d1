"""What all hosts share of rate limits in front of an application.

    request view -> exempt? -> keys, cost -> reserve at all levels -> Charge -> fields of the response
                                                     |
                                                     v  denied: charges made further out are cancelled
                                                denial(): 429, Retry-After, problem+json

A limiter has the methods of `RateLimiter`, or of `RateLimits` if its `rates` is a mapping. One that waits for
another process has a true attribute `blocking`, and serves threads only; one whose `reserve` is a coroutine
function serves event loops only, and so do its ``peek`` and the methods of its reservations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import isawaitable, iscoroutinefunction
from math import inf

from headgate._base.checks import checked_callable
from headgate.adapters._exempt import exempting, is_exempt
from headgate.adapters.keys import checked_extractor, is_of_networks
from headgate.limit import AddressLimiter, Decision, RateLimiter, RateLimits, Reservation
from headgate.limit._rules import LevelCounts, LevelTally, key_counters, set_key_counters
from headgate.limit._units import checked_amount
from headgate.limit.fields import fields_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, Literal, SupportsFloat, TypeAlias

    from headgate.adapters._exempt import Exempt
    from headgate.adapters.keys import Extractor, Request
    from headgate.limit._rules import KeyCounter

    Keys: TypeAlias = "Extractor | Mapping[str, Extractor]"
    Cost: TypeAlias = "SupportsFloat | Callable[[Request], Any]"
    Style: TypeAlias = Literal["draft", "legacy", "both"] | None
    Fields: TypeAlias = list[tuple[bytes, bytes]]

NAMES = {
    "draft": frozenset((b"ratelimit", b"ratelimit-policy")),
    "legacy": frozenset((b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")),
}
NAMES["both"] = NAMES["draft"] | NAMES["legacy"]
"""The header fields of each style."""
_STYLES = ("draft", "legacy", "both", None)
_ONLY_LEVEL = "default"


class Charge:
    """What one request was charged, by all limits that apply to it: a middleware's and a route's own.

    It is false if one of them denied the request; then none was charged. Applications find it as
    ``scope["headgate"]``, or as ``request.state.headgate`` in frameworks, and may settle it.

    >>> limiter = RateLimiter("1000/min", clock=lambda: 0)
    >>> charge = Limiting(limiter, keys=lambda request: "ann", cost=800).charge(None)
    >>> charge.decision.remaining, charge.settle(300), limiter.peek("ann").remaining
    (200.0, None, 700.0)
    """

    __slots__ = ("_decider", "_parts", "decision", "would_deny", "written")

    decision: Decision | None
    """That of the limit that denied, or else of the one with the least remaining; None if none did."""
    would_deny: Decision | None
    """The denial of a limit with ``dry_run``, which let the request pass."""
    written: bool
    """Whether a middleware writes the header fields, so that those inside of it need not."""

    def __init__(self, limiting: Limiting | None = None, keys: Any = None, reservation: Any = None) -> None:
        self._decider = limiting
        self.would_deny = None
        self.written = False
        self._parts: list[tuple[Limiting, Any, Any]]
        if limiting is None:
            self.decision, self._parts = None, []
        else:
            self.decision = reservation.decision
            self._parts = [(limiting, keys, reservation)]

    def __bool__(self) -> bool:
        return self.decision is None or self.decision.allowed

    def settle(self, actual: SupportsFloat) -> Awaitable[None] | None:
        """Settle for `actual` instead of the cost that was reserved, at all limits and levels; once.

        Limits that count requests, with a `cost` of 1, keep their count if others have another cost. The
        result has to be awaited where a limiter is asynchronous; elsewhere it is None.

        Raises what ``Reservation.settle`` raises.
        """
        weighed = [reservation for limiting, _, reservation in self._parts if not limiting.counts]
        return _each("settle", weighed or [reservation for *_, reservation in self._parts], actual)

    def cancel(self) -> Awaitable[None] | None:
        """Refund all that the request was charged, minus what has been refilled since; once. The result has
        to be awaited where a limiter is asynchronous.
        """
        return _each("cancel", [reservation for *_, reservation in self._parts])

    def fields(self, style: Style = "draft") -> Fields:
        """The header fields of the response, as bytes with names in lower case: RateLimit of the limit that
        decided and RateLimit-Policy, or the older X-RateLimit ones. Retry-After is one of ``denial``.
        """
        decision, limiting = self.decision, self._decider
        if decision is None or limiting is None or style is None:
            return []
        policies = () if limiting.policies is None else limiting.policies()
        fields = fields_of(decision, None, policies, style)
        return fields if decision.allowed else [field for field in fields if field[0] != b"retry-after"]

    def denial(self) -> tuple[int, Fields, bytes]:
        """The response to a request that was denied: status, header fields without those of ``fields``, body.

        Raises ValueError if the request was allowed.
        """
        if self.decision is None:
            raise ValueError("charge must be a denial, got one without a decision")
        body = json.dumps(self.decision.problem()).encode()
        fields = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
        return 429, fields + self.retry_after(), body

    def retry_after(self) -> Fields:
        """Retry-After, if the request was denied and can ever be allowed."""
        fields = [] if self.decision is None else self.decision.fields()
        return [field for field in fields if field[0] == b"retry-after"]

    def includes(self, limits: Any, keys: Any) -> bool:
        """Whether the request has been charged by these limits for these keys already."""
        return any(limiting.limits is limits and found == keys for limiting, found, _ in self._parts)

    def add(self, limiting: Limiting, keys: Any, reservation: Any) -> None:
        """Charge the request for a reservation too."""
        decision = reservation.decision
        if decision.allowed:
            self._parts.append((limiting, keys, reservation))
        if limiting.dry_run:
            if not decision.allowed:
                self.would_deny = decision
        elif (self.decision is None or not decision.allowed
                or decision.remaining < self.decision.remaining):
            self.decision, self._decider = decision, limiting

    def __repr__(self) -> str:
        return f"Charge({self.decision!r})"


def _each(method: str, reservations: list[Any], *args: Any) -> Awaitable[None] | None:
    """Call a method of each reservation, also if that of one fails; what remains to be awaited. Raises the
    first error.
    """
    pending, errors = [], []
    for each in reservations:
        try:
            result = getattr(each, method)(*args)
        except Exception as error:
            errors.append(error)
        else:
            if result is not None:
                pending.append(result)
    if pending:
        return _all(pending, errors)
    if errors:
        raise errors[0]
    return None


async def _all(pending: list[Awaitable[None]], errors: list[Exception]) -> None:
    for each in pending:
        try:
            await each
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


class Limiting:
    """Limits as a host applies them: checked arguments, the charge of each request, counters.

    `asynchronous` says whether the host runs an event loop: then no limiter may block, and it calls
    ``charge_async`` or ``start``; otherwise none may be a coroutine's, and it calls ``charge``. In these,
    `found` is what the request was charged further out, if anything; they return the charge of both, which is
    false if one of the limits denies the request. Then what `found` had charged is cancelled. A request that
    is exempt, has no key or is denied already is not charged.

    They raise what the extractors, the limiter, and the callables `cost` and `exempt` raise.

    >>> limiting = Limiting("2/s", keys=lambda request: "ann")
    >>> [bool(limiting.charge(None)) for _ in range(3)], limiting.stats()
    ([True, True, False], {'default': LevelCounts(allowed=2, denied=1, policies={'2/s': 1})})
    """

    __slots__ = ("_add_allowed", "_awaited", "_cost", "_exempt", "_extract", "_levels", "_peek", "_quick",
                 "_reserve", "_soon", "_tallies", "counts", "dry_run", "limits", "on_denied", "policies",
                 "style")

    def __init__(self, limits: Any, *, keys: Keys, cost: Cost = 1, exempt: Exempt = (),
                 headers: Style = "draft", dry_run: bool = False, on_denied: Any = None,
                 asynchronous: bool = False) -> None:
        self.limits = _checked_limits(limits)
        self._awaited = checked_waiting(self.limits, asynchronous)
        self._levels = _extractors(self.limits, keys)
        self._extract: Any = None if self._levels else keys
        _check_addresses(self.limits, self._levels, keys)
        self._reserve, self._peek = _methods(self.limits, bool(self._levels))
        counted = [] if isinstance(self.limits, RateLimits) else dict(self._levels) or [_ONLY_LEVEL]
        self._tallies = {level: LevelTally() for level in counted}
        self._add_allowed = None if self._levels else self._tallies[_ONLY_LEVEL].add_allowed
        self._cost: Any = cost if callable(cost) else checked_amount("cost", cost)
        self._exempt = exempting(exempt)
        if headers not in _STYLES:
            raise ValueError(f"headers must be one of {_STYLES}, got {headers!r}")
        self.style = None if dry_run else headers
        self.policies = _policies_of(self.limits, bool(self._levels))
        self.dry_run = bool(dry_run)
        self.on_denied = checked_callable("on_denied", on_denied)
        self.counts = self._cost == 1
        self._quick = not dry_run and (not self._levels or not self._tallies)
        self._soon = not (self._awaited or callable(cost) or callable(exempt))

    def charge(self, request: Request, found: Charge | None = None) -> Charge:
        """Charge a request at all levels, or at none."""
        if self._exempt is not None and is_exempt(self._exempt, request):
            return Charge() if found is None else found
        keys = self._keys(request)
        if self._is_charged(keys, found):
            return Charge() if found is None else found
        charge = self._charged(found, keys, self._cost(request) if callable(self._cost) else self._cost)
        if found is not None and not charge:
            found.cancel()
        return charge

    def start(self, request: Request, found: Charge | None = None) -> Charge | Awaitable[Charge]:
        """As ``charge_async``, but return the charge itself if nothing has to be awaited."""
        if not self._soon:
            return self.charge_async(request, found)
        if self._exempt is not None and self._exempt(request):
            return Charge() if found is None else found
        if self._extract is not None:
            keys = self._extract(request)
            later = type(keys) is not str
        else:
            keys, later = {}, False
            for level, extract in self._levels:
                keys[level] = key = extract(request)
                if type(key) is not str and key is not None:
                    later = True
        if later:
            return self._charge_later(request, found, keys)
        if found is None:
            return self._charged(None, keys, self._cost)
        if self._is_charged(keys, found):
            return found
        charge = self._charged(found, keys, self._cost)
        pending = None if charge else found.cancel()
        return charge if pending is None else _after(pending, charge)

    async def charge_async(self, request: Request, found: Charge | None = None) -> Charge:
        """As ``charge``, in an event loop: what extractors, `cost` and `exempt` return may be awaitable."""
        if self._exempt is not None and await _awaited(self._exempt(request)):
            return Charge() if found is None else found
        return await self._charge_later(request, found, self._keys(request))

    async def _charge_later(self, request: Request, found: Charge | None, keys: Any) -> Charge:
        """The charge for keys that may have to be awaited first."""
        if self._levels:
            keys = {level: await _awaited(key) for level, key in keys.items()}
        else:
            keys = await _awaited(keys)
        if self._is_charged(keys, found):
            return Charge() if found is None else found
        cost = await _awaited(self._cost(request)) if callable(self._cost) else self._cost
        if self._awaited:
            charge = await self._charged_async(found, keys, cost)
        else:
            charge = self._charged(found, keys, cost)
        if found is not None and not charge and (pending := found.cancel()) is not None:
            await pending
        return charge

    def _keys(self, request: Request) -> Any:
        if self._extract is not None:
            return self._extract(request)
        return {level: extract(request) for level, extract in self._levels}

    def _is_charged(self, keys: Any, found: Charge | None) -> bool:
        """Whether there is nothing left to charge."""
        return keys is None or (found is not None and (not found or found.includes(self.limits, keys)))

    def _charged(self, found: Charge | None, keys: Any, cost: Any) -> Charge:
        try:
            reservation = self._reserve(keys, cost)
        except ValueError:
            reservation = self._too_large(keys, cost, self._peek(self._refused(keys, cost), 0))
        if found is None and self._quick and reservation.decision.allowed:  # the usual case, in few calls
            if self._add_allowed is not None:
                self._add_allowed()
            return Charge(self, keys, reservation)
        return self._counted(found, keys, reservation)

    async def _charged_async(self, found: Charge | None, keys: Any, cost: Any) -> Charge:
        try:
            reservation = await self._reserve(keys, cost)
        except ValueError:
            refused = await self._refused_async(keys, cost)
            reservation = self._too_large(keys, cost, await self._peek(refused, 0))
        return self._counted(found, keys, reservation)

    def _refused(self, keys: Any, cost: Any) -> Any:
        """The keys without those of levels that could ever allow the cost."""
        for level, _ in self._levels:
            try:
                self._peek({level: keys[level]}, cost)
            except ValueError:
                return {level: keys[level]}
        return keys

    async def _refused_async(self, keys: Any, cost: Any) -> Any:
        """As ``_refused``."""
        for level, _ in self._levels:
            try:
                await self._peek({level: keys[level]}, cost)
            except ValueError:
                return {level: keys[level]}
        return keys

    def _too_large(self, keys: Any, cost: Any, peeked: Decision) -> Reservation:
        """The denial of a request that costs more than a burst, which it can never have; `RateLimits` have
        not counted it, as it is an error of theirs.
        """
        never = Decision(False, peeked.limit, peeked.remaining, inf, peeked.reset_after, peeked.policy)
        denial = Reservation(checked_amount("cost", cost), [], None, never)
        if isinstance(self.limits, RateLimits):
            self._count(self.limits._tallies, keys, never)
        return denial

    def _counted(self, found: Charge | None, keys: Any, reservation: Any) -> Charge:
        """The charge with a reservation added, which is counted where the limiter has no counters itself."""
        charge = Charge() if found is None else found
        charge.add(self, keys, reservation)
        if self._tallies:
            self._count(self._tallies, keys, reservation.decision)
        return charge

    def _count(self, tallies: dict[str, LevelTally], keys: Any, decision: Decision) -> None:
        if not self._levels:
            tally = tallies[_ONLY_LEVEL]
            if decision.allowed:
                tally.add_allowed()
            else:
                tally.deny(decision.violated, keys)
            return
        for level, tally in tallies.items():
            start = f"{level}: "
            policies = [each.removeprefix(start) for each in decision.violated if each.startswith(start)]
            if policies:
                tally.deny(policies, keys[level])
            elif decision.allowed and keys[level] is not None:
                tally.add_allowed()

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests each level allowed and denied, and how often each of its policies denied. A
        limiter without levels is the level ``"default"``; for `RateLimits` these are its ``counters``. A
        request that is denied counts at the levels that deny it; one that a route's own limit denies later
        counts as allowed.
        """
        if isinstance(self.limits, RateLimits):
            return self.limits.counters()
        return {level: tally.counts() for level, tally in self._tallies.items()}


    def count_denied(self, **counters: KeyCounter | None) -> None:
        """As ``RateLimits.count_denied``, for any limiter."""
        if isinstance(self.limits, RateLimits):
            self.limits.count_denied(**counters)
        else:
            set_key_counters(self._tallies, counters)

    @property
    def denied(self) -> dict[str, KeyCounter]:
        """As ``RateLimits.denied``, for any limiter."""
        return self.limits.denied if isinstance(self.limits, RateLimits) else key_counters(self._tallies)


class CountsDenied:
    """The counters of denied keys, which all that applies limits to requests has."""

    __slots__ = ()

    _limiting: Limiting

    def count_denied(self, **counters: KeyCounter | None) -> None:
        """Have each denied key of a level added to a counter, such as a `HotKeys`; None ends it. The level of
        a limiter without any is ``default``. See ``RateLimits.count_denied``.

        >>> from headgate import HotKeys
        >>> from headgate.adapters.asgi import RateLimitMiddleware
        >>> from headgate.adapters.keys import client
        >>> app = RateLimitMiddleware(None, "10/s", keys=client())
        >>> app.count_denied(default=HotKeys(100, half_life=300))
        >>> app.denied["default"].top()
        []
        """
        self._limiting.count_denied(**counters)

    @property
    def denied(self) -> dict[str, Any]:
        """The counters of denied keys by level, of those that have one."""
        return self._limiting.denied


async def _after(pending: Awaitable[None], charge: Charge) -> Charge:
    await pending
    return charge


async def _awaited(value: Any) -> Any:
    return await value if isawaitable(value) else value


def _checked_limits(limits: Any) -> Any:
    """A limiter by key or by level; one for a rate."""
    if callable(getattr(limits, "reserve", None)) and hasattr(limits, "rates"):
        return limits
    if hasattr(limits, "reserve") or hasattr(limits, "acquire") or isinstance(limits, Mapping):
        raise TypeError(f"limits must be a limiter by key, RateLimits or a rate, got {limits!r}")
    return RateLimiter(limits)


def checked_waiting(limits: Any, asynchronous: bool) -> bool:
    """Whether the limiter is to be awaited; raises TypeError if the host cannot wait for it as it wants."""
    awaited = iscoroutinefunction(limits.reserve)
    if awaited and not asynchronous:
        raise TypeError(f"limits must not be asynchronous, as nothing awaits it here, got {limits!r}")
    if asynchronous:
        _check_blocking(limits)
    return awaited


def _check_blocking(limits: Any) -> None:
    if getattr(limits, "blocking", False):
        raise TypeError(f"limits must not block the event loop: use the asynchronous limiter, got {limits!r}")
    for level, each in getattr(limits, "_levels", {}).items():
        if getattr(each, "blocking", False):
            raise TypeError(f"limits must not block the event loop, as the level {level!r} does:"
                            f" give all levels one store, got {limits!r}")


def _extractors(limits: Any, keys: Keys) -> tuple[tuple[str, Extractor], ...]:
    """The extractor of each level; none for a limiter without levels, which has a single extractor."""
    levels = limits.rates if isinstance(limits.rates, Mapping) else None
    if levels is None:
        if not callable(keys):
            raise TypeError(f"keys must be one extractor for a limiter without levels, got {keys!r}")
        checked_extractor("keys", keys)
        return ()
    if callable(keys) and len(levels) == 1:
        keys = dict.fromkeys(levels, keys)
    if not isinstance(keys, Mapping) or not keys:
        raise TypeError(f"keys must be a mapping of levels ({', '.join(levels)}) to extractors, got {keys!r}")
    for level, extractor in keys.items():
        if level not in levels:
            raise ValueError(f"keys must be for levels among {', '.join(levels)}, got {level!r}")
        if not callable(extractor):
            raise TypeError(f"keys must be extractors, got {extractor!r} for {level!r}")
        checked_extractor("keys", extractor)
    return tuple(keys.items())


def _check_addresses(limits: Any, levels: tuple[tuple[str, Extractor], ...], keys: Keys) -> None:
    """Raise TypeError where only the requests of IPv6 would fail."""
    limiters = getattr(limits, "_levels", {})
    pairs: list[tuple[Any, object]] = [(limiters.get(level), extractor) for level, extractor in levels]
    for limiter, extractor in pairs or [(limits, keys)]:
        if isinstance(limiter, AddressLimiter) and is_of_networks(extractor):
            raise TypeError(f"keys must be client(v6=128) for {limiter!r}, got networks by {extractor!r}")


def _methods(limits: Any, levels: bool) -> tuple[Any, Any]:
    """``reserve`` and ``peek`` of a limiter, as functions of keys and cost."""
    if not levels:
        return limits.reserve, limits.peek
    if isinstance(limits, RateLimits):
        return limits._joint.reserve, limits._joint.peek
    reserve, peek = limits.reserve, limits.peek
    return (lambda keys, cost: reserve(cost=cost, **keys)), (lambda keys, cost: peek(cost=cost, **keys))


def _policies_of(limits: Any, levels: bool) -> Callable[[], Any] | None:
    """What returns the policies for RateLimit-Policy, none of them if that of the decision is the only one;
    None if it always is. A limiter may get more tiers later.
    """
    if isinstance(limits, RateLimits):
        return limits._joint.policies
    if levels:
        return lambda: limits.rates
    if isinstance(limits, AddressLimiter):
        return None
    return lambda: _several(limits.rates)


def _several(rates: Any) -> Any:
    return rates if len(rates) > 1 else ()

