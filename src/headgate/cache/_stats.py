"""The counters of a cache."""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        hits: int
        misses: int
        evictions: int
        expirations: int
        replacements: int
        removals: int
        loads: int
        load_failures: int
        load_seconds: float
        currsize: int
        maxsize: int
else:
    _Fields = namedtuple("_Fields", (
        "hits", "misses", "evictions", "expirations", "replacements", "removals", "loads", "load_failures",
        "load_seconds", "currsize", "maxsize"))


class CacheStats(_Fields):
    """A snapshot of a cache's counters.

    `hits` and `misses` count ``get``, ``cache[key]``, ``setdefault``, ``get_or_load`` and
    ``aget_or_load``. Entries that have left are counted by reason: `evictions` to keep within
    `maxsize`, `expirations` at the end of their lifetime, `replacements` by another value,
    `removals` by the caller. `loads` counts the loaders that ``get_or_load`` and ``aget_or_load``
    called, `load_failures` those of them that raised or were cancelled, `load_seconds` the time
    they took. `currsize` and `maxsize` are entries, or the sum of sizes where the cache has a
    ``getsizeof``.

    >>> CacheStats(3, 1, 0, 0, 0, 0, 0, 0, 0.0, currsize=1, maxsize=2).hit_ratio
    0.75
    """

    __slots__ = ()

    @property
    def hit_ratio(self) -> float:
        """Hits over lookups, 0.0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0
