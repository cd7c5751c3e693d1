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
from headgate.adapters._exempt import exempting
from headgate.limit import Decision, RateLimiter, Reservation
from headgate.limit._rules import LevelCounts, LevelTally
from headgate.limit._units import checked_amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Any, Literal, SupportsFloat, TypeAlias

    from headgate.adapters._exempt import Exempt
    from headgate.adapters.keys import Extractor, Request

    Keys: TypeAlias = "Extractor | Mapping[str, Extractor]"
    Cost: TypeAlias = "SupportsFloat | Callable[[Request], Any]"
    Style: TypeAlias = Literal["draft", "legacy", "both"] | None
    Fields: TypeAlias = list[tuple[bytes, bytes]]

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

    __slots__ = ("_parts", "decision", "would_deny", "written")

    def __init__(self) -> None:
        self._parts: list[tuple[Limiting, Any, Any]] = []
        self.decision: Decision | None = None
        """That of the limit that denied, or else of the one with the least remaining; None if there is none.
        """
        self.would_deny: Decision | None = None
        """The denial of a limit with ``dry_run``, which let the request pass."""
        self.written = False
        """Whether a middleware writes the header fields, so that those inside of it need not."""

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
        """The header fields of the response, as bytes with names in lower case: RateLimit and
        RateLimit-Policy of the limit that decided, or the older X-RateLimit ones. Retry-After is one of
        ``denial``.
        """
        if style is None or self.decision is None:
            return []
        return _fields(self.decision, style)

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
        seconds = None if self.decision is None else self.decision.headers().get("Retry-After")
        return [] if seconds is None else [(b"retry-after", seconds.encode())]

    def includes(self, limits: Any, keys: Any) -> bool:
        """Whether the request has been charged by these limits for these keys already."""
        return any(limiting.limits is limits and found == keys for limiting, found, _ in self._parts)

    def add(self, limiting: Limiting, keys: Any, reservation: Any) -> None:
        """Charge the request for a reservation too."""
        decision = reservation.decision
        if reservation:
            self._parts.append((limiting, keys, reservation))
        if limiting.dry_run:
            self.would_deny = self.would_deny if reservation else decision
        elif self.decision is None or not reservation or decision.remaining < self.decision.remaining:
            self.decision = decision

    def __repr__(self) -> str:
        return f"Charge({self.decision!r})"


def _each(method: str, reservations: list[Any], *args: Any) -> Awaitable[None] | None:
    """Call a method of each reservation; what remains to be awaited."""
    pending = [result for each in reservations if (result := getattr(each, method)(*args)) is not None]
    return _all(pending) if pending else None


async def _all(pending: list[Awaitable[None]]) -> None:
    for each in pending:
        await each


def _fields(decision: Decision, style: str) -> Fields:
    fields = decision.headers(x_headers=style != "draft")
    fields.pop("Retry-After", None)
    if style == "legacy":
        fields = {name: value for name, value in fields.items() if name.startswith("X-")}
    return [(name.lower().encode(), value.encode()) for name, value in fields.items()]


class Limiting:
    """Limits as a host applies them: checked arguments, the charge of each request, counters.

    `asynchronous` says whether the host runs an event loop: then no limiter may block, and it calls
    ``charge_async``; otherwise none may be a coroutine's, and it calls ``charge``.

    >>> limiting = Limiting("2/s", keys=lambda request: "ann")
    >>> [bool(limiting.charge(None)) for _ in range(3)], limiting.stats()
    ([True, True, False], {'default': LevelCounts(allowed=2, denied=1, policies={'2/s': 1})})
    """

    __slots__ = ("_awaited", "_cost", "_exempt", "_extract", "_levels", "_tallies", "counts", "dry_run",
                 "limits", "on_denied", "style")

    def __init__(self, limits: Any, *, keys: Keys, cost: Cost = 1, exempt: Exempt = (),
                 headers: Style = "draft", dry_run: bool = False, on_denied: Any = None,
                 asynchronous: bool = False) -> None:
        self.limits = _checked_limits(limits)
        self._awaited = checked_waiting(self.limits, asynchronous)
        self._levels = _extractors(self.limits, keys)
        self._extract = None if self._levels else checked_callable("keys", keys)
        self._tallies = {level: LevelTally() for level in dict(self._levels) or (_ONLY_LEVEL,)}
        self._cost: Any = cost if callable(cost) else checked_amount("cost", cost)
        self._exempt = exempting(exempt)
        if headers not in _STYLES:
            raise ValueError(f"headers must be one of {_STYLES}, got {headers!r}")
        self.style = headers
        self.dry_run = bool(dry_run)
        self.on_denied = checked_callable("on_denied", on_denied)
        self.counts = self._cost == 1

    def charge(self, request: Request, found: Charge | None = None) -> Charge | None:
        """Charge a request at all levels, or at none; `found` is what it was charged further out.

        Returns `found` if the request is exempt or none of the limits applies, else the charge of both, which
        is false if these limits deny the request: then what `found` had charged is cancelled.

        Raises what the extractors, the limiter, or the callables `cost` and `exempt` raise.
        """
        if self._exempt is not None and self._exempt(request):
            return found
        extract = self._extract
        keys = {level: of(request) for level, of in self._levels} if extract is None else extract(request)
        if keys is None or (found is not None and found.includes(self.limits, keys)):
            return found
        cost = self._cost(request) if callable(self._cost) else self._cost
        try:
            reservation = self._reserve(keys, cost)
        except ValueError:
            reservation = _too_large(cost, self._peek(keys, cost))
        charge = self._counted(found, keys, reservation)
        if found is not None and not charge:
            found.cancel()
        return charge

    async def charge_async(self, request: Request, found: Charge | None = None) -> Charge | None:
        """As ``charge``, in an event loop: what extractors, `cost` and `exempt` return may be awaitable."""
        if self._exempt is not None:
            exempt = self._exempt(request)
            if await exempt if isawaitable(exempt) else exempt:
                return found
        extract = self._extract
        if extract is not None:
            keys = extract(request)
            if keys.__class__ is not str and isawaitable(keys):
                keys = await keys
        else:
            keys = {level: of(request) for level, of in self._levels}
            for level, key in keys.items():
                if key.__class__ is not str and isawaitable(key):
                    keys[level] = await key
        if keys is None or (found is not None and found.includes(self.limits, keys)):
            return found
        cost = self._cost
        if callable(cost):
            cost = cost(request)
            if isawaitable(cost):
                cost = await cost
        try:
            reservation = self._reserve(keys, cost)
            if self._awaited:
                reservation = await reservation
        except ValueError:
            peeked = self._peek(keys, cost)
            reservation = _too_large(cost, await peeked if self._awaited else peeked)
        charge = self._counted(found, keys, reservation)
        if found is not None and not charge and (pending := found.cancel()) is not None:
            await pending
        return charge

    def _reserve(self, keys: Any, cost: Any) -> Any:
        if self._extract is None:
            return self.limits.reserve(cost=cost, **keys)
        return self.limits.reserve(keys, cost)

    def _peek(self, keys: Any, cost: Any) -> Any:
        """What the limits are at, once the cost is known to be valid."""
        checked_amount("cost", cost)
        return self.limits.peek(cost=0, **keys) if self._extract is None else self.limits.peek(keys, 0)

    def _counted(self, found: Charge | None, keys: Any, reservation: Any) -> Charge:
        """The charge with a reservation added, which is counted at the levels that allowed or denied it."""
        charge = Charge() if found is None else found
        charge.add(self, keys, reservation)
        if not reservation:
            self._count_denial(reservation.decision.violated)
        elif self._extract is not None:
            self._tallies[_ONLY_LEVEL].add_allowed()
        else:
            for level, key in keys.items():
                if key is not None:
                    self._tallies[level].add_allowed()
        return charge

    def _count_denial(self, violated: Iterable[str]) -> None:
        if self._extract is not None:
            self._tallies[_ONLY_LEVEL].deny(violated)
            return
        for level, tally in self._tallies.items():
            start = f"{level}: "
            if policies := [policy.removeprefix(start) for policy in violated if policy.startswith(start)]:
                tally.deny(policies)

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests each level allowed and denied, and how often each of its policies denied. A
        limiter without levels is the level ``"default"``. A request that is denied counts at the levels that
        deny it; one that a route's own limit denies afterwards counts as allowed here.
        """
        return {level: tally.counts() for level, tally in self._tallies.items()}


def _checked_limits(limits: Any) -> Any:
    """A limiter by key or by level; one for a rate."""
    if callable(getattr(limits, "reserve", None)) and hasattr(limits, "rates"):
        return limits
    if hasattr(limits, "reserve") or hasattr(limits, "acquire"):
        raise TypeError(f"limits must be a limiter by key, RateLimits or a rate, got {limits!r}")
    return RateLimiter(limits)


def checked_waiting(limits: Any, asynchronous: bool) -> bool:
    """Whether the limiter is to be awaited; raises TypeError if the host cannot wait for it as it wants."""
    awaited = iscoroutinefunction(limits.reserve)
    if awaited and not asynchronous:
        raise TypeError(f"limits must not be asynchronous, as nothing awaits it here, got {limits!r}")
    levels = getattr(limits, "_levels", {})
    if asynchronous and any(getattr(each, "blocking", False) for each in (limits, *levels.values())):
        raise TypeError(f"limits must not block the event loop: use the asynchronous limiter, got {limits!r}")
    return awaited


def _extractors(limits: Any, keys: Keys) -> tuple[tuple[str, Extractor], ...]:
    """The extractor of each level; none for a limiter without levels, which has a single extractor."""
    levels = limits.rates if isinstance(limits.rates, Mapping) else None
    if levels is None:
        if not callable(keys):
            raise TypeError(f"keys must be one extractor for a limiter without levels, got {keys!r}")
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
    return tuple(keys.items())


def _too_large(cost: float, peeked: Decision) -> Reservation:
    """The denial of a request that costs more than a burst, which it can never have."""
    never = Decision(False, peeked.limit, peeked.remaining, inf, peeked.reset_after, peeked.policy)
    return Reservation(cost, [], None, never)
