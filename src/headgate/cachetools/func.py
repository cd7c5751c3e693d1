"""Decorators like ``functools.lru_cache`` for every cache of `headgate.cachetools`.

Each takes ``maxsize=128, typed=False``, or only the function; `maxsize` None means no bound. The functions
have ``cache_info()``, ``cache_clear()`` and ``cache_parameters()``. They are thread-safe: concurrent equal
calls run once, and a recursive call with equal arguments calls the function.
"""

from __future__ import annotations

import math
import random
import time
from functools import partial, update_wrapper
from types import MethodType

from headgate._base.forks import new_lock
from headgate.cache._flights import Flights
from headgate.cache._views import _ABSENT
from headgate.cachetools._caches import Cache, FIFOCache, LFUCache, LRUCache, RRCache
from headgate.cachetools._decorators import CacheInfo
from headgate.cachetools._timed import TTLCache
from headgate.cachetools.keys import hashkey, typedkey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["fifo_cache", "lfu_cache", "lru_cache", "rr_cache", "ttl_cache"]


class _Function:
    """The wrapper of a function, and the store of its loads.

    A plain cache is atomic and counts hits and misses; any other is used under the lock and counted here.
    """

    def __init__(self, function: Any, cache: Any, maxsize: int | None, typed: bool) -> None:
        update_wrapper(self, function)
        self.cache, self.cache_key, self.cache_lock = cache, typedkey if typed else hashkey, new_lock()
        self._maxsize, self._typed = maxsize, typed
        self._takes_args = not typed
        self._engine = cache._hg_engine if cache._hg_plain else None
        self._get = cache.get
        self._flights = Flights()
        self._hits = self._misses = 0

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        key = args if self._takes_args and not kwargs else self.cache_key(*args, **kwargs)
        if self._engine is not None:
            found = self._get(key, _ABSENT)
        else:
            with self.cache_lock:
                found = self._get(key, _ABSENT)
                self._hits += found is not _ABSENT
                self._misses += found is _ABSENT
        if found is not _ABSENT:
            return found
        return self._flights.load(self, key, partial(self.__wrapped__, *args, **kwargs))

    def peek(self, key: Any, default: Any, /) -> Any:
        """Look up a key, for a load."""
        with self.cache_lock:
            return self.cache._hg_peek(key, default) if key in self.cache else default

    def put(self, key: Any, value: Any, /) -> None:
        """Store a loaded value."""
        with self.cache_lock:
            self.cache[key] = value

    def pop(self, key: Any, default: Any, /) -> None:
        """Delete a value whose load has been invalidated."""
        with self.cache_lock:
            self.cache.pop(key, default)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and currsize"""
        with self.cache_lock:
            hits, misses = self._counts()
            return CacheInfo(hits, misses, self._maxsize, self.cache.currsize)

    def _counts(self) -> tuple[int, int]:
        if self._engine is None:
            return self._hits, self._misses
        stats = self._engine.stats(self.cache)
        return stats.hits, stats.misses

    def cache_clear(self) -> None:
        """Clear the cache and the counters"""
        self._flights.new_generation()
        with self.cache_lock:
            self.cache.clear()
            self._hits = self._misses = 0
            if self._engine is not None:
                self._engine.stats(self.cache, reset=True)

    def cache_parameters(self) -> dict[str, Any]:
        """The arguments of the decorator, by name"""
        return {"maxsize": self._maxsize, "typed": self._typed}

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"

    def __copy__(self) -> _Function:
        return self

    def __deepcopy__(self, memo: object) -> _Function:
        return self

    def __reduce__(self) -> str:
        return self.__qualname__

    if TYPE_CHECKING:
        __wrapped__: Callable[..., Any]
        __qualname__: str


def _decorator(new_cache: Callable[[float], Cache], maxsize: Any, typed: bool) -> Any:
    if callable(maxsize):
        return _Function(maxsize, new_cache(128), 128, typed)

    def decorating_function(function: Any) -> _Function:
        return _Function(function, new_cache(math.inf if maxsize is None else maxsize), maxsize, typed)

    return decorating_function


def fifo_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Cache the `maxsize` most recent results of a function.

    >>> from headgate.cachetools.func import fifo_cache
    >>> @fifo_cache(maxsize=2)
    ... def double(number):
    ...     return 2 * number
    >>> [double(number) for number in (1, 2, 1, 3, 1)], double.cache_info()
    ([2, 4, 2, 6, 2], CacheInfo(hits=1, misses=4, maxsize=2, currsize=2))
    """
    return _decorator(FIFOCache, maxsize, typed)


def lfu_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Cache the `maxsize` most frequently used results of a function."""
    return _decorator(LFUCache, maxsize, typed)


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Cache the `maxsize` most recently used results of a function."""
    return _decorator(LRUCache, maxsize, typed)


def rr_cache(maxsize: Any = 128, choice: Callable[[Sequence[Any]], Any] = random.choice,
             typed: bool = False) -> Any:
    """Cache `maxsize` results of a function; `choice` selects the key to evict, by default a random one."""
    return _decorator(partial(RRCache, choice=choice), maxsize, typed)


def ttl_cache(maxsize: Any = 128, ttl: Any = 600, timer: Callable[[], Any] = time.monotonic,
              typed: bool = False) -> Any:
    """Cache the `maxsize` most recently used results of a function, each for `ttl`."""
    return _decorator(partial(TTLCache, ttl=ttl, timer=timer), maxsize, typed)
