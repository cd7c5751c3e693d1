"""Both twins and a naive model step together; after every step all agree and their invariants hold."""

from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twins import Twin, twin_names

KEYS = st.one_of(st.sampled_from("abcdefgh"), st.integers(-3, 5), st.floats(-2, 2).map(round), st.booleans())
SIZES = st.integers(0, 6)


class NaiveLRU:
    """What cachetools documents, as plainly as possible."""

    def __init__(self, maxsize, weighted, events):
        self.maxsize, self.weighted, self.events = maxsize, weighted, events
        self.data = OrderedDict()
        self.hits = self.misses = self.evictions = 0

    def size(self, value):
        return value if self.weighted else 1

    def currsize(self):
        return sum(map(self.size, self.data.values()))

    def get(self, key, default=None):
        if key not in self.data:
            self.misses += 1
            return default
        self.hits += 1
        self.data.move_to_end(key)
        return self.data[key]

    def evict(self, maximum):
        dropped = []
        while self.currsize() > maximum:
            dropped.append(self.data.popitem(last=False))
            self.evictions += 1
        return [(key, value, "size") for key, value in dropped]

    def put(self, key, value):
        if self.size(value) > self.maxsize:
            raise ValueError
        if key in self.data:
            stored = next(k for k in self.data if k == key)
            events = [(stored, self.data[key], "replaced")]
            self.data[key] = value
            self.data.move_to_end(key)
            self.events += events + self.evict(self.maxsize)
        else:
            events = self.evict(self.maxsize - self.size(value))
            self.data[key] = value
            self.events += events

    def setdefault(self, key, default):
        if key in self.data:
            return self.get(key)
        self.misses += 1
        self.put(key, default)
        return default

    def pop(self, key, default):
        if key not in self.data:
            return default
        stored = next(k for k in self.data if k == key)
        value = self.data.pop(key)
        self.events.append((stored, value, "removed"))
        return value

    def popitem(self):
        key, value = self.data.popitem(last=False)
        self.events.append((key, value, "removed"))
        return key, value

    def clear(self):
        self.events += [(key, value, "removed") for key, value in self.data.items()]
        self.data.clear()

    def resize(self, maxsize):
        self.maxsize = maxsize
        self.events += self.evict(maxsize)


def outcome(call, *args):
    try:
        return call(*args)
    except (KeyError, ValueError) as error:
        return type(error)


class LRUMachine(RuleBasedStateMachine):
    @initialize(maxsize=st.integers(0, 12), weighted=st.booleans())
    def start(self, maxsize, weighted):
        self.events = {name: [] for name in twin_names()}
        self.caches = [
            Twin(name).cache.LRUCache(
                maxsize,
                (lambda value: value) if weighted else None,
                on_evict=lambda *what, events=self.events[name]: events.append(what),
            )
            for name in twin_names()
        ]
        self.model = NaiveLRU(maxsize, weighted, [])

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

    @rule(maxsize=st.integers(0, 12))
    def resize(self, maxsize):
        self.all_agree("resize", maxsize)

    @invariant()
    def agree(self):
        for cache, events in zip(self.caches, self.events.values(), strict=True):
            cache._check()
            assert list(cache.items()) == list(self.model.data.items())
            assert list(map(type, cache)) == list(map(type, self.model.data))
            assert cache.currsize == self.model.currsize() <= cache.maxsize == self.model.maxsize
            assert (cache.hits, cache.misses) == (self.model.hits, self.model.misses)
            assert cache.evictions == self.model.evictions
            assert events == self.model.events


TestLRUMachine = LRUMachine.TestCase
TestLRUMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
