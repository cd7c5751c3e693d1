"""One decision of several limits for one request, in pure Python: all or nothing.

All limits but the first are peeked at, then each is charged, and those charged get a refund if a later one
denies because another request was faster. So a denied request takes nothing, and at worst two simultaneous
requests deny each other.
"""

from headgate._base.keys import key_name
from headgate.limit._joint import (
    UNLIMITED,
    charge_shadows,
    is_degraded,
    marked,
    named,
    part_of,
    policies_of,
    refund_all,
    worst,
)
from headgate.limit._units import checked_amount
from headgate.limit.keyed._pure import RateLimiter
from headgate.limit.reservation._pure import Reservation


def _denier(applied, cost):
    """The name of the first limit but one that would deny, None if all but the first would allow it."""
    for name, limiter, key in applied[1:]:
        if not (limiter._has(key, cost) if type(limiter) is RateLimiter else limiter.peek(key, cost).allowed):
            return name
    return None


def _first_denial(applied, cost):
    """Take `cost` from all limits or from none; the name of the limit that denies, None if all allow it."""
    denier = _denier(applied, cost)
    if denier is not None:
        return denier
    taken = 0
    try:
        for name, limiter, key in applied:
            if not limiter.allow(key, cost):
                return name
            taken += 1
    finally:
        if 0 < taken < len(applied):
            refund_all(applied[:taken], cost)
    return None


def allow_all(applied, cost):
    """Take `cost` from all limits or from none; True if all allow it.

    >>> applied = [("ip", RateLimiter("1/s"), "::1"), ("user", RateLimiter("2/s"), "ann")]
    >>> allow_all(applied, 1), allow_all(applied, 1), peek_all(applied[1:], 1).remaining > 0.9
    (True, False, True)
    """
    return _first_denial(applied, cost) is None


def decide_all(applied, cost):
    """As ``allow_all``, but return a decision.

    >>> decide_all([("ip", RateLimiter("3/s"), "::1"), ("user", RateLimiter("2/s"), "ann")], 1).policy
    'user: 2/s'
    """
    return _decide(applied, cost, [])


def _decide(applied, cost, degraded):
    """``decide_all``; the names of limits that decide without their store are added to `degraded`."""
    if _denier(applied, cost) is not None:
        decision = peek_all(applied, cost)
        if not decision.allowed:
            return decision
    level, tightest = "", UNLIMITED
    taken = 0
    try:
        for name, limiter, key in applied:
            decision = limiter.decide(key, cost)
            if is_degraded(decision):
                degraded.append(name)
            if not decision.allowed:
                return marked(named(name, decision), degraded)
            if not taken or decision.remaining < tightest.remaining:
                level, tightest = name, decision
            taken += 1
    finally:
        if taken < len(applied):
            refund_all(applied[:taken], cost)
    return marked(named(level, tightest), degraded) if taken else tightest


def peek_all(applied, cost):
    """What ``decide_all`` would return, but without taking anything.

    >>> peek_all([("ip", RateLimiter("3/s"), "::1")], 1).remaining
    3.0
    """
    decisions = [(name, limiter.peek(key, cost)) for name, limiter, key in applied]
    degraded = [name for name, decision in decisions if is_degraded(decision)]
    denials = [each for each in decisions if not each[1].allowed]
    if denials:
        return marked(named(*denials[0]) if len(denials) == 1 else worst(denials), degraded)
    if not decisions:
        return UNLIMITED
    return marked(named(*min(decisions, key=_remaining)), degraded)


def _remaining(each):
    return each[1].remaining


def reserve_all(applied, cost):
    """As ``decide_all``, but return a reservation.

    What a limit took without its store is not refunded: the store would give back what others took.

    >>> reserve_all([("ip", RateLimiter("3/s"), "::1")], 2).tokens
    2
    """
    parts = [(name, part_of(limiter, key)) for name, limiter, key in applied]
    amount = checked_amount("cost", cost)
    degraded: list[str] = []
    decision = _decide(applied, cost, degraded)
    return Reservation(amount, [part for name, part in parts if name not in degraded], None, decision)


class Levels:
    """The levels of a `RateLimits`, by name, each with the rules and the counters that it has.

    >>> from headgate.limit._rules import LevelTally, Networks
    >>> levels = Levels({"ip": RateLimiter("3/s")}, {"ip": Networks()}, {"ip": {}}, {"ip": LevelTally()}, ())
    >>> levels.decide({"ip": "::1"}, 1).policy, levels.peek({"ip": "::1"}, 1).allowed
    ('ip: 3/s', True)
    >>> levels.allow({"ip": "::1"}, 1), bool(levels.reserve({"ip": "::1"}, 2))
    (True, False)
    >>> [name for name, *_ in levels.applied({"ip": "::1"}, 1)]
    ['ip']
    >>> levels.policies()
    ('ip: 3/s',)
    """

    __slots__ = ("_known", "_levels", "_shadow", "_tallies")

    def __init__(self, limiters, networks, overrides, tallies, shadow):
        self._levels = {
            level: (limiter, networks[level], overrides[level]) for level, limiter in limiters.items()
        }
        self._tallies = tallies
        self._shadow = frozenset(shadow)
        self._known: tuple[object, tuple[str, ...]] = None, ()

    def applied(self, keys, cost):
        """The limits of the levels that `keys` names: level, limiter, key."""
        if not keys:
            raise TypeError("the key of at least one level must be given")
        applied = []
        for level, key in keys.items():
            try:
                limiter, networks, overrides = self._levels[level]
            except KeyError:
                names = ", ".join(self._levels)
                raise ValueError(f"level must be one of {names}, got {level!r}") from None
            if key is None:
                continue
            if networks.values:
                limiter = networks.get(key, limiter)
            if overrides:
                limiter = overrides.get(key_name(key), limiter)
            if limiter is not None:
                applied.append((level, limiter, key))
        if not applied:
            checked_amount("cost", cost)
        return applied

    def policies(self):
        """The tiers of all levels as text; the same tuple as long as they are."""
        rates = [limiter.rates for limiter, *_ in self._levels.values()]
        known, policies = self._known
        if rates != known:
            policies = policies_of(self._levels, rates)
            self._known = rates, policies
        return policies

    def _by_shadow(self, keys, cost):
        """The limits that may deny, and those that are only counted."""
        applied, shadow = self.applied(keys, cost), self._shadow
        if not shadow:
            return applied, ()
        shadows = [each for each in applied if each[0] in shadow]
        return [each for each in applied if each[0] not in shadow], shadows

    def set_shadow(self, shadow):
        """Set which levels are counted, but never deny."""
        self._shadow = frozenset(shadow)

    def _count_allowed(self, applied):
        for level, _, _ in applied:
            self._tallies[level].add_allowed()

    def _count_denied(self, applied, violated):
        """Count a request that was denied, by policies of these levels."""
        for level, _, key in applied:
            start = f"{level}: "
            policies = [policy.removeprefix(start) for policy in violated if policy.startswith(start)]
            if policies:
                self._tallies[level].deny(policies, key)

    def allow(self, keys, cost):
        """Take `cost` at all levels that `keys` names if all allow it; True if so."""
        applied, shadows = self._by_shadow(keys, cost)
        denier = _first_denial(applied, cost)
        if denier is None:
            self._count_allowed(applied)
            charge_shadows(self._tallies, shadows, cost)
            return True
        self._count_denied(applied, peek_all(applied, cost).violated or (f"{denier}: ",))
        return False

    def decide(self, keys, cost):
        """As ``allow``, but return a decision."""
        applied, shadows = self._by_shadow(keys, cost)
        decision = decide_all(applied, cost)
        if decision.allowed:
            self._count_allowed(applied)
            charge_shadows(self._tallies, shadows, cost)
        else:
            self._count_denied(applied, decision.violated)
        return decision

    def peek(self, keys, cost):
        """What ``decide`` would return, but without taking anything."""
        return peek_all(self._by_shadow(keys, cost)[0], cost)

    def reserve(self, keys, cost):
        """As ``allow``, but return a reservation."""
        applied, shadows = self._by_shadow(keys, cost)
        reservation = reserve_all(applied, cost)
        if not reservation:
            self._count_denied(applied, reservation.decision.violated)
            return reservation
        self._count_allowed(applied)
        if shadows:
            parts = {level: part_of(limiter, key) for level, limiter, key in shadows}
            charged = charge_shadows(self._tallies, shadows, cost)
            reservation._add([parts[level] for level, _, _ in charged])
        return reservation
