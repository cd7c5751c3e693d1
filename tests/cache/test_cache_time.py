"""Lifetimes under every policy: when entries end; an entry that has ended is never returned or counted."""

import itertools
import random
import sys
import time

import pytest
from clocks import FakeClock

SECOND = 10**9


def test_an_entry_ends_with_its_ttl(policy, clock):
    cache = policy(5, ttl=2, clock=clock)
    cache["a"] = 1
    clock.now += 2 * SECOND - 1
    assert cache["a"] == cache.peek("a") == cache.get("a") == 1
    assert "a" in cache and list(cache) == ["a"] and len(cache) == 1
    clock.now += 1
    assert "a" not in cache
    assert cache.peek("a") is None
    assert cache.get("a") is None
    with pytest.raises(KeyError, match="a"):
        cache["a"]
    assert list(cache) == list(cache.values()) == list(cache.items()) == []
    assert (len(cache), cache.currsize, cache.expirations) == (0, 0, 1)
    cache._check()


@pytest.mark.parametrize("remove", [
    lambda cache: cache.pop("a", "none"), lambda cache: cache.setdefault("a", "none"),
    lambda cache: cache.get_or_load("a", lambda key: "none"), lambda cache: cache.get("a", "none"),
])
def test_what_has_ended_is_not_there_for_any_method(policy, clock, remove):
    events = []
    cache = policy(5, ttl=1, clock=clock, on_evict=lambda *what: events.append(what))
    cache["a"] = 1
    clock.advance(1)
    assert remove(cache) == "none"
    assert events == [("a", 1, "expired")]
    cache._check()


def test_popitem_and_delete_pass_over_what_has_ended(policy, clock):
    cache = policy(5, ttl=1, clock=clock)
    cache["a"] = 1
    clock.advance(1)
    with pytest.raises(KeyError):
        cache.popitem()
    with pytest.raises(KeyError):
        del cache["a"]
    assert (cache.expirations, cache.stats().removals) == (1, 0)


def test_a_write_starts_a_ttl_anew_and_a_read_does_not(policy, clock):
    cache = policy(5, ttl=2, clock=clock)
    cache["written"] = cache["read"] = 1
    clock.advance(1.5)
    cache["written"] = 2
    assert cache["read"] == 1
    clock.advance(1)
    assert list(cache) == ["written"]


def test_an_entry_has_its_own_ttl_if_it_is_given_one(policy, clock):
    cache = policy(5, ttl=2, clock=clock)
    cache.put("short", 1, ttl=1)
    cache.put("default", 2)
    cache.put("long", 3, ttl=3)
    cache.put("endless", 4, ttl=float("inf"))
    left = []
    for _ in range(4):
        left.append(set(cache))
        clock.advance(1)
    assert left == [{"short", "default", "long", "endless"}, {"default", "long", "endless"},
                    {"long", "endless"}, {"endless"}]
    cache["endless"] = 5
    clock.advance(2)
    assert list(cache) == []


def test_a_cache_without_ttl_takes_entries_that_have_one(policy, clock):
    cache = policy(5, clock=clock)
    cache["stays"] = 1
    cache.put("goes", 2, ttl=1)
    clock.advance(1000)
    assert list(cache) == ["stays"]
    cache._check()


@pytest.mark.parametrize("use", ["get", "__getitem__", "setdefault"])
def test_a_use_keeps_an_idle_entry(policy, clock, use):
    cache = policy(5, tti=1, clock=clock)
    cache["used"] = cache["idle"] = 1
    for _ in range(3):
        clock.advance(0.75)
        assert getattr(cache, use)("used") == 1
        assert cache.peek("idle") in (1, None)
    assert list(cache) == ["used"]
    clock.advance(1)
    assert list(cache) == []


def test_whatever_comes_first_ends_an_entry(policy, clock):
    cache = policy(5, ttl=2, tti=1, clock=clock)
    cache["idle"] = cache["old"] = 1
    for _ in range(3):
        clock.advance(0.6)
        assert cache.get("old") == 1
    assert list(cache) == ["old"]
    clock.advance(0.2)
    assert cache.get("old") is None


def test_jitter_shortens_each_ttl_by_up_to_its_share(policy):
    ends = []
    for seed in (1, 1, 2):
        clock = FakeClock(0)
        cache = policy(200, ttl=100, jitter=0.25, clock=clock, seed=seed)
        cache.update(dict.fromkeys(range(200)))
        lives = {}
        for clock.now in range(74 * SECOND, 102 * SECOND, SECOND):
            lives.update((key, clock.now) for key, _ in cache.expire())
        ends.append(lives)
    assert ends[0] == ends[1] != ends[2]
    seconds = [end // SECOND for end in ends[0].values()]
    assert len(seconds) == 200
    assert 75 <= min(seconds) < 78
    assert 98 < max(seconds) <= 100


def test_expire_returns_what_ended(policy, clock):
    events = []
    cache = policy(9, clock=clock, on_evict=lambda *what: events.append(what))
    for key in range(5):
        cache.put(key, key * 10, ttl=key + 1)
    clock.advance(3)
    assert sorted(cache.expire()) == [(0, 0), (1, 10), (2, 20)]
    assert sorted(events) == [(0, 0, "expired"), (1, 10, "expired"), (2, 20, "expired")]
    assert cache.expire() == []
    assert sorted(cache) == [3, 4]


def test_entries_that_have_ended_are_dropped_first(policy, clock):
    cache = policy(3, clock=clock)
    cache["a"] = 1
    cache.put("b", 2, ttl=1)
    cache["c"] = 3
    clock.advance(1)
    cache["d"] = 4
    assert set(cache) == {"a", "c", "d"}
    assert (cache.evictions, cache.expirations) == (0, 1)


def test_memory_of_ended_entries_is_bounded_by_use(policy, clock):
    """Writes of new keys under a large maxsize reuse the slots of entries that have ended."""
    cache = policy(10**6, ttl=1, clock=clock)
    sizes = []
    for i in range(5_000):
        cache[i] = i
        clock.now += SECOND // 100
        sizes.append(sys.getsizeof(cache))
    assert len(cache) <= 100
    assert max(sizes) < 60_000
    cache._check()


def test_rewriting_one_key_keeps_no_timers(policy, clock):
    cache = policy(10, ttl=3600, tti=1800, clock=clock)
    for i in range(5_000):
        cache["key"] = i
        cache.get("key")
        clock.now += 1000
    assert sys.getsizeof(cache) < 20_000
    cache._check()


@pytest.mark.parametrize("step", [1, 1_000, 10**6, SECOND, 3600 * SECOND, 10**6 * SECOND])
def test_every_entry_ends_on_time_at_all_scales(policy, step):
    """Lifetimes from nanoseconds to centuries: none ends early, none late."""
    clock = FakeClock(12_345)
    cache = policy(500, clock=clock)
    draw = random.Random(step)
    due = {}
    for key in range(300):
        lifetime = draw.randrange(1, 1000) * step
        cache.put(key, key, ttl=lifetime / SECOND)
        due[key] = clock.now + max(1, round(lifetime / SECOND * 1e9))
    for _ in range(60):
        clock.now += draw.randrange(1, 40) * step
        assert set(cache) == {key for key, end in due.items() if end > clock.now}
        cache._check()


def test_a_clock_that_steps_back_lets_entries_live_longer(policy, clock):
    cache = policy(5, ttl=10, clock=clock)
    cache["a"] = 1
    clock.advance(-1000)
    cache["b"] = 2
    assert set(cache) == {"a", "b"}
    clock.advance(10)
    assert set(cache) == {"a"}
    clock.advance(1000)
    assert set(cache) == set()
    cache._check()


def test_two_leaps_of_the_clock(policy, clock):
    cache = policy(100, ttl=5, clock=clock)
    for leap in itertools.islice(itertools.cycle([1, 10**5, 40, 10**8, 4]), 50):
        cache[leap] = leap
        clock.advance(leap)
        assert (leap in cache) == (leap < 5)
        cache._check()


@pytest.mark.parametrize("name", ["ttl", "tti"])
@pytest.mark.parametrize(("seconds", "error", "message"), [
    (0, ValueError, "{} must be positive, got 0"),
    (-1.5, ValueError, "{} must be positive, got -1.5"),
    (float("nan"), ValueError, "{} must be positive, got nan"),
    ("1", TypeError, "{} must be a number of seconds or None, got '1'"),
])
def test_a_lifetime_is_checked(policy, name, seconds, error, message):
    with pytest.raises(error, match=f"^{message.format(name)}$"):
        policy(5, **{name: seconds})
    cache = policy(5)
    with pytest.raises(error, match="^" + message.format("ttl")):
        cache.put("a", 1, ttl=seconds)
    assert list(cache) == []


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"jitter": 1}, ValueError, r"jitter must be in \[0, 1\), got 1"),
    ({"jitter": None}, TypeError, "jitter must be a number, got None"),
    ({"clock": 5}, TypeError, "clock must be callable or None, got 5"),
    ({"seed": "x"}, TypeError, "seed must be an int, got 'x'"),
])
def test_other_arguments_of_time_are_checked(policy, arguments, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        policy(5, ttl=1, **arguments)


@pytest.mark.parametrize(("time", "error", "message"), [
    (1.5, TypeError, r"clock must return an int, got 1\.5"),
    (2**62, ValueError, rf"clock must return nanoseconds within 2\*\*62 of zero, got {2**62}"),
])
def test_a_clock_that_returns_no_time_leaves_the_cache(policy, clock, time, error, message):
    cache = policy(5, ttl=1, clock=lambda: clock.now)
    cache["a"] = 1
    now, clock.now = clock.now, time
    for call in (lambda: cache.get("a"), lambda: cache.put("b", 2), lambda: len(cache), cache.expire):
        with pytest.raises(error, match=f"^{message}$"):
            call()
    clock.now = now
    assert list(cache.items()) == [("a", 1)]
    cache._check()


def test_the_default_clock_is_the_monotonic_one(policy):
    cache = policy(5, ttl=1e-9)
    cache["a"] = 1
    start = time.monotonic_ns()
    while time.monotonic_ns() == start:  # a clock may be coarse
        pass
    assert cache.get("a") is None
    assert policy(5, ttl=1000).setdefault("a", 1) == 1


def test_lifetimes_are_shown(policy, clock):
    cache = policy(5, ttl=2, tti=0.5, clock=clock)
    assert (cache.ttl, cache.tti, cache.clock) == (2.0, 0.5, clock)
    cache = policy(5)
    assert (cache.ttl, cache.tti, cache.clock) == (None, None, None)


def test_ttl_cache_is_an_lru_cache_with_a_ttl(twin, clock):
    cache = twin.cache.TTLCache(2, 1, clock=clock)
    assert isinstance(cache, twin.cache.LRUCache)
    cache.update(a=1, b=2)
    cache["a"]
    cache["c"] = 3
    assert list(cache) == ["a", "c"]
    clock.advance(1)
    assert list(cache) == []
    with pytest.raises(TypeError):
        twin.cache.TTLCache(2)
