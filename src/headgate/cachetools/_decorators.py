"""``cached``, and the lookup of a call in a cache, which `cachedmethod` shares.

With a lock, the cache is read and written under it, and of several results of one call the first is kept.
With a condition, calls whose key is pending wait for its result.
"""

from __future__ import annotations

from collections import namedtuple
from functools import update_wrapper
from types import MethodType

from headgate.cachetools._caches import Cache
from headgate.cachetools.keys import hashkey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CacheInfo = namedtuple("CacheInfo", "hits misses maxsize currsize")


class Calls:
    """Looks up and counts the calls of one function."""

    __slots__ = ("call", "hits", "is_locked", "misses", "pending")

    def __init__(self, has_lock: bool, has_condition: bool) -> None:
        self.hits = self.misses = 0
        self.pending: set[Any] = set()
        self.is_locked = has_lock or has_condition
        self.call = self._call_single_flight if has_condition else self._call_locked

    def load(self, cache: Any, key: Any, call: Any, args: Any, kwargs: Any) -> Any:
        """Call the function after a miss, without a lock, and store the result."""
        self.misses += 1
        result = call(*args, **kwargs)
        try:
            cache[key] = result
        except ValueError:  # too large
            pass
        return result

    def _call_locked(self, cache: Any, lock: Any, condition: Any, key: Any, call: Any, args: Any,
                       kwargs: Any) -> Any:
        with lock:
            try:
                found = cache[key]
            except KeyError:
                self.misses += 1
            else:
                self.hits += 1
                return found
        result = call(*args, **kwargs)
        with lock:
            try:
                return cache.setdefault(key, result)
            except ValueError:  # too large
                return result

    def _call_single_flight(self, cache: Any, lock: Any, condition: Any, key: Any, call: Any, args: Any,
                     kwargs: Any) -> Any:
        with lock:
            while key in self.pending:
                condition.wait()
            try:
                found = cache[key]
            except KeyError:
                self.misses += 1
                self.pending.add(key)
            else:
                self.hits += 1
                return found
        try:
            result = call(*args, **kwargs)
            with lock:
                try:
                    cache[key] = result
                except ValueError:  # too large
                    pass
            return result
        finally:
            with lock:
                self.pending.remove(key)
                condition.notify_all()

    def clear(self, cache: Any, lock: Any) -> None:
        """Clear the cache and the counters"""
        if lock is None:
            self._clear(cache)
            return
        with lock:
            self._clear(cache)

    def _clear(self, cache: Any) -> None:
        cache.clear()
        self.hits = self.misses = 0

    def info(self, cache: Any, lock: Any) -> CacheInfo:
        """Hits, misses, maxsize and currsize"""
        if lock is None:
            return self._info(cache)
        with lock:
            return self._info(cache)

    def _info(self, cache: Any) -> CacheInfo:
        if isinstance(cache, Cache):
            return CacheInfo(self.hits, self.misses, cache.maxsize, cache.currsize)
        return CacheInfo(self.hits, self.misses, None, len(cache))


class _Cached:
    """The wrapper of a function; as an attribute of a class, a method."""

    def __init__(self, function: Any, cache: Any, key: Any, lock: Any, condition: Any) -> None:
        update_wrapper(self, function)
        self.cache, self.cache_key, self.cache_condition = cache, key, condition
        self.cache_lock = condition if lock is None else lock
        self._calls = Calls(lock is not None, condition is not None)
        self._takes_args = key is hashkey

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        key = args if self._takes_args and not kwargs else self.cache_key(*args, **kwargs)
        calls, cache = self._calls, self.cache
        if calls.is_locked:
            return calls.call(cache, self.cache_lock, self.cache_condition, key, self.__wrapped__,
                                args, kwargs)
        try:
            found = cache[key]
        except KeyError:
            return calls.load(cache, key, self.__wrapped__, args, kwargs)
        calls.hits += 1
        return found

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def cache_clear(self) -> None:
        """Clear the cache and the counters of ``cache_info``"""
        self._calls.clear(self.cache, self.cache_lock)

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"

    def __copy__(self) -> _Cached:
        return self

    def __deepcopy__(self, memo: object) -> _Cached:
        return self

    def __reduce__(self) -> str:
        return self.__qualname__

    if TYPE_CHECKING:
        __wrapped__: Callable[..., Any]
        __qualname__: str


class _CachedWithInfo(_Cached):
    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and currsize"""
        return self._calls.info(self.cache, self.cache_lock)


def cached(cache: Any, key: Callable[..., Any] = hashkey, lock: Any = None, condition: Any = None,
           info: bool = False) -> Callable[[Any], Any]:
    """Cache the results of a function in `cache`, any mutable mapping, under ``key(*args, **kwargs)``.

    With `lock`, a context manager, the cache is only used under it; with `condition`, concurrent equal calls
    wait for the first one. With `info` the function has ``cache_info()``. Exceptions are not cached.

    The function has `cache`, `cache_key`, `cache_lock`, `cache_condition`, ``cache_clear()`` and
    ``__wrapped__``.

    Raises TypeError if `cache` is None.

    >>> from headgate.cachetools import LRUCache, cached
    >>> @cached(LRUCache(maxsize=100), info=True)
    ... def double(number):
    ...     return 2 * number
    >>> double(1), double(1), double.cache_info()
    (2, 2, CacheInfo(hits=1, misses=1, maxsize=100, currsize=1))
    """
    if cache is None:
        raise TypeError("cache must be a mutable mapping, got None")
    wrapper = _CachedWithInfo if info else _Cached

    def decorating_function(function: Any) -> _Cached:
        return wrapper(function, cache, key, lock, condition)

    return decorating_function
