# The members of a balancer: their records, which of them are active, and the times at which that changes.
cimport cython
from libc.math cimport ceil, floor
from libc.stdint cimport int64_t, uint64_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_set_double, hg_set_time

from types import GenericAlias

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import renew
from headgate._base.pickling import initialized
from headgate.balance._settings import (
    ServerRecord,
    changed_settings,
    checked_settings,
    random_word,
    server_weight,
    server_weights,
)


cdef extern from *:
    """
    #define NEVER INT64_MAX
    """
    const int64_t NEVER

cdef int64_t STEP_BACK = 1_000_000_000


@cython.final
cdef class _Record:
    """The record of a server in its balancer."""

    cdef object server
    cdef double weight
    cdef int64_t in_flight
    cdef double latency         # the moving average in nanoseconds
    cdef int64_t sampled_at     # the time of the last sample of the latency
    cdef int64_t ejected_until  # 0 unless ejected
    cdef int64_t failures       # in a row
    cdef int64_t outcomes       # of picks since `window_start`
    cdef int64_t successes
    cdef int64_t slow_until     # the end of a slow start, 0 unless in one
    cdef int64_t last_pick      # the number of its last pick
    cdef int64_t heap_index
    cdef int64_t index          # in `_active`, -1 unless active
    cdef int64_t penalty        # counts as so many picks in flight
    cdef int64_t penalty_until
    cdef int64_t window_start
    cdef int64_t ejections
    cdef int64_t since          # the time of the last change of health
    cdef bint draining
    cdef bint down              # by health checks

    def __init__(self, server, weight, now):
        self.server, self.weight = server, float(weight)
        self.latency = 0.0
        self.in_flight = self.failures = self.successes = self.outcomes = 0
        self.ejected_until = self.slow_until = self.penalty_until = 0
        self.penalty = self.ejections = self.last_pick = 0
        self.sampled_at = self.window_start = self.since = now
        self.heap_index = self.index = -1
        self.draining = self.down = False

    cdef object snapshot(self):
        health = "healthy"
        if self.draining:
            health = "draining"
        elif self.down or self.ejected_until:
            health = "down" if self.down else "ejected"
        return ServerRecord(self.server, self.weight, self.in_flight, self.latency / 1e9, health, self.since)


cdef class _Members:
    """The servers of a balancer, and which of them are active."""

    cdef object __weakref__
    cdef dict _members
    cdef list _active
    cdef list _penalized
    cdef object _clock
    cdef uint64_t _random_state
    cdef bint _seeded
    cdef int64_t _max_failures
    cdef double _success_rate
    cdef int64_t _ejection_time
    cdef double _max_ejected
    cdef double _panic_threshold
    cdef int64_t _slow_start
    cdef int64_t _next_event
    cdef int64_t _next_return
    cdef int64_t _next_penalty_end
    cdef int64_t _rebuilt_at
    cdef int64_t _ejectable
    cdef bint _busy
    cdef bint _stale
    cdef bint _in_panic
    cdef bint _fresh
    cdef bint _initialized
    cdef int64_t _generation

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._members, self._active, self._penalized = {}, [], []
        self._next_event = self._next_return = self._next_penalty_end = NEVER
        self._seeded = True
        renew(self)

    def __init__(self, servers, *, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        self._initialize(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), None)

    cdef object _initialize(self, list pairs, clock, tuple settings, factory):
        cdef _Record record
        cdef int64_t now = hg_monotonic_ns() if clock is None else checked_now(clock())
        cdef dict members = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        plan = self._make_plan(members, factory, None, 0)
        with cython.critical_section(self):
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
        cdef _Record record
        cdef bint busy = self._busy
        self._busy = False
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

    @cython.final
    cdef inline int64_t _now(self) except? -1:
        if self._clock is None:
            return hg_monotonic_ns()
        return checked_now(self._clock())

    @cython.final
    cdef int _rebuild(self, int64_t now) except -1:
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
        return 0

    @cython.final
    cdef int _derive(self, int64_t now) except -1:
        cdef _Record record
        cdef int64_t next_return = NEVER
        cdef int64_t most
        cdef int64_t ejected = 0
        cdef int64_t index
        cdef list present = []
        cdef list healthy = []
        if now < self._rebuilt_at - STEP_BACK:
            self._shift_times(now - self._rebuilt_at)
        hg_set_time(&self._rebuilt_at, now)
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
        most = <int64_t>ceil(self._max_ejected * len(present))
        self._ejectable = min(most - ejected, <int64_t>len(healthy) - 1)
        self._in_panic = not healthy or len(healthy) < floor(self._panic_threshold * len(present))
        if self._in_panic:
            healthy = present
        self._next_return = next_return
        for record in self._due_penalties(now):
            record.penalty = 0
        for record in self._active:
            record.index = -1
        for index in range(len(healthy)):
            record = healthy[index]
            record.index = index
        self._build(healthy)
        self._active = healthy
        self._fresh = self._fresh and not healthy
        return 0

    @cython.final
    cdef void _restart(self, _Record record, int64_t now) noexcept:
        """Forget the outcomes of a server that is used again, and begin its slow start."""
        record.failures = record.successes = record.outcomes = 0
        record.window_start = now
        record.slow_until = now + self._slow_start if self._slow_start else 0
        if not record.draining:
            record.since = now

    cdef object _shift_times(self, int64_t step):
        """Move all times that are waited for by a step of the clock."""
        cdef _Record record
        for record in self._members.values():
            if record.ejected_until:
                record.ejected_until += step
            if record.slow_until:
                record.slow_until += step
            record.since += step
            record.penalty_until += step

    @cython.final
    cdef inline void _set_next_event(self, int64_t time) noexcept:
        """Set `_next_event`, which get_server reads without the lock."""
        hg_set_time(&self._next_event, time)

    @cython.final
    cdef inline int _apply_due(self, int64_t now) except -1:
        """Apply the events that are due; rebuild if the clock stepped back or a finalizer left `_stale`."""
        if self._stale or (
                self._next_event != NEVER and not self._rebuilt_at - STEP_BACK <= now < self._next_event):
            self._apply_events(now)
        return 0

    @cython.final
    cdef int _apply_events(self, int64_t now) except -1:
        cdef _Record record
        if self._stale or not self._rebuilt_at - STEP_BACK <= now < self._next_return:
            self._rebuild(now)
        else:
            for record in self._due_penalties(now):  # one by one, as a heap needs it
                record.penalty = 0
                self._load_changed(record)
        return 0

    cdef list _due_penalties(self, int64_t now):
        """The records whose penalties are over; the caller ends them."""
        cdef _Record record
        due, kept = [], []
        self._next_penalty_end = NEVER
        for record in self._penalized:
            if record.ejected_until or record.down or record.draining or record.penalty_until <= now:
                due.append(record)
            else:
                kept.append(record)
                self._next_penalty_end = min(self._next_penalty_end, record.penalty_until)
        self._penalized = kept
        self._set_next_event(min(self._next_return, self._next_penalty_end))
        return due

    cdef object _build(self, list active):
        """Derive from the active records what this balancer picks by."""

    cdef void _load_changed(self, _Record record) noexcept:
        """Called when the load of a record has changed."""

    cdef object _make_plan(self, dict members, factory, _Record changed, weight):
        """The plan for `members`, with `changed` at another weight, if keys are hashed."""

    cdef object _placement_factory(self):
        """The callable that makes the placement, if keys are hashed."""

    cdef object _set_plan(self, plan):
        """Set the plan, if keys are hashed."""

    cdef bint _replace(self, dict before, dict after, _Record record, weight, plan, now) except -1:
        """Replace the members `before` by `after`; `record` gets `weight`, or is removed if that is 0.

        Returns False, and changes nothing, if the members are no longer `before`.
        """
        with cython.critical_section(self):
            if self._members is not before:
                return False
            self._members, self._stale = after, True
            if weight:
                hg_set_double(&record.weight, weight)
            else:
                record.draining = True
            self._set_plan(plan)
            self._rebuild(now)
        return True

    @cython.final
    cdef dict _current_members(self):
        """The present members."""
        with cython.critical_section(self):
            return self._members

    cdef _Record _member(self, dict members, server):
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
        cdef _Record record
        cdef dict before
        cdef dict after
        weight = self._checked_weight(weight, self._placement_factory())
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.slow_until = now + self._slow_start
        while True:
            before = self._current_members()
            after = before.copy()
            if after.setdefault(server, record) is not record or self._has_name(server):
                raise ValueError(f"server must not be a member already, got {server!r}")
            plan = self._make_plan(after, self._placement_factory(), None, 0)
            if self._replace(before, after, record, weight, plan, now):
                return

    cdef object _checked_weight(self, weight, factory):
        """The exact weight of a server, if it is in range."""
        return server_weight(weight)

    cdef bint _has_name(self, server) except -1:
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
        cdef _Record record
        cdef dict after
        now = self._now()
        while True:
            before = self._current_members()
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
            before = self._current_members()
            records = [before[server] for server in servers if server in before]
            after = {(<_Record>each).server: each for each in records} | before
            if list(after) == list(before):
                return
            plan = self._make_plan(after, self._placement_factory(), None, 0)
            if self._replace(before, after, records[0], (<_Record>records[0]).weight, plan, now):
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
        cdef _Record record
        now = self._now()
        draining = bool(draining)
        record = self._member(self._current_members(), server)
        with cython.critical_section(self):
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

    cdef object _mark(self, server, bint down):
        cdef _Record record
        now = self._now()
        record = self._member(self._current_members(), server)
        with cython.critical_section(self):
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
        cdef _Record record
        weight = self._checked_weight(weight, self._placement_factory())
        now = self._now()
        while True:
            before = self._current_members()
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
        cdef _Record record
        now = self._now()
        while True:
            before = self._settings()
            changed = changed_settings(before, settings)
            with cython.critical_section(self):
                if self._settings() != before:
                    continue
                self._set_settings(changed)
                for record in self._members.values():
                    record.slow_until = record.slow_until and min(record.slow_until, now + self._slow_start)
                self._stale = True
                self._rebuild(now)
            return

    cdef dict _settings(self):
        """What may be changed, by the names of arguments."""
        return {
            "max_failures": self._max_failures, "success_rate": self._success_rate,
            "ejection_time": self._ejection_time, "max_ejected": self._max_ejected,
            "panic_threshold": self._panic_threshold, "slow_start": self._slow_start,
        }

    cdef object _set_settings(self, dict changed):
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
        return tuple(self._current_members())

    @property
    def records(self):
        """A list of `ServerRecord`, one a server: weight, picks in flight, latency, health and since when.

        Complexity: O(n) for n servers.

        >>> RoundRobin({"a": 2}, clock=lambda: 5).records
        [ServerRecord(server='a', weight=2.0, in_flight=0, latency=0.0, health='healthy', since=5)]
        """
        cdef _Record record
        now = self._now()
        with cython.critical_section(self):
            self._apply_due(now)
            return [record.snapshot() for record in self._members.values()]

    def __len__(self):
        return len(self._current_members())

    def __contains__(self, server):
        return server in self._current_members()

    def __repr__(self):
        return f"{type(self).__name__}({list(self._current_members())!r})"

    def _check(self):
        """Check all records; raise AssertionError if an invariant does not hold."""
        cdef _Record record
        cdef int64_t event = NEVER
        present = [record for record in self._members.values() if not (<_Record>record).draining]
        healthy = [record for record in present
                   if not (<_Record>record).ejected_until and not (<_Record>record).down]
        assert self._active == (present if self._in_panic else healthy)
        assert [(<_Record>record).index for record in self._active] == list(range(len(self._active)))
        assert self._penalized == [record for record in self._penalized if (<_Record>record).penalty > 0]
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            assert not (record.down and record.ejected_until)
            assert record.penalty == 0 or record in self._penalized
            for time in (record.ejected_until, record.slow_until, record.penalty and record.penalty_until):
                event = min(event, <int64_t>(time or NEVER))
        assert self._next_event <= event
        self._check_order()

    cdef object _check_order(self):
        """Check what this balancer picks by."""
