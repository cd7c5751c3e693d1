"""SIEVE."""

from headgate.cache._cache import _Cache
from headgate.cache._table import _End


class _SieveEnd(_End):
    """The end of a list, and the entry to which the hand points."""

    __slots__ = ("hand",)

    def __init__(self):
        super().__init__()
        self.hand = None


class SieveCache(_Cache):
    """A mapping of at most `maxsize` entries that drops one not read since the hand last passed it.

    New entries join the newest end of a queue and never move. A read marks its entry; the hand goes
    from old to new, takes marks off and evicts the first entry without one. Arguments, errors and
    complexity are those of ``LRUCache``; an eviction is O(1) amortised over the reads. Iteration goes
    over a snapshot, oldest first.

    Source: Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is simpler than LRU", NSDI 2024.

    >>> cache = SieveCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['a', 'c']
    """

    __slots__ = ()

    @staticmethod
    def _new_end():
        return _SieveEnd()

    def _hit(self, entry):
        entry.mark = 1

    def _unlinked(self, entry, end, next):
        if end.hand is entry:
            end.hand = None if next is end else next

    def _victim(self, size):
        end = self._ends[0]
        entry = end.hand
        if entry is None or entry.next is None:
            entry = end.next
        while entry is not None:
            if entry is end:
                entry = end.next
            if entry is end:
                return None
            if not entry.mark:
                end.hand = entry
                return entry
            entry.mark = 0
            entry = entry.next
        return None
