"""Objectives: what they count, and the alerts that they raise."""

import copy
import gc
import os
import pickle
import random
import sys
import threading
from fractions import Fraction

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from slo_model import NaiveSLO

import headgate
from headgate import Alert, AlertRule
from headgate.slo import _rings

DAY = 86_400
MONTH = 30 * DAY
MINUTE = 60 * 10**9
SHORT = [AlertRule(2, 60, 5, "page"), AlertRule(1, "2 h", "10 min", "ticket")]


@pytest.fixture
def clock():
    return FakeClock(1_000_000 * MINUTE)


def made(twin, *args, **options):
    slo = twin.slo.SLO(*args, **options)
    slo._check()
    return slo


class TestFigures:
    def test_without_events(self, twin, clock):
        slo = made(twin, 99.9, clock=clock)
        assert (slo.availability(), slo.error_budget(), slo.burn_rate(3600)) == (1.0, 1.0, 0.0)
        assert (slo.good, slo.bad) == (0, 0)

    def test_the_budget_goes_below_zero(self, twin, clock):
        slo = made(twin, 99, clock=clock)
        slo.record(True, 990)
        slo.record(False, 10)
        assert slo.error_budget() == 0.0
        slo.record(False, 10)
        assert slo.error_budget() < -0.9
        assert slo.availability() == 990 / 1010

    def test_events_leave_the_window(self, twin, clock):
        slo = made(twin, 99, "30 d", clock=clock)
        slo.record(False, 7)
        clock.advance(MONTH - 3600)
        assert slo.availability() == 0.0
        clock.advance(2 * 3600)
        assert (slo.availability(), slo.error_budget(), slo.bad) == (1.0, 1.0, 7)

    @pytest.mark.parametrize("silence", [61, 3600, 6 * 3600 + 61, 4 * DAY, 31 * DAY, 900 * DAY])
    def test_a_long_silence(self, twin, clock, silence):
        """Snapshots of the whole rings are older than the window, or missing."""
        slo = made(twin, 99, clock=clock)
        for _ in range(500):
            slo.record(False)
            clock.advance(60)
        clock.advance(silence)
        slo.record(True, 3)
        within = [slo.burn_rate(seconds) > 0 for seconds in (60, 3600, 6 * 3600, 3 * DAY, MONTH)]
        assert within == [silence < seconds for seconds in (60, 3600, 6 * 3600, 3 * DAY, MONTH)]

    def test_requests_are_good_if_they_succeed_in_time(self, twin, clock):
        slo = made(twin, 99, latency="250 ms", clock=clock)
        assert slo.latency == 0.25
        slo.record(seconds=0.25)
        assert (slo.good, slo.bad) == (1, 0)
        slo.record(seconds=0.2500001)
        slo.record(False, seconds=0.1)
        slo.record(False)
        slo.record(True, 5, seconds=1e9)
        slo.record(seconds=float("inf"))
        assert (slo.good, slo.bad) == (1, 9)

    def test_numbers_of_events(self, twin, clock):
        slo = made(twin, 99, clock=clock)
        slo.record(True, 0)
        slo.record(1, n=2**32)
        slo.record([], True)
        assert (slo.good, slo.bad) == (2**32, 1)

    def test_what_is_shown(self, twin):
        assert repr(made(twin, 99.95, "12 h", latency=0.3)) == "SLO(99.95, window='12 h', latency=0.3)"
        slo = made(twin, 99, DAY, min_events=0, rules=SHORT)
        assert (slo.target, slo.window, slo.latency, slo.min_events) == (99, DAY, None, 0)
        assert slo.rules == tuple(SHORT)


class TestAlertRules:
    def test_the_table_of_the_workbook(self, twin):
        """The Site Reliability Workbook, table 5-8: 99.9 % over 30 days."""
        assert made(twin, 99.9).rules == (
            (14.4, 3600, 300, "page"), (6, 6 * 3600, 1800, "page"), (1, 3 * DAY, 6 * 3600, "ticket"))

    def test_shares_of_the_budget_are_those_of_the_workbook(self, twin):
        """2 % in an hour, 5 % in six, 10 % in three days; a short window is a twelfth of the long one."""
        rules = made(twin, 99.9).rules
        assert [round(rule.burn * rule.long / MONTH, 6) for rule in rules] == [0.02, 0.05, 0.1]
        assert [rule.long / rule.short for rule in rules] == [12, 12, 12]

    def test_error_rates_are_those_of_the_workbook(self, twin, clock):
        """It pages above 14.4 * 0.001 in an hour and in 5 minutes: exactly there it does not."""
        slo = made(twin, 99.9, clock=clock)
        slo.record(True, 10_000 - 144)
        slo.record(False, 144)
        assert [alert.firing for alert in slo.alerts()] == [False, True, True]
        slo.record(False)
        assert [alert.firing for alert in slo.alerts()] == [True, True, True]

    @pytest.mark.parametrize("days", [0.5, 1, 7, 28, 45.3, 90, 3660])
    def test_times_scale_with_the_window_and_burns_do_not(self, twin, days):
        rules = made(twin, 99.9, f"{days} d").rules
        assert [rule.burn for rule in rules] == [14.4, 6, 1]
        assert [rule.long / (days * DAY) for rule in rules] == pytest.approx([1 / 720, 1 / 120, 1 / 10])
        terms = twin.slo.checked_terms(99.9, f"{days} d", None, None, 100)
        assert [(terms.slots(rule.long), terms.slots(rule.short)) for rule in rules] == [
            (60, 5), (360, 30), (4320, 360)]

    def test_a_target_that_cannot_reach_a_burn(self, twin):
        with pytest.raises(ValueError, match=r"target must be more than 93.06 for a burn of 14.4, unless "):
            made(twin, 93)
        assert made(twin, 94).target == 94
        assert made(twin, 90, rules=[(14.4, "1 h", "5 min", "page")]).rules[0].burn == 14.4
        assert made(twin, 90, rules=[]).alerts() == []

    def test_few_events_or_failures_raise_no_alert(self, twin, clock):
        slo = made(twin, 99.9, clock=clock)
        slo.record(False, 99)
        assert not any(alert.firing for alert in slo.alerts())
        slo.record(True)
        assert all(alert.firing for alert in slo.alerts())
        few = made(twin, 99.9, min_events=0, clock=clock)
        few.record(False, 4)
        assert [alert.state for alert in few.alerts()] == ["inactive"] * 3
        few.record(False)
        assert all(alert.firing for alert in few.alerts())

    def test_states(self, twin, clock):
        changes = []
        slo = made(twin, 99.9, rules=[(14.4, "1 h", "5 min", "page")], clock=clock)

        def state():
            (alert,) = slo.alerts(lambda alert: changes.append(alert.state))
            assert isinstance(alert, Alert) and alert[:4] == (14.4, 3600, 300, "page")
            assert alert.firing == (alert.state == "firing")
            return alert.state

        slo.record(True, 1000)
        assert state() == "inactive"
        slo.record(False, 100)
        assert state() == "firing"
        assert state() == "firing"
        clock.advance(7 * 60)
        slo.record(True, 1000)
        assert state() == "resolved"
        assert state() == "resolved", "the long window still burns"
        slo.record(False, 100)
        assert state() == "firing"
        clock.advance(2 * 3600)
        assert state() == "resolved"
        assert state() == "inactive"
        assert changes == ["firing", "resolved", "firing", "resolved", "inactive"]

    def test_pending_is_when_only_the_long_window_burns(self, twin, clock):
        slo = made(twin, 99.9, clock=clock)
        slo.record(False, 100)
        clock.advance(10 * 60)
        slo.record(True, 100)
        assert [alert.state for alert in slo.alerts()] == ["pending", "firing", "firing"]

    def test_callbacks_run_in_the_call_that_evaluates(self, twin, clock):
        slo = made(twin, 99.9, clock=clock)
        slo.record(False, 100)
        threads = []

        def called(alert):
            threads.append(threading.get_ident())
            assert [other.state for other in slo.alerts()] == ["firing"] * 3, "all have their new state"

        slo.alerts(called)
        assert threads == [threading.get_ident()] * 3

    def test_a_callback_that_raises_keeps_no_other_alert_from_being_seen(self, twin, clock):
        slo, seen = made(twin, 99.9, clock=clock), []
        slo.record(False, 100)

        def called(alert):
            seen.append(alert.burn)
            raise RuntimeError(alert.severity)

        with pytest.raises(RuntimeError, match=r"^page$"):
            slo.alerts(called)
        assert seen == [rule.burn for rule in slo.rules]
        assert [alert.state for alert in slo.alerts()] == ["firing"] * 3
        with pytest.raises(TypeError, match="on_change must be callable or None, got 5"):
            slo.alerts(5)


class TestAgainstTheModel:
    @settings(max_examples=30)
    @given(steps=st.lists(st.tuples(
        st.sampled_from([0, 1, 59, 60, 61, 299, 3_600, 21_600, 90_000, 300_000, 2_600_000, -30, -4000]),
        st.booleans(), st.integers(0, 200), st.booleans()), max_size=60))
    def test_counts(self, twins, steps):
        for twin in twins:
            clock = FakeClock(7_000_000 * MINUTE)
            slo = twin.slo.SLO(99.5, clock=clock, min_events=20)
            model = NaiveSLO(Fraction(1, 200), MINUTE, [rule[:3] for rule in slo.rules], 20)
            model.at(clock.now)
            for seconds, ok, n, look in steps:
                clock.advance(seconds)
                slo.record(ok, n)
                model.record(clock.now, ok, n)
                if look:
                    compare(slo, model, clock.now)
                    assert [alert.state for alert in slo.alerts()] == model.alerts(clock.now)
            compare(slo, model, clock.now)
            slo._check()

    def test_ninety_days_with_incidents(self, twin, exhaustive, replay):
        """Each rule fires and resolves at the very minutes at which the model does."""
        incidents, states = replay
        days = 90 if exhaustive or twin.name == "compiled" else 40
        clock = FakeClock(Replay.start * MINUTE)
        slo = twin.slo.SLO(99.9, clock=clock)
        for minute in range(days * 1440):
            good, bad = incidents.get(minute, USUAL[minute % 9 == 0])
            slo.record(True, good)
            slo.record(False, bad)
            around = states[max(0, minute - 1) : minute + 2]
            if minute % 31 == 0 or around != [states[minute]] * len(around):
                assert [alert.state for alert in slo.alerts()] == states[minute], minute
            clock.advance(60)
        slo._check()
        for at in range(3):
            assert {"firing", "resolved", "inactive"} <= {state[at] for state in states[:days * 1440]}


USUAL = (200, 0), (200, 1)


@pytest.fixture(scope="module")
def replay():
    """The incidents of ninety days, and the states that the model has in each minute."""
    incidents, model, states = incidents_of(random.Random(3), 90 * 1440), Replay(headgate.SLO(99.9).rules), []
    for minute in range(90 * 1440):
        model.minute(*incidents.get(minute, USUAL[minute % 9 == 0]))
        states.append(list(model.states()))
    return incidents, states


def compare(slo, model, now):
    for seconds in (1, 60, 300, 3_600, 21_600, 22_000, 3 * DAY, 4 * DAY, MONTH):
        assert slo.burn_rate(seconds) == float(model.burn(now, seconds)), seconds
    good, bad = model.counts(now, MONTH)
    assert slo.availability() == (good / (good + bad) if good + bad else 1.0)
    assert slo.error_budget() == 1 - slo.burn_rate(MONTH)


def incidents_of(draw, minutes):
    """Good and bad events of the minutes of some incidents: outages, slow burns and silences."""
    found = {}
    for start in range(2000, minutes - 1000, 5000):
        kind, length = draw.choice([(0.5, 20), (1.0, 3), (0.02, 300), (0.004, 900), (0.0, 200)])
        for minute in range(start, start + length):
            total = 0 if kind == 0.0 else 200 + minute % 7
            found[minute] = (total - round(kind * total), round(kind * total))
    return found


class Replay:
    """A model whose minutes are in lists, with running sums."""

    start = 9_999_999

    def __init__(self, rules):
        self.sums = [(0, 0)]
        self.rules, self.last = rules, ["inactive"] * len(rules)

    def minute(self, good, bad):
        before = self.sums[-1]
        self.sums.append((before[0] + good, before[1] + bad))

    def counts(self, seconds):
        minutes = round(seconds / 60)
        step = 1 if minutes <= 360 else 5
        now = self.start + len(self.sums) - 2
        first = (now // step - minutes // step) * step - self.start
        end, begin = self.sums[-1], self.sums[max(0, first)]
        return end[0] - begin[0], end[1] - begin[1]

    def burns(self, rule, seconds, least):
        good, bad = self.counts(seconds)
        return bad >= least and bad * 10_000 > round(rule.burn * 10) * (good + bad)

    def states(self):
        for at, rule in enumerate(self.rules):
            long = self.burns(rule, rule.long, 5) and sum(self.counts(rule.long)) >= 100
            short = self.burns(rule, rule.short, 0)
            was = self.last[at]
            if long and short:
                self.last[at] = "firing"
            elif was == "firing" or (was == "resolved" and long):
                self.last[at] = "resolved"
            else:
                self.last[at] = "pending" if long else "inactive"
        return self.last


class TestTime:
    def test_a_clock_that_steps_back_stands_still(self, twin, clock):
        slo = made(twin, 99, clock=clock)
        slo.record(False, 5)
        clock.advance(600)
        slo.record(True, 5)
        clock.advance(-3600)
        slo.record(True, 5)
        assert slo.burn_rate(60) == 0.0 and slo.burn_rate(900) == pytest.approx(100 / 3)
        clock.advance(3600)
        assert slo.burn_rate(60) == 0.0

    def test_a_clock_that_steps_back_by_more_than_the_window_heals(self, twin, clock):
        slo = made(twin, 99, clock=clock)
        slo.record(False, 5)
        clock.advance(400 * DAY)
        slo.record(True, 5)
        clock.advance(-399 * DAY)
        assert slo.burn_rate(60) >= 0
        slo._check()
        for _ in range(800):
            clock.advance(3600)
            slo.record(True, 1)
        assert slo.availability() == 1.0
        slo._check()

    @pytest.mark.parametrize("now", [0, -1, -(2**62) + 1, 2**62 - 1, -5 * 10**9])
    def test_any_time_at_the_start(self, twin, now):
        clock = FakeClock(now)
        slo = made(twin, 99, clock=clock)
        slo.record(False)
        assert slo.availability() == 0.0
        clock.now = 2**62 - 1
        slo.record(True)
        slo._check()
        clock.now = -(2**62) + 1
        slo.record(True)
        slo._check()
        assert (slo.good, slo.bad) == (2, 1)

    def test_bad_clocks(self, twin):
        with pytest.raises(TypeError, match="clock must be callable or None, got 5"):
            made(twin, 99, clock=5)
        with pytest.raises(TypeError, match=r"clock must return an int, got 1.5"):
            made(twin, 99, clock=lambda: 1.5)

    def test_a_clock_that_raises_counts_nothing(self, twin, clock):
        times = [0]
        slo = made(twin, 99, clock=lambda: times[0])
        times.clear()
        with pytest.raises(IndexError):
            slo.record()
        assert (slo.good, slo.bad) == (0, 0)


class TestArguments:
    @pytest.mark.parametrize(("change", "error", "message"), [
        ({"target": 0.999}, ValueError, "target must be in percent, as 99.9, got 0.999"),
        ({"target": 50}, ValueError, "target must be more than 50 and less than 100 percent, got 50"),
        ({"target": 100}, ValueError, "target must be more than 50 and less than 100 percent, got 100"),
        ({"target": 1e400}, ValueError, "target must be more than 50 and less than 100 percent, got inf"),
        ({"target": "99.9"}, TypeError, "target must be a number, got '99.9'"),
        ({"window": "30"}, ValueError, "window must be a duration such as \"30 d\" or \"5 min\", got '30'"),
        ({"window": "1 h"}, ValueError, "window must be from \"12 h\" to \"3660 d\", got '1 h'"),
        ({"window": "5 M"}, ValueError, "window must be a duration such as \"30 d\" or \"5 min\", got '5 M'"),
        ({"window": None}, TypeError, "window must be a number, got None"),
        ({"window": float("inf")}, ValueError, "window must be positive and finite, got inf"),
        ({"latency": 0}, ValueError, "latency must be positive and finite, got 0"),
        ({"latency": "-1 s"}, ValueError, "latency must be positive and finite, got '-1 s'"),
        ({"min_events": 1.5}, TypeError, "min_events must be an int, got 1.5"),
        ({"min_events": -1}, ValueError, "min_events must not be negative, got -1"),
        ({"rules": 5}, TypeError, "rules must be an iterable, got 5"),
        ({"rules": [5]}, TypeError,
         "rules must be AlertRules or (burn, long, short, severity), got 5"),
        ({"rules": [(1, "31 d", "1 h", "page")]}, ValueError,
         "rules must not look back beyond the window, got AlertRule(burn=1, long=2678400, short=3600,"
         " severity='page')"),
        ({"rules": [SHORT[0]._replace(burn=0)]}, ValueError, "burn must be positive and finite, got 0"),
        ({"rules": [(1, 60, 61, "page")]}, ValueError, "short must not be longer than long, got 61 and 60"),
        ({"rules": [(1, 60, 5, 5)]}, TypeError, "severity must be a str, got 5"),
    ])
    def test_of_the_constructor(self, twin, change, error, message):
        with pytest.raises(error) as raised:
            twin.slo.SLO(**{"target": 99.9} | change)
        assert str(raised.value) == message

    @pytest.mark.parametrize(("args", "options", "error", "message"), [
        ((True, -1), {}, ValueError, "n must be from 0 to 4294967296, got -1"),
        ((True, 2**32 + 1), {}, ValueError, "n must be from 0 to 4294967296, got 4294967297"),
        ((True, 1.0), {}, TypeError, "n must be an int, got 1.0"),
        ((), {"seconds": "1"}, TypeError, "seconds must be a number, got '1'"),
        ((), {"seconds": -1}, ValueError, "seconds must not be negative, got -1"),
        ((), {"seconds": float("nan")}, ValueError, "seconds must not be negative, got nan"),
    ])
    def test_of_record(self, twin, args, options, error, message):
        slo = made(twin, 99, latency=1)
        with pytest.raises(error) as raised:
            slo.record(*args, **options)
        assert str(raised.value) == message
        assert (slo.good, slo.bad) == (0, 0)

    def test_seconds_need_a_latency(self, twin):
        with pytest.raises(ValueError, match=r"seconds must be None without a latency, got 0.1"):
            made(twin, 99).record(seconds=0.1)

    @pytest.mark.parametrize(("seconds", "message"), [
        (0, "seconds must be positive and finite, got 0"),
        ("31 d", "seconds must be at most the window, 30 d, got '31 d'"),
        ("soon", "seconds must be a duration such as \"30 d\" or \"5 min\", got 'soon'"),
    ])
    def test_of_burn_rate(self, twin, seconds, message):
        with pytest.raises(ValueError) as raised:
            made(twin, 99).burn_rate(seconds)
        assert str(raised.value) == message

    def test_a_truth_value_that_raises_counts_nothing(self, twin):
        class Evil:
            def __bool__(self):
                raise ZeroDivisionError

        slo = made(twin, 99)
        with pytest.raises(ZeroDivisionError):
            slo.record(Evil())
        assert (slo.good, slo.bad) == (0, 0)


class TestObjects:
    def test_initialized_once(self, twin):
        slo = made(twin, 99)
        slo.record()
        with pytest.raises(TypeError, match="a SLO is initialized once, got another call of __init__"):
            slo.__init__(98)
        assert (slo.target, slo.good) == (99, 1)

    def test_not_copied(self, twin):
        slo = made(twin, 99)
        for function in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="an SLO cannot be copied or pickled"):
                function(slo)

    def test_one_that_is_not_initialized(self, twin):
        slo = twin.slo.SLO.__new__(twin.slo.SLO)
        for call in (slo.record, slo.availability, slo.error_budget, slo.alerts, slo._check,
                     lambda: slo.burn_rate(60), lambda: slo.target, lambda: repr(slo)):
            with pytest.raises((TypeError, AttributeError)):
                call()

    def test_subclasses(self, twin):
        class Own(twin.slo.SLO):
            def __init__(self):
                super().__init__(99)
                self.name = "own"

        slo = Own()
        slo.record()
        assert (slo.good, slo.name, repr(slo)) == (1, "own", "Own(99, window='30 d')")

    def test_a_cycle_through_the_clock_is_collected(self, twin):
        class Clock:
            def __call__(self):
                return 0

        gone = []
        clock = Clock()
        clock.slo = twin.slo.SLO(99, clock=clock)
        import weakref
        weakref.finalize(clock, gone.append, 1)
        del clock
        gc.collect()
        assert gone == [1]


class TestThreads:
    def test_no_event_is_lost(self, twin):
        times = iter(range(0, 10**15, 10**7))
        lock = threading.Lock()

        def clock():
            with lock:
                return next(times)

        slo = twin.slo.SLO(99, "12 h", clock=clock)
        each = 20_000 if twin.name == "compiled" else 3_000

        def work(ok):
            for _ in range(each):
                slo.record(ok)
            slo.alerts()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=work, args=(at % 2 == 0,)) for at in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert (slo.good, slo.bad) == (2 * each, 2 * each)
        assert slo.availability() == 0.5
        slo._check()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
    def test_a_fork_counts_for_itself(self, twin):
        slo = twin.slo.SLO(99)
        slo.record(True, 3)
        child = os.fork()
        if not child:
            try:
                slo.record(False, 2)
                fine = (slo.good, slo.bad) == (3, 2) and len(slo.alerts()) == 3
            except BaseException:
                fine = False
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert (slo.good, slo.bad) == (3, 0)


class TestRings:
    def test_the_twins_write_the_same_words(self, both_twins, tmp_path, monkeypatch):
        """But for the header, files of both are the same after the same events."""
        if not hasattr(os, "fork"):
            pytest.skip("no shared files")
        monkeypatch.setattr("headgate.slo._files.time_ns", lambda: 5)
        found = []
        for twin in both_twins:
            clock = FakeClock(123_456 * MINUTE)
            slo = twin.slo.SLO(99, path=tmp_path / twin.name, clock=clock)
            draw = random.Random(5)
            for _ in range(3000):
                clock.advance(draw.choice([1, 30, 61, 4000]))
                slo.record(draw.random() < 0.9, draw.randrange(5))
            found.append((tmp_path / twin.name).read_bytes()[4096:])
        assert found[0] == found[1]
        assert len(found[0]) == 8 * _rings.WORDS

    @settings(max_examples=20)
    @given(words=st.lists(st.tuples(st.integers(0, _rings.WORDS - 1), st.integers(0, 2**64 - 1)),
                          max_size=40))
    def test_damaged_words_of_the_rings(self, words):
        """Whatever is there, the counts are at most those of all events."""
        memory = memoryview(bytearray(8 * _rings.WORDS)).cast("Q")
        for slot in range(90_000, 100_000, 17):
            _rings.move(memory, slot)
            memory[_rings.GOOD] += 1
        for at, word in words:
            if at > _rings.BAD:
                memory[at] = word
        now = _rings.move(memory, 100_001)
        for slots in (1, 360, 4_320, 43_200):
            good, bad = _rings.events_of(memory, now, slots)
            assert 0 <= good <= memory[_rings.GOOD] and bad == 0


def test_the_alerts_need_no_compiler():
    assert headgate.SLO(99.9).rules[0] == AlertRule(14.4, "1 h", "5 min", "page")
