"""HotKeys: counts, errors, victims and decay on both twins, beside a naive Space-Saving."""

import copy
import gc
import pickle
import threading
import weakref
from collections import Counter
from random import Random

import pytest
from clocks import FakeClock
from finalizers import struck_by
from hypothesis import given, settings
from hypothesis import strategies as st
from threads import run_threads
from twins import Twin, twin_names
from watchdog import PATIENCE

import headgate
from headgate.hotkeys import HotKey, HotKeys

STREAMS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=120)


class Naive:
    """Space-Saving over a plain list of [key, count, error], oldest of a count first."""

    def __init__(self, k):
        self.k, self.rows = k, []

    def add(self, key, n):
        row = next((row for row in self.rows if row[0] == key), None)
        if row is None:
            row = [key, 0, 0]
            if len(self.rows) == self.k:
                victim = min(self.rows, key=lambda row: row[1])
                self.rows.remove(victim)
                row = [key, victim[1], victim[1]]
        else:
            self.rows.remove(row)
        self.rows.append([key, row[1] + n, row[2]])

    def halve(self):
        halved = [[key, count >> 1, (count >> 1) - (count - error >> 1)] for key, count, error in self.rows]
        halved = [row for _, row in sorted(zip(self.rows, halved, strict=True), key=lambda pair: pair[0][1])]
        self.rows = [row for row in halved if row[1]]

    def top(self):
        return [tuple(row) for row in sorted(self.rows, key=lambda row: -row[1])]


@given(STREAMS, st.integers(1, 8))
def test_counts_are_those_of_a_naive_space_saving(both_twins_hot, stream, k):
    naive, truth = Naive(k), Counter()
    hots = [cls(k) for cls in both_twins_hot]
    for key, n in stream:
        naive.add(key, n)
        truth[key] += n
        for hot in hots:
            hot.add(key, n)
            hot._check()
            assert hot.top() == naive.top()
    for row in hots[0].top():
        assert row.count - row.error <= truth[row.key] <= row.count
    watched = {row.key for row in hots[0].top()}
    assert {key for key, n in truth.items() if n * k > sum(truth.values())} <= watched


@settings(max_examples=60)
@given(st.lists(st.one_of(st.tuples(st.integers(0, 9), st.integers(1, 9)), st.just("wait")), max_size=80))
def test_counts_halve_with_each_half_life(both_twins_hot, steps):
    clock, naive = FakeClock(), Naive(4)
    hots = [cls(4, half_life=1, clock=clock) for cls in both_twins_hot]
    for step in steps:
        if step == "wait":
            clock.advance(1)
            naive.halve()
        else:
            naive.add(*step)
        for hot in hots:
            if step != "wait":
                hot.add(*step)
            assert hot.top() == naive.top()
            assert len(hot) == len(naive.rows)
            hot._check()
    assert hots[0].total == hots[-1].total


@pytest.fixture(scope="module")
def both_twins_hot():
    return [Twin(name).hotkeys.HotKeys for name in twin_names()]


def test_top_answers_records(twin):
    hot = twin.hotkeys.HotKeys(3)
    for key, n in {"a": 5, "b": 2, "c": 9, "d": 1}.items():
        hot.add(key, n)
    assert hot.top() == [HotKey("c", 9, 0), HotKey("a", 5, 0), HotKey("d", 3, 2)]
    assert hot.top(1)[0].key == "c"
    assert hot.top(0) == []
    assert hot.top(99) == hot.top()
    assert "a" in hot
    assert "b" not in hot
    assert (len(hot), hot.k, hot.total) == (3, 3, 17)
    hot.clear()
    assert (len(hot), hot.total, hot.top()) == (0, 0, [])
    hot._check()


def test_finds_the_heavy_hitters_of_a_skewed_stream(twin):
    draw, hot = Random(7), twin.hotkeys.HotKeys(100)
    stream = [int(draw.paretovariate(1)) for _ in range(20_000)]
    for key in stream:
        hot.add(key)
    assert [row.key for row in hot.top(10)] == [key for key, _ in Counter(stream).most_common(10)]


def test_many_half_lives_leave_nothing(twin, clock):
    hot = twin.hotkeys.HotKeys(2, half_life=0.5, clock=clock)
    hot.add("a", 2**62)
    clock.advance(1000)
    assert (len(hot), hot.total, "a" in hot) == (0, 0, False)
    hot._check()


def test_a_clock_that_steps_back_starts_the_half_life_again(twin, clock):
    hot = twin.hotkeys.HotKeys(2, half_life=10, clock=clock)
    hot.add("a", 8)
    clock.advance(-100)
    assert hot.total == 8
    clock.advance(10)
    assert hot.total == 4


def test_the_monotonic_clock_is_the_default(twin):
    hot = twin.hotkeys.HotKeys(2, half_life=1e-9)
    hot.add("a")
    assert hot.top() in ([], [HotKey("a", 1, 0)])


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"k": 0}, ValueError, r"k must be from 1 to 67108864, got 0"),
    ({"k": "x"}, TypeError, r"k must be an int, got 'x'"),
    ({"k": 1, "half_life": 0}, ValueError, r"half_life must be from a nanosecond to 2\*\*62 of them, got 0"),
    ({"k": 1, "half_life": "x"}, TypeError, r"half_life must be a number, got 'x'"),
    ({"k": 1, "clock": 3}, TypeError, r"clock must be callable or None, got 3"),
    ({"k": 1, "half_life": 1, "clock": lambda: 1.5}, TypeError, r"clock must return an int, got 1.5"),
    ({"k": 1, "half_life": 1, "clock": lambda: 2**62}, ValueError, r"clock must return nanoseconds within"),
])
def test_wrong_arguments_are_named(twin, arguments, error, message):
    with pytest.raises(error, match=message):
        twin.hotkeys.HotKeys(**arguments)


def test_wrong_additions_change_nothing(twin):
    hot = twin.hotkeys.HotKeys(2)
    hot.add("a", 2**63 - 2)
    for n, error, message in [
        (0, ValueError, "n must be positive, got 0"),
        (1.5, TypeError, "n must be an int, got 1.5"),
        (2, ValueError, r"n must leave the total below 2\*\*63, got 2"),
        (2**64, ValueError, r"n must leave the total below 2\*\*63, got 18446744073709551616"),
    ]:
        with pytest.raises(error, match=message):
            hot.add("b", n)
    with pytest.raises(TypeError, match="unhashable"):
        hot.add([])
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        hot.top(-1)
    with pytest.raises(TypeError, match="n must be an int or None, got 'x'"):
        hot.top("x")
    assert hot.top() == [("a", 2**63 - 2, 0)]
    hot._check()


def frozen():
    """A clock that pickles by name."""
    return 5 * 10**9


def example(cls):
    hot = cls(5, half_life=60, clock=frozen)
    for key in "abracadabra zebra":
        hot.add(key)
    return hot


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_twins_write_the_same_bytes(both_twins, protocol):
    compiled, pure = (pickle.dumps(example(twin.hotkeys.HotKeys), protocol) for twin in both_twins)
    assert compiled == pure


def test_copies_and_pickles_go_their_own_way(twin):
    hot = example(twin.hotkeys.HotKeys)
    rows = hot.top()
    for other in (hot.copy(), copy.copy(hot), pickle.loads(pickle.dumps(hot))):
        assert other.top() == rows
        assert (other.k, other.half_life, other.total) == (5, 60, hot.total)
        other._check()
        other.add("new")
        other._check()
    assert hot.top() == rows
    assert type(hot.copy()) is type(hot)
    assert type(pickle.loads(pickle.dumps(hot))) is HotKeys


def test_wrong_states_are_refused(twin):
    build = twin.hotkeys.HotKeys._from_state
    with pytest.raises(ValueError, match="state must be of version 1, got 9"):
        build((9,))
    for rows in [(("a", 2, 0), ("a", 3, 0)), (("a", 2, 0), ("b", 1, 0)), (("a", 2, 3),),
                 (("a", 1, 0), ("b", 1, 0), ("c", 1, 0))]:
        with pytest.raises(ValueError, match="state must hold at most k distinct keys by rising counts"):
            build((1, 2, None, None, 0, 9, rows, {}))


class Evil:
    """A key of few hashes whose ``__eq__`` and ``__hash__`` use the structure, and sometimes raise."""

    def __init__(self, hot, name, draw):
        self.hot, self.name, self.draw = hot, name, draw
        self.depth = 0

    def strike(self):
        if self.depth or self.draw.random() < 0.6:
            return
        self.depth = 1
        try:
            choice = self.draw.randrange(5)
            if choice == 0:
                self.hot.clear()
            elif choice == 1:
                self.hot.add(self.draw.randrange(10), 3)
            elif choice == 2:
                self.hot.top()
            elif choice == 3:
                self.hot.add("x")
            else:
                raise ZeroDivisionError("evil")
        finally:
            self.depth = 0

    def __hash__(self):
        self.strike()
        return self.name % 3

    def __eq__(self, other):
        self.strike()
        return isinstance(other, Evil) and self.name == other.name

    def __del__(self):
        len(self.hot)


def test_evil_keys_never_break_the_links(twin):
    draw, hot = Random(3), twin.hotkeys.HotKeys(6)
    for _ in range(3000):
        try:
            hot.add(Evil(hot, draw.randrange(12), draw))
        except ZeroDivisionError:
            pass
        hot._check()
    hot.clear()


@pytest.mark.parametrize("half_life", [None, 3])
@pytest.mark.parametrize("clears", [False, True])
def test_finalizers_find_the_links_whole(twin, clock, half_life, clears):
    draw, hot = Random(8), twin.hotkeys.HotKeys(6, half_life=half_life, clock=clock)
    counted = []

    def act():
        choice = draw.randrange(8)
        if choice < 5:
            hot.add(draw.randrange(9), 1 + choice)
            counted.append(1 + choice)
        elif choice == 5 and clears:
            hot.clear()
        elif choice == 6:
            assert len(hot.top()) <= 6 and hot.copy().k == 6
        else:
            assert (draw.randrange(9) in hot) in (False, True) and len(hot) <= 6

    for _ in range(200):
        with struck_by(act, 5):
            hot.add(draw.randrange(12))
        counted.append(1)
        clock.advance(0.5)
        hot._check()
    if half_life is None and not clears:
        assert hot.total == sum(counted)


def test_threads_lose_no_count(twin):
    hot = twin.hotkeys.HotKeys(50)

    def work(number):
        draw = Random(number)
        for _ in range(1500):
            hot.add(draw.randrange(100))

    run_threads(work)
    hot._check()
    assert hot.total == 8 * 1500
    assert sum(row.count for row in hot.top()) == 8 * 1500


def test_hash_and_equality_are_those_of_the_object(twin):
    hot = twin.hotkeys.HotKeys(2)
    assert {hot: 1}[hot] == 1
    assert hot != hot.copy()


def test_a_key_that_is_watched_no_more_is_dropped_at_once(twin, clock):
    """Without the collector: a victim, alone with its count or beside others, and what decays to nothing."""
    hot = twin.hotkeys.HotKeys(4, half_life=1, clock=clock)
    keys = [type("Key", (), {})() for _ in range(8)]
    gone = [weakref.ref(key) for key in keys]
    gc.disable()
    try:
        for number in range(8):
            hot.add(keys.pop(), number + 1)
        for number in range(3):
            hot.add(f"new{number}", 20 + number)
        clock.advance(4)
        hot.add("newest")
        assert [key() for key in gone] == [None] * 8
    finally:
        gc.enable()


def test_a_cycle_through_a_key_is_collected(twin):
    class Key:
        pass

    key, hot = Key(), twin.hotkeys.HotKeys(2)
    key.hot = hot
    hot.add(key)
    gone = weakref.ref(key)
    del key, hot
    gc.collect()
    assert gone() is None


def test_public_names():
    assert headgate.HotKeys is HotKeys
    assert headgate.HotKey is HotKey
    assert HotKeys[str].__origin__ is HotKeys


@pytest.mark.parametrize("foreign", ["eq", "hash", "clock"])
def test_foreign_code_keeps_no_other_thread_waiting(twin, foreign):
    """Keys that are hashed and compared, and the clock, wait for a thread that uses the structure."""
    armed, outcomes = [], []

    def strike():
        if armed:
            armed.clear()
            other = threading.Thread(target=use, daemon=True)
            other.start()
            other.join(PATIENCE)
            outcomes.append(other.is_alive())

    def use():
        hot.add("other")
        hot.top(), len(hot), "other" in hot, hot.copy(), hot._check()

    def clock():
        strike()
        return 10**9

    class Key:
        def __hash__(self):
            if foreign == "hash":
                strike()
            return 7

        def __eq__(self, other):
            if foreign == "eq":
                strike()
            return isinstance(other, Key)

    hot = twin.hotkeys.HotKeys(5, half_life=60, clock=clock if foreign == "clock" else None)
    hot.add(Key())
    for run in (lambda: hot.add(Key()), lambda: Key() in hot):
        armed.append(True)
        run()
    for run in (hot.top, hot.copy, lambda: len(hot), lambda: hot.total) if foreign == "clock" else ():
        armed.append(True)
        run()
    assert set(outcomes) == {False} and len(outcomes) == (6 if foreign == "clock" else 2)
    hot._check()
