"""get_or_load: one loader a key at a time, whatever happens meanwhile."""

import threading

import pytest
from watchdog import PATIENCE, in_a_thread, in_threads, until

CROWD = 50


def test_a_missing_key_is_loaded_and_stored(twin):
    cache = twin.cache.LRUCache(2)
    assert cache.get_or_load("a", str.upper) == "A"
    assert cache.get_or_load("a", str.lower) == "A"
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.load_failures) == (1, 1, 1, 0)
    assert stats.load_seconds >= 0


def test_an_error_reaches_the_caller_and_is_not_stored(twin):
    cache = twin.cache.LRUCache(2)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load("a", lambda key: 1 / 0)
    assert "a" not in cache
    stats = cache.stats(reset=True)
    assert (stats.loads, stats.load_failures) == (1, 1)
    assert cache.get_or_load("a", str.upper) == "A"
    assert cache.stats().load_failures == 0


def test_a_loader_must_be_callable(twin):
    cache = twin.cache.LRUCache(2)
    with pytest.raises(TypeError, match=r"^loader must be callable or None, got 7$"):
        cache.get_or_load("a", 7)


def test_a_crowd_loads_once(twin):
    cache, calls, gate = twin.cache.LRUCache(2), [], threading.Event()

    def loader(key):
        calls.append(key)
        assert gate.wait(PATIENCE)
        return object()

    def opened_when_all_have_missed():
        until(lambda: cache.misses >= CROWD)
        gate.set()

    opener = threading.Thread(target=opened_when_all_have_missed, daemon=True)
    opener.start()
    results = in_threads(cache.get_or_load, CROWD, "a", loader)
    opener.join(PATIENCE)
    assert calls == ["a"]
    assert set(map(id, results)) == {id(cache["a"])}


def test_threads_that_miss_first_share_their_loads(twin, monkeypatch):
    """Both find that the cache has not yet loaded anything."""
    both, second, calls = threading.Barrier(2), threading.Event(), []
    new_flights = twin.cache.Flights

    def flights():
        both.wait(10)
        return new_flights()

    def loader(key):
        calls.append(key)
        if len(calls) == 2:
            second.set()
        return second.wait(0.1)

    monkeypatch.setattr(twin.cache, "Flights", flights)
    in_threads(twin.cache.LRUCache(2).get_or_load, 2, "a", loader)
    assert calls == ["a"]


def test_a_loader_may_ask_for_its_own_key(twin):
    cache = twin.cache.LRUCache(2)

    def loader(key):
        return cache.get_or_load(key, str.upper) * 2

    assert in_a_thread(cache.get_or_load, "a", loader) == "AA"
    assert cache["a"] in ("A", "AA")


def test_what_was_loaded_during_a_clear_stays_out(twin):
    cache = twin.cache.LRUCache(2)

    def loader(key):
        cache.clear()
        return key

    assert cache.get_or_load("a", loader) == "a"
    assert "a" not in cache
    assert cache.generation == 1


def test_what_is_too_large_is_answered_and_not_stored(twin):
    cache = twin.cache.LRUCache(2, getsizeof=len)
    assert cache.get_or_load("a", lambda key: "large") == "large"
    assert len(cache) == 0


def test_a_loaded_entry_has_the_lifetime_of_the_cache(twin, clock):
    cache = twin.cache.TTLCache(2, 1, clock=clock)
    assert cache.get_or_load("a", str.upper) == "A"
    clock.advance(1)
    assert cache.get_or_load("a", str.lower) == "a"
