"""First in, first out."""

from headgate.cache._cache import _Cache


class FIFOCache(_Cache):
    """A mapping of at most `maxsize` entries that drops the one written longest ago first.

    Reading an entry does not save it, writing it again puts it last in the queue. Arguments,
    errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot, the next
    victim first.

    >>> cache = FIFOCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['b', 'c']
    """

    __slots__ = ()

    _QUEUE = True

    def _rewrite(self, entry):
        self._move(entry, self._ends[0])
