# cython: language_level=3, boundscheck=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Balancers: which server takes a request.

    _members  server -> record     all members, a dict that is replaced and never changed
    _active   [record, ...]        those that picks go to, and what each balancer derives from them:
                                   a tournament, an alias table, a heap, sums of weights
    _plan     a placement          where keys belong, in balancers that hash them
    record    weight, in flight, latency, outcomes, penalty, ejected until, warm at

       pick() ---> _choose ---> in_flight + 1 ---> ... done(ok) ---> in_flight - 1, latency, outcome
                     ^                                                  |
                     +---- _rebuild <---- ejected, or back after `_wake` <-+

Invariants. `_active` holds the members that are neither draining nor ejected; all that are not draining
where fewer than the panic threshold would be left. `_wake` is the time of the next return, end of a slow
start or end of a penalty, or earlier; only then does a pick that measures nothing read the clock. A record
outlives its membership, so that picks in flight end where they began. Those that were taken before a fork are
the parent's: in the child they are of another `_era`, and their end changes nothing.

Foreign code is the clock, ``__hash__`` and ``__eq__`` of servers, placements, and arguments: all of it runs
before anything changes and without the lock. A change of the members makes a new dict, and a new placement
where there is one, and takes both on in one step, unless another change came first: then it starts over. A
finalizer may come at any time: while `_busy` says that something is derived or chosen, its picks take any
active record, and its changes leave `_stale` for whoever was interrupted.
"""
cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.math cimport ceil, exp, floor
from libc.stdint cimport int64_t, uint64_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_get_double, hg_get_time, hg_set_double, hg_set_time
from headgate._c.mulshift cimport hg_mulshift
from headgate._c.xxh64 cimport hg_splitmix64

from bisect import bisect_right, insort
from itertools import accumulate
from types import GenericAlias

from headgate.hashing._compiled import xxh64
from headgate.placement._compiled import HashRing, _Placement
from headgate._base.clock import checked_clock, checked_now
from headgate.balance._settings import (
    ServerRecord,
    address_bytes,
    checked_scheme,
    checked_settings,
    first_steps,
    nginx_hash,
    random_word,
    server_weight,
    server_weights,
)
from headgate._base.forks import renew
from headgate._base.checks import checked_callable, checked_iterable
from headgate._base.keys import key_bytes
from headgate._base.pickling import initialized
from headgate.errors import NoServerError


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(list items, Py_ssize_t at)

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
cdef double UNKNOWN = 1e18
cdef double RESOLUTION = 1e6
cdef double MARGIN = 2.0
cdef int64_t SECOND = 1_000_000_000
cdef double WORD = 18446744073709551616.0
cdef int64_t MOST_PENALTY = 1023
cdef int DRAWS = 64
cdef list NOBODY = []
cdef tuple _NONE = ()


cdef inline double _kept(double passed) noexcept:
    """What a moving average keeps of itself over `passed` nanoseconds; linear where exp would not tell."""
    cdef double share = passed / TAU
    return 1.0 - share if share < 1e-4 else exp(-share)


cdef inline double _whole(double number) noexcept:
    """floor of a number from 0 to 2**63, without a call of the C library."""
    return <double><int64_t>number


cdef inline double _margin(double left, double right) noexcept:
    """How many times its load must be less for a slot to be preferred."""
    return MARGIN if left == right else 1.0


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


@cython.final
@cython.no_gc_clear  # the record must be there when the last reference goes
@cython.freelist(64)
cdef class _Pick:
    """A server picked: `server`, in flight until the ``with`` block or `done(ok)` ends it."""

    cdef readonly object server
    cdef _Balancer _balancer
    cdef _Record _record
    cdef int64_t _start
    cdef int64_t _era

    @cython.binding(False)
    def done(self, ok=True, *, overloaded=False):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        A server that was `overloaded`, and refused the request as by 429 or 503, has not been fast: it gets
        fewer picks for a while, as after a failure. If `ok`, this counts neither for nor against ejection.
        A pick that is dropped unended leaves the flight without an outcome.
        """
        self._balancer._finish(self, bool(ok), bool(overloaded))

    cdef int _leave(self, kind) except -1:
        """The end of a block; a cancellation and the like are no outcome."""
        if kind is None or issubclass(kind, Exception):
            self.done(kind is None)
        else:
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
        if self._record is not None and self._era == self._balancer._era:
            self._balancer._abandon(self._record)


cdef class _Balancer:
    """What all balancers share: members, health, picks in flight, and the draws."""

    cdef object __weakref__
    cdef dict _members
    cdef list _active
    cdef double *_sums       # of the weights up to each place in `_active`, NULL where all are equal
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
    cdef double _typical
    cdef bint _timed
    cdef bint _busy
    cdef bint _stale
    cdef bint _panicking
    cdef bint _fresh
    cdef bint _made
    cdef int64_t _sequence
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

    def __dealloc__(self):
        PyMem_Free(self._sums)

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

    @cython.final
    cdef inline bint _scatters(self) noexcept:
        """Whether the first picks are to begin at a random place."""
        return self._fresh and not self._seeded

    @cython.final
    cdef object _weigh(self, list active):
        """Sum up the weights that `_drawn` draws by; where all are equal it needs none."""
        cdef double *sums = NULL
        cdef double total = 0.0
        cdef Py_ssize_t at
        if len({(<_Record>record).weight for record in active}) > 1:
            sums = <double *>PyMem_Malloc(len(active) * sizeof(double))
            if sums == NULL:
                raise MemoryError
            for at in range(len(active)):
                total += (<_Record>active[at]).weight
                sums[at] = total
        self._sums, sums = sums, self._sums
        PyMem_Free(sums)

    @cython.final
    cdef list _seats(self, list skip):
        """The places in `_active` of the records in `skip`, in order."""
        if not skip:
            return []
        return sorted([(<_Record>record).seat for record in skip if (<_Record>record).seat >= 0])

    @cython.final
    cdef _Record _drawn(self, list out):
        """An active record drawn by weight, none of those at the places `out`, which leave at least one."""
        cdef Py_ssize_t count = len(self._active)
        cdef Py_ssize_t at
        cdef Py_ssize_t place
        cdef double drawn
        if self._sums == NULL:
            at = self._below(count - len(out))
            for place in out:
                at += at >= place
            return self._active[at]
        drawn = self._unit() * self._total(out)
        for place in out:
            if place == 0 or drawn >= self._sums[place - 1]:
                drawn += (<_Record>self._active[place]).weight
        at = min(self._above(drawn), count - 1)
        while at in out:  # which only rounding leads to
            at = at + 1 if at + 1 < count else 0
        return self._active[at]

    @cython.final
    cdef Py_ssize_t _drawn_place(self, Py_ssize_t out) noexcept:
        """The place that `_drawn` draws if weights differ and none is out but that at `out`, or -1."""
        cdef Py_ssize_t count = len(self._active)
        cdef Py_ssize_t at
        cdef double weight = 0.0 if out < 0 else (<_Record>PyList_GET_ITEM(self._active, out)).weight
        cdef double drawn = self._unit() * (self._sums[count - 1] - weight)
        if out == 0 or (out > 0 and drawn >= self._sums[out - 1]):
            drawn += weight
        at = min(self._above(drawn), count - 1)
        if at == out:
            at = at + 1 if at + 1 < count else 0
        return at

    @cython.final
    cdef Py_ssize_t _above(self, double drawn) noexcept:
        """The first place whose sum is above a number: bisect_right."""
        cdef const double *sums = self._sums
        cdef Py_ssize_t left = len(self._active)
        cdef Py_ssize_t half
        while left > 1:  # without a branch on the outcome, which no processor could foresee
            half = left >> 1
            sums += half * (drawn >= sums[half - 1])
            left -= half
        return sums - self._sums + (drawn >= sums[0])

    @cython.final
    cdef double _total(self, list out) except? -1.0:
        """The weight of the active records that are not at the places `out`."""
        cdef double total = self._sums[len(self._active) - 1]
        cdef Py_ssize_t place
        for place in out:
            total -= (<_Record>self._active[place]).weight
        return total

    @cython.final
    cdef _Record _preferred(self, _Record a, double weight, _Record b, double other, double total,
                            int64_t now):
        """The one of `a`, drawn by weight, and `b` whose slot carries less; `a` if they carry about the same.

        A server has a slot for each unit of its weight, the lighter one's being the unit, and its load is
        spread evenly over them. Of the slots that one of `a` could be compared with, some are again of `a`:
        `total` is the weight of all. So shares are those of the weights, in an idle fleet and under load.
        """
        cdef double left = a.in_flight + a.penalty
        cdef double right = b.in_flight + b.penalty
        cdef double drawn
        if weight < other:
            right = _whole(right * (weight / other) + self._unit())
        elif weight > other:
            drawn = self._unit() * (total - other)
            if drawn >= total - weight:
                return a
            left = _whole(left * (other / weight) + drawn / (total - weight))
        return b if self._load(b, right, now) * _margin(left, right) < self._load(a, left, now) else a

    @cython.final
    cdef inline double _load(self, _Record record, double slot, int64_t now) noexcept:
        """What a slot of a server carries, this request counted in; if timed, times its latency."""
        if not self._timed:
            return slot + 1.0
        if record.cost == 0.0 and record.in_flight + record.penalty:
            return UNKNOWN + slot
        return (record.cost * _kept(max(now - record.stamp, 0)) + RESOLUTION) * (slot + 1.0)

    # ---- members ----------------------------------------------------------------------------

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
                record = self._resort(key, self._ejected(skip))
            else:
                record = self._left(skip)[0] if busy else self._considered(key, skip, now)
        finally:
            self._busy = busy
            if self._stale:
                self._rebuild(now)
        return record

    @cython.final
    cdef list _ejected(self, list skip):
        """The ejected records that are not in `skip`, where no active one is left."""
        left = [record for record in self._members.values()
                if (<_Record>record).until and not (<_Record>record).draining and record not in skip]
        if not left:
            raise NoServerError("every server is excluded")
        return left

    cdef _Record _resort(self, key, list left):
        """One of the ejected records, by weight alone: better tried than none."""
        sums = list(accumulate([(<_Record>record).weight for record in left]))
        return left[min(bisect_right(sums, self._unit() * sums[-1]), len(left) - 1)]

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
        members = self._current()
        found = dict.fromkeys([members.get(server) for server in checked_iterable("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    @cython.binding(False)
    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what KeyHash and AddressHash hash; the others ignore it. Those in `exclude` are passed over;
        where all others are ejected, one of these is taken, by its weight or by what the key prefers.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        cdef int64_t now = hg_get_time(&self._seen)
        skip = NOBODY if exclude is _NONE or not exclude else self._skipped(exclude)
        key = self._read_key(key)
        if self._timed or hg_get_time(&self._wake) != NEVER:
            now = self._now()
        with cython.critical_section(self):
            return self._chosen(key, skip, now).server

    cdef object _read_key(self, key):
        """What `_choose` is given of a key."""

    @cython.binding(False)
    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Returns a context manager, for ``with`` and ``async with``, with the attribute `server` and the method
        ``done(ok=True, *, overloaded=False)``. Its end measures the latency and feeds outlier ejection;
        leaving the block by an error is a failure, but a task that is cancelled says nothing of the server.
        `key` and `exclude` are those of get_server.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"], seed=0)
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
        pick._era = self._era

    @cython.final
    cdef int _finish(self, _Pick pick, bint ok, bint overloaded) except -1:
        """Count a pick's outcome, once."""
        cdef int64_t now = self._now()
        cdef bint good = ok and not overloaded
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None and pick._era == self._era:
                record.in_flight -= 1
                self._measure(record, now - pick._start, now, good)
                if not record.until and not record.draining:
                    if not good or record.penalty:
                        self._punish(record, good, now)
                    if good or not ok:
                        self._judge(record, ok, now)
                self._moved(record)
        return 0

    @cython.final
    cdef int _drop(self, _Pick pick) except -1:
        """Take a pick out of the flight without an outcome, once."""
        cdef _Record record
        with cython.critical_section(self):
            record, pick._record = pick._record, None
            if record is not None and pick._era == self._era:
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
    cdef void _measure(self, _Record record, int64_t taken, int64_t now, bint good) noexcept:
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last.

        What failed was no faster than its server mostly is, nor than successes of all servers are.
        """
        cdef double keep
        cdef double sample = max(taken, 0)
        cdef double passed = max(now - record.stamp, 0)
        if not good:
            sample = max(sample, record.cost, self._typical)
        elif self._timed:
            self._typical += (sample - self._typical) / 16.0
        if sample >= record.cost:
            record.cost = sample
        else:
            keep = _kept(passed)
            record.cost = record.cost * keep + sample * (1.0 - keep)
        record.stamp = now

    @cython.final
    cdef int _punish(self, _Record record, bint good, int64_t now) except -1:
        """Count a failure as requests in flight for as many seconds, more with each; a success undoes one."""
        if good:
            if record.penalty:
                record.penalty >>= 1
                if not record.penalty:
                    self._penalized.remove(record)
                    if not self._penalized:
                        self._lapse = NEVER
                        self._wake_at(self._due)
            return 0
        if not record.penalty:
            self._penalized.append(record)
        record.penalty = min(2 * record.penalty + 1, MOST_PENALTY)
        record.lapses = now + min(record.penalty * SECOND, self._ejection_time)
        self._lapse = min(self._lapse, record.lapses)
        self._wake_at(min(self._wake, self._lapse))
        return 0

    @cython.final
    cdef int _judge(self, _Record record, bint ok, int64_t now) except -1:
        """Feed the outcome of a pick to outlier ejection."""
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window < INTERVAL:
            record.window, record.good, record.total = now, 0, 0
        record.total += 1
        record.good += ok
        if self._spare > 0 and (record.failures >= self._max_failures or (
                not ok and record.total >= VOLUME and record.good < self._success_rate * record.total)):
            self._stale = True
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._spare -= 1
            self._rebuild(now)
        return 0


cdef class RoundRobin(_Balancer):
    """RoundRobin(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Servers in turn, from a random one on; from the first with a `seed`.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"], seed=0)
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
        coming = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = 0
        for record in coming:
            if record.seat >= 0:
                self._cursor = record.seat
                break
        if active and self._scatters():
            self._cursor = self._below(len(active))
        self._line = line

    cdef object _check_order(self):
        assert self._line == [(<_Record>record).server for record in self._active]

    @cython.binding(False)
    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what KeyHash and AddressHash hash; the others ignore it. Those in `exclude` are passed over;
        where all others are ejected, one of these is taken, by its weight or by what the key prefers.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
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
    """WeightedRoundRobin(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    Servers in turn by weight: nginx's smooth weighted round robin, pick for pick.

    With a `seed` the sequence begins where nginx's does, else anywhere in it.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1}, seed=0)
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    cdef hg_smooth _smooth

    def __dealloc__(self):
        hg_smooth_free(&self._smooth)

    cdef object _arrange(self, list active):
        """Begins the sequence anew, with all servers at 0, at its first step or without a seed at any."""
        cdef _Record record
        cdef Py_ssize_t at
        cdef int64_t steps
        weights = [(<_Record>one).weight for one in active]
        steps = self._below(first_steps(weights)) if active and not self._seeded else 0
        if hg_smooth_begin(&self._smooth, len(active)):
            raise MemoryError
        for at in range(len(active)):
            record = active[at]
            self._smooth.seats[at].weight = record.weight
            self._smooth.total += record.weight
        hg_play_all(&self._smooth)
        for _ in range(steps):
            hg_smooth_next(&self._smooth)

    cdef _Record _choose(self, key, list skip, int64_t now):
        if skip:
            return self._choose_left(skip)
        return self._active[hg_smooth_next(&self._smooth)]

    cdef _Record _choose_left(self, list skip):
        """nginx's step without some servers: these stand still, and nobody pays for them."""
        cdef double total = self._smooth.total
        cdef int64_t best
        cdef int64_t seat
        hg_advance(&self._smooth)
        best = self._ahead(1, skip)
        for seat in self._seats(skip):
            hg_pay(&self._smooth, seat, self._smooth.seats[seat].weight)
            hg_climb(&self._smooth, seat)
            total -= self._smooth.seats[seat].weight
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
    """RandomChoice(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    A server at random, in proportion to the weights.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

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
    """LeastLoaded(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

    Those that have not been picked yet come in random order, with a `seed` in their own. What failed counts
    as in flight for some time. Where weights differ, a server drawn by weight takes the pick unless it
    carries more for its weight than the least loaded one: so shares are those of the weights in an idle
    fleet too.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(log n) a pick for n servers.

    >>> balancer = LeastLoaded(["a", "b"], seed=0)
    >>> pick = balancer.pick()
    >>> pick.server, balancer.get_server(), balancer.get_server()
    ('a', 'b', 'b')
    """

    cdef list _heap
    cdef list _warming

    def __cinit__(self, *args, **kwargs):
        self._heap, self._warming = [], []

    cdef object _arrange(self, list active):
        cdef _Record record
        cdef Py_ssize_t at
        cdef list heap
        for record in self._heap:
            record.place = -1
        if self._scatters():
            for record in active:
                record.turn = -<int64_t>(self._draw() >> 2)
        self._weigh(active)
        warming = [record for record in active if (<_Record>record).warm]
        heap = [record for record in active if not (<_Record>record).warm]
        for at in range(len(heap)):
            record = heap[at]
            record.place = at
        self._heap, self._warming = heap, warming
        for at in reversed(range(len(heap) // 2)):
            self._sink(heap[at])

    cdef object _check_order(self):
        cdef _Record record
        cdef Py_ssize_t at
        assert len(self._heap) + len(self._warming) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.place == at
            assert not self._before(record, self._heap[max(at - 1, 0) // 2])

    cdef bint _before(self, _Record a, _Record b) noexcept:
        """Whether `a` has less in flight for its weight than `b`, or was picked longer ago."""
        cdef double left = <double>(a.in_flight + a.penalty + 1) * b.weight
        cdef double right = <double>(b.in_flight + b.penalty + 1) * a.weight
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
        if self._heap is None:  # as a pick may go after its balancer, where both go in a cycle
            return
        if not 0 <= record.place < len(self._heap) or self._heap[record.place] is not record:
            return
        while record.place > 0:
            parent = self._heap[(record.place - 1) // 2]
            if not self._before(record, parent):
                break
            self._swap(record, parent)
        self._sink(record)

    cdef bint _warms(self) noexcept:
        return False

    cdef _Record _choose(self, key, list skip, int64_t now):
        if not self._panicking and self._sums == NULL and not self._warming:
            return self._first(0, skip)
        return self._chosen_by_weight(skip, now)

    cdef _Record _chosen_by_weight(self, list skip, int64_t now):
        """The choice in panic, or where weights differ, be it by a slow start."""
        cdef list out = self._seats(skip)
        cdef _Record best
        cdef _Record drawn
        cdef double total
        if self._panicking:
            return self._drawn(out)
        if not skip and not self._warming:
            best, drawn = self._heap[0], self._active[self._drawn_place(-1)]
            if drawn is best:
                return best
            total = self._sums[len(self._active) - 1]
            return self._preferred(drawn, drawn.weight, best, best.weight, total, now)
        best = self._least(self._first(0, skip), skip, now)
        total = <double>(len(self._active) - len(out)) * best.weight
        if self._sums != NULL:
            total = self._total(out)
        drawn = self._drawn(out)
        while drawn.warm and self._unit() * self._slow_start >= self._warmth(drawn, now):
            insort(out, drawn.seat)
            if len(out) == len(self._active):
                return best
            drawn = self._drawn(out)
        if drawn is best:
            return best
        return self._preferred(drawn, self._share(drawn, now), best, self._share(best, now), total, now)

    cdef double _share(self, _Record record, int64_t now) noexcept:
        """The weight of a server, less in a slow start."""
        if not record.warm:
            return record.weight
        return record.weight * (self._warmth(record, now) / self._slow_start)

    cdef _Record _least(self, _Record best, list skip, int64_t now):
        """The least loaded of `best` and the servers in a slow start that are not in `skip`."""
        cdef _Record record
        for record in self._warming:
            if record not in skip and (best is None or (
                    <double>(record.in_flight + record.penalty + 1) * self._share(best, now)
                    < <double>(best.in_flight + best.penalty + 1) * self._share(record, now))):
                best = record
        return best

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
    """PowerOfTwo(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The less loaded of two distinct servers drawn by weight; of equals, the one that was drawn first.

    Load is the picks in flight for the weight; what failed counts as in flight for some time. Shares are
    those of the weights, in an idle fleet and under load. Where what is picked has failed of late, a third
    server is looked at.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PowerOfTwo(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    @cython.binding(False)
    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Returns a context manager, for ``with`` and ``async with``, with the attribute `server` and the method
        ``done(ok=True, *, overloaded=False)``. Its end measures the latency and feeds outlier ejection;
        leaving the block by an error is a failure, but a task that is cancelled says nothing of the server.
        `key` and `exclude` are those of get_server.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"], seed=0)
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

    cdef object _arrange(self, list active):
        self._weigh(active)

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef list active = self._active
        cdef size_t count = len(active)
        cdef size_t at
        cdef size_t other
        cdef double total = 0.0
        cdef _Record best
        if skip or self._panicking or count == 1:
            return self._chosen_by_weight(skip, now)
        if self._sums != NULL:
            at = self._drawn_place(-1)
            other = self._drawn_place(at)
            total = self._sums[count - 1]
            best = self._preferred(active[at], (<_Record>active[at]).weight, active[other],
                                   (<_Record>active[other]).weight, total, now)
        else:
            at, other = self._below(count), self._below(count - 1)
            other += other >= at
            best = <_Record>self._better(PyList_GET_ITEM(active, at), PyList_GET_ITEM(active, other), now)
        if best.penalty and count > 2:
            return self._third(best, sorted([at, other]), total, now)
        return best

    @cython.final
    cdef inline PyObject *_better(self, PyObject *a, PyObject *b, int64_t now) noexcept:
        """What `_preferred` returns for equal weights."""
        cdef double left = (<_Record>a).in_flight + (<_Record>a).penalty
        cdef double right = (<_Record>b).in_flight + (<_Record>b).penalty
        cdef double margin
        if not self._timed:
            return b if right < left else a
        margin = _margin(left, right)
        return b if self._load(<_Record>b, right, now) * margin < self._load(<_Record>a, left, now) else a

    @cython.final
    cdef _Record _chosen_by_weight(self, list skip, int64_t now):
        """The choice in panic, or where some servers are out."""
        cdef list out = self._seats(skip)
        cdef _Record a = self._drawn(out)
        cdef _Record b
        cdef _Record best
        cdef double total
        if self._panicking or len(self._active) - len(out) == 1:
            return a
        total = self._total(out) if self._sums != NULL else 0.0
        insort(out, a.seat)
        b = self._drawn(out)
        best = self._preferred(a, a.weight, b, b.weight, total, now)
        insort(out, b.seat)
        if not best.penalty or len(out) == len(self._active):
            return best
        return self._third(best, out, total, now)

    @cython.final
    cdef _Record _third(self, _Record best, list out, double total, int64_t now):
        """`best` of two, or a third server: both may have failed of late."""
        cdef _Record other = self._drawn(out)
        return self._preferred(best, best.weight, other, other.weight, total, now)


cdef class PeakEWMA(PowerOfTwo):
    """PeakEWMA(servers, *, clock=None, seed=None, max_failures=5, success_rate=None, \
    ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The one of two distinct servers drawn by weight whose latency times load is less.

    The latency is a moving average over 10 seconds that a slower sample replaces at once; a server
    without a sample but with picks in flight is avoided. A failure is no faster than successes mostly are.
    Of two that carry the same for their weights the one drawn first is taken, unless its latency is more than
    twice that of the other, both lengthened by a millisecond.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Finagle, PeakEwma.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PeakEWMA(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    def __cinit__(self, *args, **kwargs):
        self._timed = True


cdef class _Hashed(_Balancer):
    """A balancer that hashes keys; its plan is (what makes a placement, the placement, records by id)."""

    cdef tuple _plan

    def __cinit__(self, *args, **kwargs):
        self._plan = None, None, {}

    @cython.final
    cdef tuple _current_plan(self):
        """The plan as it is now."""
        with cython.critical_section(self):
            return self._plan

    cdef object _make(self):
        return self._current_plan()[0]

    cdef object _adopt(self, plan):
        self._plan = plan

    cdef object _planned(self, dict members, make, _Record changed, weight):
        cdef _Record record
        if make is None:
            return None, None, {}
        weights = {}
        for record in members.values():
            share = weight if record is changed else hg_get_double(&record.weight)
            weights[record.server] = int(share) if share < 2**53 and share == int(share) else share
        placement = make(weights)
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must make a HashRing, Rendezvous or Maglev, got {placement!r}")
        return make, placement, {id((<_Record>one).server): one for one in members.values()}

    cdef bint _has_name(self, server) except -1:
        placement = self._current_plan()[1]
        return placement is not None and server in placement

    cdef bint _warms(self) noexcept:
        return False

    cdef object _read_key(self, key):
        data = self._key_data(key)
        _, placement, records = self._current_plan()
        if placement is not None:
            _Placement.nodes.__get__(placement)  # builds it, which other threads are not to wait for
        return placement, records, data

    cdef object _key_data(self, key):
        """The bytes that a key is placed by."""
        return key_bytes(key, "key")

    cdef _Record _choose(self, key, list skip, int64_t now):
        return self._chosen_by_key(key, skip, now)

    @cython.final
    cdef _Record _chosen_by_key(self, key, list skip, int64_t now):
        cdef _Record record = self._preference(key, skip, now, True)
        return record or self._preference(key, skip, now, False) or self._left(skip)[0]

    cdef _Record _preference(self, key, list skip, int64_t now, bint warming):
        """The first active record that a key prefers, or None; `warming` holds back slow starts."""
        cdef _Record record
        placement, records, data = key
        count = 0
        while count < len(records):
            count = 4 * count or 1
            found = _Placement.get_nodes(placement, data, count) if count > 1 else [
                _Placement.get_node(placement, data)]
            for server in found:
                record = records.get(id(server))
                if record is not None and record.seat >= 0 and record not in skip and not (
                        warming and record.warm and self._comes_later(data, record, now)):
                    return record
        return None

    cdef _Record _resort(self, key, list left):
        """The ejected record that a key prefers."""
        placement, records, data = key
        found = _Placement.get_nodes(placement, data, len(records)) if placement is not None else ()
        preferred = [records.get(id(server)) for server in found]
        return next((record for record in preferred if record in left), left[0])

    cdef bint _comes_later(self, data, _Record record, int64_t now) except -1:
        """Whether a key does not go yet to a server in a slow start: keys come one by one, and stay."""
        cdef double place = <double>hg_splitmix64(xxh64(data)) / WORD
        return place * self._slow_start >= self._warmth(record, now)


cdef class KeyHash(_Hashed):
    """KeyHash(servers, *, placement=None, clock=None, seed=None, max_failures=5, \
    success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The same server for the same `key`, whatever is hashed: a str, bytes or an int.

    `placement` is called with a mapping of server to weight and returns the placement of keys: HashRing,
    which is the default, Rendezvous, Maglev, or such as ``partial(HashRing, scheme="nginx")``. Servers are
    what its nodes may be: str, bytes or int, and anything else with its `node_key`. While a server is
    ejected, draining or excluded, each of its keys goes to the next server in the order in which the key
    prefers them, and no other key moves. In a slow start a server gets its keys one by one. No key is
    remembered.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: that of the placement a pick, and O(k log k) where k servers that the key prefers are out; a
    change of the members makes a new placement, which the next pick builds.

    >>> balancer = KeyHash(["a", "b", "c"])
    >>> balancer.get_server("user:1"), balancer.get_server("user:1", exclude=["a"])
    ('a', 'c')
    """

    def __init__(self, servers, *, placement=None, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        checked_callable("placement", placement)
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start),
            HashRing if placement is None else placement)


cdef class AddressHash(_Hashed):
    """AddressHash(servers, *, scheme="headgate", clock=None, seed=None, max_failures=5, \
    success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0)\n--\n
    The same server for the same client address: `key`, IPv4 or IPv6 as text or packed.

    A HashRing places the addresses, IPv6 by its /64, so that a server that joins or leaves moves only its
    own clients; servers are then str, bytes or int. In a slow start a server gets its clients one by one.
    With ``scheme="nginx"`` it is nginx's ip_hash, in which a slow start does not hold back.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) expected a pick; O(k log k) where k servers that the address prefers are out.

    >>> balancer = AddressHash(["a", "b"])
    >>> balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::2")
    True
    """

    def __init__(self, servers, *, scheme="headgate", clock=None, seed=None, max_failures=5,
                 success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        make = HashRing if checked_scheme(scheme) == "headgate" else None
        pairs = server_weights(servers)
        for _, weight in pairs:
            self._admitted(weight, make)
        self._begin(pairs, checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), make)

    cdef object _admitted(self, weight, make):
        weight = server_weight(weight)
        if make is None and weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    cdef list _line
    cdef list _ends

    cdef object _arrange(self, list active):
        """What nginx's scheme walks over: the servers, those that are out too, and sums of their weights."""
        self._line = [record for record in self._members.values() if not (<_Record>record).draining]
        self._ends = list(accumulate([int((<_Record>record).weight) for record in self._line]))

    cdef object _key_data(self, key):
        return address_bytes(key, self._current_plan()[0] is None)

    cdef _Record _choose(self, key, list skip, int64_t now):
        cdef _Record record
        if key[0] is not None:
            return self._chosen_by_key(key, skip, now)
        hashed = 89
        for _ in range(21):  # nginx hashes on where a server is out, up to 20 times
            hashed = nginx_hash(key[2], hashed)
            record = self._line[bisect_right(self._ends, hashed % self._ends[-1])]
            if record.seat >= 0 and record not in skip:
                return record
        return self._left(skip)[0]
