"""Both twins of every policy and its naive model step together; after every step all agree."""

import random

import pytest
from clocks import FakeClock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from policy_models import MODELS, NEVER, Naive
from twins import Twin, twin_names

KEYS = st.one_of(st.sampled_from("abcdefgh"), st.integers(-3, 9), st.booleans())
SIZES = st.integers(0, 6)
LIFETIMES = st.one_of(st.none(), st.integers(1, 300))
SECOND = 1e9


def seconds(nanoseconds):
    return None if nanoseconds is None else nanoseconds / SECOND


def skewed_keys(seed, count):
    """Keys of which few are requested often."""
    draw = random.Random(seed)
    return [int(draw.paretovariate(0.7)) % 100 for _ in range(count)]


def outcome(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except (KeyError, ValueError) as error:
        return type(error)


def machine_of(policy):
    class PolicyMachine(RuleBasedStateMachine):
        @initialize(maxsize=st.integers(0, 25), weighted=st.booleans(), ttl=LIFETIMES, tti=LIFETIMES,
                    seed=st.integers(0, 5))
        def start(self, maxsize, weighted, ttl, tti, seed):
            self.clock = FakeClock()
            self.events = {name: [] for name in twin_names()}
            self.caches = [
                getattr(Twin(name).cache, policy)(
                    maxsize, (lambda value: value) if weighted else None, ttl=seconds(ttl), tti=seconds(tti),
                    clock=self.clock, seed=seed,
                    on_evict=lambda *what, events=self.events[name]: events.append(what))
                for name in twin_names()
            ]
            self.model = Naive(policy, maxsize, weighted, self.clock, ttl, tti, seed)

        def all_agree(self, name, *args):
            expected = outcome(getattr(self.model, name), *args)
            for cache in self.caches:
                assert outcome(getattr(cache, name), *args) == expected

        @rule(key=KEYS)
        def get(self, key):
            self.all_agree("get", key)

        @rule(key=KEYS, size=SIZES)
        def put(self, key, size):
            self.all_agree("put", key, size)

        @rule(key=KEYS, size=SIZES, ttl=st.one_of(LIFETIMES, st.just(NEVER)),
              tags=st.sampled_from([(), ("x",), ("x", "y")]))
        def put_with_ttl_and_tags(self, key, size, ttl, tags):
            expected = outcome(self.model.put, key, size, ttl, tags)
            lifetime = float("inf") if ttl == NEVER else seconds(ttl)
            for cache in self.caches:
                assert outcome(cache.put, key, size, ttl=lifetime, tags=tags) == expected

        @rule(key=KEYS, size=SIZES)
        def setdefault(self, key, size):
            self.all_agree("setdefault", key, size)

        @rule(key=KEYS)
        def pop(self, key):
            self.all_agree("pop", key, None)

        @rule()
        def popitem(self):
            self.all_agree("popitem")

        @rule()
        def clear(self):
            self.all_agree("clear")

        @rule(maxsize=st.integers(0, 25))
        def resize(self, maxsize):
            self.all_agree("resize", maxsize)

        @rule()
        def expire(self):
            self.all_agree("expire")

        @rule(tag=st.sampled_from(["x", "y", "another"]))
        def invalidate(self, tag):
            expected = self.model.invalidate(tag)
            for cache in self.caches:
                assert cache.invalidate(tag=tag) == expected

        @rule(step=st.one_of(st.integers(1, 40), st.integers(-30, 400)))
        def time_passes(self, step):
            self.clock.now += step

        @rule(seed=st.integers(0, 999))
        def read_through(self, seed):
            for key in skewed_keys(seed, 80):
                for cache in [self.model, *self.caches]:
                    if cache.get(key) is None:
                        outcome(cache.put, key, 1)

        @invariant()
        def agree(self):
            items = self.model.items()
            for cache, events in zip(self.caches, self.events.values(), strict=True):
                cache._check()
                assert list(cache.items()) == items
                assert len(cache) == len(items)
                assert cache.currsize == self.model.currsize() <= cache.maxsize == self.model.maxsize
                assert (cache.hits, cache.misses) == (self.model.hits, self.model.misses)
                assert (cache.evictions, cache.expirations) == (self.model.evictions, self.model.expirations)
                assert sorted(map(repr, events)) == sorted(map(repr, self.model.events))

    return PolicyMachine


@pytest.mark.parametrize("policy", sorted(MODELS))
def test_twins_and_model_agree(policy, exhaustive):
    examples = 400 if exhaustive else 20
    run_state_machine_as_test(
        machine_of(policy), settings=settings(max_examples=examples, stateful_step_count=40, deadline=None))


def test_resize_may_leave_a_protected_part_that_is_too_large():
    machine = machine_of("TinyLFUCache")()
    machine.start(maxsize=3, weighted=False, ttl=None, tti=None, seed=0)
    machine.read_through(seed=0)
    machine.resize(maxsize=2)
    machine.read_through(seed=0)
    machine.agree()


@pytest.mark.parametrize("policy", sorted(MODELS))
@pytest.mark.parametrize("maxsize", [1, 2, 5, 10, 33, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_hit_for_hit_on_random_traces(policy, maxsize, weighted):
    caches = [getattr(Twin(name).cache, policy)(maxsize, (lambda value: value) if weighted else None, seed=7)
              for name in twin_names()]
    model = Naive(policy, maxsize, weighted, seed=7)
    draw = random.Random(maxsize)
    for key in skewed_keys(maxsize, 1500):
        size = draw.randrange(min(9, maxsize + 1))
        for cache in [model, *caches]:
            if cache.get(key) is None:
                cache.put(key, size)
        assert [cache.hits for cache in caches] == [model.hits] * len(caches)
    for cache in caches:
        cache._check()
        assert list(cache.items()) == model.items()
