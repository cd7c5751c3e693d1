"""lru_cache: functools' decorator."""

from functools import _CacheInfo, update_wrapper
from types import MethodType

from headgate.cache._views import _ABSENT
from headgate.memoize._cached import call_key
from headgate.memoize._results import _checked_maxsize, _FlatKey, _Results

TYPE_CHECKING = False


class _Memoizer:
    """A function that remembers the results of its most recent calls."""

    __slots__ = ("__dict__", "__weakref__", "_cache", "_function", "_maxsize", "_typed")

    if TYPE_CHECKING:
        __qualname__: str

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
    bound = _checked_maxsize(maxsize)

    def decorating_function(user_function):
        return _memoize(user_function, bound, typed)

    return decorating_function
