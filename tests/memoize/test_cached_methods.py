"""cached methods: each decorated function remembers by instance, and leaves the instances as they are."""

import asyncio
import copy
import gc
import json
import pickle
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import pytest
from twins import CLASSES_ARE_COLLECTED
from watchdog import in_a_loop, in_threads

# ---- every decorated function is its own ------------------------------------------------------------


def test_methods_made_by_a_factory(twin):
    def times(n):
        @twin.memoize.cached
        def method(self, x):
            return n * x

        return method

    class Sums:
        double, triple = times(2), times(3)

    sums = Sums()
    assert (sums.double(10), sums.triple(10), sums.double(10)) == (20, 30, 20)


def test_lambdas_of_one_class(twin):
    class Letters:
        a = twin.memoize.cached(lambda self: "a")
        b = twin.memoize.cached(lambda self: "b")

    letters = Letters()
    assert (letters.a(), letters.b()) == ("a", "b")


def test_one_function_decorated_twice(twin, clock):
    class Service:
        def load(self):
            return []

        short, forever = twin.memoize.cached(ttl=1, clock=clock)(load), twin.memoize.cached(load)

    service = Service()
    short, forever = service.short(), service.forever()
    clock.advance(1)
    assert service.short() is not short is not forever is service.forever()


@pytest.mark.parametrize("options", [{}, {"cache": {}}], ids=["own", "given"])
def test_an_override_in_a_class_of_the_same_name(twin, options):
    class Client:
        @twin.memoize.cached(**options)
        def get(self, x):
            return [x]

    base = Client

    class Client(base):
        @twin.memoize.cached(**options)
        def get(self, x):
            return ["special", super().get(x)]

    client = Client()
    assert client.get(1) is client.get(1) == ["special", [1]]


def test_an_override_of_a_coroutine_function(twin):
    class Client:
        @twin.memoize.cached
        async def get(self, x):
            return [x]

    base = Client

    class Client(base):
        @twin.memoize.cached
        async def get(self, x):
            return ["special", await super().get(x)]

    async def main():
        client = Client()
        assert await client.get(1) is await client.get(1) == ["special", [1]]

    in_a_loop(main())


# ---- instances stay as they are ---------------------------------------------------------------------


class Point:
    def __init__(self):
        self.x = 1


def test_instances_stay_clean(twin, monkeypatch):
    async def fetch(self):
        return self.x

    monkeypatch.setattr(Point, "load", twin.memoize.cached(lambda self: [self.x]), raising=False)
    monkeypatch.setattr(Point, "fetch", twin.memoize.cached(fetch), raising=False)
    point, other = Point(), Point()
    first = point.load(), asyncio.run(point.fetch())
    assert vars(point) == vars(other) == {"x": 1}
    assert json.dumps(vars(point)) == '{"x": 1}'
    for twin_of_it in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert twin_of_it.load.cache_info().currsize == 0
        assert twin_of_it.load() is not first[0]
    assert point.load() is first[0]


class Row(NamedTuple):
    x: int


@dataclass(frozen=True, slots=True)
class Frozen:
    x: int


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class SlottedWithReferences(Slotted):
    __slots__ = ("__weakref__",)


@pytest.fixture(params=[Row, Frozen, Slotted, SlottedWithReferences], ids=lambda cls: cls.__name__)
def slim(request):
    """A class whose instances have no ``__dict__``."""
    return type("Slim", (request.param,), {"__slots__": ()})


def test_instances_without_a_dict(twin, slim):
    slim.load = twin.memoize.cached(lambda self, y: [self.x, y])
    one, two = slim(1), slim(1)
    assert one.load(2) is one.load(2) is slim.load.__get__(one)(2) is not two.load(2)
    assert one.load.cache_info() == (2, 1, 128, 1) and two.load.cache_info() == (0, 1, 128, 1)
    one.load.cache_clear()
    assert one.load.cache_info().currsize == 0 and two.load.cache_info().currsize == 1
    slim.load.cache_clear()
    assert two.load.cache_info().currsize == 0


def test_instances_without_weak_references_are_held_up_to_a_bound(twin):
    Slotted.load = twin.memoize.cached(maxsize=2)(lambda self: [self.x])
    many = [Slotted(x) for x in range(3)]
    first = [many[0].load(), many[1].load()]
    assert many[0].load() is first[0]
    many[2].load()  # now the second is the least recently used
    assert many[0].load() is first[0] and many[1].load() is not first[1]
    del Slotted.load


@pytest.mark.parametrize("maxsize", [0, None])
def test_bounds_of_what_is_held(twin, maxsize):
    Slotted.load = twin.memoize.cached(maxsize=maxsize)(lambda self: [self.x])
    many = [Slotted(x) for x in range(200)]
    first = [one.load() for one in many]
    again = [one.load() for one in many]
    assert all((a is b) == (maxsize is None) for a, b in zip(first, again, strict=True))
    del Slotted.load


def test_eq_and_hash_of_instances_are_left_alone(twin):
    class Proud:
        def __eq__(self, other):
            raise AssertionError("compared")

        __hash__ = None

        @twin.memoize.cached
        def load(self, x):
            return [x]

        @twin.memoize.cached(cache={})
        def load_elsewhere(self, x):
            return [x]

    class ProudAndSlim(Proud):
        __slots__ = ()

    for one, two in ((Proud(), Proud()), (ProudAndSlim(), ProudAndSlim())):
        assert one.load(1) is one.load(1) is Proud.load(one, 1) is not two.load(1)
        assert one.load_elsewhere(1) is one.load_elsewhere(1) is not two.load_elsewhere(1)


# ---- what holds what alive --------------------------------------------------------------------------


def test_results_go_with_the_instance(twin):
    class Result:
        pass

    class Service:
        @twin.memoize.cached
        def load(self):
            return Result()

        @twin.memoize.cached(ttl=60, stale=60)
        def aged(self):
            return Result()

        @twin.memoize.cached
        async def fetch(self):
            return Result()

    gc.collect()
    gc.disable()
    try:
        service = Service()
        results = service.load(), service.aged(), asyncio.run(service.fetch())
        results = [weakref.ref(result) for result in results]
        service.load.cache_info(), service.load.cache_contains(), service.load.cache_key()
        assert all(result() is not None for result in results)
        del service
        assert all(result() is None for result in results)
    finally:
        gc.enable()


def test_a_result_that_refers_to_its_instance_keeps_it_until_it_is_forgotten(twin):
    class Service:
        @twin.memoize.cached
        def load(self):
            return [self]

    service = Service()
    seen, _ = weakref.ref(service), service.load()
    del service, _
    gc.collect()
    assert seen() is not None
    Service.load.cache_clear()
    gc.collect()
    assert seen() is None


def test_addresses_are_used_again(twin):
    class Service:
        @twin.memoize.cached
        def load(self):
            return [id(self)]

    for _ in range(500):
        service = Service()
        assert service.load.cache_info() == (0, 0, 128, 0)
        assert service.load() is service.load()


def test_an_instance_that_comes_back_to_life(twin):
    kept = []

    class Phoenix:
        @twin.memoize.cached
        def load(self):
            return [id(self)]

        def __del__(self):
            self.load()
            kept.append(self)

    phoenix = Phoenix()
    phoenix.cycle = phoenix
    phoenix.load()
    del phoenix
    gc.collect()
    (phoenix,) = kept
    assert phoenix.load() is phoenix.load() and phoenix.load() == [id(phoenix)]
    Phoenix.__del__ = lambda self: None


@CLASSES_ARE_COLLECTED
def test_a_class_and_its_instances_are_collected_together(twin):
    def make():
        class Service:
            @twin.memoize.cached
            def load(self):
                return [self]

        service = Service()
        service.load()
        service.itself = service
        return weakref.ref(service)

    services = [make() for _ in range(5)]
    gc.collect()
    assert [service() for service in services] == [None] * 5


def test_threads_on_instances_that_come_and_go(twin):
    class Service:
        def __init__(self, x):
            self.x = x

        @twin.memoize.cached
        def load(self):
            return [self.x]

    def body(x):
        for _ in range(300):
            service = Service(x)
            assert service.load() == [x] and service.load() is service.load()
        return True

    assert in_threads(body, 6, 7) == [True] * 6


# ---- other kinds of methods -------------------------------------------------------------------------


def test_methods_of_a_metaclass(twin):
    class Meta(type):
        @twin.memoize.cached
        def load(cls, x):
            return [cls, x]

    class One(metaclass=Meta):
        pass

    class Two(metaclass=Meta):
        pass

    assert One.load(1) is One.load(1) is Meta.load(One, 1) is not Two.load(1)
    assert One.load(1)[0] is One and One.load.cache_info() == (3, 1, 128, 1)


def test_class_methods_and_static_methods(twin):
    class Service:
        @classmethod
        @twin.memoize.cached
        def of_class(cls, x):
            return [cls, x]

        @classmethod
        @twin.memoize.cached
        async def fetch(cls, x):
            return [cls, x]

        @staticmethod
        @twin.memoize.cached
        def of_none(x):
            return [x]

    class Special(Service):
        pass

    assert Service.of_class(1) is Service().of_class(1) is not Special.of_class(1) is Special.of_class(1)
    assert Special.of_class(1)[0] is Special
    assert Service.of_none(1) is Special().of_none(1)
    assert in_a_loop(Service.fetch(1)) is in_a_loop(Service.fetch(1))


@pytest.mark.parametrize("options", [{}, {"ttl": 60}, {"cache": {}}, {"key": str}, {"tti": 60}], ids=str)
def test_stand_ins_in_a_dead_cycle_that_a_finalizer_calls(twin, options):
    """An untracked object's ``__del__`` runs while the collector clears them."""
    met = []

    def build():
        load = twin.memoize.cached(**options)(lambda *args: [args])

        class Service:
            @twin.memoize.cached(**options)
            def load(self, x):
                return [x]

        service = Service()
        for i in range(10):
            load(i), service.load(i)
        cycle = []

        class Untracked:
            __slots__ = ()
            calls = (
                lambda: load("late"), lambda: load("late", 2), lambda: load(0), load.cache_clear,
                load.cache_info,
                lambda: load.cache_contains(1), lambda: load.cache_invalidate(2), lambda: load.cache,
                lambda: service.load("late"), lambda: Service.load(service, 1), service.load.cache_clear,
            )

            def __del__(self):
                for call in self.calls:
                    try:
                        met.append(call())
                    except Exception as error:
                        met.append(error)

        cycle += cycle, Untracked()

    gc.collect()
    build()
    gc.collect()
    assert len(met) == 11
