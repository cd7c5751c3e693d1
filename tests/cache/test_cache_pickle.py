"""Pickles: versioned, the same from both twins, read by either."""

import copy
import pickle
from operator import index

import pytest
from policies import POLICIES

import headgate.cache


class Shifting:
    """A clock that is pickled by name."""

    now = 10**9

    def __call__(self):
        return self.now

    def __reduce__(self):
        return "shifting"


shifting = Shifting()


def wrap(key, value, reason):
    """A listener that pickles by name."""


class Named(headgate.cache.LRUCache):
    """A user's subclass, with attributes of its own."""

    def __init__(self, maxsize, name):
        super().__init__(maxsize)
        self.name = name


def example(cls):
    cache = cls(10, len, on_evict=wrap)
    cache.update(a="x", b="yy")
    cache["a"]
    return cache


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_round_trip(twin, protocol):
    cache = example(twin.cache.LRUCache)
    other = pickle.loads(pickle.dumps(cache, protocol))
    assert type(other) is headgate.cache.LRUCache
    assert list(other.items()) == [("b", "yy"), ("a", "x")]
    assert (other.maxsize, other.currsize, other.getsizeof, other.on_evict) == (10, 3, len, wrap)
    other._check()


@pytest.mark.parametrize("options", [{}, {"ttl": 60, "tti": 2.5, "jitter": 0.25, "seed": 3}])
def test_entries_keep_their_lifetimes_and_tags(policy, options):
    cache = policy(30, index, clock=shifting, **options)
    for key in range(40):
        cache.put(key, key % 3, ttl=key % 5 + 1 if key % 4 else None, tags=("odd",) if key % 2 else ())
    other = pickle.loads(pickle.dumps(cache))
    other._check()
    assert dict(other.items()) == dict(cache.items())
    shifting.now += 2 * 10**9
    assert sorted(other.expire()) == sorted(cache.expire()) != []
    assert other.invalidate(tag="odd") == cache.invalidate(tag="odd") > 0
    assert set(other) == set(cache) != set()


@pytest.mark.parametrize("name", POLICIES)
def test_twins_write_the_same_bytes_for_every_policy(both_twins, name):
    written = []
    for twin in both_twins:
        cache = getattr(twin.cache, name)(20, ttl=5, jitter=0.5, clock=shifting)
        for i in range(300):
            if cache.get(i * i % 67) is None:
                cache.put(i * i % 67, i, tags=("x",) if i % 3 else ())
        written.append(pickle.dumps(cache))
    assert written[0] == written[1]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_twins_write_the_same_bytes(both_twins, protocol):
    compiled, pure = (pickle.dumps(example(twin.cache.LRUCache), protocol) for twin in both_twins)
    assert compiled == pure


def test_subclass_keeps_its_class_and_attributes():
    cache = Named(3, "x")
    cache["a"] = 1
    other = pickle.loads(pickle.dumps(cache))
    assert type(other) is Named
    assert other.name == "x"
    assert dict(other) == {"a": 1}


def test_a_cache_that_holds_itself():
    cache = headgate.cache.LRUCache(2)
    cache["self"] = cache
    other = pickle.loads(pickle.dumps(cache))
    assert other["self"] is other


def test_unknown_version(twin):
    with pytest.raises(ValueError, match=r"^state must be of version 2, got 9$"):
        twin.cache.LRUCache._from_state((9, 1))


class Slotted(headgate.SieveCache):
    """A subclass with an attribute of each kind: one slot, and a dictionary."""

    __slots__ = ("__dict__", "note")


def test_attributes_in_slots_come_along():
    cache = Slotted(5)
    cache.note, cache.other, cache["a"] = "note", "other", 1
    for made in (copy.copy(cache), pickle.loads(pickle.dumps(cache)), copy.deepcopy(cache)):
        assert (made.note, made.other, dict(made)) == ("note", "other", {"a": 1})
        assert vars(made) is not vars(cache)
    assert not hasattr(copy.copy(Slotted(5)), "note")
