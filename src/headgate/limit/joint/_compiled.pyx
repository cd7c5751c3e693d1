# cython: language_level=3, boundscheck=False, wraparound=False
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""One decision of several limits for one request: all or nothing.

All limits but the first are peeked at, then each is charged, and those charged get a refund if a later one
denies because another request was faster. So a denied request takes nothing, and at worst two simultaneous
requests deny each other.
"""
cimport cython
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.math cimport INFINITY

from headgate.limit._decided cimport decided, is_allowed
from headgate.limit.keyed._compiled cimport _Decider
from headgate.limit.reservation._compiled cimport Reservation

from headgate._base.keys import key_name
from headgate.limit._decision import Decision
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
from headgate.limit.keyed._compiled import RateLimiter

cdef type DECISION = Decision
cdef type RATE_LIMITER = RateLimiter


cdef inline bint _has(object limiter, object key, object cost) except -1:
    """Whether a limit would allow a request."""
    if type(limiter) is RATE_LIMITER:
        return (<_Decider>limiter)._allows(key, cost, False)
    return limiter.peek(key, cost).allowed


cdef inline bint _take(object limiter, object key, object cost) except -1:
    if type(limiter) is RATE_LIMITER:
        return (<_Decider>limiter)._allows(key, cost, True)
    return limiter.allow(key, cost)


cdef inline tuple _part(object limiter, object key):
    if type(limiter) is RATE_LIMITER:
        return limiter, key, (<_Decider>limiter)._now()
    return part_of(limiter, key)


cdef object _denier(list applied, object cost):
    """The name of the first limit but one that would deny, None if all but the first would allow it."""
    cdef Py_ssize_t at
    for at in range(1, len(applied)):
        name, limiter, key = <tuple>applied[at]
        if not _has(limiter, key, cost):
            return name
    return None


cdef object _first_denial(list applied, object cost):
    """Take `cost` from all limits or from none; the name of the limit that denies, None if all allow it."""
    cdef Py_ssize_t taken = 0
    denier = _denier(applied, cost)
    if denier is not None:
        return denier
    try:
        for name, limiter, key in applied:
            if not _take(limiter, key, cost):
                return name
            taken += 1
    finally:
        if 0 < taken < len(applied):
            refund_all(applied[:taken], cost)
    return None


cdef object _named(object name, object decision):
    """The decision of a limit, with its name before each policy."""
    if type(decision) is not DECISION or not decision._is_plain:
        return named(name, decision)
    return decided(
        DECISION,
        <object>PyTuple_GET_ITEM(decision, 0),
        <object>PyTuple_GET_ITEM(decision, 1),
        <object>PyTuple_GET_ITEM(decision, 2),
        <object>PyTuple_GET_ITEM(decision, 3),
        <object>PyTuple_GET_ITEM(decision, 4),
        f"{name}: {<object>PyTuple_GET_ITEM(decision, 5)}",
    )


cdef bint _is_degraded(object decision) except -1:
    if type(decision) is DECISION and decision._is_plain:
        return False
    return is_degraded(decision)


cdef object _charged(object name, object limiter, object key, object cost, double least, bint is_first,
                     list degraded):
    """The decision of a limit, None if it allows the request and is not the first, and no less than `least`
    remains. If it decides without its store, its name is added to `degraded`.
    """
    if type(limiter) is RATE_LIMITER:
        return (<_Decider>limiter)._decide(key, cost, name, least)
    decision = limiter.decide(key, cost)
    if _is_degraded(decision):
        degraded.append(name)
    if decision.allowed and not is_first and not decision.remaining < least:
        return None
    return _named(name, decision)


cdef object _decide(list applied, object cost, list degraded):
    """``decide_all``; the names of limits that decide without their store are added to `degraded`."""
    cdef Py_ssize_t taken = 0
    cdef double least = INFINITY
    tightest = UNLIMITED
    if _denier(applied, cost) is not None:
        decision = _peek(applied, cost)
        if not decision.allowed:
            return decision
    try:
        for name, limiter, key in applied:
            decision = _charged(name, limiter, key, cost, least, not taken, degraded)
            if decision is not None:
                if not is_allowed(DECISION, decision):
                    return marked(decision, degraded) if degraded else decision
                tightest, least = decision, <object>PyTuple_GET_ITEM(decision, 2)
            taken += 1
    finally:
        if taken < len(applied):
            refund_all(applied[:taken], cost)
    return marked(tightest, degraded) if degraded else tightest


cdef object _peek(list applied, object cost):
    """``peek_all``."""
    decisions = [(name, limiter.peek(key, cost)) for name, limiter, key in applied]
    degraded = [name for name, decision in decisions if _is_degraded(decision)]
    denials = [each for each in decisions if not each[1].allowed]
    if denials:
        name, decision = denials[0]
        return marked(_named(name, decision) if len(denials) == 1 else worst(denials), degraded)
    if not decisions:
        return UNLIMITED
    name, decision = min(decisions, key=_remaining)
    return marked(_named(name, decision), degraded)


def _remaining(each):
    return each[1].remaining


cdef Reservation _reserve(list applied, object cost):
    """``reserve_all``."""
    parts = [_part(limiter, key) for _, limiter, key in applied]
    amount = cost if type(cost) is int and cost >= 0 else checked_amount("cost", cost)
    degraded = []
    decision = _decide(applied, cost, degraded)
    if degraded:
        parts = [part for part, (name, _, _) in zip(parts, applied) if name not in degraded]
    return Reservation.__new__(Reservation, amount, parts, None, decision)


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


def peek_all(applied, cost):
    """What ``decide_all`` would return, but without taking anything.

    >>> peek_all([("ip", RateLimiter("3/s"), "::1")], 1).remaining
    3.0
    """
    return _peek(applied, cost)


def reserve_all(applied, cost):
    """As ``decide_all``, but return a reservation.

    What a limit took without its store is not refunded: the store would give back what others took.

    >>> reserve_all([("ip", RateLimiter("3/s"), "::1")], 2).tokens
    2
    """
    return _reserve(applied, cost)


cdef class _Level:
    cdef object limiter
    cdef object networks
    cdef dict overrides
    cdef object allowed  # an iterator, which counts


cdef class Levels:
    """Levels(limiters, networks, overrides, tallies, shadow)\n--\n
    The levels of a `RateLimits`, by name, each with the rules and the counters that it has.

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

    cdef dict levels
    cdef dict tallies
    cdef frozenset shadow
    cdef tuple known

    def __cinit__(self, limiters, networks, overrides, tallies, shadow):
        cdef _Level made
        self.levels = {}
        for level, limiter in limiters.items():
            made = _Level()
            made.limiter, made.networks, made.overrides = limiter, networks[level], overrides[level]
            made.allowed = tallies[level].allowed.numbers
            self.levels[level] = made
        self.tallies = tallies
        self.shadow = frozenset(shadow)
        self.known = None, ()

    cdef list _applied(self, dict keys, object cost):
        cdef _Level found
        applied = []
        if not keys:
            raise TypeError("the key of at least one level must be given")
        for level, key in keys.items():
            found = self.levels.get(level)
            if found is None:
                raise ValueError(f"level must be one of {', '.join(self.levels)}, got {level!r}")
            if key is None:
                continue
            limiter = found.limiter
            networks = found.networks
            if networks.values:
                limiter = networks.get(key, limiter)
            if found.overrides:
                limiter = found.overrides.get(key_name(key), limiter)
            if limiter is not None:
                applied.append((level, limiter, key))
        if not applied:
            checked_amount("cost", cost)
        return applied

    def policies(self):
        """The tiers of all levels as text; the same tuple as long as they are."""
        rates = [(<_Level>level).limiter.rates for level in self.levels.values()]
        known, policies = self._known_policies()
        if rates != known:
            policies = policies_of(self.levels, rates)
            with cython.critical_section(self):
                self.known = rates, policies
        return policies

    cdef tuple _known_policies(self):
        with cython.critical_section(self):
            known = self.known
        return known

    cdef list _shadows(self, list applied):
        """Move the limits that are only counted out of `applied`, which keeps those that may deny."""
        with cython.critical_section(self):
            shadow = self.shadow
        if not shadow:
            return []
        shadows = [each for each in applied if (<tuple>each)[0] in shadow]
        applied[:] = [each for each in applied if (<tuple>each)[0] not in shadow]
        return shadows

    def set_shadow(self, shadow):
        """Set which levels are counted, but never deny."""
        names = frozenset(shadow)
        with cython.critical_section(self):
            self.shadow = names

    cdef int _count_allowed(self, list applied) except -1:
        for each in applied:
            next((<_Level>self.levels[(<tuple>each)[0]]).allowed)
        return 0

    cdef int _count_denied(self, list applied, tuple violated) except -1:
        """Count a request that was denied, by policies of these levels."""
        cdef str policy, start
        for level, _, key in applied:
            start = f"{level}: "
            policies = [policy[len(start):] for policy in violated if policy.startswith(start)]
            if policies:
                self.tallies[level].deny(policies, key)
        return 0

    def applied(self, keys, cost):
        """The limits of the levels that `keys` names: level, limiter, key."""
        return self._applied(keys, cost)

    def allow(self, keys, cost):
        """Take `cost` at all levels that `keys` names if all allow it; True if so."""
        applied = self._applied(keys, cost)
        shadows = self._shadows(applied)
        denier = _first_denial(applied, cost)
        if denier is None:
            self._count_allowed(applied)
            if shadows:
                charge_shadows(self.tallies, shadows, cost)
            return True
        self._count_denied(applied, _peek(applied, cost).violated or (f"{denier}: ",))
        return False

    def decide(self, keys, cost):
        """As ``allow``, but return a decision."""
        applied = self._applied(keys, cost)
        shadows = self._shadows(applied)
        decision = _decide(applied, cost, [])
        if is_allowed(DECISION, decision):
            self._count_allowed(applied)
            if shadows:
                charge_shadows(self.tallies, shadows, cost)
        else:
            self._count_denied(applied, decision.violated)
        return decision

    def peek(self, keys, cost):
        """What ``decide`` would return, but without taking anything."""
        applied = self._applied(keys, cost)
        self._shadows(applied)
        return _peek(applied, cost)

    def reserve(self, keys, cost):
        """As ``allow``, but return a reservation."""
        applied = self._applied(keys, cost)
        shadows = self._shadows(applied)
        reservation = _reserve(applied, cost)
        if not is_allowed(DECISION, reservation.made):
            self._count_denied(applied, reservation.made.violated)
            return reservation
        self._count_allowed(applied)
        if shadows:
            parts = {level: part_of(limiter, key) for level, limiter, key in shadows}
            charged = charge_shadows(self.tallies, shadows, cost)
            reservation._add([parts[level] for level, _, _ in charged])
        return reservation
