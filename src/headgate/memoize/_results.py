"""Keys of calls, and the results of the most recently used ones."""

from operator import index
from sys import maxsize as _LARGEST_INDEX

from headgate.cache._pure import LRUCache

_MOST_ENTRIES = 2**31


def _checked_maxsize(maxsize):
    if maxsize is None:
        return None
    if not isinstance(maxsize, int):
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    if maxsize > _LARGEST_INDEX:
        raise OverflowError("cannot fit 'int' into an index-sized integer")
    return max(index(maxsize), 0)


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
