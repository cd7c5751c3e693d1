"""Real requests: LRU is exact to a naive one, ratios are the published ones, the twins agree hit for hit."""

from collections import OrderedDict
from functools import lru_cache
from itertools import islice

import pytest
from policy_models import MODELS

from headgate.cli.keylog import read_keys

TRACES = {
    "loop.trace.gz": (128, 512, 1_000),
    "multi3.trace.gz": (64, 512, 2_048),
    "web07.trace.xz": (256, 2_048, 16_384),
    "orm-night.trace.xz": (1_024,),
}
# Loop's published ratio is that of a window that never adapts.
PUBLISHED = [
    ("LRUCache", "loop.trace.gz", 512, 0.0, 0.0),
    ("LRUCache", "web07.trace.xz", 16_384, 72.45, 0.005),
    ("LRUCache", "orm-night.trace.xz", 1_024, 67.36, 0.005),
    ("TinyLFUCache", "loop.trace.gz", 512, 49.94, 1.0),
    ("TinyLFUCache", "web07.trace.xz", 16_384, 72.40, 1.0),
    ("TinyLFUCache", "orm-night.trace.xz", 1_024, 67.02, 1.0),
]
PURE_SHARE = 80_000


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


@pytest.mark.parametrize(("policy", "trace", "maxsize", "published", "tolerance"), PUBLISHED)
def test_published_hit_ratios(both_twins, shared, policy, trace, maxsize, published, tolerance):
    """With numbers for keys, of which the hashes are the same in every process."""
    compiled, _ = both_twins
    keys = list(map(int, requests(shared / "traces" / trace)))
    cache = getattr(compiled.cache, policy)(maxsize)
    assert 100 * hits(cache, keys) / len(keys) == pytest.approx(published, abs=tolerance)
    cache._check()


@pytest.mark.parametrize("trace", TRACES)
def test_lru_is_exact_to_a_naive_one(both_twins, shared, trace):
    compiled, _ = both_twins
    keys = requests(shared / "traces" / trace)
    for maxsize in TRACES[trace]:
        assert hits(compiled.cache.LRUCache(maxsize), keys) == naive_lru_hits(maxsize, keys)


@pytest.mark.parametrize("policy", sorted(MODELS))
@pytest.mark.parametrize("trace", TRACES)
def test_the_twins_hit_alike(both_twins, shared, trace, policy):
    keys = list(islice(requests(shared / "traces" / trace), PURE_SHARE))
    for maxsize in TRACES[trace]:
        compiled, pure = [getattr(twin.cache, policy)(maxsize) for twin in both_twins]
        assert hits(compiled, keys) == hits(pure, keys)
        assert list(compiled) == list(pure)
        for cache in (compiled, pure):
            cache._check()
