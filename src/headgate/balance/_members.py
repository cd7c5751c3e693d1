"""The members of a balancer: their records, which of them are active, and the times at which that changes."""

from __future__ import annotations

from math import ceil, floor
from time import monotonic_ns
from types import GenericAlias

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, renew
from headgate._base.pickling import initialized
from headgate.balance._settings import (
    ServerRecord,
    changed_settings,
    checked_settings,
    random_word,
    server_weight,
    server_weights,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEVER = 2**63 - 1
STEP_BACK = 1_000_000_000


class _Record:
    """The record of a server in its balancer."""

    __slots__ = (
        "down",
        "draining",
        "ejected_until",
        "ejections",
        "failures",
        "heap_index",
        "in_flight",
        "index",
        "last_pick",
        "latency",
        "outcomes",
        "penalty",
        "penalty_until",
        "sampled_at",
        "server",
        "since",
        "slow_until",
        "successes",
        "weight",
        "window_start",
    )

    def __init__(self, server, weight, now):
        self.server, self.weight = server, float(weight)
        self.latency = 0.0
        self.in_flight = self.failures = self.successes = self.outcomes = 0
        self.ejected_until = self.slow_until = self.penalty_until = 0
        self.penalty = self.ejections = self.last_pick = 0
        self.sampled_at = self.window_start = self.since = now
        self.heap_index = self.index = -1
        self.draining = self.down = False

    def snapshot(self):
        health = "healthy"
        if self.draining:
            health = "draining"
        elif self.down or self.ejected_until:
            health = "down" if self.down else "ejected"
        return ServerRecord(self.server, self.weight, self.in_flight, self.latency / 1e9, health, self.since)


class _Members:
    """The servers of a balancer, and which of them are active."""

    _clock = None
    _next_event = _next_return = _next_penalty_end = NEVER
    _rebuilt_at = _random_state = _ejectable = _generation = 0
    _busy = _stale = _in_panic = _fresh = False
    _seeded = True
    _initialized = False

    if TYPE_CHECKING:
        __class_getitem__: Any
        _active: list[_Record]
        _lock: Any
        _members: dict[Any, _Record]
        _penalized: list[_Record]

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        renew(self)
        self._members, self._active, self._penalized = {}, [], []
        return self

    def __init__(self, servers, *, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        self._initialize(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), None)

    def _initialize(self, pairs, clock, settings, factory):
        now = monotonic_ns() if clock is None else checked_now(clock())
        members: dict = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        plan = self._make_plan(members, factory, None, 0)
        with self._lock:
            if self._initialized:
                raise initialized(self)
            self._initialized = True
            (self._random_state, self._seeded, self._max_failures, self._success_rate, self._ejection_time,
             self._max_ejected, self._panic_threshold, self._slow_start) = settings
            self._clock, self._members, self._fresh = clock, members, True
            self._set_plan(plan)
            self._rebuild(now)

    def _renew(self):
        """In the child of a fork: no pick is in flight, and random draws differ from the parent's.

        What another thread was deriving is derived again, and once more if this thread was deriving it.
        """
        busy, self._busy = self._busy, False
        self._generation += 1
        for record in self._members.values():
            record.in_flight = 0
        if not self._seeded:
            self._random_state, self._fresh = random_word(), True
        self._rebuild(self._rebuilt_at)
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
        """Derive what picks read from the members; again if a finalizer changed them meanwhile.

        A change of the members sets `_stale` first, so that the next pick derives it if a signal handler
        raises in between.
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
        if now < self._rebuilt_at - STEP_BACK:
            self._shift_times(now - self._rebuilt_at)
        self._rebuilt_at = now
        next_return = NEVER
        ejected = 0
        present = []
        healthy = []
        for record in self._members.values():
            if record.ejected_until and record.ejected_until <= now:
                record.ejected_until = 0
                self._restart(record, now)
            if record.slow_until and record.slow_until <= now:
                record.slow_until = 0
            if record.ejected_until:
                next_return = min(next_return, record.ejected_until)
            if record.slow_until:
                next_return = min(next_return, record.slow_until)
            if not record.draining:
                present.append(record)
                ejected += record.ejected_until != 0
                if not record.ejected_until and not record.down:
                    healthy.append(record)
        most = ceil(self._max_ejected * len(present))
        self._ejectable = min(most - ejected, len(healthy) - 1)
        self._in_panic = not healthy or len(healthy) < floor(self._panic_threshold * len(present))
        if self._in_panic:
            healthy = present
        self._next_return = next_return
        for record in self._due_penalties(now):
            self._end_penalty(record)
        for record in self._active:
            record.index = -1
        for index, record in enumerate(healthy):
            record.index = index
        self._build(healthy)
        self._active = healthy
        self._fresh = self._fresh and not healthy

    def _restart(self, record, now):
        """Forget the outcomes of a server that is used again, and begin its slow start."""
        record.failures = record.successes = record.outcomes = 0
        record.window_start = now
        record.slow_until = now + self._slow_start if self._slow_start else 0
        if not record.draining:
            record.since = now

    def _shift_times(self, step):
        """Move all times that are waited for by a step of the clock."""
        for record in self._members.values():
            if record.ejected_until:
                record.ejected_until += step
            if record.slow_until:
                record.slow_until += step
            record.since += step
            record.penalty_until += step

    def _apply_due(self, now):
        """Apply the events that are due; rebuild if the clock stepped back or a finalizer left `_stale`."""
        back = now < self._rebuilt_at - STEP_BACK
        if self._stale or (self._next_event != NEVER and (back or now >= self._next_event)):
            if self._stale or back or now >= self._next_return:
                self._rebuild(now)
            else:
                for record in self._due_penalties(now):  # one by one, as a heap needs it
                    self._end_penalty(record)
                    self._load_changed(record)

    def _due_penalties(self, now):
        """The records whose penalties are over; the caller ends them."""
        due = []
        self._next_penalty_end = NEVER
        for record in tuple(self._penalized):  # which a finalizer may change meanwhile
            if record.ejected_until or record.down or record.draining or record.penalty_until <= now:
                due.append(record)
            elif record.penalty and record.penalty_until < self._next_penalty_end:
                self._next_penalty_end = record.penalty_until
        penalty_end, next_return = self._next_penalty_end, self._next_return
        self._next_event = penalty_end if penalty_end < next_return else next_return
        return due

    def _end_penalty(self, record):
        if record.penalty:  # a finalizer may have ended it
            record.penalty = 0
            self._penalized.remove(record)

    def _build(self, active):
        """Derive from the active records what this balancer picks by."""

    def _load_changed(self, record):
        """Called when the load of a record has changed."""

    def _make_plan(self, members, factory, changed, weight):
        """The plan for `members`, with `changed` at another weight, if keys are hashed."""

    def _placement_factory(self):
        """The callable that makes the placement, if keys are hashed."""

    def _set_plan(self, plan):
        """Set the plan, if keys are hashed."""

    def _replace(self, before, after, record, weight, plan, now):
        """Replace the members `before` by `after`; `record` gets `weight`, or is removed if that is 0.

        Returns False, and changes nothing, if the members are no longer `before`.
        """
        with self._lock:
            if self._members is not before:
                return False
            self._members, self._stale = after, True
            if weight:
                record.weight = float(weight)
            else:
                record.draining = True
            self._set_plan(plan)
            self._rebuild(now)
        return True

    def _member(self, members, server):
        found = members.get(server)
        if found is None:
            raise KeyError(f"server must be a member, got {server!r}")
        return found

    def add_server(self, server, weight=1):
        """Adds `server`, with a slow start if one is set.

        Raises ValueError if it is a member already or `weight` is not positive and finite, TypeError if
        either has the wrong type.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a"])
        >>> balancer.add_server("b")
        >>> balancer.servers
        ('a', 'b')
        """
        weight = self._checked_weight(weight, self._placement_factory())
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.slow_until = now + self._slow_start
        while True:
            before = self._members
            after = before.copy()
            if after.setdefault(server, record) is not record or self._has_name(server):
                raise ValueError(f"server must not be a member already, got {server!r}")
            plan = self._make_plan(after, self._placement_factory(), None, 0)
            if self._replace(before, after, record, weight, plan, now):
                return

    def _checked_weight(self, weight, factory):
        """The exact weight of a server, if it is in range."""
        return server_weight(weight)

    def _has_name(self, server):
        """Whether the placement has a node of the same name as `server`."""
        return False

    def remove_server(self, server):
        """Removes `server` at once; its picks in flight end without effect.

        Raises KeyError if it is not a member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.remove_server("a")
        >>> balancer.servers
        ('b',)
        """
        now = self._now()
        while True:
            before = self._members
            record = self._member(before, server)
            after = before.copy()
            del after[record.server]
            plan = self._make_plan(after, self._placement_factory(), None, 0)
            if self._replace(before, after, record, 0, plan, now):
                return

    def _reorder(self, servers):
        """Order the members as `servers`, before those that are not among them."""
        now = self._now()
        while True:
            before = self._members
            records = [before[server] for server in servers if server in before]
            after = {record.server: record for record in records} | before
            if list(after) == list(before):
                return
            plan = self._make_plan(after, self._placement_factory(), None, 0)
            if self._replace(before, after, records[0], records[0].weight, plan, now):
                return

    def drain_server(self, server, draining=True):
        """Stops picking `server`, or resumes if not `draining`; picks in flight go on.

        Raises KeyError if it is not a member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.drain_server("a")
        >>> balancer.get_server(), balancer.get_server()
        ('b', 'b')
        """
        now = self._now()
        draining = bool(draining)
        record = self._member(self._members, server)
        with self._lock:
            if record.draining != draining:
                self._stale = True
                record.draining, record.since = draining, now
                self._rebuild(now)

    def mark_down(self, server):
        """Stops picking `server`, as after failed health checks, until `mark_up`; picks in flight go on.

        Neither `ejection_time` nor `max_ejected` applies; an ejection of it ends, and outcomes of its picks
        do not count. If fewer servers than the fraction `panic_threshold`, or none, would be left, all but
        those that drain are picked nevertheless.

        Raises KeyError if it is not a member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.mark_down("a")
        >>> balancer.get_server(), balancer.records[0].health
        ('b', 'down')
        """
        self._mark(server, True)

    def mark_up(self, server):
        """Picks `server` again after `mark_down`, with a slow start if one is set; its past does not count.

        A server that is not down stays as it is: an ejection ends by its time.

        Raises KeyError if it is not a member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.mark_down("a")
        >>> balancer.mark_up("a")
        >>> balancer.get_server(exclude=["b"])
        'a'
        """
        self._mark(server, False)

    def _mark(self, server, down):
        now = self._now()
        record = self._member(self._members, server)
        with self._lock:
            if record.down != down:
                self._stale = True
                self._restart(record, now)
                record.down = down
                if down:
                    record.ejected_until = record.slow_until = 0
                self._rebuild(now)

    def set_weight(self, server, weight):
        """Changes the weight of `server`.

        Raises KeyError if it is not a member, ValueError if `weight` is not positive and finite, TypeError if
        it is neither int nor float.

        Complexity: O(n) for n servers.

        >>> balancer = WeightedRoundRobin(["a", "b"], seed=0)
        >>> balancer.set_weight("a", 2)
        >>> [balancer.get_server() for _ in range(3)]
        ['a', 'b', 'a']
        """
        weight = self._checked_weight(weight, self._placement_factory())
        now = self._now()
        while True:
            before = self._members
            record = self._member(before, server)
            plan = self._make_plan(before, self._placement_factory(), record, weight)
            if self._replace(before, before.copy(), record, weight, plan, now):
                return

    def reconfigure(self, **settings):
        """Sets others of the settings that the constructor has from `max_failures` on; the rest stays.

        Those of a KeyHash are also `hot_replicas` and `hot_share`. What servers have failed so far counts by
        the new settings. An ejection under way ends as it would have, a slow start at the latest after the
        new time.

        Raises what the constructor raises, and then changes nothing.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"], max_failures=5)
        >>> balancer.reconfigure(max_failures=1)
        >>> balancer.pick().done(ok=False)
        >>> [record.health for record in balancer.records].count("ejected")
        1
        """
        now = self._now()
        while True:
            before = self._settings()
            changed = changed_settings(before, settings)
            with self._lock:
                if self._settings() != before:
                    continue
                self._set_settings(changed)
                for record in self._members.values():
                    record.slow_until = record.slow_until and min(record.slow_until, now + self._slow_start)
                self._stale = True
                self._rebuild(now)
            return

    def _settings(self):
        """What may be changed, by the names of arguments."""
        return {
            "max_failures": self._max_failures, "success_rate": self._success_rate,
            "ejection_time": self._ejection_time, "max_ejected": self._max_ejected,
            "panic_threshold": self._panic_threshold, "slow_start": self._slow_start,
        }

    def _set_settings(self, changed):
        """Set what `_settings` returns."""
        self._max_failures, self._success_rate = changed["max_failures"], changed["success_rate"]
        self._ejection_time, self._max_ejected = changed["ejection_time"], changed["max_ejected"]
        self._panic_threshold, self._slow_start = changed["panic_threshold"], changed["slow_start"]

    @property
    def servers(self):
        """The servers as a tuple, in the order in which they were added.

        >>> RoundRobin(["b", "a"]).servers
        ('b', 'a')
        """
        return tuple(self._members)

    @property
    def records(self):
        """A list of `ServerRecord`, one a server: weight, picks in flight, latency, health and since when.

        Complexity: O(n) for n servers.

        >>> RoundRobin({"a": 2}, clock=lambda: 5).records
        [ServerRecord(server='a', weight=2.0, in_flight=0, latency=0.0, health='healthy', since=5)]
        """
        now = self._now()
        with self._lock:
            self._apply_due(now)
            return [record.snapshot() for record in self._members.values()]

    def __len__(self):
        return len(self._members)

    def __contains__(self, server):
        return server in self._members

    def __repr__(self):
        return f"{type(self).__name__}({list(self._members)!r})"

    def _check(self):
        """Check all records; raise AssertionError if an invariant does not hold."""
        event = NEVER
        present = [record for record in self._members.values() if not record.draining]
        healthy = [record for record in present if not record.ejected_until and not record.down]
        assert self._active == (present if self._in_panic else healthy)
        assert [record.index for record in self._active] == list(range(len(self._active)))
        assert self._penalized == [record for record in self._penalized if record.penalty > 0]
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            assert not (record.down and record.ejected_until)
            assert record.penalty == 0 or record in self._penalized
            for time in (record.ejected_until, record.slow_until, record.penalty and record.penalty_until):
                event = min(event, time or NEVER)
        assert self._next_event <= event
        self._check_order()

    def _check_order(self):
        """Check what this balancer picks by."""
