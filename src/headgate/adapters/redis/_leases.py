"""Leases: tokens of a key that are taken from the store at once, and used without it.

    grant = min(lease, max(cost, remaining // 4))

A lease ends after its time to live; the rest is refunded by the rule of ``Reservation.cancel``, with the next
call of any key. So in t seconds at most ``burst + rate * (t + lease_ttl)`` pass, and a process that is killed
strands at most `lease` tokens of each key. A denial is remembered until its tokens are due, or a denied flood
would cost a round trip for each request. One request a key is on its way for a lease; others that come
meanwhile are decided by the store, one by one.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from struct import Struct
from time import monotonic

from headgate._base.checks import checked_int, checked_number
from headgate._base.forks import new_lock, renew
from headgate._base.keys import key_name
from headgate.adapters.redis._amounts import time_of
from headgate.adapters.redis._calls import Call
from headgate.adapters.redis._scripts import LEASE
from headgate.errors import StoreError
from headgate.limit._decision import Decision, with_details

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, SupportsFloat

    from headgate.adapters.redis._amounts import Tiers
    from headgate.adapters.redis._keyed import Keyed

_MOST_LEASE = 10_000
_MOST_TTL = 3600
_MOST_KEYS = 10_000
_MOST_RETURNS = 16
_EXACT = frozenset((str, bytes, int))
_GRANTED = Struct("<d")


def checked_leases(lease: int, lease_ttl: SupportsFloat, strict: bool) -> Leases | None:
    """The leases of a limiter, if it has any."""
    most = checked_int("lease", lease)
    if not 0 <= most <= _MOST_LEASE:
        raise ValueError(f"lease must be in [0, {_MOST_LEASE}], got {lease!r}")
    seconds = checked_number("lease_ttl", lease_ttl)
    if not 0 < seconds <= _MOST_TTL:
        raise ValueError(f"lease_ttl must be positive and at most {_MOST_TTL}, got {lease_ttl!r}")
    if most and strict:
        raise ValueError(f"lease must be 0 with strict=True, got {lease!r}")
    return Leases(most, float(seconds)) if most else None


class _Lease:
    """The tokens that are left for a key until `ends`, or the denial that holds until `denied_until`."""

    __slots__ = ("busy", "decision", "denial", "denied_cost", "denied_until", "ends", "left", "plan",
                 "reserved_at", "taken")

    def __init__(self) -> None:
        self.busy = False
        self.left = self.taken = self.reserved_at = 0
        self.ends = self.denied_until = 0.0
        self.denied_cost = 0.0
        self.decision: Any = None
        self.plan: Any = None
        self.denial: Any = None

    def decided(self) -> Decision:
        """The decision for a request that has taken its cost."""
        made = self.decision
        return Decision(True, made.limit, made.remaining + self.left, 0.0, made.reset_after, made.policy)


class Leases:
    """The leases of a limiter, of at most 10,000 keys, oldest first."""

    __slots__ = ("__weakref__", "_leases", "_lock", "most", "ttl")

    def __init__(self, most: int, ttl: float) -> None:
        self.most = most
        self.ttl = ttl
        self._lock = new_lock()
        self._leases: dict[Any, _Lease] = {}
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: the leases are the parent's."""
        self._leases = {}

    def __len__(self) -> int:
        return len(self._leases)

    def allow(self, key: Any, cost: SupportsFloat) -> bool | None:
        """Whether a lease or a denial decides, and how; None if the store has to."""
        name = key if type(key) in _EXACT else key_name(key)
        lease = self._leases.get(name)
        if lease is None or type(cost) is not int or cost <= 0:
            return None
        now = monotonic()
        with self._lock:
            if lease.left >= cost and now < lease.ends:
                lease.left -= cost
                return True
            return False if cost >= lease.denied_cost and now < lease.denied_until else None

    def decide(self, key: Any, cost: SupportsFloat, taken: bool = True) -> Decision | None:
        """``allow`` with a decision; without taking anything if it is not `taken`."""
        name = key if type(key) in _EXACT else key_name(key)
        lease = self._leases.get(name)
        if lease is None or type(cost) is not int or cost <= 0:
            return None
        now = monotonic()
        with self._lock:
            if lease.left >= cost and now < lease.ends:
                if taken:
                    lease.left -= cost
                return lease.decided()
            if cost < lease.denied_cost or now >= lease.denied_until:
                return None
            denial: Decision = lease.denial
            wait = lease.denied_until - now
        if wait == inf:
            return denial
        spent = denial.retry_after - wait
        again = Decision(False, denial.limit, denial.remaining, wait, max(0.0, denial.reset_after - spent),
                         denial.policy)
        return with_details(again, denial.violated)

    def start(self, limiter: Keyed, plan: Any, key: Any, amount: float) -> Flight | None:
        """A request for a lease; None if there is one on its way, or the cost is not for leases."""
        if type(amount) is not int or not 0 < amount <= self.most:
            return None
        name = key if type(key) in _EXACT else key_name(key)
        key_name(key)
        with self._lock:
            calls = self._ended(limiter)
            lease = self._leases.get(name)
            if lease is None:
                lease = self._leases[name] = _Lease()
            elif lease.busy:
                return None
            lease.busy = True
            calls += self._rest(limiter, name, lease)
        return Flight(self, limiter, plan, name, lease, amount, calls)

    def _ended(self, limiter: Keyed) -> list[Call]:
        """Drop leases that have ended, and the oldest if there are too many: the calls that refund them."""
        calls: list[Call] = []
        now, surplus = monotonic(), len(self._leases) - _MOST_KEYS + 1
        for key, held in list(islice(self._leases.items(), _MOST_RETURNS)):
            if held.busy or (surplus <= 0 and now < held.ends):
                continue
            del self._leases[key]
            calls += self._rest(limiter, key, held)
            if surplus <= 0 and now < held.denied_until:
                self._leases[key] = held  # a denial: those behind it have their turn
            else:
                surplus -= 1
        return calls

    def _rest(self, limiter: Keyed, name: Any, lease: _Lease) -> list[Call]:
        """The call that refunds what is left of a lease, which is then empty."""
        left, lease.left = lease.left, 0
        if not left:
            return []
        used = lease.taken - left
        return [limiter._settlement(lease.plan, name, lease.taken, used, lease.reserved_at)]

    def returned(self, limiter: Keyed) -> list[Call]:
        """End all leases: the calls that refund them."""
        with self._lock:
            leases, self._leases = self._leases, {}
        return [call for name, lease in leases.items() for call in self._rest(limiter, name, lease)]

    def forgive(self, key: Any, is_reset: bool) -> None:
        """Forget the denial of a key that was given tokens, and its lease if it owes nothing any more."""
        with self._lock:
            lease = self._leases.get(key if type(key) in _EXACT else key_name(key))
            if lease is not None:
                lease.denied_until = 0.0
                lease.left = 0 if is_reset else lease.left

    def forgive_all(self) -> None:
        """Forget all denials and end all leases: other rates decide otherwise. What is left of a lease is
        refunded by the rates under which it was taken.
        """
        with self._lock:
            for lease in self._leases.values():
                lease.ends = lease.denied_until = 0.0

    def install(self, name: Any, lease: _Lease) -> None:
        """Make a lease the newest."""
        self._leases.pop(name, None)
        self._leases[name] = lease


class Flight:
    """A request for a lease on its way to the store; `calls` refund others, the last one asks for it."""

    __slots__ = ("_amount", "_lease", "_leases", "_limiter", "_name", "_plan", "_refunds", "_started",
                 "calls")

    def __init__(
        self,
        leases: Leases,
        limiter: Keyed,
        plan: Tiers,
        name: Any,
        lease: _Lease,
        amount: int,
        calls: list[Call],
    ) -> None:
        self._leases = leases
        self._limiter = limiter
        self._plan = plan
        self._name = name
        self._lease = lease
        self._amount = amount
        self._started = monotonic()
        self._refunds = bool(calls)
        arguments = [plan.charge(amount), plan.doublings(leases.most, amount)]
        self.calls = [*calls, Call(LEASE, [limiter._prefix.key(key_name(name))], arguments)]

    def finish(self, replies: list[Any]) -> Decision:
        """The decision in the last reply, whose lease is from now on used."""
        reply = replies[-1]
        if isinstance(reply, StoreError):
            raise reply
        decision = self._limiter._decided(self._plan, reply, self._amount)
        lease, leases = self._lease, self._leases
        with leases._lock:
            is_current = self._plan is self._limiter._plan
            if decision.allowed:
                granted = int(_GRANTED.unpack_from(reply, self._plan.reply_size)[0])
                lease.taken, lease.left = granted, granted - self._amount
                lease.reserved_at = time_of(reply) * 1000
                lease.plan, lease.ends = self._plan, self._started + leases.ttl if is_current else 0.0
                lease.decision, lease.denied_until = decision, 0.0
                decision = lease.decided()
            else:
                lease.denial, lease.denied_cost = decision, self._amount
                is_lasting = is_current and not self._refunds  # a refund may come later: NOSCRIPT
                lease.denied_until = self._started + decision.retry_after if is_lasting else 0.0
            leases.install(self._name, lease)
        return decision

    def end(self) -> None:
        """Let another request for a lease be made."""
        self._lease.busy = False
