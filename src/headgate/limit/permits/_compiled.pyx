# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Permits of a concurrency limit, and what grants them.

    acquire --> in flight < limit x share of the priority? --> Permit --> observe, release
                                                                            |
    limit <-- algorithm(limit, latency, in flight at the start, outcome) <--+

A permit is held as long as its mark, a list, has its element, which goes by the step that lowers the words.

Foreign code - the clock, and ``__eq__`` of an outcome or a priority - runs before any step.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t

from headgate._base.words._compiled cimport Words
from headgate._c.atomics cimport hg_add, hg_cas, hg_load
from headgate._c.clock cimport hg_monotonic_ns

from collections import deque

from headgate._base.clock import checked_clock, checked_now
from headgate.limit import _algorithms


cdef extern from *:
    """
    #define NEVER INT64_MAX
    #define WINDOW INT64_C(1000000000)
    #define ONE 4294967296.0
    """
    const int64_t NEVER
    const int64_t WINDOW
    const double ONE

cdef enum:
    LIMIT = 0
    END = 3
    COUNT
    SUM
    PEAK
    DROPS
    LEAST_SAMPLES = 10

cdef enum Outcome:
    SUCCESS
    DROPPED
    IGNORED


cdef Outcome _outcome(object outcome) except *:
    if outcome == "success":
        return SUCCESS
    if outcome == "dropped":
        return DROPPED
    if outcome == "ignored":
        return IGNORED
    raise ValueError(f"outcome must be one of success, dropped, ignored, got {outcome!r}")


cdef class Permit:
    """Permit()\n--\n
    What ``ConcurrencyLimiter.acquire`` returns: truthy if the request may go on. A context manager, also
    for ``async with``, that releases the permit.

    Leaving the block without an error is a success, with a TimeoutError the request counts as dropped, and
    with another error it is ignored. A permit that is deleted without having been released, which is a
    mistake, is reclaimed the next time a request would be denied, with a ResourceWarning. A permit that no
    limiter made is a denied one.

    >>> from headgate import ConcurrencyLimiter
    >>> limiter = ConcurrencyLimiter(1, algorithm="fixed")
    >>> with limiter.acquire() as permit:
    ...     bool(permit), bool(limiter.acquire())
    (True, False)
    """

    cdef object __weakref__
    cdef Admission admission
    cdef object owner
    cdef list mark
    cdef int64_t start
    cdef int64_t inflight
    cdef bint observed

    def __cinit__(self):
        self.mark = []

    def __init__(self):
        """Without arguments."""

    def __bool__(self):
        return self.inflight > 0

    cdef bint is_held(self) except -1:
        """False if it was denied, has been released, or is the parent's."""
        return len(self.mark) > 0 and self.owner == self.admission.ledger.owner

    cdef bint is_first(self) noexcept:
        """Whether the limit has not been adapted by this request before."""
        cdef bint before
        with cython.critical_section(self):
            before, self.observed = self.observed, True
        return not before

    def observe(self, outcome="success"):
        """Adapt the limit to the request now, by its latency so far and `outcome` as in ``release``, which
        then only releases the permit: for a response whose start says how it went, while a long body follows.
        It has an effect once, and before the permit is released.

        Raises ValueError for any other outcome.

        >>> from headgate import ConcurrencyLimiter
        >>> limiter = ConcurrencyLimiter(100, algorithm="aimd", max_latency=1.0)
        >>> with limiter.acquire() as permit:
        ...     permit.observe("dropped")
        ...     limiter.limit, limiter.inflight
        (90, 1)
        """
        cdef Outcome known = _outcome(outcome)
        if self.is_held() and self.is_first():
            self.admission.adapt(self, known)

    def release(self, outcome="success"):
        """Release the permit, once; a second call does nothing. `outcome` is ``"success"``, ``"dropped"`` if
        the request timed out or was refused for overload, or ``"ignored"`` if it says nothing about the load;
        it has no effect after ``observe``.

        Raises ValueError for any other outcome.

        >>> from headgate import ConcurrencyLimiter
        >>> limiter = ConcurrencyLimiter(100, algorithm="aimd", max_latency=1.0)
        >>> limiter.acquire().release("dropped")
        >>> limiter.limit, limiter.inflight
        (90, 0)
        """
        cdef Outcome known = _outcome(outcome)
        if self.is_held() and self.admission.give(self.mark) and self.is_first():
            self.admission.adapt(self, known)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.release()
        else:
            self.release("dropped" if issubclass(kind, TimeoutError) else "ignored")

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, trace):
        self.__exit__(kind, error, trace)

    def __del__(self):
        """The permit is released later, since the garbage collector may run during any step."""
        if self.mark:
            self.admission._lost.append((self.owner, self.mark))

    def __repr__(self):
        return f"<Permit {'admitted' if self else 'denied'}>"

    def __reduce__(self):
        raise TypeError("a Permit cannot be copied or pickled: it belongs to one limiter")


cdef class Admission:
    """Admission(ledger, shares, bounds, algorithm, max_latency, clock)\n--\n
    Grants permits of `ledger` up to a share of the limit, and adapts the limit to their requests.

    `shares` maps priorities to shares, `bounds` are those of the limit, `algorithm` is the name of one, and
    `max_latency` nanoseconds or None. Complexity: O(1).

    >>> from headgate.limit._algorithms import Bounds
    >>> from headgate.limit._concurrency import LocalLedger
    >>> admission = Admission(LocalLedger(2**32), {None: 1.0}, Bounds(1, 9), "fixed", None, None)
    >>> with admission.acquire(None) as permit:
    ...     bool(permit), bool(admission.acquire(None))
    (True, False)
    """

    cdef object __weakref__
    cdef object ledger
    cdef dict shares
    cdef object bounds
    cdef object algorithm
    cdef object clock
    cdef public object _lost
    cdef uint64_t least
    cdef uint64_t most
    cdef int64_t max_latency
    cdef bint graded

    def __cinit__(self, ledger, shares, bounds, algorithm, max_latency, clock):
        self.clock = checked_clock(clock)
        self.ledger, self.shares, self.bounds = ledger, shares, bounds
        self.least, self.most = bounds.least, bounds.most
        self.algorithm, self.graded = _algorithms.ALGORITHMS[algorithm], algorithm == "gradient"
        self.max_latency = NEVER if max_latency is None else max_latency
        self._lost = deque()

    cdef int64_t now(self) except? -1:
        if self.clock is None:
            return hg_monotonic_ns()
        return checked_now(self.clock())

    def acquire(self, priority):
        """A permit for one request of a priority, denied or not.

        Raises ValueError if the priority is unknown.
        """
        cdef Permit permit
        cdef Words permits
        cdef uint64_t word
        try:
            share = self.shares[priority]
        except (KeyError, TypeError):
            names = ", ".join(map(repr, self.shares))
            raise ValueError(f"priority must be one of {names}, got {priority!r}") from None
        ledger, permit = self.ledger, Permit.__new__(Permit)
        permit.admission, permit.owner, permit.start = self, ledger.owner, self.now()
        word = hg_load((<Words?>ledger.state).at_word(LIMIT))
        word = min(max(word, self.least), self.most)
        permits, slot = ledger.permits, ledger.slot or ledger.claim()
        permit.inflight = permits.taken(slot, <uint64_t>(word / ONE * <double>share) or 1, permit.mark)
        return permit

    def recover(self):
        """Release the permits that were deleted without release; how many they were."""
        recovered = 0
        while self._lost:
            try:
                owner, mark = self._lost.popleft()
            except IndexError:  # another thread took the last
                break
            recovered += owner == self.ledger.owner and self.give(mark)  # otherwise taken before a fork
        return recovered

    cdef bint give(self, list mark) except -1:
        ledger = self.ledger
        return (<Words?>ledger.permits).given(ledger.slot or ledger.claim(), mark)

    cdef int adapt(self, Permit permit, Outcome outcome) except -1:
        """Change the limit by the request of a permit."""
        cdef int64_t now, latency
        cdef bint dropped
        if outcome == IGNORED:
            return 0
        now = self.now()
        latency = now - permit.start
        dropped = outcome == DROPPED or latency > self.max_latency
        if self.graded:
            self.grade(now, latency, permit.inflight, dropped)
        else:
            self.algorithm(self.ledger.state, self.bounds, now, latency, permit.inflight, dropped)
        return 0

    cdef int grade(self, int64_t now, int64_t latency, uint64_t inflight, bint dropped) except -1:
        """The algorithm "gradient", which closes a window once a second."""
        cdef Words state = self.ledger.state
        cdef uint64_t *words = state.at_word(DROPS) - <Py_ssize_t>DROPS
        cdef uint64_t count, peak, end, next_end = <uint64_t>(now + WINDOW) or 1
        cdef int64_t left
        hg_add(words + SUM, <uint64_t>max(0, latency))
        count = hg_add(words + COUNT, 1) + 1
        peak = hg_load(words + PEAK)
        if inflight > peak:
            hg_cas(words + PEAK, peak, inflight)
        if dropped:
            hg_add(words + DROPS, 1)
        end = hg_load(words + END)
        left = <int64_t>(end - <uint64_t>now)
        if not end:
            hg_cas(words + END, 0, next_end)
        elif not 0 < left <= WINDOW and count >= LEAST_SAMPLES and hg_cas(words + END, end, next_end):
            _algorithms.close_window(state, self.bounds)
        return 0

    def __del__(self):
        try:
            self.recover()
        except Exception:  # it was not made, or the names of modules are gone, as when an interpreter ends
            return
