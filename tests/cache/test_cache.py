"""LRUCache as a mapping: what each method returns, counts and refuses."""

import copy
import math
import sys
from collections.abc import Mapping, MutableMapping

import pytest


def lru(twin, *args, **kwargs):
    return twin.cache.LRUCache(*args, **kwargs)


def filled(twin, keys="abc", **kwargs):
    cache = lru(twin, len(keys), **kwargs)
    for i, key in enumerate(keys, 1):
        cache[key] = i
    return cache


def test_the_least_recently_used_goes_first(twin):
    cache = filled(twin)
    assert cache["a"] == 1
    cache["d"] = 4
    assert list(cache) == ["c", "a", "d"]
    assert cache.evictions == 1
    cache._check()


@pytest.mark.parametrize("touch", ["get", "__getitem__", "setdefault"])
def test_what_touches_an_entry(twin, touch):
    cache = filled(twin)
    assert getattr(cache, touch)("a") == 1
    assert list(cache) == ["b", "c", "a"]
    assert cache.hits == 1


def test_put_touches_and_replaces(twin):
    cache = filled(twin)
    cache.put("a", 10)
    assert list(cache.items()) == [("b", 2), ("c", 3), ("a", 10)]
    assert cache.evictions == 0


def test_what_touches_nothing(twin):
    cache = filled(twin)
    assert "a" in cache
    assert cache.peek("a") == 1
    assert cache.peek("z") is None
    assert cache.peek("z", 5) == 5
    assert ("a", 1) in cache.items()
    assert ("a", 2) not in cache.items()
    assert ("z", 1) not in cache.items()
    assert 1 in cache.values()
    assert "a" in cache.keys() - {"b"}
    assert list(cache.values()) == [1, 2, 3]
    assert list(cache.keys()) == list(cache) == ["a", "b", "c"]
    assert cache == {"a": 1, "b": 2, "c": 3}
    repr(cache)
    assert list(cache) == ["a", "b", "c"]
    assert cache.stats()[:3] == (0, 0, 0)


def test_hits_and_misses(twin):
    cache = filled(twin)
    cache.get("a")
    cache["b"]
    cache.setdefault("c")
    cache.get("x")
    with pytest.raises(KeyError, match=r"^'y'$"):
        cache["y"]
    cache.setdefault("z", 26)
    assert (cache.hits, cache.misses, cache.evictions) == (3, 3, 1)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evictions, stats.currsize, stats.maxsize) == (3, 3, 1, 3, 3)
    assert stats.hit_ratio == 0.5


def test_get_with_default_by_position_and_keyword(twin):
    cache = lru(twin, 1)
    assert cache.get("a") is None
    assert cache.get("a", 5) == 5
    assert cache.get(key="a", default=6) == 6


def test_pop(twin):
    cache = filled(twin)
    assert cache.pop("b") == 2
    assert cache.pop("b", None) is None
    assert cache.pop("b", default=7) == 7
    with pytest.raises(KeyError, match=r"^'b'$"):
        cache.pop("b")
    assert list(cache) == ["a", "c"]
    assert cache.evictions == 0
    cache._check()


def test_popitem_takes_the_next_victim(twin):
    cache = filled(twin)
    cache["a"]
    assert [cache.popitem() for _ in range(3)] == [("b", 2), ("c", 3), ("a", 1)]
    with pytest.raises(KeyError, match=r"^'LRUCache is empty'$"):
        cache.popitem()


def test_delete(twin):
    cache = filled(twin)
    del cache["b"]
    with pytest.raises(KeyError, match=r"^'b'$"):
        del cache["b"]
    assert list(cache) == ["a", "c"]
    cache["d"] = 4
    assert list(cache) == ["a", "c", "d"]


def test_setdefault_keeps_what_is_there(twin):
    cache = lru(twin, 2)
    assert cache.setdefault("a", 1) == 1
    assert cache.setdefault("a", 2) == 1
    assert cache.setdefault("b") is None
    assert list(cache.items()) == [("a", 1), ("b", None)]


def test_update_takes_what_dict_update_takes(twin):
    cache = lru(twin, 10)
    cache.update({"a": 1})
    cache.update([("b", 2)])
    cache.update(c=3)
    cache.update({"d": 4}, e=5)
    cache.update()
    assert dict(cache) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def test_clear_keeps_the_counters(twin):
    cache = filled(twin)
    cache["a"]
    cache.clear()
    assert len(cache) == cache.currsize == 0
    assert cache.hits == 1
    cache["z"] = 1
    assert list(cache) == ["z"]
    cache._check()


def test_resize(twin):
    cache = filled(twin, "abcdef")
    cache.resize(2)
    assert list(cache) == ["e", "f"]
    assert (cache.maxsize, cache.currsize, cache.evictions) == (2, 2, 4)
    cache.resize(4)
    cache.update(g=7, h=8, i=9)
    assert list(cache) == ["f", "g", "h", "i"]
    cache.resize(0)
    assert list(cache) == []
    cache._check()


@pytest.mark.parametrize("maxsize", [-1, 2**31 + 1])
def test_resize_refuses_and_leaves_the_cache(twin, maxsize):
    cache = filled(twin)
    with pytest.raises(ValueError, match=r"^maxsize must be "):
        cache.resize(maxsize)
    assert cache.maxsize == 3
    assert len(cache) == 3


def test_equality_is_that_of_mappings(twin):
    cache = filled(twin)
    other = lru(twin, 10)
    other.update(c=3, b=2, a=1)
    assert cache == other
    assert cache == {"a": 1, "b": 2, "c": 3}
    assert dict(cache) == cache
    assert cache != {"a": 1}
    assert cache != [("a", 1)]
    with pytest.raises(TypeError):
        hash(cache)


def test_it_is_a_mutable_mapping(twin):
    assert isinstance(lru(twin, 1), MutableMapping)
    assert isinstance(lru(twin, 1), Mapping)
    assert twin.cache.LRUCache[str, int].__origin__ is twin.cache.LRUCache


def test_repr(twin):
    cache = filled(twin)
    assert repr(cache) == "LRUCache({'a': 1, 'b': 2, 'c': 3}, maxsize=3, currsize=3)"
    cache["self"] = cache
    assert repr(cache) == "LRUCache({'b': 2, 'c': 3, 'self': ...}, maxsize=3, currsize=3)"


def test_views_iterate_over_snapshots(twin):
    cache = filled(twin)
    for key in cache:
        cache[key + key] = 1
    assert list(cache) == ["aa", "bb", "cc"]
    for _ in cache.items():
        cache.clear()
    assert len(cache.keys()) == 0


def test_keys_compare_as_in_dict(twin):
    nan = math.nan
    cache = lru(twin, 10)
    cache[1] = "int"
    cache[True] = "bool"
    cache[1.0] = "float"
    cache[nan] = "nan"
    cache[-1], cache[-2] = "-1", "-2"
    assert list(cache.items()) == [(1, "float"), (nan, "nan"), (-1, "-1"), (-2, "-2")]
    assert type(next(iter(cache))) is int
    assert cache[nan] == "nan"
    assert cache.get(float("nan")) is None
    key = "".join(["a", "b"])
    cache["ab"] = 1
    assert cache[key] == 1
    assert ("é" * 3 in cache) is ("\U0001f600" in cache) is False
    cache._check()


def test_str_subclasses_are_the_same_key(twin):
    class Name(str):
        __slots__ = ()

    cache = lru(twin, 3)
    cache["a"] = 1
    cache[Name("a")] = 2
    assert list(cache.items()) == [("a", 2)]
    assert cache[Name("a")] == 2


def test_unhashable_key(twin):
    cache = filled(twin)
    for call in (cache.get, cache.peek, cache.pop, cache.__contains__, cache.__getitem__, cache.__delitem__):
        with pytest.raises(TypeError, match="unhashable"):
            call([])
    with pytest.raises(TypeError, match="unhashable"):
        cache[[]] = 1
    assert len(cache) == 3


def test_values_may_be_none(twin):
    cache = lru(twin, 2)
    cache["a"] = None
    assert cache.get("a", 1) is None
    assert cache.pop("a", 1) is None
    cache[None] = None
    assert cache.popitem() == (None, None)


def test_maxsize_zero_takes_nothing(twin):
    cache = lru(twin, 0)
    with pytest.raises(ValueError, match=r"^value too large: size 1 exceeds maxsize 0$"):
        cache["a"] = 1
    assert cache.get("a") is None
    assert len(cache) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, "maxsize must be non-negative, got -1"),
        ((2**31 + 1,), ValueError, f"maxsize must be at most {2**31}, got {2**31 + 1}"),
        ((2**63, len), ValueError, f"maxsize must be at most {2**63 - 1}, got {2**63}"),
        ((1.5,), TypeError, "maxsize must be an int, got 1.5"),
        ((None,), TypeError, "maxsize must be an int, got None"),
        ((1, 5), TypeError, "getsizeof must be callable or None, got 5"),
    ],
)
def test_constructor_refuses(twin, arguments, error, message):
    with pytest.raises(error) as caught:
        lru(twin, *arguments)
    assert str(caught.value) == message


def test_on_evict_must_be_callable(twin):
    with pytest.raises(TypeError, match=r"^on_evict must be callable or None, got 5$"):
        lru(twin, 1, on_evict=5)


def test_getsizeof_bounds_the_sum(twin):
    cache = lru(twin, 10, getsizeof=len)
    cache["a"], cache["b"], cache["c"] = "xxx", "xxxx", "xxx"
    assert cache.currsize == 10
    cache["d"] = "xxxxx"
    assert list(cache) == ["c", "d"]
    assert cache.currsize == 8
    cache["c"] = "x" * 6
    assert list(cache) == ["c"]
    cache["c"] = ""
    assert cache.currsize == 0
    assert cache.getsizeof is len
    assert lru(twin, 1).getsizeof is None
    cache._check()


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (11, ValueError, "value too large: size 11 exceeds maxsize 10"),
        (2**70, ValueError, f"value too large: size {2**70} exceeds maxsize 10"),
        (-1, ValueError, "value size must be non-negative, got -1"),
        ("x", TypeError, "getsizeof must return an int, got 'x'"),
    ],
)
def test_a_bad_size_leaves_the_cache(twin, size, error, message):
    cache = lru(twin, 10, getsizeof=lambda value: value)
    cache["a"] = 3
    for call, key in (cache.put, "a"), (cache.put, "b"), (cache.setdefault, "b"):
        with pytest.raises(error) as caught:
            call(key, size)
        assert str(caught.value) == message
    assert list(cache.items()) == [("a", 3)]
    assert cache.currsize == 3
    assert cache.setdefault("a", size) == 3


def test_listener_is_called_after_the_fact(twin):
    events = []
    cache = lru(twin, 2, on_evict=lambda *what: events.append((*what, len(cache))))
    cache["a"], cache["b"] = 1, 2
    cache["a"] = 10
    cache["c"] = 3
    del cache["a"]
    cache.pop("c")
    cache["d"] = 4
    cache.popitem()
    cache.update(e=5, f=6)
    cache.resize(1)
    cache.clear()
    assert events == [
        ("a", 1, "replaced", 2),
        ("b", 2, "size", 2),
        ("a", 10, "removed", 1),
        ("c", 3, "removed", 0),
        ("d", 4, "removed", 0),
        ("e", 5, "size", 1),
        ("f", 6, "removed", 0),
    ]
    assert callable(cache.on_evict)


def test_one_put_may_evict_many(twin):
    events = []
    cache = lru(twin, 4, len, on_evict=lambda *what: events.append(what))
    for key in "abcd":
        cache[key] = "x"
    cache["e"] = "yyy"
    assert events == [("a", "x", "size"), ("b", "x", "size"), ("c", "x", "size")]
    assert list(cache) == ["d", "e"]


def test_listener_errors_are_reported_not_raised(twin, unraisable):
    def fail(key, value, reason):
        raise RuntimeError(key)

    cache = lru(twin, 1, on_evict=fail)
    cache["a"] = 1
    cache["b"] = 2
    assert list(cache) == ["b"]
    assert [str(error) for error in unraisable] == ["a"]


@pytest.mark.parametrize("duplicate", [copy.copy, lambda cache: cache.__copy__()])
def test_copy_is_independent(twin, duplicate):
    cache = filled(twin)
    cache["a"]
    other = duplicate(cache)
    assert type(other) is type(cache)
    assert list(other.items()) == list(cache.items())
    assert other.maxsize == cache.maxsize
    assert other.hits == other.evictions == 0
    other["z"] = 26
    assert list(cache) == ["b", "c", "a"]
    other._check()


def test_copy_of_a_weighted_cache_calls_no_listener(twin):
    events = []
    cache = lru(twin, 10, len, on_evict=lambda *what: events.append(what))
    cache.update(a="xxx", b="yy")
    other = copy.copy(cache)
    assert events == []
    assert other.currsize == 5
    del other["a"]
    assert events == [("a", "xxx", "removed")]


def test_deepcopy(twin):
    cache = lru(twin, 3)
    cache["a"] = [1]
    cache["self"] = cache
    other = copy.deepcopy(cache)
    assert other["a"] == [1]
    assert other["a"] is not cache["a"]
    assert other["self"] is other


def test_new_without_init_is_an_empty_cache_of_size_zero(twin):
    cache = twin.cache.LRUCache.__new__(twin.cache.LRUCache)
    assert len(cache) == 0
    assert cache.get("a") is None
    with pytest.raises(ValueError, match="too large"):
        cache["a"] = 1
    cache._check()


def test_subclass(twin):
    class Logged(twin.cache.LRUCache):
        def __init__(self, maxsize, name):
            super().__init__(maxsize)
            self.name = name

    cache = Logged(2, "x")
    cache.update(a=1, b=2, c=3)
    assert repr(cache).startswith("Logged({'b': 2")
    other = copy.copy(cache)
    assert type(other) is Logged
    assert other.name == "x"
    assert list(other) == ["b", "c"]


def test_ten_million_allocate_nothing_before_use(twin):
    cache = lru(twin, 10_000_000)
    assert sys.getsizeof(cache) < 10_000
    cache["a"] = 1
    assert sys.getsizeof(cache) < 10_000


def test_memory_comes_back(twin):
    cache = lru(twin, 100_000)
    for i in range(100_000):
        cache[i] = i
    full = sys.getsizeof(cache)
    assert full > 1_000_000
    cache.resize(10)
    assert list(cache) == list(range(99_990, 100_000))
    assert sys.getsizeof(cache) < full / 100
    cache._check()
    cache.clear()
    assert sys.getsizeof(cache) < full / 100


def test_large_random_walk_agrees_with_ordered_dict(twin):
    import random
    from collections import OrderedDict

    draw = random.Random(1)
    cache, model = lru(twin, 500), OrderedDict()
    for _ in range(20_000):
        key = int(draw.paretovariate(0.5)) % 3000
        if draw.random() < 0.1:
            assert cache.pop(key, None) == model.pop(key, None)
        elif key in model:
            model.move_to_end(key)
            assert cache[key] == model[key]
        else:
            assert cache.get(key) is None
            model[key] = cache[key] = draw.random()
            if len(model) > 500:
                model.popitem(last=False)
    assert list(cache.items()) == list(model.items())
    cache._check()
