"""Pickles: versioned, the same from both twins, read by either."""

import pickle

import pytest

import headgate.cache


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
