"""Eight threads on one cache: nothing is lost, counted twice or beyond the bound."""

import random

from threads import run_threads


def test_every_entry_put_is_live_or_was_told(twin):
    told = []
    cache = twin.cache.LRUCache(100, on_evict=lambda key, value, reason: told.append(value))
    put = [[] for _ in range(8)]

    def work(number):
        draw = random.Random(number)
        for i in range(2000):
            value = (number, i)
            cache[draw.randrange(300)] = value
            put[number].append(value)
            cache.get(draw.randrange(300))
            if i % 10 == 0:
                cache.pop(draw.randrange(300), None)
            assert len(cache) <= 100

    run_threads(work)
    cache._check()
    everything = [value for values in put for value in values]
    assert sorted(told + list(cache.values())) == sorted(everything)


def test_every_lookup_is_counted(twin):
    cache = twin.cache.LRUCache(50)
    lookups = 3000

    def work(number):
        draw = random.Random(number)
        for _ in range(lookups):
            key = draw.randrange(80)
            if cache.get(key) is None:
                cache[key] = key + 1

    run_threads(work)
    assert cache.hits + cache.misses == 8 * lookups
    cache._check()


def test_setdefault_has_one_winner(twin):
    for _ in range(50):
        cache = twin.cache.LRUCache(4)
        winners = [None] * 8

        def work(number, cache=cache, winners=winners):
            winners[number] = cache.setdefault("key", object())

        run_threads(work)
        assert len(set(winners)) == 1


def test_resize_and_clear_while_others_work(twin):
    cache = twin.cache.LRUCache(100)

    def work(number):
        draw = random.Random(number)
        for i in range(1500):
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
