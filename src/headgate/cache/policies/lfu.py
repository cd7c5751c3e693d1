"""Least frequently used."""

from headgate.cache._cache import _Cache
from headgate.cache._table import _End

_MOST_USES = 2**32 - 1


class _Group(_End):
    """The end of the list of the entries used equally often; `mark` is that count."""

    __slots__ = ("above", "below")

    def __init__(self, count):
        super().__init__()
        self.mark = count
        self.below = self.above = None


class LFUCache(_Cache):
    """A mapping of at most `maxsize` entries that drops the least frequently used one first.

    Writing an entry and each read count as one use; among equals the one that has had its count
    for longest goes first. Counts end at 2**32 - 1. Arguments, errors and complexity are those of
    ``LRUCache``. Iteration goes over a snapshot, the next victim first.

    Source: Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction
    scheme", 2010.

    >>> cache = LFUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['c', 'a']
    """

    __slots__ = ()

    @staticmethod
    def _new_end():
        return _Group(1)

    def _all_ends(self, ends):
        group = ends[0]
        while group is not None:
            yield group
            group = group.above

    def _hit(self, entry):
        fresh = _Group(0)
        prev, next, group = entry.prev, entry.next, entry.end
        if next is None:
            return
        above, below = group.above, group.below
        count = group.mark + (group.mark < _MOST_USES)
        if count == group.mark:
            above = group
        elif above is None or above.mark != count:
            fresh.mark, fresh.below, fresh.above = count, group, above
            if above is not None:
                above.below = fresh
            group.above = above = fresh
        prev.next = next
        next.prev = prev
        group.size -= entry.size
        last = above.prev
        entry.prev, entry.next, entry.end = last, above, above
        last.next = entry
        above.prev = entry
        above.size += entry.size
        if group.next is group and below is not None:
            below.above = above
            above.below = below
        self._version += 1

    def _unlinked(self, entry, end, next):
        below, above = end.below, end.above
        if end.next is end and below is not None and below.above is end:
            below.above = above
            if above is not None:
                above.below = below

    def _victim(self, size):
        group = self._ends[0]
        while group is not None and group.next is group:
            group = group.above
        return None if group is None else group.next
