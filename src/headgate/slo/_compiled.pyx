# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Availability objectives: cumulative counts, and snapshots of them in rings.

    counts   ...--+-----------+-----------+-----------+--->
    slots         | snapshot  | snapshot  | snapshot  | now
                        |<------- the window: counts now - counts then

``record`` is a clock and an atomic addition. The first call in a slot, whichever it is, writes the snapshot
of the slot that has ended; rings.h says how.

Foreign code - the clock, and conversions of arguments - runs before a word is read.
"""
cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t

from headgate._c.atomics cimport hg_add, hg_load, hg_peek, hg_poke, hg_store
from headgate._c.clock cimport hg_monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate._base.pickling import initialized
from headgate.slo._alerts import Alarms, availability_of, burn_of
from headgate.slo._terms import checked_events, checked_span, checked_terms, first_epoch, is_within


cdef extern from "rings.h" nogil:
    enum: HG_GOOD, HG_BAD, HG_CURRENT, HG_FIRST, HG_WALL, HG_WORDS, HG_SLOTS
    ctypedef struct hg_events:
        uint64_t good
        uint64_t bad
    int64_t hg_move(uint64_t *words, int64_t slot)
    hg_events hg_events_of(uint64_t *words, int64_t now, int64_t slots)


@cython.no_gc_clear  # what it releases holds the words, which are read until then
cdef class SLO:
    """SLO(target, window="30 d", *, latency=None, rules=None, min_events=100, path=None, clock=None)\n--\n
    An availability objective: `target` percent of all events are good in every `window`, which is rolling.

    `record` counts events; the rest are figures of the last `window`: a duration of at least 12 hours, in
    seconds or as text such as ``"30 d"``. With a `latency`, a duration too, a request is good if it succeeds
    and takes no longer. `rules` are `AlertRule` objects, or tuples of their fields; by default the three of
    the SRE workbook, whose times scale with the window. A rule needs `min_events` events, and 5 failures, in
    its long window. `clock` is a callable that returns integer nanoseconds, by default the monotonic clock;
    while it is behind where it was, events count as of then.

    Time is counted in slots of a 43,200th of the window: a minute of 30 days. A figure is of the slot that
    has begun and of the whole ones before it that make up its duration; durations of more than 360 slots
    are counted in steps of 5, of more than 4,320 in steps of 60.

    `path` names a file through which all processes of a host count together. It outlives them and the
    system, so it belongs on a disk: after a restart time has moved on by the wall clock. All must give
    the same `window` and `latency`. A process that is killed loses the events of its call at most.

    Raises ValueError if `target` is not between 50 and 100, or so low that the burn of a default rule
    is never reached, if another number is out of range, or if `path` is a file of another kind, of the other
    twin, with other settings or damaged; TypeError if an argument has a wrong type or ``__init__`` is called
    again; OSError if the file cannot be opened or there is no space for it.

    Source: Google, The Site Reliability Workbook, chapter 5. Complexity: O(1), in 47 kB.

    >>> slo = SLO(99.9, "30 d")
    >>> slo.record(True, 9_999)
    >>> slo.record(False)
    >>> slo.availability(), slo.error_budget(), slo.burn_rate("1 h")
    (0.9999, 0.9, 0.1)
    """

    cdef object __weakref__
    cdef object clock
    cdef object alarms
    cdef object file
    cdef object terms
    cdef Py_buffer view
    cdef bint mapped
    cdef uint64_t[8] own
    cdef uint64_t *words
    cdef uint64_t begin
    cdef uint64_t unit
    cdef int64_t epoch
    cdef double latency

    def __cinit__(self):
        self.words, self.latency = &self.own[0], -1

    def __init__(self, target, window="30 d", *, latency=None, rules=None, min_events=100, path=None,
                 clock=None):
        terms = checked_terms(target, window, latency, rules, min_events)
        if self.terms is not None:
            raise initialized(self)
        clock = checked_clock(clock)
        now = hg_monotonic_ns() if clock is None else checked_now(clock())
        if path is None:
            self._set_up(clock, now, terms, None, bytearray(8 * HG_WORDS), first_epoch(now, terms.unit))
            return
        from headgate.slo._files import HEADER, SharedCounts

        file = SharedCounts(path, "compiled", terms, now)
        self._set_up(clock, now, terms, file, memoryview(file.map)[HEADER:], file.epoch)

    cdef int _set_up(
        self, object clock, int64_t now, object terms, object file, object memory, int64_t epoch
    ) except -1:
        """Set what calls of other threads read, once."""
        cdef int64_t unit = terms.unit
        alarms, latency = Alarms(terms), -1.0 if terms.latency is None else float(terms.latency)
        with cython.critical_section(self):
            if self.terms is not None:
                raise initialized(self)
            PyObject_GetBuffer(memory, &self.view, PyBUF_WRITABLE)
            self.mapped = True
            self.clock, self.file, self.alarms = clock, file, alarms
            self.words, self.epoch = <uint64_t *>self.view.buf, epoch
            self.latency = latency
            if file is None:
                self.words[HG_CURRENT] = self.words[HG_FIRST] = (now - epoch) // unit
            hg_poke(&self.begin, <uint64_t>(now - unit))
            self.terms = terms
            hg_poke(&self.unit, unit)
        return 0

    def __dealloc__(self):
        if self.mapped:
            PyBuffer_Release(&self.view)

    cdef int64_t _now(self) except? -1:
        if self.clock is None:
            return hg_monotonic_ns()
        return checked_now(self.clock())

    cdef object _terms(self):
        """The terms, once ``__init__`` has been called."""
        with cython.critical_section(self):
            terms = self.terms
        if terms is None:
            raise TypeError("__init__ of the SLO was not called")
        return terms

    cdef int64_t _move(self, int64_t now) except -1:
        """The current slot, to which the words have moved on."""
        cdef uint64_t unit = hg_peek(&self.unit), before
        cdef int64_t elapsed, current
        if not unit:
            self._terms()
        before = hg_load(self.words + HG_CURRENT)
        elapsed = <int64_t>(<uint64_t>now - <uint64_t>self.epoch)
        current = hg_move(self.words, max(0, elapsed) // <int64_t>unit)
        hg_poke(&self.begin, <uint64_t>current * unit + <uint64_t>self.epoch)
        if <uint64_t>current != before and self.file is not None:
            from headgate.slo._files import wall_clock

            hg_store(self.words + HG_WALL, wall_clock())
        return current

    @cython.binding(False)
    def record(self, ok=True, n=1, *, seconds=None):
        """Count `n` events: good ones if `ok`, and if `seconds`, what each took, is within the latency.

        Raises ValueError if `n` is not from 0 to 2**32, `seconds` is negative or there is no latency to
        compare it with; TypeError if one has a wrong type. Complexity: O(1).

        >>> slo = SLO(99, latency="250 ms")
        >>> slo.record(seconds=0.2)
        >>> slo.record(seconds=0.3)
        >>> slo.record(False, n=2)
        >>> slo.good, slo.bad
        (1, 3)
        """
        cdef Py_ssize_t at = HG_GOOD if ok else HG_BAD
        cdef uint64_t number
        cdef int64_t now
        if type(n) is int and 0 <= <object>n < 2**30:
            number = n
        else:
            number = checked_events(n)
        if seconds is None:
            pass
        elif type(seconds) is float and self.latency >= 0 and <double>seconds >= 0:
            if <double>seconds > self.latency:
                at = HG_BAD
        elif not is_within(seconds, self._terms().latency):
            at = HG_BAD
        now = self._now()
        if <uint64_t>now - hg_peek(&self.begin) >= hg_peek(&self.unit):
            self._move(now)
        hg_add(self.words + at, number)

    def _events(self, slots):
        """The good and the bad events of the last `slots`."""
        cdef hg_events events
        cdef int64_t now = self._move(self._now())
        events = hg_events_of(self.words, now, slots)
        return events.good, events.bad

    def availability(self):
        """The share of events of the window that were good, 1.0 without events.

        Complexity: O(1).

        >>> SLO(99).availability()
        1.0
        """
        return availability_of(*self._events(HG_SLOTS))

    def error_budget(self):
        """The share of the error budget that is left: 1.0 if all events were good, 0.0 if just as many failed
        as may, below 0 if more did.

        Complexity: O(1).

        >>> slo = SLO(99)
        >>> slo.record(True, 196)
        >>> slo.record(False, 4)
        >>> slo.error_budget()
        -1.0
        """
        return 1 - burn_of(self._terms(), *self._events(HG_SLOTS))

    def burn_rate(self, seconds):
        """How many times as fast as allowed events failed in the last `seconds`, a duration: at 1.0 the
        budget of a window lasts a window; 0.0 without events.

        Raises ValueError if `seconds` is not positive or above the window, TypeError if it is not a duration.
        Complexity: O(1), after a silence O(slots of the ring).

        >>> slo = SLO(99)
        >>> slo.record(True, 95)
        >>> slo.record(False, 5)
        >>> slo.burn_rate(300), slo.burn_rate("1 h")
        (5.0, 5.0)
        """
        terms = self._terms()
        return burn_of(terms, *self._events(checked_span(terms, seconds)))

    def alerts(self, on_change=None):
        """Every rule as an `Alert` with its state now. `on_change` is called with those that have changed.

        An alert is pending while its long window burns faster than allowed and the short one does not,
        firing while both do, and resolved after that. States are those of this object and its last call.

        Raises TypeError if `on_change` is not callable, and its first error, after the calls with all that
        have changed. Complexity: O(rules).

        >>> slo = SLO(99.9)
        >>> slo.record(False, 500)
        >>> [(alert.severity, alert.state) for alert in slo.alerts()]
        [('page', 'firing'), ('page', 'firing'), ('ticket', 'firing')]
        """
        self._terms()
        return self.alarms.evaluate(self._events, on_change)

    def _burning(self):
        """Whether the long and the short window of each rule burn now; no state changes by that."""
        self._terms()
        return self.alarms.burning(self._events)

    @property
    def good(self):
        """The good events ever counted, for a metric.

        >>> SLO(99).good
        0
        """
        return hg_load(self.words + HG_GOOD)

    @property
    def bad(self):
        """The bad events ever counted, for a metric.

        >>> SLO(99).bad
        0
        """
        return hg_load(self.words + HG_BAD)

    @property
    def target(self):
        """The percentage of events that are good.

        >>> SLO(99.9).target
        99.9
        """
        return self._terms().target

    @property
    def window(self):
        """The seconds of the window.

        >>> SLO(99.9, "30 d").window
        2592000
        """
        return self._terms().window

    @property
    def latency(self):
        """The seconds that a request may take, or None.

        >>> SLO(99.9, latency="250 ms").latency
        0.25
        """
        return self._terms().latency

    @property
    def rules(self):
        """The rules of its alerts.

        >>> SLO(99.9).rules[0]
        AlertRule(burn=14.4, long=3600.0, short=300.0, severity='page')
        """
        return self._terms().rules

    @property
    def min_events(self):
        """The events that an alert needs in its long window.

        >>> SLO(99.9).min_events
        100
        """
        return self._terms().min_events

    def __repr__(self):
        return f"{type(self).__name__}({self._terms()!r})"

    def __reduce__(self):
        raise TypeError("an SLO cannot be copied or pickled: its events belong to one clock")

    def _check(self):
        good, bad = self._events(HG_SLOTS)
        assert 0 <= good <= self.good and 0 <= bad <= self.bad
