# The members of a balancer: their records, who of them is active, and the times at which that changes.
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
    """A server as its balancer knows it."""

    cdef object server
    cdef double weight
    cdef int64_t in_flight
    cdef double cost
    cdef int64_t stamp
    cdef int64_t until
    cdef int64_t failures
    cdef int64_t total
    cdef int64_t good
    cdef int64_t warm
    cdef int64_t turn
    cdef int64_t place
    cdef int64_t seat
    cdef int64_t penalty
    cdef int64_t lapses
    cdef int64_t window
    cdef int64_t ejections
    cdef int64_t since
    cdef bint draining

    def __init__(self, server, weight, now):
        self.server, self.weight = server, float(weight)
        self.cost = 0.0
        self.in_flight = self.failures = self.good = self.total = 0
        self.until = self.warm = self.ejections = self.turn = self.penalty = self.lapses = 0
        self.stamp = self.window = self.since = now
        self.place = self.seat = -1
        self.draining = False

    cdef object shown(self):
        health = "draining" if self.draining else "ejected" if self.until else "healthy"
        return ServerRecord(self.server, self.weight, self.in_flight, self.cost / 1e9, health, self.since)


cdef class _Members:
    """The servers of a balancer, and those of them that are active."""

    cdef object __weakref__
    cdef dict _members
    cdef list _active
    cdef list _penalized
    cdef object _clock
    cdef uint64_t _state
    cdef bint _seeded
    cdef int64_t _max_failures
    cdef double _success_rate
    cdef int64_t _ejection_time
    cdef double _max_ejected
    cdef double _panic
    cdef int64_t _slow_start
    cdef int64_t _wake
    cdef int64_t _due
    cdef int64_t _lapse
    cdef int64_t _seen
    cdef int64_t _spare
    cdef bint _busy
    cdef bint _stale
    cdef bint _panicking
    cdef bint _fresh
    cdef bint _made
    cdef int64_t _era

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._members, self._active, self._penalized = {}, [], []
        self._wake = self._due = self._lapse = NEVER
        self._seeded = True
        renew(self)

    def __init__(self, servers, *, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), None)

    cdef object _begin(self, list pairs, clock, tuple settings, make):
        cdef _Record record
        cdef int64_t now = hg_monotonic_ns() if clock is None else checked_now(clock())
        cdef dict members = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        plan = self._planned(members, make, None, 0)
        with cython.critical_section(self):
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
        cdef _Record record
        cdef bint busy = self._busy
        self._busy = False
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

    @cython.final
    cdef inline int64_t _now(self) except? -1:
        if self._clock is None:
            return hg_monotonic_ns()
        return checked_now(self._clock())

    @cython.final
    cdef int _rebuild(self, int64_t now) except -1:
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
        return 0

    @cython.final
    cdef int _derive(self, int64_t now) except -1:
        cdef _Record record
        cdef int64_t due = NEVER
        cdef int64_t most
        cdef int64_t seat
        cdef list present = []
        cdef list healthy = []
        if now < self._seen - STEP_BACK:
            self._shift(now - self._seen)
        hg_set_time(&self._seen, now)
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
        most = min(<int64_t>ceil(self._max_ejected * len(present)), <int64_t>len(present) - 1)
        self._spare = most - <int64_t>(len(present) - len(healthy))
        self._panicking = not healthy or len(healthy) < floor(self._panic * len(present))
        if self._panicking:
            healthy = present
        self._due = due
        self._relieved(now)
        for record in self._active:
            record.seat = -1
        for seat in range(len(healthy)):
            record = healthy[seat]
            record.seat = seat
        self._arrange(healthy)
        self._active = healthy
        self._fresh = self._fresh and not healthy
        return 0

    cdef object _shift(self, int64_t step):
        """Take the clock's step back in all times that are waited for."""
        cdef _Record record
        for record in self._members.values():
            if record.until:
                record.until += step
            if record.warm:
                record.warm += step
            record.since += step
            record.lapses += step

    @cython.final
    cdef inline void _wake_at(self, int64_t time) noexcept:
        """Set `_wake`, which get_server reads without the lock."""
        hg_set_time(&self._wake, time)

    @cython.final
    cdef inline int _settle(self, int64_t now) except -1:
        """Rebuild where a server is due, the clock has stepped back, or a finalizer asked for it."""
        if self._stale or (self._wake != NEVER and not self._seen - STEP_BACK <= now < self._wake):
            self._woken(now)
        return 0

    @cython.final
    cdef int _woken(self, int64_t now) except -1:
        cdef _Record record
        if self._stale or not self._seen - STEP_BACK <= now < self._due:
            self._rebuild(now)
        else:
            for record in self._relieved(now):
                self._moved(record)
        return 0

    cdef list _relieved(self, int64_t now):
        """End the penalties that have lapsed; returns their records."""
        cdef _Record record
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
        self._wake_at(min(self._due, self._lapse))
        return lapsed

    cdef object _arrange(self, list active):
        """Derive what this balancer picks by."""

    cdef void _moved(self, _Record record) noexcept:
        """The load of a record has changed."""

    cdef object _planned(self, dict members, make, _Record changed, weight):
        """The placement of `members`, with `changed` at another weight, where keys are hashed."""

    cdef object _make(self):
        """What makes the placement, where keys are hashed."""

    cdef object _adopt(self, plan):
        """Take on a placement."""

    cdef bint _replace(self, dict before, dict after, _Record record, weight, plan, now) except -1:
        """Take on the members `after`, with `record` at `weight` or at 0 without it, if they were `before`.

        Returns False, and changes nothing, where another change came first.
        """
        with cython.critical_section(self):
            if self._members is not before:
                return False
            self._members, self._stale = after, True
            if weight:
                hg_set_double(&record.weight, weight)
            else:
                record.draining = True
            self._adopt(plan)
            self._rebuild(now)
        return True

    @cython.final
    cdef dict _current(self):
        """The members as they are now."""
        with cython.critical_section(self):
            return self._members

    cdef _Record _known(self, dict members, server):
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
        cdef _Record record
        cdef dict before
        cdef dict after
        weight = self._admitted(weight, self._make())
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.warm = now + self._slow_start
        while True:
            before = self._current()
            after = before.copy()
            if after.setdefault(server, record) is not record or self._has_name(server):
                raise ValueError(f"server must not be a member already, got {server!r}")
            plan = self._planned(after, self._make(), None, 0)
            if self._replace(before, after, record, weight, plan, now):
                return

    cdef object _admitted(self, weight, make):
        """The exact weight that a server may have."""
        return server_weight(weight)

    cdef bint _has_name(self, server) except -1:
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
        cdef _Record record
        cdef dict before
        cdef dict after
        now = self._now()
        while True:
            before = self._current()
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
        cdef _Record record
        now = self._now()
        draining = bool(draining)
        record = self._known(self._current(), server)
        with cython.critical_section(self):
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
        cdef _Record record
        cdef dict before
        weight = self._admitted(weight, self._make())
        now = self._now()
        while True:
            before = self._current()
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
        return tuple(self._current())

    @property
    def records(self):
        """A list of `ServerRecord`: weight, picks in flight, latency, health and since when, for each server.

        Complexity: O(n) for n servers.

        >>> RoundRobin({"a": 2}, clock=lambda: 5).records
        [ServerRecord(server='a', weight=2.0, in_flight=0, latency=0.0, health='healthy', since=5)]
        """
        cdef _Record record
        now = self._now()
        with cython.critical_section(self):
            self._settle(now)
            return [record.shown() for record in self._members.values()]

    def __len__(self):
        return len(self._current())

    def __contains__(self, server):
        return server in self._current()

    def __repr__(self):
        return f"{type(self).__name__}({list(self._current())!r})"

    def _check(self):
        """Walk the records and raise AssertionError where an invariant does not hold."""
        cdef _Record record
        cdef int64_t wake = NEVER
        present = [record for record in self._members.values() if not (<_Record>record).draining]
        healthy = [record for record in present if not (<_Record>record).until]
        assert self._active == (present if self._panicking else healthy)
        assert [(<_Record>record).seat for record in self._active] == list(range(len(self._active)))
        assert self._penalized == [record for record in self._penalized if (<_Record>record).penalty > 0]
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            assert record.penalty == 0 or record in self._penalized
            for time in (record.until, record.warm, record.penalty and record.lapses):
                wake = min(wake, <int64_t>(time or NEVER))
        assert self._wake <= wake
        self._check_order()

    cdef object _check_order(self):
        """Validate what this balancer picks by."""
