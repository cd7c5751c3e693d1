"""What a cache counts."""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        hits: int
        misses: int
        evictions: int
        currsize: int
        maxsize: int
else:
    _Fields = namedtuple("_Fields", "hits misses evictions currsize maxsize")


class CacheStats(_Fields):
    """A snapshot of a cache's counters.

    `hits` and `misses` count ``get``, ``cache[key]`` and ``setdefault``; `evictions` counts
    entries dropped to keep within `maxsize`; `currsize` and `maxsize` are entries, or the sum
    of sizes where the cache has a ``getsizeof``.

    >>> CacheStats(hits=3, misses=1, evictions=0, currsize=1, maxsize=2).hit_ratio
    0.75
    """

    __slots__ = ()

    @property
    def hit_ratio(self) -> float:
        """Hits over lookups, 0.0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0
