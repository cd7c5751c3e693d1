"""Availability objectives in pure Python.

The words, and what is done with them, are those of the compiled twin; a lock takes the place of the atomic
steps. Foreign code - the clock, and conversions of arguments - runs before it is taken.
"""

from __future__ import annotations

from time import monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, under
from headgate._base.pickling import initialized
from headgate.slo import _rings
from headgate.slo._alerts import Alarms, availability_of, burn_of
from headgate.slo._rings import BAD, CURRENT, FIRST, GOOD, SLOTS, WALL, WORDS
from headgate.slo._terms import checked_events, checked_span, checked_terms, first_epoch, is_within

_WORD = 2**64


class SLO:
    """An availability objective: `target` percent of all events are good in every `window`, which is rolling.

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

    __slots__ = (
        "__weakref__",
        "_alarms",
        "_begin",
        "_clock",
        "_epoch",
        "_file",
        "_locked",
        "_terms",
        "_unit",
        "_words",
    )

    def __init__(self, target, window="30 d", *, latency=None, rules=None, min_events=100, path=None,
                 clock=None):
        terms = checked_terms(target, window, latency, rules, min_events)
        if hasattr(self, "_terms"):
            raise initialized(self)
        self._clock = checked_clock(clock)
        now, self._unit, self._file = self._now(), terms.unit, None
        if path is None:
            self._locked, self._epoch = under(new_lock()), first_epoch(now, terms.unit)
            self._words = memoryview(bytearray(8 * WORDS)).cast("Q")
            self._words[CURRENT] = self._words[FIRST] = (now - self._epoch) // terms.unit
        else:
            from headgate.slo._files import HEADER, SharedCounts

            file = SharedCounts(path, "pure", terms, now)
            self._file, self._locked, self._epoch = file, file.locked, file.epoch
            self._words = memoryview(file.map)[HEADER:].cast("Q")
        self._alarms = Alarms(terms)
        self._begin = now - terms.unit
        self._terms = terms

    def _now(self):
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _move(self, now):
        """The current slot, to which the words have moved on."""
        slot = max(0, (now - self._epoch) // self._unit)
        before = self._words[CURRENT]
        current = self._locked(_rings.move, self._words, slot)
        self._begin = current * self._unit + self._epoch
        if current != before and self._file is not None:
            from headgate.slo._files import wall_clock

            self._words[WALL] = wall_clock() % _WORD
        return current

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
        at = GOOD if ok else BAD
        number = 1 if type(n) is int and n == 1 else checked_events(n)
        if seconds is not None and not is_within(seconds, self._terms.latency):
            at = BAD
        now = self._now()
        if not 0 <= now - self._begin < self._unit:
            self._move(now)
        self._locked(self._add, at, number)

    def _add(self, at, number):
        self._words[at] = (self._words[at] + number) % _WORD

    def _events(self, slots):
        """The good and the bad events of the last `slots`."""
        good, bad = self._locked(_rings.events_of, self._words, self._move(self._now()), slots)
        return good % _WORD, bad % _WORD

    def availability(self):
        """The share of events of the window that were good, 1.0 without events.

        Complexity: O(1).

        >>> SLO(99).availability()
        1.0
        """
        return availability_of(*self._events(SLOTS))

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
        return 1 - burn_of(self._terms, *self._events(SLOTS))

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
        return burn_of(self._terms, *self._events(checked_span(self._terms, seconds)))

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
        return self._alarms.evaluate(self._events, on_change)

    def _burning(self):
        """Whether the long and the short window of each rule burn now; no state changes by that."""
        return self._alarms.burning(self._events)

    @property
    def good(self):
        """The good events ever counted, for a metric.

        >>> SLO(99).good
        0
        """
        return self._words[GOOD]

    @property
    def bad(self):
        """The bad events ever counted, for a metric.

        >>> SLO(99).bad
        0
        """
        return self._words[BAD]

    @property
    def target(self):
        """The percentage of events that are good.

        >>> SLO(99.9).target
        99.9
        """
        return self._terms.target

    @property
    def window(self):
        """The seconds of the window.

        >>> SLO(99.9, "30 d").window
        2592000
        """
        return self._terms.window

    @property
    def latency(self):
        """The seconds that a request may take, or None.

        >>> SLO(99.9, latency="250 ms").latency
        0.25
        """
        return self._terms.latency

    @property
    def rules(self):
        """The rules of its alerts.

        >>> SLO(99.9).rules[0]
        AlertRule(burn=14.4, long=3600.0, short=300.0, severity='page')
        """
        return self._terms.rules

    @property
    def min_events(self):
        """The events that an alert needs in its long window.

        >>> SLO(99.9).min_events
        100
        """
        return self._terms.min_events

    def __repr__(self):
        return f"{type(self).__name__}({self._terms!r})"

    def __reduce__(self):
        raise TypeError("an SLO cannot be copied or pickled: its events belong to one clock")

    def _check(self):
        good, bad = self._events(SLOTS)
        assert 0 <= good <= self.good and 0 <= bad <= self.bad
