"""Memoized functions in pure Python: the results of the most recently used calls, in an LRUCache.

A key is what tells two calls apart. The only argument, an exact str or int, is its own key. Every other
call has a flat one, hashed once: the positional arguments; with keywords `_KEYWORDS`, their names in the
order of the call and their values; and for a typed memoizer the types of all arguments.

``cache_clear`` sets a new cache in place of the old one, which takes its counts along.
"""

from functools import _CacheInfo, update_wrapper
from operator import index
from sys import maxsize as _LARGEST_INDEX
from types import MethodType

from headgate._pure.cache import LRUCache

_MOST_ENTRIES = 2**31
_KEYWORDS = object()
_ABSENT = object()
_OWN_KEYS = frozenset({int, str})


class _FlatKey(list):
    __slots__ = ("hash",)

    def __init__(self, parts):
        super().__init__(parts)
        self.hash = hash(parts)

    def __hash__(self):
        return self.hash


class _Memoizer:
    """A function that remembers the results of its most recent calls."""

    __slots__ = ("__dict__", "__weakref__", "_cache", "_function", "_maxsize", "_typed")

    def __init__(self, function, maxsize, typed):
        self._function = function
        self._maxsize = maxsize
        self._typed = typed
        self.cache_clear()

    def _key(self, args, kwargs):
        if not self._typed and not kwargs and not args[1:] and args and type(args[0]) in _OWN_KEYS:
            return args[0]
        parts = args
        if kwargs:
            parts += _KEYWORDS, *kwargs, *kwargs.values()
        if self._typed:
            parts += tuple([type(value) for value in (*args, *kwargs.values())])
        return _FlatKey(parts)

    def __call__(self, /, *args, **kwargs):
        if self._maxsize == 0:
            self._cache.get(None)
            return self._function(*args, **kwargs)
        key = self._key(args, kwargs)
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
        bound = _MOST_ENTRIES if self._maxsize is None else min(self._maxsize, _MOST_ENTRIES)
        self._cache = LRUCache(bound)

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
