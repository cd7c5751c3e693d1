"""Eight threads on one cache: nothing is lost, counted twice or stored beyond maxsize."""

import random
import sys
import threading

from threads import run_threads


def test_every_entry_put_is_live_or_was_passed_to_the_listener(make_cache):
    events = []
    cache = make_cache(100, on_evict=lambda key, value, reason: events.append(value))
    put = [[] for _ in range(8)]

    def work(number):
        draw = random.Random(number)
        for i in range(600):
            value = (number, i)
            cache[draw.randrange(300)] = value
            put[number].append(value)
            cache.get(draw.randrange(300))
            if i % 10 == 0:
                cache.pop(draw.randrange(300), None)
            assert len(cache) <= 100

    run_threads(work)
    cache._check()
    make_cache.clock.step = 0
    cache.expire()
    everything = [value for values in put for value in values]
    assert sorted(events + list(cache.values())) == sorted(everything)


def test_every_lookup_is_counted(make_cache):
    cache = make_cache(50)
    lookups = 800

    def work(number):
        draw = random.Random(number)
        for _ in range(lookups):
            key = draw.randrange(80)
            if cache.get(key) is None:
                cache[key] = key + 1

    run_threads(work)
    assert cache.hits + cache.misses == 8 * lookups
    cache._check()


def test_setdefault_has_one_winner(make_cache):
    for _ in range(15):
        cache = make_cache(4)
        winners = [None] * 8

        def work(number, cache=cache, winners=winners):
            winners[number] = cache.setdefault("key", object())

        run_threads(work)
        assert len(set(winners)) == 1


def test_resize_and_clear_while_others_work(make_cache):
    cache = make_cache(100)

    def work(number):
        draw = random.Random(number)
        for i in range(500):
            if number == 0:
                cache.resize(draw.randrange(1, 200))
            elif number == 1 and i % 50 == 0:
                cache.clear()
            else:
                cache[draw.randrange(300)] = i
                list(cache.items())[:1]

    run_threads(work)
    cache._check()
    assert len(cache) <= cache.maxsize


def test_the_first_lifetime_in_two_threads_at_once(make_cache):
    make_cache.clock.step = 0
    caches = [make_cache(100) for _ in range(50)]
    for cache in caches:
        cache.update(dict.fromkeys(range(4), 0))

    def work(number):
        for cache in caches:
            cache.put(number, number, ttl=100)
            cache.put(number + 8, number, ttl=100)

    run_threads(work, 2)
    for cache in caches:
        assert len(cache) == 6
        cache._check()


def test_size_while_another_thread_resizes(make_cache):
    make_cache.clock.step = 0
    cache = make_cache(1000)
    cache.update(dict.fromkeys(range(100), 0))
    done = threading.Event()
    sizes = [len, lambda cache: cache.currsize, lambda cache: cache.stats().currsize, sys.getsizeof, repr]

    def work(number):
        if number == 0:
            for _ in range(50):
                cache.resize(1000)
                cache["more"] = 0
                cache.pop("more", None)
                cache.resize(100)
            done.set()
        while not done.is_set():
            assert sizes[number - 1](cache) not in {0, 99}

    run_threads(work, 6)
    cache._check()


def test_invalidate_counts_each_entry_once(make_cache):
    make_cache.clock.step = 0
    cache = make_cache(10_000)
    removed = [0] * 4

    def work(number):
        for i in range(200):
            if number < 4:
                removed[number] += cache.invalidate()
            else:
                cache[number, i] = i

    run_threads(work)
    assert sum(removed) + cache.invalidate() == 4 * 200
