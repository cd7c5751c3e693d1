"""The members of a balancer: their records, who of them is active, and the times at which that changes."""

from math import ceil, floor
from time import monotonic_ns
from types import GenericAlias

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, renew
from headgate._base.pickling import initialized
from headgate.balance._settings import (
    ServerRecord,
    checked_settings,
    random_word,
    server_weight,
    server_weights,
)

NEVER = 2**63 - 1
STEP_BACK = 1_000_000_000


class _Record:
    """A server as its balancer knows it."""

    __slots__ = (
        "cost",
        "draining",
        "ejections",
        "failures",
        "good",
        "in_flight",
        "lapses",
        "penalty",
        "place",
        "seat",
        "server",
        "since",
        "stamp",
        "total",
        "turn",
        "until",
        "warm",
        "weight",
        "window",
    )

    def __init__(self, server, weight, now):
        self.server, self.weight = server, float(weight)
        self.cost = 0.0
        self.in_flight = self.failures = self.good = self.total = 0
        self.until = self.warm = self.ejections = self.turn = self.penalty = self.lapses = 0
        self.stamp = self.window = self.since = now
        self.place = self.seat = -1
        self.draining = False

    def shown(self):
        health = "draining" if self.draining else "ejected" if self.until else "healthy"
        return ServerRecord(self.server, self.weight, self.in_flight, self.cost / 1e9, health, self.since)


class _Members:
    """The servers of a balancer, and those of them that are active."""

    _clock, _wake, _due, _lapse, _seen, _state, _spare, _era = None, NEVER, NEVER, NEVER, 0, 0, 0, 0
    _busy = _stale = _panicking = _fresh = False
    _seeded = True
    _made = False

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        renew(self)
        self._members, self._active, self._penalized = {}, [], []
        return self

    def __init__(self, servers, *, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), None)

    def _begin(self, pairs, clock, settings, make):
        now = monotonic_ns() if clock is None else checked_now(clock())
        members = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        plan = self._planned(members, make, None, 0)
        with self._lock:
            if self._made:
                raise initialized(self)
            self._made = True
            (self._state, self._seeded, self._max_failures, self._success_rate, self._ejection_time,
             self._max_ejected, self._panic, self._slow_start) = settings
            self._clock, self._members, self._fresh = clock, members, True
            self._adopt(plan)
            self._rebuild(now)

    def _renew(self):
        """In the child of a fork: nothing is in flight, and draws differ from the parent's.

        What another thread was amid is derived anew, and again where this thread itself was amid it.
        """
        busy, self._busy = self._busy, False
        self._era += 1
        for record in self._members.values():
            record.in_flight = 0
        if not self._seeded:
            self._state, self._fresh = random_word(), True
        self._rebuild(self._seen)
        self._stale = busy

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self):
        raise TypeError(f"cannot copy {type(self).__name__!r} object")

    def _now(self):
        if self._clock is None:
            return monotonic_ns()
        return checked_now(self._clock())

    def _rebuild(self, now):
        """Derive what picks read from the members as they are; again where a finalizer changed them.

        Whoever changes members says first that all is `_stale`, so that the next pick derives it if an
        exception out of a signal handler comes in between.
        """
        self._stale = True
        while self._stale and not self._busy:
            self._busy, self._stale = True, False
            try:
                self._derive(now)
            except BaseException:
                self._stale = True
                raise
            finally:
                self._busy = False

    def _derive(self, now):
        if now < self._seen - STEP_BACK:
            self._shift(now - self._seen)
        self._seen = now
        due = NEVER
        present = []
        healthy = []
        for record in self._members.values():
            if record.until and record.until <= now:
                record.until = 0
                record.failures = record.good = record.total = 0
                record.window = record.since = now
                if self._slow_start:
                    record.warm = now + self._slow_start
            if record.warm and record.warm <= now:
                record.warm = 0
            if record.until:
                due = min(due, record.until)
            if record.warm:
                due = min(due, record.warm)
            if not record.draining:
                present.append(record)
                if not record.until:
                    healthy.append(record)
        most = min(ceil(self._max_ejected * len(present)), len(present) - 1)
        self._spare = most - (len(present) - len(healthy))
        self._panicking = not healthy or len(healthy) < floor(self._panic * len(present))
        if self._panicking:
            healthy = present
        self._due = due
        self._relieved(now)
        for record in self._active:
            record.seat = -1
        for seat, record in enumerate(healthy):
            record.seat = seat
        self._arrange(healthy)
        self._active = healthy
        self._fresh = self._fresh and not healthy

    def _shift(self, step):
        """Take the clock's step back in all times that are waited for."""
        for record in self._members.values():
            if record.until:
                record.until += step
            if record.warm:
                record.warm += step
            record.since += step
            record.lapses += step

    def _settle(self, now):
        """Rebuild where a server is due, the clock has stepped back, or a finalizer asked for it."""
        back = now < self._seen - STEP_BACK
        if self._stale or (self._wake != NEVER and (back or now >= self._wake)):
            if self._stale or back or now >= self._due:
                self._rebuild(now)
            else:
                for record in self._relieved(now):
                    self._moved(record)

    def _relieved(self, now):
        """End the penalties that have lapsed; returns their records."""
        lapsed = []
        kept = []
        self._lapse = NEVER
        for record in self._penalized:
            if record.until or record.draining or record.lapses <= now:
                record.penalty = 0
                lapsed.append(record)
            else:
                kept.append(record)
                self._lapse = min(self._lapse, record.lapses)
        self._penalized = kept
        self._wake = min(self._due, self._lapse)
        return lapsed

    def _arrange(self, active):
        """Derive what this balancer picks by."""

    def _moved(self, record):
        """The load of a record has changed."""

    def _planned(self, members, make, changed, weight):
        """The placement of `members`, with `changed` at another weight, where keys are hashed."""

    def _make(self):
        """What makes the placement, where keys are hashed."""

    def _adopt(self, plan):
        """Take on a placement."""

    def _replace(self, before, after, record, weight, plan, now):
        """Take on the members `after`, with `record` at `weight` or at 0 without it, if they were `before`.

        Returns False, and changes nothing, where another change came first.
        """
        with self._lock:
            if self._members is not before:
                return False
            self._members, self._stale = after, True
            if weight:
                record.weight = float(weight)
            else:
                record.draining = True
            self._adopt(plan)
            self._rebuild(now)
        return True

    def _known(self, members, server):
        found = members.get(server)
        if found is None:
            raise KeyError(f"server must be a member, got {server!r}")
        return found

    def add_server(self, server, weight=1):
        """Adds `server`, in a slow start where there is one.

        Raises ValueError if it is a member or `weight` is not positive and finite, TypeError if one has
        the wrong type.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a"])
        >>> balancer.add_server("b")
        >>> balancer.servers
        ('a', 'b')
        """
        weight = self._admitted(weight, self._make())
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.warm = now + self._slow_start
        while True:
            before = self._members
            after = before.copy()
            if after.setdefault(server, record) is not record or self._has_name(server):
                raise ValueError(f"server must not be a member already, got {server!r}")
            plan = self._planned(after, self._make(), None, 0)
            if self._replace(before, after, record, weight, plan, now):
                return

    def _admitted(self, weight, make):
        """The exact weight that a server may have."""
        return server_weight(weight)

    def _has_name(self, server):
        """Whether a member that need not equal `server` has its name."""
        return False

    def remove_server(self, server):
        """Removes `server` at once; its picks in flight end unheeded.

        Raises KeyError if it is no member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.remove_server("a")
        >>> balancer.servers
        ('b',)
        """
        now = self._now()
        while True:
            before = self._members
            record = self._known(before, server)
            after = before.copy()
            del after[record.server]
            plan = self._planned(after, self._make(), None, 0)
            if self._replace(before, after, record, 0, plan, now):
                return

    def drain_server(self, server, draining=True):
        """Gives `server` no more picks, or gives it some again, while those in flight go on.

        Raises KeyError if it is no member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.drain_server("a")
        >>> balancer.get_server(), balancer.get_server()
        ('b', 'b')
        """
        now = self._now()
        draining = bool(draining)
        record = self._known(self._members, server)
        with self._lock:
            if record.draining != draining:
                self._stale = True
                record.draining, record.since = draining, now
                self._rebuild(now)

    def set_weight(self, server, weight):
        """Gives `server` another weight.

        Raises KeyError if it is no member, ValueError if `weight` is not positive and finite, TypeError if
        it is neither int nor float.

        Complexity: O(n) for n servers.

        >>> balancer = WeightedRoundRobin(["a", "b"], seed=0)
        >>> balancer.set_weight("a", 2)
        >>> [balancer.get_server() for _ in range(3)]
        ['a', 'b', 'a']
        """
        weight = self._admitted(weight, self._make())
        now = self._now()
        while True:
            before = self._members
            record = self._known(before, server)
            plan = self._planned(before, self._make(), record, weight)
            if self._replace(before, before.copy(), record, weight, plan, now):
                return

    @property
    def servers(self):
        """The servers as a tuple, in the order of their arrival.

        >>> RoundRobin(["b", "a"]).servers
        ('b', 'a')
        """
        return tuple(self._members)

    @property
    def records(self):
        """A list of `ServerRecord`: weight, picks in flight, latency, health and since when, for each server.

        Complexity: O(n) for n servers.

        >>> RoundRobin({"a": 2}, clock=lambda: 5).records
        [ServerRecord(server='a', weight=2.0, in_flight=0, latency=0.0, health='healthy', since=5)]
        """
        now = self._now()
        with self._lock:
            self._settle(now)
            return [record.shown() for record in self._members.values()]

    def __len__(self):
        return len(self._members)

    def __contains__(self, server):
        return server in self._members

    def __repr__(self):
        return f"{type(self).__name__}({list(self._members)!r})"

    def _check(self):
        """Walk the records and raise AssertionError where an invariant does not hold."""
        wake = NEVER
        present = [record for record in self._members.values() if not record.draining]
        healthy = [record for record in present if not record.until]
        assert self._active == (present if self._panicking else healthy)
        assert [record.seat for record in self._active] == list(range(len(self._active)))
        assert self._penalized == [record for record in self._penalized if record.penalty > 0]
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            assert record.penalty == 0 or record in self._penalized
            for time in (record.until, record.warm, record.penalty and record.lapses):
                wake = min(wake, time or NEVER)
        assert self._wake <= wake
        self._check_order()

    def _check_order(self):
        """Validate what this balancer picks by."""
