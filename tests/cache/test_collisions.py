"""Chosen keys do not collide in the compiled twin: cells are counted. The pure twin has dicts.

Homes depend on secrets, so counts differ from table to table. In a million tables of random homes no lookup
read more than 1.9 cells in the mean, 2.5 in the fuller table of ghosts; beyond that every further tenth is
five times as rare. The bounds are far above, and far below what the chosen keys read where a hash is not
mixed, or can be foreseen.
"""

from itertools import count, islice

import pytest

import headgate.cache._compiled as caches
import headgate.hotkeys._compiled as hotkeys
import headgate.memoize._compiled as memoize

WORD = 2**64
MODULUS = 2**61 - 1
GOLDEN = 0x9E3779B97F4A7C15
PRIMES = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F
TABLES = 50
KEYS = 2000


def hashes(numbers):
    """The first numbers that are their own hashes."""
    return list(islice((number for number in numbers if number < MODULUS), KEYS))


def crowded_under_fibonacci_hashing():
    inverse = pow(GOLDEN, -1, WORD)
    return hashes(j * inverse % WORD for j in count(1))


def crowded_under_splitmix():
    return hashes(unmixed(j << 20) for j in count(1))


def unmixed(x):
    """The number whose splitmix64 is `x`."""
    x ^= x >> 31 ^ x >> 62
    x = x * pow(0x94D049BB133111EB, -1, WORD) % WORD
    x ^= x >> 27 ^ x >> 54
    x = x * pow(0xBF58476D1CE4E5B9, -1, WORD) % WORD
    x ^= x >> 30 ^ x >> 60
    return (x - GOLDEN) % WORD


def spaced(bits):
    return [j << bits for j in range(KEYS)]


CHOSEN = {
    "in turn": spaced(0),
    "high bits": spaced(47),
    "middle bits": spaced(32),
    "a few bits": spaced(6),
    "both halves": [j << 10 | j << 40 for j in range(KEYS)],
    "Fibonacci": crowded_under_fibonacci_hashing(),
    "splitmix": crowded_under_splitmix(),
}


@pytest.fixture(params=CHOSEN)
def chosen(request):
    return CHOSEN[request.param]


def worst(make, fill, probes):
    """The mean number of cells that a lookup reads, in the worst of many tables."""
    found = []
    for _ in range(TABLES):
        table = make()
        fill(table)
        found.append(probes(table) / KEYS)
    return max(found)


def put_all(cache, keys):
    for key in keys:
        cache[key] = key


@pytest.mark.parametrize("policy", ["LRUCache", "SieveCache", "TinyLFUCache"])
def test_cache(policy, chosen):
    make = getattr(caches, policy)
    assert worst(lambda: make(KEYS), lambda cache: put_all(cache, chosen), make._probes) < 3


def test_ghosts(chosen):
    make = caches.S3FIFOCache

    def fill(cache):
        put_all(cache, range(-KEYS, -2))
        put_all(cache, chosen)
        put_all(cache, range(-2 * KEYS, -KEYS))

    assert worst(lambda: make(KEYS), fill, make._ghost_probes) < 4


def test_hot_keys(chosen):
    def fill(hot):
        for key in chosen:
            hot.add(key)

    assert worst(lambda: hotkeys.HotKeys(KEYS), fill, hotkeys.HotKeys._probes) < 3


def worst_memoizer(calls):
    def fill(memoized):
        for call in calls:
            memoized(*call)

    return worst(
        lambda: memoize.lru_cache(None)(lambda *args: args), fill, lambda memoized: memoized._probes()
    )


def test_calls_of_one_argument(chosen):
    calls = [(key,) for key in chosen]
    assert worst_memoizer(calls) < 3


def step(state, lane):
    """One step of XXH64, from which CPython computes the hash of a tuple."""
    state = (state + lane * PRIMES[1]) % WORD
    return (state << 31 | state >> 33) * PRIMES[0] % WORD


def equal_under_xxh64(seed):
    """Pairs of numbers that XXH64 without a secret maps to one hash."""
    end = 2**40
    inverse = pow(PRIMES[1], -1, WORD)
    pairs = ((a, (end - step(seed, a)) * inverse % WORD) for a in count())
    return list(islice((pair for pair in pairs if pair[1] < MODULUS), KEYS))


@pytest.mark.parametrize("seed", [0x27D4EB2F165667C5, 0])
def test_calls_of_two_arguments(seed):
    calls = equal_under_xxh64(seed)
    assert worst_memoizer(calls) < 3


def test_every_table_has_a_secret_of_its_own():
    """The tables of the same keys differ."""

    def probes():
        cache = caches.LRUCache(KEYS)
        put_all(cache, range(KEYS))
        return cache._probes()

    assert len({probes() for _ in range(20)}) > 1
