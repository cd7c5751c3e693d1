"""Memoized functions in pure Python: the results of the most recently used calls, in an LRUCache.

A key is what tells two calls apart. The only argument, an exact str or int, is its own key. Every other
call has a flat one, hashed once: the positional arguments; with keywords KEYWORDS, their names in the
order of the call and their values; and for a typed memoizer the types of all arguments.

``cache_clear`` sets a new cache in place of the old one, which takes its counts along.
"""

from functools import _CacheInfo, update_wrapper
from operator import index
from sys import maxsize as _LARGEST_INDEX
from types import MethodType

from headgate.cache._pure import LRUCache
from headgate.cache._views import _ABSENT
from headgate.memoize._cached import DEFAULT_MAXSIZE, Standin, call_key, decorator

_MOST_ENTRIES = 2**31


class _FlatKey(list):
    __slots__ = ("hash",)

    def __init__(self, parts):
        super().__init__(parts)
        self.hash = hash(parts)

    def __hash__(self):
        return self.hash


class _Results(LRUCache):
    """The results of at most `maxsize` calls, with `maxsize` None of nearly all."""

    __slots__ = ()

    def __init__(self, maxsize):
        super().__init__(_MOST_ENTRIES if maxsize is None else min(_checked_maxsize(maxsize), _MOST_ENTRIES))


class _Memoizer:
    """A function that remembers the results of its most recent calls."""

    __slots__ = ("__dict__", "__weakref__", "_cache", "_function", "_maxsize", "_typed")

    def __init__(self, function, maxsize, typed):
        self._function = function
        self._maxsize = maxsize
        self._typed = typed
        self.cache_clear()

    def __call__(self, /, *args, **kwargs):
        if self._maxsize == 0:
            self._cache.get(None)
            return self._function(*args, **kwargs)
        key = call_key(args, kwargs, self._typed)
        if type(key) is tuple:
            key = _FlatKey(key)
        result = self._cache.get(key, _ABSENT)
        if result is _ABSENT:
            result = self._function(*args, **kwargs)
            self._store(key, result)
        return result

    def _store(self, key, result):
        """Remember a result. Of several results of one call the first stays; without a bound, the last."""
        cache = self._cache
        if self._maxsize is None or cache.peek(key, _ABSENT) is _ABSENT:
            cache.put(key, result)

    def __get__(self, instance, owner=None):
        return self if instance is None else MethodType(self, instance)

    def cache_info(self):
        """Report cache statistics"""
        cache = self._cache
        return _CacheInfo(cache.hits, cache.misses, self._maxsize, cache.currsize)

    def cache_clear(self):
        """Clear the cache and cache statistics"""
        self._cache = _Results(self._maxsize)

    def cache_parameters(self):
        """The arguments of the decorator, by name"""
        return {"maxsize": self._maxsize, "typed": self._typed}

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return self.__qualname__

    def _check(self):
        self._cache._check()


def _memoize(function, maxsize, typed):
    if not callable(function):
        raise TypeError("the first argument must be callable")
    return update_wrapper(_Memoizer(function, maxsize, bool(typed)), function)


def _checked_maxsize(maxsize):
    if maxsize is None:
        return None
    if not isinstance(maxsize, int):
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    if maxsize > _LARGEST_INDEX:
        raise OverflowError("cannot fit 'int' into an index-sized integer")
    return max(index(maxsize), 0)


def lru_cache(maxsize=128, typed=False):
    """Let a function remember the results of its `maxsize` most recently used calls.

    ``@lru_cache(maxsize, typed)``, or ``@lru_cache`` alone, to the contract of ``functools``: with
    `maxsize` None nothing is forgotten, a negative one counts as 0 and nothing is remembered. Calls
    are alike when their arguments are equal and keywords come in the same order; with `typed`
    arguments of different types are different. Arguments must be hashable.

    The function has ``cache_info()``, ``cache_clear()``, ``cache_parameters()`` and ``__wrapped__``.
    Threads that miss the same call at the same time each make it. What the function raises is
    not remembered.

    Raises TypeError if `maxsize` is not an int, a callable or None, or if the function is not callable;
    OverflowError if `maxsize` exceeds the size of an index.

    Complexity: O(arguments) for a call that is remembered, or O(1) besides the function.

    >>> @lru_cache(maxsize=2)
    ... def double(number):
    ...     return 2 * number
    >>> [double(number) for number in (1, 2, 1, 3)]
    [2, 4, 2, 6]
    >>> double.cache_info()
    CacheInfo(hits=1, misses=3, maxsize=2, currsize=2)
    """
    if not isinstance(maxsize, int) and callable(maxsize) and isinstance(typed, bool):
        return _memoize(maxsize, 128, typed)
    room = _checked_maxsize(maxsize)

    def decorating_function(user_function):
        return _memoize(user_function, room, typed)

    return decorating_function


class _Front(Standin):
    """Looks calls up in a cache; its memory gets those that are not there, or not fresh."""

    __slots__ = (
        "_clock", "_function", "_get", "_hits", "_is_fresh", "_key", "_mark", "_misses", "_typed", "cache",
    )

    def __init__(self, memory, function, key, typed, clock, bind, places):
        super().__init__(memory, bind)
        self._function = function  # None where a call is not all that is to be done
        self._key, self._typed, self._clock = key, typed, clock
        self._hits = self._misses = 0

    def aim(self, cache, is_fresh, mark):
        self.cache = None if type(cache) is _Results else cache
        self._get, self._is_fresh, self._mark = cache.get, is_fresh, mark

    def fitted(self, key):
        return key

    def count(self, hit):
        if hit:
            self._hits += 1
        else:
            self._misses += 1

    def counts(self):
        return self._hits, self._misses

    def forget_counts(self):
        self._hits = self._misses = 0

    def __call__(self, /, *args, **kwargs):
        if self._is_method and args:
            return self._bind(args[0])(*args, **kwargs)
        own = args if self._bind else args[1:]
        key = call_key(own, kwargs, self._typed) if self._key is None else self._key(*own, **kwargs)
        if self._mark is not None:
            key = self._mark, key
        found = self._get(key, _ABSENT)
        if found is _ABSENT:
            if self._function is None:
                return self._memory.answer(self, key, found, args, kwargs)
            trip = self._memory.trip(self, key)
            with trip, trip:
                if trip.join() and not trip.find():
                    trip.keep(self._function(*args, **kwargs))
            return self._function(*args, **kwargs) if trip.is_circular else trip.result()
        if self._clock is not None:
            if self._clock() >= found.fresh_until:
                return self._memory.answer(self, key, found, args, kwargs)
            found = found.value
        elif self._is_fresh is not None and not self._is_fresh(key, found):
            return self._memory.answer(self, key, found, args, kwargs)
        self._hits += 1
        return found


def cached(cache=None, *, maxsize=DEFAULT_MAXSIZE, policy=None, ttl=None, tti=None, stale=None, jitter=0.0,
           key=None, typed=False, keep=None, tags=(), on_evict=None, clock=None, executor=None):
    """Let a function, a coroutine function or a method remember its results, each loaded once at a time.

    ``@cached``, or ``@cached(...)`` with any of these:

    - `cache`: where the results go, any object with ``get(key, default)`` and ``put(key, value)``, or a
      mutable mapping. By default the `maxsize` most recently used results are kept in a store of the
      function's own; with `maxsize` None there is no bound.
    - `policy`: a cache class, such as ``TinyLFUCache``, for a cache of the function's own with the
      options `tti`, `jitter` and `on_evict` of that class, by default ``LRUCache``.
    - `ttl`: the seconds for which a result is fresh. With `stale`, for so many seconds more the old
      result is returned at once while one refresh runs: in a task for ``async def``, otherwise in
      `executor`, an executor of threads, by default one of headgate's own. What a refresh raises goes to
      ``sys.unraisablehook``. A refresh that the executor never runs keeps no caller waiting.
    - `key`: a callable that makes a key of the arguments, without ``self``; by default the arguments, of
      different types if `typed`.
    - `keep`: a callable; a result for which it is false is returned and not remembered.
    - `tags`: the tags of the results, or a callable that returns those of a call from its arguments,
      without ``self``; for ``cache.invalidate(tag=...)``.
    - `clock`: a callable that returns integer nanoseconds, by default that of `cache` if it has
      lifetimes, otherwise ``time.monotonic_ns``.

    Of all callers who miss the same call one runs the function and the others wait; for coroutines, in
    each event loop. What it raises reaches those who wait and is not remembered. If its task is
    cancelled, or it is interrupted, the next who waits takes over. A function that comes back to the same
    call, directly or through others, is called through. What is being loaded when ``cache_clear()``
    is called is not remembered.

    The results of a method are remembered by instance, whose ``__eq__`` and ``__hash__`` are not used,
    each with its own `maxsize`, and go with it. Instances without weak references, such as named tuples,
    are kept alive with their results: the `maxsize` most recently used of them.

    A `cache` that is given may serve several functions: its keys carry the function, and for methods the
    instance. With `key`, the keys of a function are those that it makes. Lifetimes are those of the
    cache if its ``put`` takes a `ttl` in seconds; otherwise deadlines stand beside it. A value that is
    put into the cache under ``f.cache_key(...)`` is returned like a result.

    The function has ``cache_info()``, ``cache_clear()``, ``cache_key(...)``, ``__wrapped__`` and `cache`,
    which is None for the built-in store. ``cache_contains(...)`` returns whether the call of these
    arguments is remembered; ``cache_invalidate(...)`` forgets it and returns whether it was. On a method
    of an instance they are about that instance alone; with a cache that is given, ``cache_clear()`` and
    ``cache_info()`` go through all its keys.

    Raises TypeError if the function is no callable or a generator function, or if an argument has the wrong
    type; ValueError if `ttl` or `stale` is not positive, `stale` comes without `ttl`, or an option of a
    cache of the function's own comes with a cache that is given.

    Complexity: O(arguments) for a call that is remembered, or O(1) besides the function.

    >>> @cached(maxsize=1000, ttl=60, stale=10)
    ... def load(name):
    ...     print("loading", name)
    ...     return name.upper()
    >>> load("a"), load("a")
    loading a
    ('A', 'A')
    >>> load.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=1000, currsize=1)
    >>> load.cache_invalidate("a"), load.cache_contains("a")
    (True, False)
    """
    return decorator(_Front, _Results, LRUCache, cache, maxsize=maxsize, policy=policy, ttl=ttl, tti=tti,
                     stale=stale, jitter=jitter, key=key, typed=typed, keep=keep, tags=tags,
                     on_evict=on_evict, clock=clock, executor=executor)
