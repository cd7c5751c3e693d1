"""cached: one call forgotten or looked for; the options of its own cache; what is kept; odd callables."""

import asyncio
import functools
import inspect
import threading
from random import Random

import pytest
from watchdog import PATIENCE, in_a_loop

from headgate.memoize._results import _Results


def letters(*names):
    return [name.upper() for name in names]


OPTIONS = "own", "typed", "aged", "stale", "policy", "dict", "dict aged", "key", "key elsewhere"


@pytest.fixture(params=OPTIONS)
def options(request, twin, clock):
    return {
        "own": {},
        "typed": {"typed": True},
        "aged": {"ttl": 10, "clock": clock},
        "stale": {"ttl": 5, "stale": 5, "clock": clock},
        "policy": {"policy": twin.cache.SieveCache},
        "dict": {"cache": {}},
        "dict aged": {"cache": {}, "ttl": 5, "stale": 5, "clock": clock},
        "key": {"key": lambda *names, **more: [*names, *more.items()].__repr__().encode()},
        "key elsewhere": {"cache": {}, "key": lambda *names, **more: (names, *more.items())},
    }[request.param]


# ---- one call ---------------------------------------------------------------------------------------


def test_one_call_is_forgotten(twin, options):
    load = twin.memoize.cached(**options)(lambda *args, **kwargs: [args, kwargs])
    calls = [((), {}), (("a",), {}), ((1,), {}), (("a", 2), {}), (("a",), {"b": 2}), ((2.5,), {})]
    first = [load(*args, **kwargs) for args, kwargs in calls]
    info = load.cache_info()
    for args, kwargs in calls:
        assert load.cache_contains(*args, **kwargs) is True
        assert load.cache_invalidate(*args, **kwargs) is True
        assert load.cache_contains(*args, **kwargs) is load.cache_invalidate(*args, **kwargs) is False
    assert load.cache_info() == info._replace(currsize=0)
    assert all(load(*args, **kwargs) is not old for (args, kwargs), old in zip(calls, first, strict=True))


def test_other_calls_stay(twin, options):
    load = twin.memoize.cached(**options)(letters)
    first = {name: load(name) for name in "abcdef"}
    load.cache_invalidate("c"), load.cache_invalidate("f")
    assert [name for name in "abcdef" if load(name) is first[name]] == list("abde")


def test_what_has_expired_is_not_there(twin, clock):
    for cache in (None, {}, twin.cache.LRUCache(5, clock=clock)):
        load = twin.memoize.cached(cache, ttl=5, stale=5, clock=clock)(letters)
        load("a")
        clock.advance(7)
        assert load.cache_contains("a")
        clock.advance(3)
        assert not load.cache_contains("a") and not load.cache_invalidate("a")


def test_one_call_of_a_method(twin, options):
    class Service:
        @twin.memoize.cached(**options)
        def load(self, x):
            return [x]

        @twin.memoize.cached(**options)
        async def fetch(self, x):
            return [x]

    one, two = Service(), Service()
    first = one.load(1), two.load(1), in_a_loop(one.fetch(1))
    assert one.load.cache_contains(1) and not one.load.cache_contains(2)
    assert one.load.cache_invalidate(1) and Service.load.cache_contains(two, 1)
    assert Service.load.cache_key(two, 1) == two.load.cache_key(1)
    assert one.load(1) is not first[0] and two.load(1) is first[1]
    assert Service.load.cache_invalidate(two, 1) and not two.load.cache_contains(1)
    assert one.fetch.cache_contains(1) is one.fetch.cache_invalidate(1) is True
    assert one.fetch.cache_contains(1) is Service.fetch.cache_contains(one, 1) is False
    assert in_a_loop(one.fetch(1)) is not first[2]


def test_arguments_that_are_no_key(twin):
    load = twin.memoize.cached(letters)
    for method in (load.cache_contains, load.cache_invalidate):
        with pytest.raises(TypeError, match="unhashable"):
            method([])


def test_what_is_being_loaded_is_not_kept_when_it_is_forgotten(twin, options):
    inside, go_on, versions = threading.Event(), threading.Event(), iter(["old", "new", "newer"])

    @twin.memoize.cached(**options)
    def load(x):
        version = next(versions)
        if version == "old":
            inside.set()
            assert go_on.wait(PATIENCE)
        return version

    results = []
    early = threading.Thread(target=lambda: results.append(load("a")), daemon=True)
    early.start()
    assert inside.wait(PATIENCE)
    assert load.cache_invalidate("a") is False
    assert load("a") == "new"
    go_on.set()
    early.join(PATIENCE)
    assert results == ["old"] and load("a") in ("new", "newer")


def test_what_is_being_loaded_in_a_loop_is_not_kept_when_it_is_forgotten(twin, options):
    versions = iter(["old", "new"])

    @twin.memoize.cached(**options)
    async def load(x):
        version = next(versions)
        await asyncio.sleep(0)
        return version

    async def main():
        early = asyncio.ensure_future(load("a"))
        await asyncio.sleep(0)
        assert load.cache_invalidate("a") is False
        assert await early == "old"
        assert await load("a") == "new"

    in_a_loop(main())


def test_random_calls_and_removals_against_a_dict(twin):
    draw, model = Random(3), {}
    load = twin.memoize.cached(maxsize=8)(lambda *args: object())
    for _ in range(4000):
        args = tuple(draw.choices(range(4), k=draw.randrange(3)))
        if draw.random() < 0.3:
            assert load.cache_invalidate(*args) == (model.pop(args, None) is not None)
        elif args in model:
            assert load(*args) is model[args]
            model[args] = model.pop(args)
        else:
            model[args] = load(*args)
            if len(model) > 8:
                del model[next(iter(model))]
        assert load.cache_info().currsize == len(model)
        assert [load.cache_contains(*args) for args in model] == [True] * len(model)


# ---- the options of its own cache -------------------------------------------------------------------


def test_a_policy(twin):
    load = twin.memoize.cached(policy=twin.cache.FIFOCache, maxsize=2)(letters)
    load("a"), load("b"), load("a"), load("c")
    assert type(load.cache) is twin.cache.FIFOCache and list(load.cache) == ["b", "c"]
    assert load.cache_info() == (1, 3, 2, 2)
    load.cache_clear()
    assert load.cache_info() == (0, 0, 2, 0)


def test_a_policy_without_a_bound(twin):
    load = twin.memoize.cached(policy=twin.cache.SieveCache, maxsize=None)(letters)
    assert load("a") is load("a") and load.cache_info() == (1, 1, None, 1)


def test_lifetimes_of_a_policy(twin, clock):
    load = twin.memoize.cached(policy=twin.cache.SieveCache, ttl=10, stale=5, clock=clock)(letters)
    first = load("a")
    clock.advance(9)
    assert load("a") is first
    clock.advance(6)
    assert len(load.cache.expire()) == 1 and load("a") is not first


def test_results_that_nobody_asks_for_expire(twin, clock):
    load = twin.memoize.cached(tti=10, clock=clock)(letters)
    first = load("a")
    for _ in range(5):
        clock.advance(9)
        assert load("a") is first
    clock.advance(10)
    assert load("a") is not first


@pytest.mark.parametrize("stale", [None, 1e-9])
def test_lifetimes_are_spread(twin, clock, stale):
    load = twin.memoize.cached(maxsize=None, ttl=10, jitter=0.5, stale=stale, clock=clock)(letters)
    names = [f"{i}" for i in range(200)]
    first = [load(name) for name in names]
    clock.advance(7.5)
    reloaded = sum(load(name) is not old for name, old in zip(names, first, strict=True))
    if stale is None:
        assert 50 < reloaded < 150


def test_refreshes_are_spread(twin, clock):
    jobs = []

    class Later:
        def submit(self, function, *args):
            jobs.append(function)

    load = twin.memoize.cached(
        maxsize=None, ttl=10, jitter=0.5, stale=100, clock=clock, executor=Later()
    )(letters)
    for name in range(200):
        load(f"{name}")
    clock.advance(7.5)
    for name in range(200):
        load(f"{name}")
    assert 50 < len(jobs) < 150


def test_evictions_are_reported(twin, clock):
    gone = []
    load = twin.memoize.cached(
        maxsize=1, ttl=10, stale=5, clock=clock, on_evict=lambda *what: gone.append(what)
    )(letters)
    load("a"), load("b")
    assert gone == [("a", ["A"], "size")]


def test_tags(twin):
    load = twin.memoize.cached(tags=["letters"])(letters)
    pages = twin.memoize.cached(tags=lambda user, page: [f"user:{user}"])(lambda user, page: [user, page])
    load("a"), pages(1, "x"), pages(1, "y"), pages(2, "x")
    assert load.cache.invalidate(tag="letters") == 1
    assert pages.cache.invalidate(tag="user:1") == 2
    assert pages.cache_contains(2, "x") and not pages.cache_contains(1, "x")


def test_tags_of_methods_in_a_cache_that_is_given(twin):
    cache = twin.cache.LRUCache(10)

    class Service:
        @twin.memoize.cached(cache, tags=lambda user: [f"user:{user}"], ttl=60, stale=60)
        def load(self, user):
            return [user]

        @twin.memoize.cached(cache, tags=lambda user: [f"user:{user}"])
        async def fetch(self, user):
            return [user]

    service = Service()
    service.load(1), service.load(2), in_a_loop(service.fetch(1))
    assert cache.invalidate(tag="user:1") == 2 and len(cache) == 1


def test_every_instance_has_a_cache_of_its_own(twin):
    class Service:
        @twin.memoize.cached(policy=twin.cache.LFUCache, maxsize=3)
        def load(self, x):
            return [x]

    one, two = Service(), Service()
    one.load(1)
    assert one.load.cache is not two.load.cache
    assert list(one.load.cache) == [1] and list(two.load.cache) == []


# ---- what is kept -----------------------------------------------------------------------------------


def test_what_keep_refuses_is_returned_and_not_remembered(twin, options):
    load = twin.memoize.cached(keep=lambda result: result[0] != "NONE", **options)(letters)
    assert load("none") == load("none") == ["NONE"] and not load.cache_contains("none")
    assert load("a") is load("a")


def test_keep_of_coroutine_functions(twin, options):
    @twin.memoize.cached(keep=bool, **options)
    async def load(x):
        return x and [x]

    async def main():
        assert await load(0) == 0 and not load.cache_contains(0)
        assert await load(1) is await load(1)

    in_a_loop(main())


@pytest.mark.parametrize("option", ["keep", "tags"])
def test_errors_of_callables_reach_the_caller(twin, option):
    def fail(*args):
        raise ValueError("from below")

    load = twin.memoize.cached(**{option: fail})(letters)
    for _ in range(2):
        with pytest.raises(ValueError, match="from below"):
            load("a")
    assert not load.cache_contains("a")


def test_all_who_wait_get_what_is_not_kept(twin):
    @twin.memoize.cached(keep=lambda result: False)
    async def load(x):
        await asyncio.sleep(0)
        return [x]

    async def main():
        results = await asyncio.gather(*(load(1) for _ in range(10)))
        assert all(result is results[0] for result in results)

    in_a_loop(main())


# ---- odd callables ----------------------------------------------------------------------------------


async def fetch(x, y=0):
    return [x, y]


class Loader:
    def __init__(self):
        self.cache_key = "an attribute of its own"

    def __call__(self, x):
        return [x]

    def get(self, key):
        """A callable may have the method of a cache."""


class AsyncLoader:
    async def __call__(self, x):
        return [x]

    async def method(self, x):
        return [x]


@pytest.mark.parametrize("function", [
    functools.partial(fetch, y=1), functools.partial(functools.partial(fetch), y=1),
    functools.partial(AsyncLoader()), AsyncLoader(), AsyncLoader().method,
    functools.partial(AsyncLoader().method),
], ids=["partial", "partial of partial", "partial of object", "object", "method", "partial of method"])
def test_coroutine_functions_in_disguise(twin, function):
    load = twin.memoize.cached(function)
    assert inspect.iscoroutinefunction(load)
    assert in_a_loop(load(1)) is in_a_loop(load(1)) == in_a_loop(function(1))
    assert inspect.signature(load) == inspect.signature(function)


def test_callable_objects(twin):
    load = twin.memoize.cached(Loader())
    assert load(1) is load(1) and load.cache_key(1) == 1


def test_a_class_is_a_function(twin):
    load = twin.memoize.cached(twin.cache.LRUCache)
    assert load(3) is load(3) and load(3).maxsize == 3


def new_results(twin, maxsize):
    return twin.memoize._new_results(maxsize) if twin.name == "compiled" else _Results(maxsize)


@pytest.mark.parametrize("maxsize", [1, 2, 7, 40, None])
def test_removals_leave_the_store_whole(twin, maxsize):
    draw, results, model = Random(4), new_results(twin, maxsize), {}
    for i in range(1500):
        key = draw.choice(["a", 1, ("a",), (), (1, 2), *range(20), *((n,) for n in range(20))])
        act = draw.randrange(4)
        if act == 0:
            assert results.pop(key, None) == model.pop(key, None)
        elif act == 1:
            assert results.get(key, None) == model.get(key)
            if key in model and maxsize is not None:
                model[key] = model.pop(key)
        else:
            assert results.setdefault(key, i) == model.get(key, i)
            model[key] = model.pop(key, i) if maxsize is not None else model.get(key, i)
            if len(model) == (maxsize or 1000) + 1:
                del model[next(iter(model))]
        assert sorted(results.values()) == sorted(model.values())
        results._check()


# ---- recursion --------------------------------------------------------------------------------------


@pytest.fixture(params=["own", "aged", "policy", "dict", "key"])
def decorate(request, twin):
    options = {
        "own": {"maxsize": None},
        "aged": {"maxsize": None, "ttl": 60},
        "policy": {"policy": twin.cache.FIFOCache, "maxsize": None},
        "dict": {"cache": {}},
        "key": {"key": lambda n: n},
    }
    return twin.memoize.cached(**options[request.param])


def test_recursion_goes_as_deep_as_with_functools(twin, decorate):
    """The pure twin has a frame of its own for every call, where functools has none."""
    def deepest(decorate):
        reached = 0

        @decorate
        def descend(n):
            nonlocal reached
            reached = n
            return descend(n + 1)

        with pytest.raises(RecursionError):
            descend(0)
        return reached

    share = 0.95 if twin.name == "compiled" else 0.45
    assert deepest(decorate) >= share * deepest(functools.lru_cache(maxsize=None))


def test_recursion_of_methods(twin):
    class Sums:
        @twin.memoize.cached(maxsize=None)
        def up_to(self, n):
            return n + self.up_to(n - 1) if n else 0

    assert Sums().up_to(200) == 200 * 201 // 2
