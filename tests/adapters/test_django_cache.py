"""CacheBackend for Django's CACHES; Django's own tests of caches are in test_django_upstream.py."""

import asyncio
import pickle
import threading
from enum import IntEnum
from itertools import count
from operator import methodcaller
from random import Random

import pytest
from django.core.cache import CacheHandler, CacheKeyWarning
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django_settings import CACHE
from policies import POLICIES
from watchdog import PATIENCE, in_threads

from headgate.adapters.django import CacheBackend

locations = count()


class Failure(Exception):
    pass


@pytest.fixture
def make(twin, clock):
    """Makes caches of the twin that is tested, each at a LOCATION of its own unless one is given."""

    test = next(locations)

    def new(location=None, kind=CacheBackend, policy="LRUCache", **params):
        options = {"POLICY": getattr(twin.cache, policy), "CLOCK": clock, **params.pop("OPTIONS", {})}
        location = next(locations) if location is None else f"{location} {test}"
        return kind(f"tests {location}", params | {"OPTIONS": options})

    return new


def seconds(number):
    return round(number * 1e9)


USES = {
    "get": methodcaller("get", 0),
    "set": methodcaller("set", 0, "again"),
    "incr": methodcaller("incr", 0),
    "touch": methodcaller("touch", 0),
    "get_many": methodcaller("get_many", [0]),
}


@pytest.mark.parametrize("use", USES)
def test_the_least_recently_used_entry_is_evicted(make, use):
    cache = make(OPTIONS={"MAX_ENTRIES": "3"})
    cache.set_many({0: 0, 1: 1, 2: 2})
    USES[use](cache)
    cache.set(3, 3)
    assert [key for key in range(4) if cache.has_key(key)] == [0, 2, 3]
    assert cache.stats().evictions == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_any_policy_keeps_the_bound(make, policy):
    cache = make(policy=policy, OPTIONS={"MAX_ENTRIES": 20})
    for key in range(200):
        cache.set(key, [key])
        assert cache.get(key) in (None, [key])
    assert len(cache.get_many(range(200))) == cache.stats().currsize == 20


def test_three_hundred_entries_by_default(make):
    cache = make()
    cache.set_many(dict.fromkeys(range(500)))
    assert cache.stats()[-2:] == (300, 300)


@pytest.mark.parametrize("value", [b"x" * 900, "x" * 900, [b"x" * 900]], ids=["bytes", "str", "list"])
def test_bytes_are_bounded(make, value):
    cache = make(OPTIONS={"MAX_BYTES": "10 kB"})
    for key in range(100):
        cache.set(f"{key:0200}", value)
        assert cache.stats().currsize <= 10_000
    assert cache.stats().maxsize == 10_000
    assert len(cache.get_many([f"{key:0200}" for key in range(100)])) == 7


def test_a_value_that_is_too_large(make):
    cache = make(OPTIONS={"MAX_BYTES": 1000})
    cache.set("a", "small")
    assert cache.set("a", "x" * 1000) is None
    assert cache.get("a") is None
    assert cache.add("a", "x" * 1000) is False
    assert cache.set_many({"a": "x" * 1000, "b": 1}) == ["a"]
    assert cache.get_many(["a", "b"]) == {"b": 1}
    assert cache.get_or_set("a", lambda: "x" * 1000) == "x" * 1000
    assert cache.get_or_set("a", "x" * 1000) == "x" * 1000
    cache.set("c", 1)
    assert cache.incr("c", 10**2000) == 10**2000 + 1
    assert cache.get("c") is None


def test_values_are_isolated(make):
    cache, value = make(), {"list": [1]}
    cache.set("a", value)
    value["list"].append(2)
    cache.get("a")["list"].append(3)
    cache.get_or_set("a", dict)["list"].append(4)
    assert cache.get("a") == {"list": [1]}
    made = cache.get_or_set("b", lambda: value)
    made["list"].append(5)
    assert cache.get("b") == {"list": [1, 2]} == value


class Level(IntEnum):
    LOW = 1


class Text(str):
    pass


@pytest.mark.parametrize("value", [
    True, None, 1, 2**80, 1.5, float("inf"), "text", b"bytes", (), Level.LOW, Text("a"), {"a": [1, {2}]},
    bytearray(b"x"), pickle.dumps(1),
], ids=repr)
def test_values_come_back(make, value):
    cache = make()
    cache.set("a", value)
    found = cache.get("a", "default")
    assert found == value
    assert type(found) is type(value)


def test_what_cannot_be_pickled_raises_and_changes_nothing(make):
    cache = make()
    cache.set("a", 1)
    for store in (cache.set, cache.add, lambda key, value: cache.get_or_set("b", lambda: value)):
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
            store("a", threading.Lock())
    assert cache.get_many(["a", "b"]) == {"a": 1}


@pytest.mark.parametrize("timeout", [10, 10.0, 0.5, 1e-9])
def test_timeouts(make, clock, timeout):
    cache = make()
    cache.set("a", 1, timeout)
    assert cache.add("b", 1, timeout)
    assert cache.get_or_set("c", lambda: 1, timeout) == 1
    cache.set("d", 1, None)
    assert cache.touch("d", timeout)
    clock.now += seconds(timeout) - 1
    assert cache.get_many("abcd") == dict.fromkeys("abcd", 1)
    clock.now += 1
    assert cache.get_many("abcd") == {}
    assert not any(map(cache.has_key, "abcd"))
    assert not cache.touch("a")
    assert cache.add("a", 2)
    assert cache.stats().currsize == 1


@pytest.mark.parametrize("timeout", [0, -1, -0.5, -(10**12)])
def test_a_timeout_that_has_ended(make, timeout):
    cache = make()
    cache.set_many({"a": 1, "b": 1, "c": 1}, timeout)
    assert cache.get("a") is None
    cache.set("a", 1)
    cache.set("a", 2, timeout)
    assert cache.get("a") is None
    assert cache.add("a", 1, timeout) is True
    assert cache.get("a") is None
    assert cache.get_or_set("a", lambda: 1, timeout) == 1
    assert cache.get("a") is None
    cache.set("a", 1)
    assert cache.touch("a", timeout) is True
    assert cache.get("a") is None
    assert cache.stats().currsize == 0


@pytest.mark.parametrize(("params", "ends"), [({}, 300), ({"TIMEOUT": 5}, 5), ({"TIMEOUT": None}, None)])
def test_the_default_timeout(make, clock, params, ends):
    cache = make(**params)
    cache.set("a", 1)
    cache.add("b", 1)
    cache.set("c", 1, 1)
    cache.touch("c")
    cache.get_or_set("d", lambda: 1)
    clock.now += seconds(10**6 if ends is None else ends) - 1
    assert len(cache.get_many("abcd")) == 4
    clock.now += 1
    assert len(cache.get_many("abcd")) == (4 if ends is None else 0)


@pytest.mark.parametrize("change", [
    methodcaller("incr", "a"), methodcaller("decr", "a"),
    lambda cache: cache.incr_version("a") and cache.decr_version("a", version=2),
], ids=["incr", "decr", "incr_version"])
def test_what_keeps_the_timeout(make, clock, change):
    cache = make()
    cache.set("a", 1, 10)
    clock.now += seconds(6)
    change(cache)
    clock.now += seconds(4) - 1
    assert cache.has_key("a")
    clock.now += 1
    assert not cache.has_key("a")


def test_no_timeout_lasts(make, clock):
    cache = make()
    cache.set("a", 1, None)
    cache.incr("a")
    clock.now += 2**61
    assert cache.get("a") == 2


def test_versions_and_prefixes_of_a_location(make):
    first = make("one place", VERSION=1, KEY_PREFIX="p")
    second = make("one place", VERSION=2, KEY_PREFIX="p")
    other = make("one place", KEY_PREFIX="q")
    first.set("a", [1])
    assert second.get("a") is other.get("a") is None
    assert first.incr_version("a") == 2
    assert first.get("a") is None
    assert second.get("a") == [1]
    assert second.decr_version("a", 1) == 1
    assert first.get("a") == [1]
    assert first.incr_version("a", 0) == 1
    assert first.get("a") == [1]
    for missing in (methodcaller("incr_version", "b"), methodcaller("incr", "b"), methodcaller("decr", "b")):
        with pytest.raises(ValueError, match="Key 'b' not found"):
            missing(first)
    other.clear()
    assert first.get("a") is None


def test_a_value_to_which_nothing_can_be_added_stays(make):
    cache = make()
    cache.set_many({"a": "text", "b": 1.5, "c": [1]})
    with pytest.raises(TypeError):
        cache.incr("a")
    assert cache.incr("b", 2) == 3.5
    assert cache.incr("c", [2]) == [1, 2]
    assert cache.get_many("abc") == {"a": "text", "b": 3.5, "c": [1, 2]}


class OwnKeys(CacheBackend):
    def make_key(self, key, version=None):
        return f"own {super().make_key(key, version)}"

    def validate_key(self, key):
        if "bad" in key:
            raise Failure(key)


def test_keys_of_a_subclass_and_of_a_function(make):
    own = make("keys", OwnKeys)
    own.set("a", 1)
    by_function = make("keys", KEY_FUNCTION=lambda key, prefix, version: f"own :{version}:{key}")
    with pytest.warns(CacheKeyWarning, match="contains characters"):
        assert by_function.get("a") == 1
    with pytest.raises(Failure, match="own :1:bad"):
        own.get("bad")


@pytest.mark.parametrize("key", ["a b", "a\tb", "a\x7f", "\x00", "x" * 248])
@pytest.mark.parametrize("call", ["get", "set", "add", "has_key", "delete", "touch", "get_or_set", "aget"])
def test_keys_that_memcached_refuses_are_warned_of(make, key, call):
    cache, arguments = make(), {"set": [1], "add": [1], "get_or_set": [1]}.get(call, [])
    with pytest.warns(CacheKeyWarning, match="will cause errors if used with memcached"):
        done = getattr(cache, call)(key, *arguments)
        if call == "aget":
            asyncio.run(done)


@pytest.mark.parametrize("key", ["key", "", "x" * 246, "\N{SNOWMAN}", "\xa0", "\x80", 7, None, (1,)])
def test_keys_that_are_not_warned_of(make, key):
    cache = make(KEY_FUNCTION=lambda key, prefix, version: f"{key}".replace(" ", ""))
    cache.set(key, 1)
    assert cache.get(key) == 1
    assert key in cache
    assert cache.delete(key) is True
    assert cache.delete(key) is False


def test_threads_that_count_lose_nothing(make):
    caches = [make("threads") for _ in range(4)]
    caches[0].set("a", 0)
    turns = iter(caches * 2)

    def work():
        cache = next(turns)
        for _ in range(500):
            cache.incr("a")
            cache.touch("a")
            cache.decr("a", -1)

    assert in_threads(work, 8) == [None] * 8
    assert caches[0].get("a") == 8000


def test_of_threads_that_add_one_does(make):
    cache = make()
    for key in range(50):
        assert sorted(in_threads(cache.add, 4, key, 1)) == [False, False, False, True]


def test_of_threads_that_load_one_does(make):
    cache, begun, go_on = make(), threading.Barrier(8), threading.Event()
    calls = []

    def load():
        calls.append(1)
        go_on.wait(PATIENCE)
        return ["loaded"]

    def work():
        begun.wait(PATIENCE)
        return cache.get_or_set("a", load)

    threading.Timer(0.1, go_on.set).start()
    outcomes = in_threads(work, 8)
    assert outcomes == [["loaded"]] * 8
    assert len(set(map(id, outcomes))) == 8, "each has a value of its own"
    assert calls == [1]


def test_an_error_of_a_load_is_not_kept(make):
    cache, outcomes = make(), iter([Failure("once"), "value"])

    def load():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with pytest.raises(Failure, match="once"):
        cache.get_or_set("a", load)
    assert cache.get_or_set("a", load) == cache.get_or_set("a", load) == "value"


@pytest.mark.parametrize(("change", "kept"), [
    (methodcaller("delete", "a"), None), (methodcaller("clear"), None),
    (methodcaller("delete_many", ["a"]), None),
    (methodcaller("set", "a", "newer"), "newer"), (methodcaller("set_many", {"a": "newer"}), "newer"),
], ids=["delete", "clear", "delete_many", "set", "set_many"])
def test_a_change_during_a_load_wins(make, change, kept):
    cache = make()

    def load():
        change(cache)
        return "older"

    async def load_async():
        return load()

    assert cache.get_or_set("a", load) == (kept or "older")
    assert cache.get("a") == kept
    cache.delete("a")
    assert asyncio.run(cache.aget_or_set("a", load_async)) == (kept or "older")
    assert cache.get("a") == kept


def test_a_load_that_needs_its_own_key(make):
    cache = make()
    assert cache.get_or_set("a", lambda: cache.get_or_set("a", lambda: 1) + 1) == 2
    assert cache.get("a") == 2


async def all_asynchronous_methods(cache):
    await cache.aset("a", [1], timeout=None)
    assert await cache.aget("a") == [1]
    assert await cache.aget("b", "default") == "default"
    assert await cache.aadd("a", 2) is False
    assert await cache.aadd("b", 2, 60) is True
    assert await cache.aget_many(["a", "b", "c"]) == {"a": [1], "b": 2}
    assert await cache.aset_many({"a": 1, "b": 2}, timeout=60) == []
    assert await cache.aincr("a") == 2
    assert await cache.adecr("a", 3) == -1
    assert await cache.ahas_key("a") is True
    assert await cache.atouch("a", 0) is True
    assert await cache.ahas_key("a") is False
    assert await cache.aincr_version("b") == 2
    assert await cache.aget("b", version=2) == 2
    assert await cache.adecr_version("b", version=2) == 1
    assert await cache.adelete("b") is True
    await cache.aset_many({"a": 1, "b": 2, "c": 3})
    await cache.adelete_many(["a", "b"])
    assert await cache.aget_many(["a", "b", "c"]) == {"c": 3}
    assert await cache.aget_or_set("c", 4) == 3
    assert await cache.aget_or_set("d", lambda: 4) == 4
    assert await cache.aget_or_set("e", None) is None
    await cache.aclear()
    assert await cache.aget_many(["c", "d"]) == {}
    await cache.aclose()
    return threading.active_count()


def test_asynchronous_methods_use_no_thread(make):
    before = threading.active_count()
    assert asyncio.run(all_asynchronous_methods(make())) == before


def test_of_tasks_that_load_one_does(make):
    cache, calls = make(), []

    async def load():
        calls.append(1)
        await asyncio.sleep(0.01)
        return ["loaded"]

    async def work():
        return await asyncio.gather(*(cache.aget_or_set("a", load, 60) for _ in range(100)))

    assert asyncio.run(work()) == [["loaded"]] * 100
    assert calls == [1]
    assert cache.get("a") == ["loaded"]


def test_asynchronous_methods_call_those_of_a_subclass(make):
    class Loud(CacheBackend):
        def get(self, key, default=None, version=None):
            return f"{super().get(key, default, version)}!"

    cache = make(kind=Loud)
    cache.set("a", "value")
    assert asyncio.run(cache.aget("a")) == "value!"


def test_threads_have_caches_of_their_own_and_share_a_location():
    caches = CacheHandler({"default": CACHE, "other": CACHE | {"LOCATION": "other"}})
    caches["default"].set("a", 1)
    ((default, other),) = in_threads(lambda: (caches["default"], caches["other"]), 1)
    assert default is not caches["default"]
    assert (default.get("a"), other.get("a")) == (1, None)


@pytest.mark.parametrize(("options", "message"), [
    ({"MAX_ENTRIES": -1}, r"MAX_ENTRIES must be from 0 to 2\*\*31, got -1"),
    ({"MAX_ENTRIES": 10**10}, r"MAX_ENTRIES must be from 0 to 2\*\*31, got 10000000000"),
    ({"MAX_ENTRIES": "many"}, "MAX_ENTRIES must be a number, got 'many'"),
    ({"MAX_ENTRIES": float("inf")}, "MAX_ENTRIES must be a number, got inf"),
    ({"MAX_BYTES": "much"}, 'MAX_BYTES must be a size such as "64 MiB", got \'much\''),
    ({"MAX_BYTES": 1.5}, "MAX_BYTES must be an int"),
    ({"MAX_BYTES": 10, "MAX_ENTRIES": 10}, "either MAX_BYTES or MAX_ENTRIES must be given, got 10 and 10"),
    ({"POLICY": "headgate.MRUCache"}, 'Module "headgate" does not define a "MRUCache"'),
    ({"POLICY": "lru"}, "lru doesn't look like a module path"),
    ({"POLICY": dict}, "POLICY must be a cache class of headgate other than TTLCache, got <class 'dict'>"),
    ({"POLICY": "headgate.TTLCache"}, "POLICY must be a cache class of headgate other than TTLCache, got '"),
    ({"CLOCK": 7}, "clock must be callable or None, got 7"),
    ({"MAX_ENTRY": 7, "server": 1}, "OPTIONS must be of CLOCK, .*, got 'MAX_ENTRY', 'server'"),
])
def test_options_that_are_refused(options, message):
    location = f"refused {next(locations)}"
    with pytest.raises(ImproperlyConfigured, match=message):
        CacheBackend(location, {"OPTIONS": options})
    CacheBackend(location, {"OPTIONS": {"CULL_FREQUENCY": 3}}).set("a", 1)


def test_one_location_has_one_set_of_options():
    location = f"options {next(locations)}"
    CacheBackend(location, {"OPTIONS": {"MAX_ENTRIES": 5}}).set("a", 1)
    with pytest.raises(ImproperlyConfigured, match=f"'{location}' must have the same OPTIONS"):
        CacheBackend(location, {"OPTIONS": {"MAX_ENTRIES": 6}})
    assert CacheBackend(location, {"OPTIONS": {"MAX_ENTRIES": 5}}).get("a") == 1


def test_settings_that_tests_override_begin_with_empty_caches():
    location = f"overridden {next(locations)}"
    CacheBackend(location, {}).set("a", 1)
    setting_changed.send(None, setting="DEBUG", value=True, enter=True)
    assert CacheBackend(location, {}).get("a") == 1
    setting_changed.send(None, setting="CACHES", value={}, enter=True)
    assert CacheBackend(location, {"OPTIONS": {"MAX_ENTRIES": 6}}).get("a") is None


CALLS = {
    "get": lambda key, value: (key, "none"), "set": lambda key, value: (key, value),
    "add": lambda key, value: (key, value), "touch": lambda key, value: (key,),
    "delete": lambda key, value: (key,),
    "incr": lambda key, value: (key, 2), "decr": lambda key, value: (key,),
    "has_key": lambda key, value: (key,),
    "get_or_set": lambda key, value: (key, lambda: value), "incr_version": lambda key, value: (key,),
    "get_many": lambda key, value: ([key, "b"],), "set_many": lambda key, value: ({key: value, "b": 1},),
    "delete_many": lambda key, value: ([key, "b"],),
}
TAKES_TIMEOUT = {"set", "add", "touch", "get_or_set", "set_many"}


def outcome(cache, call, arguments, options):
    try:
        return getattr(cache, call)(*arguments, **options)
    except (TypeError, ValueError) as error:
        return type(error)


def test_it_agrees_with_locmem_on_random_calls(make, clock, monkeypatch, exhaustive):
    """Except that LocMemCache deletes what has expired, and its incr_version begins the timeout again."""
    monkeypatch.setattr("django.core.cache.backends.locmem.time.time", lambda: clock.now / 1e9)
    draw, ours = Random("locmem"), make(TIMEOUT=7)
    theirs = LocMemCache(f"tests {next(locations)}", {"TIMEOUT": 7})
    for _ in range(50_000 if exhaustive else 3_000):
        clock.advance(draw.choice([0, 0, 0.5, 1]))
        call, key = draw.choice(list(CALLS)), draw.choice("abcd")
        value = draw.choice([1, 2.5, "text", [1], None])
        options = {"version": draw.choice([None, 1, 2])}
        if call in TAKES_TIMEOUT and draw.random() < 0.7:
            options["timeout"] = draw.choice([None, 0, -1, 3, 2.5])
        arguments = CALLS[call](key, value)
        theirs.has_key(key, version=options["version"])  # drops what has expired
        assert outcome(ours, call, arguments, options) == outcome(theirs, call, arguments, options)
        if call == "incr_version":
            for cache in (ours, theirs):
                cache.touch(key, 7, version=(options["version"] or 1) + 1)
    assert ours.stats().hits > 400
