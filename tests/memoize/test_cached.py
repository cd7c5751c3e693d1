"""cached: what it remembers, by which key and for how long, of functions, coroutine functions and methods."""

import asyncio
import copy
import gc
import inspect
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import pytest
from evil import EvilKey, Mischief
from watchdog import PATIENCE, in_a_loop, in_threads, until

SECOND = 10**9


class Counting:
    """A function that records its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return [args, kwargs]


class Cache:
    """The least that a cache must have."""

    def __init__(self):
        self.data = {}

    def get(self, key, default):
        return self.data.get(key, default)

    def put(self, key, value):
        self.data[key] = value


def test_results_are_remembered(twin):
    function = Counting()
    load = twin.memoize.cached(maxsize=None)(function)
    calls = [((), {}), (("a",), {}), (("a", 1), {}), ((), {"a": 1}), (("a",), {"b": 2, "c": 3})]
    calls.append((((1, 2),), {}))
    first = [load(*args, **kwargs) for args, kwargs in calls]
    again = [load(*args, **kwargs) for args, kwargs in calls]
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert function.calls == calls
    assert load.cache_info() == (6, 6, None, 6)


def test_all_ways_to_decorate(twin):
    cached = twin.memoize.cached
    for load in (cached(len), cached()(len), cached(None)(len), cached(maxsize=3)(len), cached({})(len)):
        assert load("abc") == load("abc") == 3
        assert load.cache_info()[:2] == (1, 1)
        assert load.__wrapped__ is len


def test_the_least_recently_used_goes_first(twin):
    load = twin.memoize.cached(maxsize=2)(Counting())
    a, b = load("a"), load("b")
    assert load("a") is a
    load("c")
    assert load("a") is a and load("b") is not b
    assert load.cache_info() == (2, 4, 2, 2)


def test_maxsize_zero_remembers_nothing(twin):
    load = twin.memoize.cached(maxsize=0)(Counting())
    assert load(1) is not load(1)
    assert load.cache_info() == (0, 2, 0, 0)


def test_errors_are_not_remembered(twin):
    load = twin.memoize.cached(lambda x: 1 / x)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load(0)
    assert load.cache_info() == (0, 2, 128, 0)


@pytest.mark.parametrize("error", [StopIteration, KeyError, ValueError, LookupError])
def test_errors_arrive_as_they_are(twin, error):
    def function():
        raise error("text")

    with pytest.raises(error, match="text"):
        twin.memoize.cached(function)()


def test_types_tell_calls_apart_if_asked(twin):
    loose, typed = twin.memoize.cached(Counting()), twin.memoize.cached(typed=True)(Counting())
    assert loose(1, 2) is loose(1.0, 2) and typed(1, 2) is not typed(1.0, 2)
    assert typed(1) is not typed(True) and typed(1) is typed(1)


def test_a_key_of_the_users_own(twin):
    load = twin.memoize.cached(key=lambda request, **options: request["id"])(Counting())
    first = load({"id": 7}, verbose=True)
    assert load({"id": 7, "more": []}) is first is not load({"id": 8})
    for odd in (None, (7,), ("7",), 7.5, frozenset()):
        assert load({"id": odd}) is load({"id": odd}) is not first
    assert load.cache_key({"id": 9}) == 9


def test_unhashable_arguments(twin):
    load = twin.memoize.cached(Counting())
    for args in ([[]], [1, {}]):
        with pytest.raises(TypeError, match="unhashable"):
            load(*args)


def test_keys_are_the_same_in_both_twins(both_twins):
    stores = {}, {}
    loads = [twin.memoize.cached(store)(Counting()) for twin, store in zip(both_twins, stores, strict=True)]
    for load in loads:
        load("a"), load(1, 2), load(1, b=2, c=3), load(), load(b="x"), load(1.5)
    keys = [[key for _, key in store] for store in stores]
    assert keys[0] == keys[1] == pickle.loads(pickle.dumps(keys[0]))
    assert [load.cache_key(1, b=2, c=3) for load in loads] == [list(store)[2] for store in stores]


@pytest.mark.parametrize("make", [Cache, dict, lambda: None], ids=["get and put", "dict", "own"])
def test_any_cache_serves(twin, make):
    cache = make()
    load = twin.memoize.cached(cache)(Counting())
    assert load.cache is cache
    assert load(1) is load(1) is not load(2)
    assert load(1, b=2) is load(1, b=2)
    if cache is not None:
        assert cache.get(load.cache_key(1), None) is load(1)


def test_an_lru_cache_of_ours_serves(twin):
    cache = twin.cache.LRUCache(2)
    load = twin.memoize.cached(cache)(Counting())
    load(1), load(2), load(3)
    assert list(cache) == [load.cache_key(2), load.cache_key(3)]
    assert load.cache_info() == (0, 3, 2, 2)
    load.cache_clear()
    assert len(cache) == 0 and load.cache_info() == (0, 0, 2, 0)


def test_a_value_too_large_for_the_cache_is_answered(twin):
    load = twin.memoize.cached(twin.cache.LRUCache(2, getsizeof=len))(lambda text: text)
    assert load("abc") == "abc" == load("abc")
    assert load.cache_info()[:2] == (0, 2)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"cache": 5}, TypeError, r"^cache must have get and put, got 5$"),
    ({"key": 5}, TypeError, r"^key must be callable or None, got 5$"),
    ({"clock": 5}, TypeError, r"^clock must be callable or None, got 5$"),
    ({"executor": 5}, TypeError, r"^executor must have submit, got 5$"),
    ({"maxsize": "5"}, TypeError, r"^maxsize must be an int or None, got '5'$"),
    ({"maxsize": -5}, ValueError, r"^maxsize must be non-negative, got -5$"),
    ({"ttl": 0}, ValueError, r"^ttl must be positive, got 0$"),
    ({"ttl": "1"}, TypeError, r"^ttl must be a number of seconds or None, got '1'$"),
    ({"ttl": float("nan")}, ValueError, r"^ttl must be positive, got nan$"),
    ({"stale": 1}, ValueError, r"^stale needs a ttl, got 1 alone$"),
    ({"ttl": 1, "stale": -1}, ValueError, r"^stale must be positive, got -1$"),
    ({"keep": 5}, TypeError, r"^keep must be callable or None, got 5$"),
    ({"policy": 5}, TypeError, r"^policy must be callable or None, got 5$"),
    ({"on_evict": 5}, TypeError, r"^on_evict must be callable or None, got 5$"),
    ({"tti": 0}, ValueError, r"^tti must be positive, got 0$"),
    ({"jitter": 1}, ValueError, r"^jitter must be in \[0, 1\), got 1$"),
    ({"tags": "ab"}, TypeError, r"^tags must be an iterable of str, got 'ab'$"),
    ({"tags": [1]}, TypeError, r"^tags must be str, got 1$"),
    ({"cache": {}, "maxsize": 5}, ValueError,
     r"^maxsize cannot be set for a cache that is given, got 5 with \{\}$"),
    ({"cache": {}, "maxsize": None}, ValueError,
     r"^maxsize cannot be set for a cache that is given, got None with \{\}$"),
    ({"cache": {}, "maxsize": 128}, ValueError, r"^maxsize cannot be set .* got 128 with \{\}$"),
    ({"cache": {}, "policy": dict}, ValueError, r"^policy cannot be set .* got <class 'dict'> with \{\}$"),
    ({"cache": {}, "tti": 5}, ValueError, r"^tti cannot be set .* got 5 with \{\}$"),
    ({"cache": {}, "jitter": 0.5}, ValueError, r"^jitter cannot be set .* got 0.5 with \{\}$"),
    ({"cache": {}, "on_evict": print}, ValueError, r"^on_evict cannot be set .* with \{\}$"),
    ({"cache": {}, "tags": ["a"]}, TypeError, r"^tags need a cache with put\(tags=\), got \{\}$"),
])
def test_wrong_arguments(twin, arguments, error, message):
    with pytest.raises(error, match=message):
        twin.memoize.cached(**arguments)


def test_wrong_functions(twin):
    async def async_generator():
        yield

    class Generator:
        def __call__(self):
            yield

    for function in (lambda: (yield), async_generator, partial(async_generator), Generator()):
        with pytest.raises(TypeError, match=r"^results of a generator function can be iterated only once"):
            twin.memoize.cached(function)
    for kind in (classmethod, staticmethod):
        with pytest.raises(TypeError, match=rf"^@cached must come below @{kind.__name__}, "):
            twin.memoize.cached(kind(len))
    with pytest.raises(TypeError, match="the first argument must be callable"):
        twin.memoize.cached()(5)


def test_looks_like_the_function(twin):
    def function(a, b: int = 3) -> str:
        """What it does."""

    load = twin.memoize.cached(function)
    assert (load.__name__, load.__doc__, load.__module__) == ("function", "What it does.", __name__)
    assert inspect.signature(load) == inspect.signature(function)
    assert not inspect.iscoroutinefunction(load)
    assert copy.copy(load) is copy.deepcopy(load) is weakref.ref(load)() is load
    assert load.__call__(1) is load(1)


def module_level(x):
    return x


def test_pickles_name_the_function(twin, monkeypatch):
    load = twin.memoize.cached(module_level)
    monkeypatch.setitem(globals(), "module_level", load)
    assert pickle.loads(pickle.dumps(load)) is load


def test_random_calls_against_a_plain_dict(twin):
    draw, expected = Random(1), {}
    load = twin.memoize.cached(maxsize=None)(lambda *args, **kwargs: object())
    values = [0, 1, "a", "b", None, 2.5, ("a",), (1, 2)]
    for _ in range(3000):
        args = tuple(draw.choices(values, k=draw.randrange(3)))
        kwargs = dict.fromkeys(draw.sample("xyz", draw.randrange(3)), draw.choice(values))
        result = load(*args, **kwargs)
        assert expected.setdefault((args, *kwargs.items()), result) is result


def test_evil_keys(twin):
    mischief = Mischief(1)
    load = twin.memoize.cached(maxsize=10)(lambda *args, **kwargs: [args])
    mischief.cache = dict.fromkeys("abc")

    def act(choice):
        load.cache_clear() if choice == 0 else load(EvilKey(mischief), choice)

    mischief.act = act
    for i in range(3000):
        try:
            load(EvilKey(mischief), key=i % 3)
        except ZeroDivisionError:
            pass
    mischief.active = False
    assert load.cache_info().currsize <= 10
    assert load(1) is load(1)


# ---- time -------------------------------------------------------------------------------------------


def test_results_expire(twin, clock):
    load = twin.memoize.cached(ttl=10, clock=clock)(Counting())
    first = load(1)
    clock.advance(9.999)
    assert load(1) is first
    clock.advance(0.001)
    second = load(1)
    assert second is not first
    clock.advance(9)
    assert load(1) is second
    assert load.cache_info() == (2, 2, 128, 1)


def test_a_stale_result_is_answered_while_one_refresh_runs(twin, clock):
    executor = ThreadPoolExecutor(4)
    function = Counting()
    load = twin.memoize.cached(ttl=10, stale=5, clock=clock, executor=executor)(function)
    first = load(1)
    clock.advance(12)
    assert load(1) is first
    until(lambda: load(1) is not first)
    executor.shutdown()
    second = load(1)
    assert len(function.calls) == 2
    clock.advance(15)
    assert load(1) is not second
    assert len(function.calls) == 3


class Later:
    """An executor that runs its jobs when `run` is called."""

    def __init__(self):
        self.jobs = []

    def submit(self, *job):
        self.jobs.append(job)

    def run(self):
        for function, *args in self.jobs:
            function(*args)
        self.jobs.clear()


def test_only_one_refresh_is_submitted(twin, clock):
    later = Later()
    load = twin.memoize.cached(ttl=10, stale=5, clock=clock, executor=later)(Counting())
    first = load(1)
    clock.advance(11)
    assert [load(1) for _ in range(20)] == [first] * 20
    assert len(later.jobs) == 1
    later.run()
    assert load(1) is not first
    assert later.jobs == []
    clock.advance(11)
    load(1)
    assert len(later.jobs) == 1


def test_who_comes_after_the_stale_time_waits_for_a_refresh_that_runs(twin, clock):
    executor, function, gate = ThreadPoolExecutor(1), Counting(), threading.Event()
    inside = threading.Event()

    def refreshed(x):
        if function.calls:
            inside.set()
            assert gate.wait(PATIENCE)
        return function(x)

    load = twin.memoize.cached(ttl=10, stale=5, clock=clock, executor=executor)(refreshed)
    first = load(1)
    clock.advance(11)
    assert load(1) is first
    assert inside.wait(PATIENCE)
    clock.advance(5)
    pool = ThreadPoolExecutor(1)
    waiting = pool.submit(load, 1)
    until(lambda: load.cache_info().misses == 2)
    assert not waiting.done()
    gate.set()
    assert waiting.result(PATIENCE) is load(1) is not first
    assert len(function.calls) == 2
    executor.shutdown()
    pool.shutdown()


def test_a_refresh_that_fails_is_reported_and_tried_again(twin, clock, unraisable):
    later, results = Later(), iter([1, ZeroDivisionError("refresh"), 2])

    def function():
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    load = twin.memoize.cached(ttl=10, stale=5, clock=clock, executor=later)(function)
    assert load() == 1
    clock.advance(11)
    assert load() == 1
    later.run()
    assert [type(error) for error in unraisable] == [ZeroDivisionError]
    assert load() == 1
    later.run()
    assert load() == 2


def test_an_executor_that_is_shut_down(twin, clock):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    load = twin.memoize.cached(ttl=10, stale=5, clock=clock, executor=executor)(Counting())
    first = load(1)
    clock.advance(11)
    assert load(1) is first
    assert load(1) is not first


def test_the_executor_of_our_own(twin, clock):
    load = twin.memoize.cached(ttl=10, stale=5, clock=clock)(Counting())
    first = load(1)
    clock.advance(11)
    assert load(1) is first
    until(lambda: load(1) is not first)


def test_stale_results_in_a_loop(twin, clock):
    calls = []

    @twin.memoize.cached(ttl=10, stale=5, clock=clock)
    async def load(x):
        calls.append(x)
        await asyncio.sleep(0)
        return [x]

    async def main():
        first = await load(1)
        clock.advance(11)
        assert await load(1) is await load(1) is first
        for _ in range(5):
            await asyncio.sleep(0)
        assert await load(1) is not first
        assert calls == [1, 1]

    in_a_loop(main())


# ---- coroutines -------------------------------------------------------------------------------------


def test_coroutine_functions(twin):
    calls = []

    @twin.memoize.cached(maxsize=10)
    async def load(x, *, y=0):
        calls.append(x)
        return [x, y]

    async def main():
        assert await load(1) is await load(1) is not await load(1, y=1)
        assert await load.__wrapped__(1) == [1, 0]

    in_a_loop(main())
    assert load.cache_info() == (1, 2, 10, 2)
    assert inspect.iscoroutinefunction(load)
    pending = load(1)
    assert inspect.iscoroutine(pending)
    pending.close()
    assert copy.copy(load) is load and load.cache is None


def test_results_outlive_the_loop(twin):
    @twin.memoize.cached
    async def load(x):
        return [x]

    assert in_a_loop(load(1)) is in_a_loop(load(1))


def test_callables_with_a_coroutine_function(twin):
    class Loader:
        async def __call__(self, x):
            return [x]

    load = twin.memoize.cached(Loader())
    assert inspect.iscoroutinefunction(load)
    assert in_a_loop(load(1)) is in_a_loop(load(1))


# ---- methods ----------------------------------------------------------------------------------------


def service_of(twin, **options):
    class Service:
        def __init__(self, name="service"):
            self.name = name

        @twin.memoize.cached(**options)
        def load(self, x):
            """Load."""
            return [self, x]

        @twin.memoize.cached(**options)
        async def fetch(self, x):
            return [self, x]

        @staticmethod
        @twin.memoize.cached(**options)
        def static(x):
            return [x]

        @classmethod
        @twin.memoize.cached(**options)
        def of_class(cls, x):
            return [cls, x]

        def __eq__(self, other):
            return True

        __hash__ = None

    return Service


@pytest.mark.parametrize("options", [{}, {"maxsize": None}, {"ttl": 60}], ids=str)
def test_every_instance_remembers_its_own(twin, options):
    Service = service_of(twin, **options)
    one, two = Service(), Service()
    assert one.load(1) is one.load(1) is Service.load(one, 1) is not two.load(1)
    assert one.load(1)[0] is one and two.load(1)[0] is two
    assert one.load.cache_info()[:2] == (3, 1) and two.load.cache_info()[:2] == (1, 1)
    assert one.static(1) is two.static(1) and one.of_class(1) is Service.of_class(1)
    assert one.load.__doc__ == "Load." and one.load.__self__ is one
    assert list(inspect.signature(one.load).parameters) == ["x"]


def test_methods_that_are_coroutine_functions(twin):
    Service = service_of(twin)
    one, two = Service(), Service()

    async def main():
        assert await one.fetch(1) is await one.fetch(1) is await Service.fetch(one, 1)
        assert await one.fetch(1) is not await two.fetch(1)

    in_a_loop(main())
    assert inspect.iscoroutinefunction(one.fetch) and inspect.iscoroutinefunction(Service.fetch)
    assert one.fetch.cache_info()[:2] == (3, 1)


def test_clearing_one_instance_or_all(twin):
    Service = service_of(twin)
    one, two = Service(), Service()
    first = one.load(1), two.load(1)
    one.load.cache_clear()
    assert one.load(1) is not first[0] and two.load(1) is first[1]
    Service.load.cache_clear()
    assert two.load(1) is not first[1]


def test_an_instance_goes_without_the_collector(twin):
    class Service:
        @twin.memoize.cached
        def load(self, x):
            return [x]

    service = Service()
    service.load(1)
    seen = weakref.ref(service)
    gc.disable()
    try:
        del service
        assert seen() is None
    finally:
        gc.enable()


def test_a_bound_method_keeps_its_instance(twin):
    load = service_of(twin)().load
    gc.collect()
    assert load(1) is load(1)


def test_copies_and_pickles_of_an_instance_remember_nothing(twin, monkeypatch):
    Service = service_of(twin)
    Service.__qualname__ = "Service"
    monkeypatch.setitem(globals(), "Service", Service)
    one = Service("one")
    first = one.load(1)
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert other.name == "one"
        assert other.load(1) is not first and other.load(1)[0] is other
    assert one.load(1) is first


def test_inheritance(twin):
    Service = service_of(twin)

    class Special(Service):
        @twin.memoize.cached
        def load(self, x):
            return ["special", super().load(x)]

    special = Special()
    assert special.load(1) is special.load(1)
    assert special.load(1)[1] is super(Special, special).load(1)


def test_a_cache_that_instances_share(twin):
    cache = {}
    Service = service_of(twin, cache=cache)
    one, two = Service(), Service()
    assert one.load(1) is one.load(1) is not two.load(1)
    assert len(cache) == 2


def test_a_method_that_was_assigned_later(twin):
    class Service:
        pass

    Service.load = twin.memoize.cached(lambda self, x: [self, x])
    one, two = Service(), Service()
    assert one.load(1) is one.load(1) is not two.load(1)


@pytest.mark.parametrize("of", [lambda service: service, copy.copy, copy.deepcopy],
                         ids=["new", "copy", "deep copy"])
def test_two_first_accesses_share_one_memory(twin, of):
    """Of two threads, the second binds between the lookup and the insertion of the first."""
    class Function:
        meanwhile = None

        def __call__(self, service):
            return [service]

        def __getattr__(self, name):
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile:
                results.append(meanwhile())
            raise AttributeError(name)

    function, results = Function(), []
    Service = type("Service", (), {"load": twin.memoize.cached(function)})
    one = Service()
    if of(one) is not one:
        one.load()
    service = of(one)
    function.meanwhile = lambda: service.load()
    results.append(service.load())
    assert len(results) == 2 and results[0] is results[1] is service.load()
    assert results[0] == [service]


def test_threads_on_one_new_instance(twin):
    Service = service_of(twin)
    for _ in range(20):
        one = Service()
        results = in_threads(lambda service: service.load(1), 8, one)
        assert all(result is results[0] for result in results)
