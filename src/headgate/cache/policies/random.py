"""Random replacement."""

from headgate.cache._cache import _Cache
from headgate.cache._table import _End


class _SampleEnd(_End):
    """The end of a list, and an index of its entries without gaps; an entry's `mark` is its index."""

    __slots__ = ("count", "places")

    def __init__(self):
        super().__init__()
        self.count, self.places = 0, {}


class RRCache(_Cache):
    """A mapping of at most `maxsize` entries that drops one chosen at random.

    Arguments, errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot,
    the entry written first at the front.

    >>> cache = RRCache(2, seed=7)
    >>> cache.update(a=1, b=2, c=3)
    >>> len(cache), "c" in cache
    (2, True)
    """

    __slots__ = ()

    @staticmethod
    def _new_end():
        return _SampleEnd()

    def _placed(self, entry):
        end, place = entry.end, entry.mark
        if entry.next is None or (place in end.places and end.places[place] is entry):
            return
        entry.mark = count = end.count
        end.places[count] = entry
        end.count = count + 1

    def _unlinked(self, entry, end, next):
        if entry.next is None:
            self._forget(end, entry.mark, entry)

    def _forget(self, end, place, entry):
        """Remove an entry from the index; the last one moves to its place."""
        places = end.places
        if place in places and places[place] is entry:
            end.count = count = end.count - 1
            places[place] = last = places[count]
            last.mark = place
            del places[count]

    def _victim(self, size):
        end = self._ends[0]
        while end.count:
            place = self._draw() * end.count >> 64
            entry = end.places.get(place)
            if entry is not None and entry.next is not None:
                return entry
            self._forget(end, place, entry)
        return None
