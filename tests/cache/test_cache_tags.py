"""Tags, predicates and generations: entries that are removed together."""

import random

import pytest


def test_a_tag_takes_its_entries_along(make_cache):
    cache = make_cache(9)
    cache.put("a", 1, tags=("user:7", "page"))
    cache.put("b", 2, tags=["page"])
    cache.put("c", 3)
    assert cache.invalidate(tag="user:7") == 1
    assert set(cache) == {"b", "c"}
    assert cache.invalidate(tag="user:7") == cache.invalidate(tag="another") == 0
    assert cache.invalidate(tag="page") == 1
    assert list(cache) == ["c"]
    assert cache.stats().removals == 2
    cache._check()


def test_another_put_has_its_own_tags(policy):
    cache = policy(9)
    cache.put("a", 1, tags=("x", "x"))
    cache.put("a", 2, tags=("y",))
    assert cache.invalidate(tag="x") == 0
    cache["a"] = 3
    assert cache.invalidate(tag="y") == 0
    assert cache["a"] == 3
    cache._check()


def test_setdefault_keeps_the_tags_of_what_is_there(policy):
    cache = policy(9)
    cache.put("a", 1, tags=("x",))
    cache.setdefault("a", 2)
    assert cache.invalidate(tag="x") == 1


@pytest.mark.parametrize("leave", [
    lambda cache, clock: cache.pop("a"),
    lambda cache, clock: cache.clear(),
    lambda cache, clock: cache.resize(0),
    lambda cache, clock: clock.advance(60),
])
def test_an_entry_that_has_left_has_no_tags(policy, clock, leave):
    cache = policy(9, ttl=60, clock=clock)
    cache.put("a", 1, tags=("x",))
    leave(cache, clock)
    cache.resize(9)
    assert cache.invalidate(tag="x") == 0
    cache["a"] = 2
    assert cache.invalidate(tag="x") == 0
    cache._check()


def test_listeners_are_called(policy):
    events = []
    cache = policy(9, on_evict=lambda *what: events.append(what))
    cache.put("a", 1, tags=("x",))
    cache.put("b", 2)
    cache.invalidate(tag="x")
    cache.invalidate(predicate=lambda key, value: value == 2)
    assert events == [("a", 1, "removed"), ("b", 2, "removed")]


def test_a_predicate_chooses(policy):
    cache = policy(20)
    cache.update({key: -key for key in range(10)})
    assert cache.invalidate(predicate=lambda key, value: key % 2 and value < -4) == 3
    assert set(cache) == {0, 1, 2, 3, 4, 6, 8}
    cache._check()


def test_a_predicate_that_raises_removes_nothing(policy):
    cache = policy(5)
    cache.update(a=1, b=0)
    with pytest.raises(ZeroDivisionError):
        cache.invalidate(predicate=lambda key, value: 1 / value)
    assert set(cache) == {"a", "b"}


def test_what_a_predicate_replaced_stays(policy):
    cache = policy(5)
    cache.update(a=1, b=1)

    def predicate(key, value):
        cache["a"] = 2
        return True

    assert cache.invalidate(predicate=predicate) in (1, 2)
    assert cache.peek("a") in (2, None)
    assert "b" not in cache
    cache._check()


def test_all_at_once_and_the_generation(policy):
    cache = policy(5)
    cache.update(a=1, b=2)
    assert cache.generation == 0
    assert cache.invalidate() == 2
    assert (list(cache), cache.generation) == ([], 1)
    cache.clear()
    assert cache.generation == 2
    cache["a"] = 1
    cache.pop("a")
    assert cache.generation == 2


@pytest.mark.parametrize(("arguments", "message"), [
    ({"tag": "x", "predicate": len}, "either tag or predicate must be None, got 'x' and "),
    ({"tag": 5}, "tags must be str, got 5"),
    ({"predicate": 5}, "predicate must be callable or None, got 5"),
])
def test_invalidate_checks_its_arguments(policy, arguments, message):
    cache = policy(5)
    cache["a"] = 1
    with pytest.raises(TypeError, match=f"^{message}"):
        cache.invalidate(**arguments)
    assert list(cache) == ["a"]


@pytest.mark.parametrize(("tags", "message"), [
    ("user:7", "tags must be an iterable of str, got 'user:7'"), (("x", 5), "tags must be str, got 5"),
])
def test_put_checks_tags(policy, tags, message):
    cache = policy(5)
    with pytest.raises(TypeError, match=f"^{message}$"):
        cache.put("a", 1, tags=tags)
    assert list(cache) == []


def test_tags_follow_a_random_walk(policy, clock):
    cache = policy(30, ttl=50, clock=clock)
    draw = random.Random(4)
    given = {}
    for _ in range(3_000):
        clock.advance(1)
        key, tag = draw.randrange(60), draw.choice("xyz")
        if draw.random() < 0.95:
            given[key] = tuple(draw.sample("xyz", draw.randrange(3)))
            cache.put(key, key, tags=given[key])
            continue
        expected = {key for key in cache if tag in given[key]}
        rest = set(cache) - expected
        assert cache.invalidate(tag=tag) == len(expected)
        assert set(cache) == rest
        cache._check()
