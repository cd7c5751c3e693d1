"""Real requests: LRU equals a naive one, ratios equal the published ones, the twins agree hit by hit."""

from collections import OrderedDict
from functools import lru_cache
from random import Random

import pytest
from policy_models import MODELS

from headgate.cli.keylog import read_keys

TRACES = {
    "loop.trace.gz": (128, 512, 1_000),
    "multi3.trace.gz": (64, 512, 2_048),
    "web07.trace.xz": (256, 2_048, 16_384),
    "orm-night.trace.xz": (1_024,),
}
PUBLISHED = [
    ("loop.trace.gz", 512, 0.0),
    ("web07.trace.xz", 16_384, 72.45),
    ("orm-night.trace.xz", 1_024, 67.36),
]
# W-TinyLFU's published ratios are 49.94 (loop, 512; with a window that never adapts), 72.40 and 67.02.
TINY_LFU = [
    ("loop.trace.gz", 512, 49.94),
    ("loop.trace.gz", 1_000, 97.5),
    ("multi3.trace.gz", 64, 19.5),
    ("multi3.trace.gz", 512, 42.5),
    ("multi3.trace.gz", 2_048, 60.5),
    ("web07.trace.xz", 256, 45.0),
    ("web07.trace.xz", 2_048, 57.0),
    ("web07.trace.xz", 16_384, 72.3),
    ("orm-night.trace.xz", 1_024, 68.0),
]
PURE_SHARE = 20_000


@lru_cache(maxsize=1)
def requests(path):
    return list(read_keys(path))


def hits(cache, keys):
    get, put = cache.get, cache.put
    for key in keys:
        if get(key) is None:
            put(key, True)
    return cache.hits


def naive_lru_hits(maxsize, keys):
    cache, count = OrderedDict(), 0
    for key in keys:
        if key in cache:
            count += 1
            cache.move_to_end(key)
            continue
        cache[key] = True
        if len(cache) > maxsize:
            cache.popitem(last=False)
    return count


@pytest.mark.parametrize(("trace", "maxsize", "published"), PUBLISHED)
def test_published_hit_ratios(both_twins, shared, trace, maxsize, published):
    compiled, _ = both_twins
    keys = requests(shared / "traces" / trace)
    ratio = 100 * hits(compiled.cache.LRUCache(maxsize), keys) / len(keys)
    assert ratio == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize(("trace", "maxsize", "least"), TINY_LFU)
def test_the_window_adapts(both_twins, shared, trace, maxsize, least):
    """With integers as keys, whose hashes are the same in every process."""
    compiled, _ = both_twins
    keys = list(map(int, requests(shared / "traces" / trace)))
    cache = compiled.cache.TinyLFUCache(maxsize)
    assert 100 * hits(cache, keys) / len(keys) > least
    cache._check()


def asked_twice(draw, count):
    """Each key is requested once more after a while, and then never again, as in a ledger."""
    again, out = {}, []
    for key in range(count):
        out += again.pop(key, [])
        out.append(key)
        again.setdefault(key + 1 + int(draw.expovariate(1 / 50)), []).append(key)
    return out


def feed(draw, count):
    """New keys appear steadily, and the latest are read most."""
    newest, out = 0, []
    for _ in range(count):
        newest += draw.random() < 0.3
        out.append(max(0, newest - int(draw.expovariate(1 / 90))))
    return out


@pytest.mark.parametrize("make", [asked_twice, feed])
def test_recency_alone(twin, make):
    """Where frequency carries no information, the window grows until W-TinyLFU comes close to LRU."""
    keys = make(Random(7), 30_000)
    ratios = [hits(policy(64), keys) / len(keys) for policy in (twin.cache.LRUCache, twin.cache.TinyLFUCache)]
    assert ratios[1] > 0.9 * ratios[0]


def test_the_window_waits_for_the_first_eviction(twin):
    cache = twin.cache.TinyLFUCache(200)
    keys = [f"user:{number}" for number in range(100)]
    cache.update(dict.fromkeys(keys))
    for key in 100 * keys:
        cache.get(key)
    cache.update(dict.fromkeys("xyz"))
    assert list(cache)[:2] == ["y", "z"]


@pytest.mark.parametrize("trace", TRACES)
def test_lru_is_exact_to_a_naive_one(both_twins, shared, trace):
    compiled, _ = both_twins
    keys = requests(shared / "traces" / trace)
    for maxsize in TRACES[trace]:
        assert hits(compiled.cache.LRUCache(maxsize), keys) == naive_lru_hits(maxsize, keys)


@pytest.mark.parametrize("policy", sorted(MODELS))
@pytest.mark.parametrize("trace", TRACES)
def test_the_twins_hit_alike(both_twins, shared, trace, policy, exhaustive):
    """At least the first part of a trace, with caches that it fills."""
    keys = requests(shared / "traces" / trace)
    keys = keys if exhaustive else keys[:PURE_SHARE]
    distinct = len(set(keys))
    for maxsize in [size for size in TRACES[trace] if size < distinct]:
        compiled, pure = [getattr(twin.cache, policy)(maxsize) for twin in both_twins]
        assert hits(compiled, keys) == hits(pure, keys)
        assert list(compiled) == list(pure)
        for cache in (compiled, pure):
            cache._check()
