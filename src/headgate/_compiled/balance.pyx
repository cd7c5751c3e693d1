# cython: language_level=3, boundscheck=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Balancers: which server takes a request.

    _members  server -> record     all members; a change of any of them ends in `_rebuild`
    _active   [record, ...]        those that picks go to, and what each balancer derives from them:
                                   a tournament, an alias table, a heap, a ring
    record    weight, in flight, latency, outcomes, ejected until, warm at

       pick() ---> _choose ---> in_flight + 1 ---> ... done(ok) ---> in_flight - 1, latency, outcome
                     ^                                                  |
                     +---- _rebuild <---- ejected, or back after `_wake` <-+

Invariants. `_active` holds the members that are neither draining nor ejected; all that are not draining
where fewer than the panic threshold would be left. `_wake` is the time of the next return or end of a slow
start; only then does a pick that measures nothing read the clock. A record outlives its membership, so
that picks in flight end where they began.

Foreign code is the clock, ``__hash__`` and ``__eq__`` of servers, and arguments: all of it runs before
anything changes. A finalizer may come at any time: while `_busy` says that something is derived or chosen,
its picks take any active record, and its changes leave `_stale` for whoever was interrupted.
"""
cimport cython
from cpython.dict cimport PyDict_Update
from cpython.object cimport PyObject
from libc.math cimport exp
from libc.stdint cimport int64_t, uint64_t

from headgate._compiled.hashing cimport hg_splitmix64

from bisect import bisect_right
from itertools import accumulate
from types import GenericAlias

from headgate._compiled.placement import HashRing
from headgate._clock import checked_clock, checked_now
from headgate._fleet import (
    ServerRecord,
    address_bytes,
    checked_scheme,
    checked_settings,
    nginx_hash,
    server_weights,
)
from headgate._membership import RingRules, admitted, checked_several, checked_weight
from headgate.errors import NoServerError


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(list items, Py_ssize_t at)

cdef extern from "clock.h" nogil:
    int64_t hg_monotonic_ns()

cdef extern from "mulshift.h" nogil:
    uint64_t hg_mulshift(uint64_t a, uint64_t b, unsigned int shift)

cdef extern from "smooth.h" nogil:
    ctypedef struct hg_seat:
        double weight

    ctypedef struct hg_match:
        int64_t until
        int64_t winner

    ctypedef struct hg_smooth:
        hg_seat *seats
        hg_match *matches
        int64_t count
        int64_t step
        double total

    double hg_stand(const hg_smooth *all, int64_t at)
    void hg_pay(hg_smooth *all, int64_t at, double price)
    void hg_play_all(hg_smooth *all)
    void hg_climb(hg_smooth *all, int64_t at)
    void hg_advance(hg_smooth *all)
    bint hg_beats(const hg_smooth *all, int64_t at, int64_t other)
    int64_t hg_smooth_next(hg_smooth *all)
    int hg_smooth_begin(hg_smooth *all, int64_t count)
    void hg_smooth_free(hg_smooth *all)

cdef extern from *:
    """
    #define NEVER INT64_MAX
    #define GOLDEN UINT64_C(0x9E3779B97F4A7C15)
    """
    const int64_t NEVER
    const uint64_t GOLDEN

cdef double TAU = 10e9
cdef int64_t INTERVAL = 10_000_000_000
cdef int64_t VOLUME = 20
cdef int64_t STEP_BACK = 1_000_000_000
cdef double PENALTY = 1e18
cdef int DRAWS = 64
cdef list NOBODY = []
cdef tuple _NONE = ()
cdef object RING_RULES = RingRules()


cdef inline double _kept(double passed) noexcept:
    """What a moving average keeps of itself over `passed` nanoseconds; linear where exp would not tell."""
    cdef double share = passed / TAU
    return 1.0 - share if share < 1e-4 else exp(-share)


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
    cdef int64_t window
    cdef int64_t ejections
    cdef int64_t since
    cdef bint draining

    def __init__(self, server, weight, now):
        self.server, self.weight = server, float(weight)
        self.cost = 0.0
        self.in_flight = self.failures = self.good = self.total = 0
        self.until = self.warm = self.ejections = self.turn = 0
        self.stamp = self.window = self.since = now
        self.place = -1
        self.draining = False

    cdef object shown(self):
        health = "draining" if self.draining else "ejected" if self.until else "healthy"
        return ServerRecord(self.server, self.weight, self.in_flight, self.cost / 1e9, health, self.since)


@cython.final
@cython.no_gc_clear  # the record must be there when the last reference goes
@cython.freelist(64)
cdef class _Pick:
    """A server picked: `server`, in flight until the ``with`` block or `done(ok)` ends it."""

    cdef readonly object server
    cdef _Balancer _balancer
    cdef _Record _record
    cdef int64_t _start

    @cython.binding(False)
    def done(self, ok=True):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        A pick that is dropped unended leaves the flight without an outcome.
        """
        if self._record is not None:
            self._balancer._finish(self, bool(ok))

    cdef int _leave(self, kind) except -1:
        """The end of a block; a cancellation and the like are no outcome."""
        if kind is None or issubclass(kind, Exception):
            self.done(kind is None)
        elif self._record is not None:
            self._balancer._drop(self)
        return 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._leave(kind)

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        self._leave(kind)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __dealloc__(self):
        if self._record is not None:
            self._balancer._abandon(self._record)


cdef class _Balancer:
    """What all balancers share: members, health, picks in flight, and the draws."""

    cdef object __weakref__
    cdef dict _members
    cdef list _active
    cdef object _clock
    cdef uint64_t _state
    cdef int64_t _max_failures
    cdef double _success_rate
    cdef int64_t _ejection_time
    cdef double _panic
    cdef int64_t _slow_start
    cdef int64_t _wake
    cdef int64_t _seen
    cdef bint _timed
    cdef bint _busy
    cdef bint _stale
    cdef int64_t _sequence

    __class_getitem__ = classmethod(GenericAlias)

    def __cinit__(self, *args, **kwargs):
        self._members, self._active = {}, []
        self._wake = NEVER

    def __init__(self, servers, *, clock=None, seed=0, max_failures=5, success_rate=None, ejection_time=30,
                 panic_threshold=0.5, slow_start=0):
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, panic_threshold, slow_start))

    cdef object _begin(self, list pairs, clock, tuple settings):
        cdef int64_t now
        self._clock = clock
        now = self._now()
        members = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        with cython.critical_section(self):
            (self._state, self._max_failures, self._success_rate, self._ejection_time, self._panic,
             self._slow_start) = settings
            _dropped = dict(self._members)
            self._members.clear()  # the dict stays, as somebody may be looking something up in it
            PyDict_Update(self._members, members)
            self._sequence = 0
            self._rebuild(now)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self):
        raise TypeError(f"cannot copy {type(self).__name__!r} object")

    @cython.final
    cdef inline int64_t _now(self) except? -1:
        if self._clock is None:
            return hg_monotonic_ns()
        return checked_now(self._clock())

    # ---- draws ------------------------------------------------------------------------------

    @cython.final
    cdef inline uint64_t _draw(self) noexcept:
        """The next 64 bits of splitmix64's sequence."""
        cdef uint64_t drawn = hg_splitmix64(self._state)
        self._state = self._state + GOLDEN
        return drawn

    @cython.final
    cdef inline uint64_t _below(self, uint64_t n) noexcept:
        """An unbiased number below `n`: the upper half of n * draw, drawn again where that favours some."""
        cdef uint64_t least
        cdef uint64_t drawn = self._draw()
        if drawn * n < n:
            least = (0 - n) % n
            while drawn * n < least:
                drawn = self._draw()
        return hg_mulshift(drawn, n, 64)

    @cython.final
    cdef inline double _unit(self) noexcept:
        """A number in [0, 1) of 53 bits."""
        return <double>(self._draw() >> 11) * (1.0 / 9007199254740992.0)

    # ---- members ----------------------------------------------------------------------------

    @cython.final
    cdef int _rebuild(self, int64_t now) except -1:
        """Derive what picks read from the members as they are; again where a finalizer changed them."""
        self._stale = True
        while self._stale and not self._busy:
            self._busy, self._stale = True, False
            try:
                self._derive(now)
            finally:
                self._busy = False
        return 0

    @cython.final
    cdef int _derive(self, int64_t now) except -1:
        cdef _Record record
        cdef int64_t wake = NEVER
        cdef list present = []
        cdef list healthy = []
        if now < self._seen - STEP_BACK:
            self._shift(now - self._seen)
        self._seen = now
        for record in list(self._members.values()):
            if record.until and record.until <= now:
                record.until = 0
                record.failures = record.good = record.total = 0
                record.window = record.since = now
                if self._slow_start:
                    record.warm = now + self._slow_start
            if record.warm and record.warm <= now:
                record.warm = 0
            record.place = -1
            if record.until:
                wake = min(wake, record.until)
            if record.warm:
                wake = min(wake, record.warm)
            if not record.draining:
                present.append(record)
                if not record.until:
                    healthy.append(record)
        if len(healthy) < self._panic * len(present) or not healthy:
            healthy = present
        self._wake = wake
        self._arrange(healthy)
        self._active = healthy
        return 0

    cdef object _shift(self, int64_t step):
        """Take the clock's step back in all times that are waited for."""
        cdef _Record record
        for record in list(self._members.values()):
            if record.until:
                record.until += step
            if record.warm:
                record.warm += step
            record.since += step

    @cython.final
    cdef inline int _settle(self, int64_t now) except -1:
        """Rebuild where a server is due, the clock has stepped back, or a finalizer asked for it."""
        if self._stale or (self._wake != NEVER and not self._seen - STEP_BACK <= now < self._wake):
            self._rebuild(now)
        return 0

    cdef object _arrange(self, list active):
        """Derive what this balancer picks by."""

    cdef void _moved(self, _Record record) noexcept:
        """The picks in flight of a record have changed."""

    cdef _Record _known(self, server):
        found = self._members.get(server)
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
        weight = self._admitted(server, weight)
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.warm = now + self._slow_start
        hash(server)
        with cython.critical_section(self):
            if self._has_name(server) or self._members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
            self._rebuild(now)

    cdef object _admitted(self, server, weight):
        """The exact weight of a server that may be a member."""
        return checked_weight(weight)

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
        now = self._now()
        with cython.critical_section(self):
            record = self._members.pop(server, None)
            if record is not None:
                self._rebuild(now)
        if record is None:
            raise KeyError(f"server must be a member, got {server!r}")

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
        with cython.critical_section(self):
            record = self._known(server)
            if record.draining != draining:
                record.draining, record.since = draining, now
                self._rebuild(now)

    def set_weight(self, server, weight):
        """Gives `server` another weight.

        Raises KeyError if it is no member, ValueError if `weight` is not positive and finite, TypeError if
        it is neither int nor float.

        Complexity: O(n) for n servers.

        >>> balancer = WeightedRoundRobin(["a", "b"])
        >>> balancer.set_weight("a", 2)
        >>> [balancer.get_server() for _ in range(3)]
        ['a', 'b', 'a']
        """
        cdef _Record record
        weight = self._admitted(server, weight)
        now = self._now()
        with cython.critical_section(self):
            record = self._known(server)
            record.weight = float(weight)
            self._rebuild(now)

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
        cdef _Record record
        now = self._now()
        with cython.critical_section(self):
            self._settle(now)
            return [record.shown() for record in list(self._members.values())]

    def __len__(self):
        return len(self._members)

    def __contains__(self, server):
        return server in self._members

    def __repr__(self):
        return f"{type(self).__name__}({list(self._members)!r})"

    def _check(self):
        """Walk the records and raise AssertionError where an invariant does not hold."""
        cdef _Record record
        cdef int64_t wake = NEVER
        present = [record for record in self._members.values() if not record.draining]
        healthy = [record for record in present if not record.until]
        assert self._active in (present, healthy)
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            if record.until:
                wake = min(wake, record.until)
            if record.warm:
                wake = min(wake, record.warm)
        assert self._wake == wake
        self._check_order()

    cdef object _check_order(self):
        """Validate what this balancer picks by."""

    # ---- picks ------------------------------------------------------------------------------

    cdef _Record _choose(self, key, list skip, int64_t now):
        """An active record that is not in `skip`, which leaves at least one."""
        raise NotImplementedError

    @cython.final
    cdef list _left(self, list skip):
        """The active records that are not in `skip`."""
        return [record for record in self._active if record not in skip]

    @cython.final
    cdef _Record _chosen(self, key, list skip, int64_t now):
        """The record that a request goes to; for a finalizer that comes amid an edit, any that is left."""
        cdef _Record record
        cdef bint busy
        self._settle(now)
        busy, self._busy = self._busy, True
        try:
            if not self._active:
                raise NoServerError("there is no server")
            if len(skip) >= len(self._active) and not self._left(skip):
                raise NoServerError("every server is excluded")
            record = self._left(skip)[0] if busy else self._considered(key, skip, now)
        finally:
            self._busy = busy
            if self._stale:
                self._rebuild(now)
        return record

    @cython.final
    cdef _Record _considered(self, key, list skip, int64_t now):
        """The record of this balancer's choice; a warming one is passed over in part."""
        cdef _Record record = self._choose(key, skip, now)
        if record.warm and self._warms():
            tried = list(skip)
            while record.warm and self._unit() * self._slow_start >= self._warmth(record, now):
                tried.append(record)
                if len(tried) >= len(self._active) and not self._left(tried):
                    break
                record = self._choose(key, tried, now)
        return record

    cdef bint _warms(self) noexcept:
        """Whether a slow start holds picks back."""
        return True

    cdef double _warmth(self, _Record record, int64_t now) noexcept:
        """The nanoseconds since a slow start began, a tenth of it at least."""
        cdef double span = self._slow_start
        return max(span - <double>(record.warm - now), span / 10)

    cdef list _skipped(self, exclude):
        """The records of the servers in `exclude`."""
        found = dict.fromkeys([self._members.get(server) for server in checked_several("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    @cython.binding(False)
    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what AddressHash hashes; the others do not look at it. Servers in `exclude` are passed over.

        Raises NoServerError if there is no server or every one is excluded, TypeError if `exclude` is a
        single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        cdef int64_t now = self._seen
        skip = NOBODY if exclude is _NONE or not exclude else self._skipped(exclude)
        key = self._read_key(key)
        if self._timed or self._wake != NEVER:
            now = self._now()
        with cython.critical_section(self):
            return self._chosen(key, skip, now).server

    cdef object _read_key(self, key):
        """What `_choose` is given of a key."""

    @cython.binding(False)
    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Answers a context manager, for ``with`` and ``async with``, with the attribute `server` and the
        method ``done(ok=True)``. Its end measures the latency and feeds outlier ejection; leaving the block
        by an error is a failure, but a task that is cancelled says nothing of the server. `key` and `exclude`
        are those of get_server.

        Raises NoServerError if there is no server or every one is excluded, TypeError if `exclude` is a
        single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"])
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        return self._picked(key, exclude)

    @cython.final
    cdef _Pick _picked(self, key, exclude):
        cdef _Record record
        cdef _Pick pick = _Pick.__new__(_Pick)
        cdef int64_t now
        skip = NOBODY if exclude is _NONE or not exclude else self._skipped(exclude)
        key = self._read_key(key)
        now = self._now()
        with cython.critical_section(self):
            record = self._chosen(key, skip, now)
            self._count(record, pick, now)
            self._moved(record)
        return pick

    @cython.final
    cdef inline void _count(self, _Record record, _Pick pick, int64_t now) noexcept:
        """Take a pick into the flight."""
        record.in_flight += 1
        self._sequence += 1
        record.turn = self._sequence
        pick.server, pick._balancer, pick._record, pick._start = record.server, self, record, now

    @cython.final
    cdef int _finish(self, _Pick pick, bint ok) except -1:
        """Count a pick's outcome, once."""
        cdef int64_t now = self._now()
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None:
                record.in_flight -= 1
                self._measure(record, now - pick._start, now)
                self._judge(record, ok, now)
                self._moved(record)
        return 0

    @cython.final
    cdef int _drop(self, _Pick pick) except -1:
        """Take a pick out of the flight without an outcome, once."""
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None:
                record.in_flight -= 1
                self._moved(record)
        return 0

    @cython.final
    cdef int _abandon(self, _Record record) except -1:
        """Take a pick that was dropped out of the flight."""
        with cython.critical_section(self):
            record.in_flight -= 1
            self._moved(record)
        return 0

    @cython.final
    cdef void _measure(self, _Record record, int64_t taken, int64_t now) noexcept:
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last."""
        cdef double keep
        cdef double sample = max(taken, 0)
        cdef double passed = max(now - record.stamp, 0)
        if sample >= record.cost:
            record.cost = sample
        else:
            keep = _kept(passed)
            record.cost = record.cost * keep + sample * (1.0 - keep)
        record.stamp = now

    @cython.final
    cdef int _judge(self, _Record record, bint ok, int64_t now) except -1:
        """Feed the outcome of a pick to outlier ejection."""
        if record.until:
            return 0
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window < INTERVAL:
            record.window, record.good, record.total = now, 0, 0
        record.total += 1
        record.good += ok
        if record.failures >= self._max_failures or (
                not ok and record.total >= VOLUME and record.good < self._success_rate * record.total):
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._rebuild(now)
        return 0


cdef class RoundRobin(_Balancer):
    """RoundRobin(servers, *, clock=None, seed=0, max_failures=5, success_rate=None, ejection_time=30, \
    panic_threshold=0.5, slow_start=0)\n--\n
    Servers in turn.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"])
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    cdef size_t _cursor
    cdef list _line

    def __cinit__(self, *args, **kwargs):
        self._line = []

    cdef object _arrange(self, list active):
        cdef _Record record
        line = [(<_Record>one).server for one in active]
        for record in self._active:
            record.place = -1
        for place, record in enumerate(active):
            record.place = place
        coming = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = 0
        for record in coming:
            if record.place >= 0:
                self._cursor = record.place
                break
        self._line = line

    cdef object _check_order(self):
        assert self._line == [(<_Record>record).server for record in self._active]

    @cython.binding(False)
    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what AddressHash hashes; the others do not look at it. Servers in `exclude` are passed over.

        Raises NoServerError if there is no server or every one is excluded, TypeError if `exclude` is a
        single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        if exclude is _NONE:
            with cython.critical_section(self):
                if self._wake == NEVER and self._line:
                    return self._line[self._next(len(self._line))]
        return _Balancer.get_server(self, key, exclude=exclude)

    @cython.final
    cdef inline size_t _next(self, size_t count) noexcept:
        """The place whose turn it is, of `count`."""
        cdef size_t at = self._cursor if self._cursor < count else 0
        self._cursor = at + 1
        return at

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef _Record record = self._active[self._next(len(self._active))]
        while skip and record in skip:
            record = self._active[self._next(len(self._active))]
        return record


cdef class WeightedRoundRobin(_Balancer):
    """WeightedRoundRobin(servers, *, clock=None, seed=0, max_failures=5, success_rate=None, \
    ejection_time=30, panic_threshold=0.5, slow_start=0)\n--\n
    Servers in turn by weight: nginx's smooth weighted round robin, pick for pick.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1})
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    cdef hg_smooth _smooth

    def __dealloc__(self):
        hg_smooth_free(&self._smooth)

    cdef object _arrange(self, list active):
        """Starts the sequence anew: everybody stands at 0."""
        cdef _Record record
        cdef Py_ssize_t at
        if hg_smooth_begin(&self._smooth, len(active)):
            raise MemoryError
        for at in range(len(active)):
            record = active[at]
            record.place = at
            self._smooth.seats[at].weight = record.weight
            self._smooth.total += record.weight
        hg_play_all(&self._smooth)

    cdef _Record _choose(self, key, list skip, int64_t now):
        if skip:
            return self._choose_left(skip)
        return self._active[hg_smooth_next(&self._smooth)]

    cdef _Record _choose_left(self, list skip):
        """nginx's step without some servers: these stand still, and nobody pays for them."""
        cdef _Record record
        cdef double total = self._smooth.total
        cdef int64_t best
        hg_advance(&self._smooth)
        best = self._ahead(1, skip)
        for record in skip:
            if 0 <= record.place < len(self._active) and self._active[record.place] is record:
                hg_pay(&self._smooth, record.place, record.weight)
                hg_climb(&self._smooth, record.place)
                total -= record.weight
        hg_pay(&self._smooth, best, total)
        hg_climb(&self._smooth, best)
        return self._active[best]

    cdef int64_t _ahead(self, int64_t node, list skip):
        """Who is ahead below `node` and not in `skip`, or -1."""
        cdef int64_t at
        cdef int64_t other
        at = node - self._smooth.count
        if at < 0:
            at = self._smooth.matches[node].winner
        if self._active[at] not in skip:
            return at
        if node >= self._smooth.count:
            return -1
        at, other = self._ahead(2 * node, skip), self._ahead(2 * node + 1, skip)
        if at < 0 or (other >= 0 and hg_beats(&self._smooth, other, at)):
            return other
        return at

    cdef object _check_order(self):
        cdef Py_ssize_t at
        cdef Py_ssize_t node
        cdef Py_ssize_t count = len(self._active)
        assert self._smooth.count == count
        for at in range(count):
            assert self._smooth.seats[at].weight == (<_Record>self._active[at]).weight
        for node in range(1, count):
            if self._smooth.matches[node].until > self._smooth.step:
                below = [(hg_stand(&self._smooth, at), -at) for at in range(count)
                         if (at + count) >> ((at + count).bit_length() - node.bit_length()) == node]
                first, winner = -max(below)[1], self._smooth.matches[node].winner
                lead = hg_stand(&self._smooth, first) - hg_stand(&self._smooth, winner)
                assert first == winner or lead <= 1e-9 * self._smooth.total


cdef class RandomChoice(_Balancer):
    """RandomChoice(servers, *, clock=None, seed=0, max_failures=5, success_rate=None, \
    ejection_time=30, panic_threshold=0.5, slow_start=0)\n--\n
    A server at random, in proportion to the weights.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.

    Complexity: O(1) a pick.

    >>> balancer = RandomChoice({"a": 9, "b": 1}, seed=1)
    >>> sum(balancer.get_server() == "a" for _ in range(1000)) > 850
    True
    """

    cdef list _chances
    cdef list _aliases

    cdef object _arrange(self, list active):
        """Vose's alias table: each slot holds its own record up to its chance, above it the alias."""
        cdef _Record record
        total = 0.0
        for record in active:
            total += record.weight
        self._chances = [record.weight * len(active) / total for record in active]
        self._aliases = list(range(len(active)))
        small = [at for at, chance in enumerate(self._chances) if chance < 1.0]
        large = [at for at, chance in enumerate(self._chances) if chance >= 1.0]
        while small and large:
            low, high = small.pop(), large[-1]
            self._aliases[low] = high
            self._chances[high] -= 1.0 - self._chances[low]
            if self._chances[high] < 1.0:
                small.append(large.pop())
        for at in small + large:
            self._chances[at] = 1.0

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef Py_ssize_t at
        cdef int _try
        for _try in range(DRAWS):
            at = self._below(len(self._active))
            if self._unit() >= self._chances[at]:
                at = self._aliases[at]
            if not skip or self._active[at] not in skip:
                return self._active[at]
        return self._choose_left(self._left(skip))

    cdef _Record _choose_left(self, list left):
        """A weighted draw from a few."""
        cdef _Record record
        cdef double total = 0.0
        cdef double drawn
        for record in left:
            total += record.weight
        drawn = self._unit() * total
        for record in left:
            drawn -= record.weight
            if drawn < 0.0:
                return record
        return left[-1]


cdef class LeastLoaded(_Balancer):
    """LeastLoaded(servers, *, clock=None, seed=0, max_failures=5, success_rate=None, ejection_time=30, \
    panic_threshold=0.5, slow_start=0)\n--\n
    The server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

    The pick itself counts in, so an idle fleet gives first to the server of the greatest weight.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(log n) a pick for n servers.

    >>> balancer = LeastLoaded(["a", "b"])
    >>> pick = balancer.pick()
    >>> pick.server, balancer.get_server(), balancer.get_server()
    ('a', 'b', 'b')
    >>> LeastLoaded({"small": 1, "large": 4}).get_server()
    'large'
    """

    cdef list _heap

    cdef object _arrange(self, list active):
        cdef _Record record
        cdef Py_ssize_t at
        self._heap = []
        for at in range(len(active)):
            record = active[at]
            record.place = at
        self._heap = list(active)
        for at in reversed(range(len(active) // 2)):
            self._sink(self._heap[at])

    cdef object _check_order(self):
        cdef _Record record
        cdef Py_ssize_t at
        assert len(self._heap) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.place == at
            assert not self._before(record, self._heap[max(at - 1, 0) // 2])

    cdef bint _before(self, _Record a, _Record b) noexcept:
        """Whether `a` has less in flight for its weight than `b`, or was picked longer ago."""
        cdef double left = <double>(a.in_flight + 1) * b.weight
        cdef double right = <double>(b.in_flight + 1) * a.weight
        return left < right or (left == right and a.turn < b.turn)

    cdef void _swap(self, _Record a, _Record b) noexcept:
        self._heap[a.place], self._heap[b.place] = b, a
        a.place, b.place = b.place, a.place

    cdef void _sink(self, _Record record) noexcept:
        cdef Py_ssize_t at
        cdef _Record child
        while 2 * record.place + 1 < len(self._heap):
            at = 2 * record.place + 1
            child = self._heap[at]
            if at + 1 < len(self._heap) and self._before(self._heap[at + 1], child):
                child = self._heap[at + 1]
            if not self._before(child, record):
                break
            self._swap(record, child)

    cdef void _moved(self, _Record record) noexcept:
        cdef _Record parent
        if self._busy:
            self._stale = True
            return
        if not 0 <= record.place < len(self._heap) or self._heap[record.place] is not record:
            return
        while record.place > 0:
            parent = self._heap[(record.place - 1) // 2]
            if not self._before(record, parent):
                break
            self._swap(record, parent)
        self._sink(record)

    cdef _Record _choose(self, key, list skip, int64_t now):
        return self._first(0, skip)

    cdef _Record _first(self, Py_ssize_t at, list skip):
        """The first in order of the subtree at `at` that is not in `skip`, or None."""
        cdef _Record record
        cdef _Record left
        cdef _Record right
        if at >= len(self._heap):
            return None
        record = self._heap[at]
        if not skip or record not in skip:
            return record
        left, right = self._first(2 * at + 1, skip), self._first(2 * at + 2, skip)
        if left is None or (right is not None and self._before(right, left)):
            return right
        return left


cdef class PowerOfTwo(_Balancer):
    """PowerOfTwo(servers, *, clock=None, seed=0, max_failures=5, success_rate=None, ejection_time=30, \
    panic_threshold=0.5, slow_start=0)\n--\n
    The less loaded of two distinct servers drawn at random; equals are told apart by a draw.

    Load is what LeastLoaded compares: picks in flight, this one counted in, for the weight.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.

    Complexity: O(1) a pick.

    >>> balancer = PowerOfTwo(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    @cython.binding(False)
    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Answers a context manager, for ``with`` and ``async with``, with the attribute `server` and the
        method ``done(ok=True)``. Its end measures the latency and feeds outlier ejection; leaving the block
        by an error is a failure, but a task that is cancelled says nothing of the server. `key` and `exclude`
        are those of get_server.

        Raises NoServerError if there is no server or every one is excluded, TypeError if `exclude` is a
        single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"])
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        cdef _Record record
        cdef _Pick pick
        if exclude is _NONE and self._clock is None and not self._timed:
            pick = _Pick.__new__(_Pick)
            with cython.critical_section(self):
                if self._wake == NEVER and not self._stale and not self._busy and self._active:
                    record = PowerOfTwo._choose(self, key, NOBODY, 0)
                    self._count(record, pick, hg_monotonic_ns())  # a reading waits for all before it
                    return pick
        return self._picked(key, exclude)

    @cython.final
    cdef inline double _load(self, _Record record, int64_t now) noexcept:
        """What a server carries, this request counted in; if timed, times its latency."""
        if not self._timed:
            return record.in_flight + 1.0
        if record.cost == 0.0 and record.in_flight:
            return PENALTY + <double>record.in_flight
        return record.cost * _kept(max(now - record.stamp, 0)) * <double>(record.in_flight + 1)

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef list active = self._active if 2 * len(skip) < len(self._active) else self._left(skip)
        cdef size_t count = len(active)
        cdef size_t at
        cdef size_t other
        if count == 1:
            return active[0]
        while True:
            at, other = self._below(count), self._below(count - 1)
            other += other >= at
            if not skip or not (active[at] in skip or active[other] in skip):
                break
        return <_Record>self._better(PyList_GET_ITEM(active, at), PyList_GET_ITEM(active, other), now)

    @cython.final
    cdef inline PyObject *_better(self, PyObject *a, PyObject *b, int64_t now) noexcept:
        """The record of two that carries less, told apart by a draw."""
        cdef double left = self._load(<_Record>a, now) * (<_Record>b).weight
        cdef double right = self._load(<_Record>b, now) * (<_Record>a).weight
        if left == right:
            return a if self._draw() >> 63 else b
        return a if left < right else b


cdef class PeakEWMA(PowerOfTwo):
    """PeakEWMA(servers, *, clock=None, seed=0, max_failures=5, success_rate=None, ejection_time=30, \
    panic_threshold=0.5, slow_start=0)\n--\n
    The one of two distinct servers drawn at random whose latency times load is less.

    The latency is a moving average over 10 seconds that a slower sample replaces at once; a server
    without a sample but with picks in flight is avoided.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Finagle, PeakEwma.

    Complexity: O(1) a pick.

    >>> balancer = PeakEWMA(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    def __cinit__(self, *args, **kwargs):
        self._timed = True


cdef class AddressHash(_Balancer):
    """AddressHash(servers, *, scheme="headgate", clock=None, seed=0, max_failures=5, \
    success_rate=None, ejection_time=30, panic_threshold=0.5, slow_start=0)\n--\n
    The same server for the same client address: `key`, IPv4 or IPv6 as text or packed.

    A HashRing places the addresses, IPv6 by its /64, so that a server that joins or leaves moves only its
    own clients; servers are then str, bytes or int. With ``scheme="nginx"`` it is nginx's ip_hash. A slow
    start does not hold back.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) expected a pick; O(k log k) where k servers that the address prefers are out.

    >>> balancer = AddressHash(["a", "b"])
    >>> balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::2")
    True
    """

    cdef object _scheme
    cdef object _ring
    cdef list _sums

    def __init__(self, servers, *, scheme="headgate", clock=None, seed=0, max_failures=5, success_rate=None,
                 ejection_time=30, panic_threshold=0.5, slow_start=0):
        self._scheme = checked_scheme(scheme)
        pairs = server_weights(servers)
        for server, weight in pairs:
            self._admitted(server, weight)
        self._begin(pairs, checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, panic_threshold, slow_start))

    cdef object _admitted(self, server, weight):
        if self._scheme == "headgate":
            _, (_, weight) = admitted(server, checked_weight(weight), None, RING_RULES)
            return weight
        weight = checked_weight(weight)
        if weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    cdef bint _has_name(self, server) except -1:
        ring = self._ring  # which another thread may replace while names are compared
        return self._scheme == "headgate" and server in ring

    cdef object _arrange(self, list active):
        cdef _Record record
        for place, record in enumerate(active):
            record.place = place
        members = list(self._members.values())
        if self._scheme == "nginx":
            present = [record for record in members if not record.draining]
            self._ring, self._sums = present, list(accumulate([int(record.weight) for record in present]))
            return
        weights = {record.server: record.weight for record in members}
        if self._ring is None or self._ring.weights != weights:
            self._ring = HashRing(weights)

    cdef bint _warms(self) noexcept:
        return False

    cdef object _read_key(self, key):
        return address_bytes(key, self._scheme == "nginx")

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef _Record record
        if self._scheme == "nginx":
            return self._walk(key, skip)
        count = 1
        while count < 4 * len(self._members):
            for server in self._ring.get_nodes(key, count):
                record = self._members.get(server)
                if record is not None and record.place >= 0 and record not in skip:
                    return record
            count *= 4
        return self._left(skip)[0]

    cdef _Record _walk(self, key, list skip):
        """nginx hashes on where a server is out, up to 20 times."""
        cdef _Record record
        hashed = 89
        for _ in range(21):
            hashed = nginx_hash(key, hashed)
            record = self._ring[bisect_right(self._sums, hashed % self._sums[-1])]
            if record.place >= 0 and record not in skip:
                return record
        return self._left(skip)[0]
