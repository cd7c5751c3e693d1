"""cached: the lookup that precedes a load."""

from __future__ import annotations

from headgate.cache._pure import LRUCache
from headgate.cache._views import _ABSENT
from headgate.memoize._cached import DEFAULT_MAXSIZE, Wrapper, call_key, decorator
from headgate.memoize._results import _Results

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Lookup(Wrapper):
    """Looks calls up in a cache; all but fresh results go to its memory."""

    __slots__ = (
        "_clock", "_function", "_get", "_hits", "_is_fresh", "_key", "_mark", "_misses", "_typed", "cache",
    )

    if TYPE_CHECKING:
        _bind: Any

    def __init__(self, memory, function, key, typed, clock, bind, by_id):
        super().__init__(memory, bind)
        self._function = function  # None where a call is not all that is to be done
        self._key, self._typed, self._clock = key, typed, clock
        self._hits = self._misses = 0

    def use(self, cache, is_fresh, mark):
        self.cache = None if type(cache) is _Results else cache
        self._get, self._is_fresh, self._mark = cache.get, is_fresh, mark

    def stored_key(self, key):
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
                return self._memory.resolve(self, key, found, args, kwargs)
            load = self._memory.new_load(self, key)
            with load, load:
                if load.join() and not load.find():
                    load.keep(self._function(*args, **kwargs))
            return self._function(*args, **kwargs) if load.is_circular else load.result()
        if self._clock is not None:
            if self._clock() >= found.fresh_until:
                return self._memory.resolve(self, key, found, args, kwargs)
            found = found.value
        elif self._is_fresh is not None and not self._is_fresh(key, found):
            return self._memory.resolve(self, key, found, args, kwargs)
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

    Of all callers that miss the same call one runs the function and the others wait; for coroutines, in
    each event loop. What it raises reaches all waiters and is not remembered. If its task is
    cancelled, or it is interrupted, the next waiter takes over. A function that calls itself with the same
    arguments, directly or through others, is simply called. What is being loaded when ``cache_clear()``
    is called is not remembered.

    The results of a method are remembered by instance, whose ``__eq__`` and ``__hash__`` are not used,
    each with its own `maxsize`, and go with it. Instances without weak references, such as named tuples,
    are kept alive with their results: the `maxsize` most recently used of them.

    A `cache` that is given may serve several functions: its keys carry the function, and for methods the
    instance. With `key`, the keys of a function are those that it makes. Lifetimes are those of the
    cache if its ``put`` takes a `ttl` in seconds; otherwise deadlines are kept beside it. A value that is
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
    return decorator(_Lookup, _Results, LRUCache, cache, maxsize=maxsize, policy=policy, ttl=ttl, tti=tti,
                     stale=stale, jitter=jitter, key=key, typed=typed, keep=keep, tags=tags,
                     on_evict=on_evict, clock=clock, executor=executor)
