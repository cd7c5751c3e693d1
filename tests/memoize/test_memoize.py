"""lru_cache to the contract of functools, beside which it is tested call by call."""

import copy
import functools
import inspect
import pickle
import sys
import weakref
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import twin_names


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


NAN = float("nan")
ARGUMENTS = st.sampled_from([
    0, 1, 2, -1, -2, True, False, 1.0, -1.0, 2.5, NAN, None, "a", "b", "ab", b"a", "1", "ä", "€", 2**61 - 1,
    2**61, 2**70, 2**70 + 1, Text("a"), Whole(1), (), (1,), ("a",), (1, 2), ((1,),), frozenset([1]),
    type, int, str,
])
KEYWORDS = st.dictionaries(st.sampled_from("xyz"), ARGUMENTS, max_size=3)
CALLS = st.tuples(st.lists(ARGUMENTS, max_size=3), KEYWORDS)
STEPS = st.lists(st.one_of(CALLS, st.just("clear")), max_size=60)
SIZES = st.sampled_from([None, -3, 0, 1, 2, 3, 8, 20])


@pytest.mark.parametrize("name", twin_names())
@given(steps=STEPS, maxsize=SIZES, typed=st.booleans())
def test_each_call_hits_and_misses_as_with_functools(name, steps, maxsize, typed):
    makers = import_module(f"headgate.memoize._{name}").lru_cache, functools.lru_cache
    ours, theirs = (make(maxsize, typed)(lambda *args, **kwargs: [args, kwargs]) for make in makers)
    for step in steps:
        if step == "clear":
            ours.cache_clear(), theirs.cache_clear()
        else:
            args, kwargs = step
            results = ours(*args, **kwargs), theirs(*args, **kwargs)
            assert repr(results[0]) == repr(results[1])
        assert ours.cache_info() == theirs.cache_info()
        ours._check()


@pytest.mark.parametrize("maxsize", [None, 1, 7, 100])
def test_results_are_remembered_by_identity(twin, maxsize):
    memoized = twin.memoize.lru_cache(maxsize)(lambda *args, **kwargs: object())
    assert memoized("a") is memoized("a") is not memoized("b")
    assert memoized(1, 2) is memoized(1, 2) is not memoized((1, 2))
    assert memoized(1, b=2) is memoized(1, b=2) is not memoized(1, ("b",), 2)
    nothing = {}
    assert memoized() is memoized() is memoized(**nothing)


def test_growth_keeps_every_entry(twin):
    memoized = twin.memoize.lru_cache(None)(lambda *args: object())
    results = [(memoized(i), memoized(str(i)), memoized(i, i)) for i in range(2000)]
    memoized._check()
    assert results == [(memoized(i), memoized(str(i)), memoized(i, i)) for i in range(2000)]
    assert memoized.cache_info() == (6000, 6000, None, 6000)


def test_all_ways_to_decorate(twin):
    lru_cache = twin.memoize.lru_cache
    parameters = [decorated.cache_parameters() for decorated in (
        lru_cache(len), lru_cache(len, True), lru_cache(len, typed=True), lru_cache()(len), lru_cache(3)(len),
        lru_cache(None)(len), lru_cache(maxsize=0, typed=True)(len), lru_cache(-5)(len), lru_cache(True)(len),
    )]
    assert [(p["maxsize"], p["typed"]) for p in parameters] == [
        (128, False), (128, True), (128, True), (128, False), (3, False),
        (None, False), (0, True), (0, False), (1, False),
    ]


@pytest.mark.parametrize("wrong", ["128", 1.0, [], (3,)])
def test_wrong_maxsize(twin, wrong):
    with pytest.raises(TypeError, match=r"^Expected first argument to be an integer, a callable, or None$"):
        twin.memoize.lru_cache(wrong)


def test_a_callable_needs_a_bool_beside_it(twin):
    with pytest.raises(TypeError, match="Expected first argument"):
        twin.memoize.lru_cache(len, 1)


def test_wrong_function(twin):
    with pytest.raises(TypeError, match=r"^the first argument must be callable$"):
        twin.memoize.lru_cache()(5)


def test_maxsize_beyond_an_index(twin):
    with pytest.raises(OverflowError, match=r"^cannot fit 'int' into an index-sized integer$"):
        twin.memoize.lru_cache(2**64)(len)
    assert twin.memoize.lru_cache(-(2**64))(len).cache_info().maxsize == 0
    assert twin.memoize.lru_cache(sys.maxsize)(len).cache_info().maxsize == sys.maxsize


def test_unhashable_arguments(twin):
    memoized = twin.memoize.lru_cache(lambda *args, **kwargs: 1)
    for args, kwargs in [(([],), {}), ((1, {}), {}), ((), {"a": []})]:
        with pytest.raises(TypeError, match=r"^unhashable type: "):
            memoized(*args, **kwargs)
    assert memoized.cache_info() == (0, 0, 128, 0)
    assert twin.memoize.lru_cache(0)(len)([1, 2]) == 2


def test_errors_are_not_remembered(twin):
    memoized = twin.memoize.lru_cache(lambda x: 1 / x)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            memoized(0)
        assert caught.value.__context__ is None
    assert memoized.cache_info() == (0, 2, 128, 0)


def test_wrong_arguments_fail_as_without_it(twin):
    memoized = twin.memoize.lru_cache(lambda x: x)
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        memoized()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        memoized(1, y=1)


def test_looks_like_the_function(twin):
    def function(a, b: int = 3, *, c) -> str:
        """What it does."""

    function.mark = "kept"
    memoized = twin.memoize.lru_cache(function)
    assert memoized.__wrapped__ is function
    assert memoized.__doc__ == "What it does." and memoized.__module__ == __name__
    for name in functools.WRAPPER_ASSIGNMENTS:  # __annotate__ is one in place of __annotations__ from 3.14 on
        assert getattr(memoized, name) == getattr(function, name)
    assert memoized.mark == "kept"
    assert inspect.signature(memoized) == inspect.signature(function)
    memoized.other = 1
    assert memoized.other == 1
    assert callable(memoized) and memoized.__call__(1, c=2) is None


class Counter:
    """Has a memoized method of either twin, made by `methods`."""

    def __init__(self, step):
        self.step = step

    def add(self, number):
        return self.step + number

    @classmethod
    def named(cls, number):
        return cls.__name__, number


def test_methods(twin):
    class Memoized(Counter):
        add = twin.memoize.lru_cache(Counter.add)
        named = classmethod(twin.memoize.lru_cache(Counter.named.__func__))
        static = staticmethod(twin.memoize.lru_cache(abs))

    one, two = Memoized(1), Memoized(2)
    assert [one.add(5), two.add(5), one.add(number=5), Memoized.add(one, 5)] == [6, 7, 6, 6]
    assert one.add.__self__ is one and one.add.cache_info() == (1, 3, 128, 3)
    assert Memoized.add.__get__(one)(5) == 6
    assert Memoized.add.__get__(None, Memoized) is Memoized.add
    assert one.named(1) == Memoized.named(1) == ("Memoized", 1)
    assert one.static(-3) == Memoized.static(-3) == 3


def test_clear_forgets_results_and_counts(twin):
    memoized = twin.memoize.lru_cache(lambda x: [x])
    first = memoized(1), memoized(1)
    memoized.cache_clear()
    assert memoized.cache_info() == (0, 0, 128, 0)
    assert memoized(1) is not first[0] is first[1]
    memoized._check()


def test_copies_are_the_same(twin):
    memoized = twin.memoize.lru_cache(lambda x: x)
    assert copy.copy(memoized) is copy.deepcopy(memoized) is memoized


def test_weak_references(twin):
    memoized = twin.memoize.lru_cache(lambda x: x)
    assert weakref.ref(memoized)() is memoized


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_name_the_function(twin, monkeypatch, protocol):
    memoized = twin.memoize.lru_cache(Counter.add)
    monkeypatch.setattr(Counter, "add", memoized)
    assert pickle.loads(pickle.dumps(memoized, protocol)) is memoized


def test_a_function_that_calls_itself(twin):
    @twin.memoize.lru_cache(None)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(80) == 23416728348467685
    assert fibonacci.cache_info() == (78, 81, None, 81)


@pytest.mark.parametrize(("maxsize", "kept"), [(None, "outer"), (5, "inner")])
def test_a_function_that_calls_itself_with_the_same_argument(twin, maxsize, kept):
    depth = 0

    @twin.memoize.lru_cache(maxsize)
    def function(x):
        nonlocal depth
        depth += 1
        return function(x) and "outer" if depth == 1 else "inner"

    assert function(1) == "outer"
    assert function(1) == kept
    assert function.cache_info() == (1, 2, maxsize, 1)
    function._check()


def test_a_function_that_clears_its_own_memory(twin):
    @twin.memoize.lru_cache(4)
    def function(x):
        if x % 5 == 0:
            function.cache_clear()
        return [x]

    for x in range(100):
        assert function(x) == [x]
        function._check()
    assert function.cache_info() == (0, 4, 4, 4)
