"""The counters of an HTTPCache."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        hits: int
        stale: int
        revalidations: int
        misses: int
        passes: int
        stored: int
        evictions: int
        purged: int
        entries: int
        currsize: int
        maxsize: int
else:
    _Fields = namedtuple("_Fields", (
        "hits", "stale", "revalidations", "misses", "passes", "stored", "evictions", "purged", "entries",
        "currsize", "maxsize"))


class HTTPCacheStats(_Fields):
    """A snapshot of the counters of an `HTTPCache`.

    Lookups are counted by what they led to: `hits`, `stale` (served while they are refreshed),
    `revalidations`, `misses`, and `passes` (forwarded unchanged). Responses are counted when they were
    `stored`, and when they left by `evictions` or were `purged`. `entries` are the URLs that have stored
    responses, `currsize` and `maxsize` bytes. Threads that run without the GIL may miss a few counts.

    >>> HTTPCacheStats(6, 1, 1, 2, 5, 3, 0, 0, 3, currsize=4000, maxsize=65536).hit_ratio
    0.7
    """

    __slots__ = ()

    @property
    def hit_ratio(self) -> float:
        """Hits, stale ones too, over all lookups that were not passed; 0.0 before the first."""
        found = self.hits + self.stale
        lookups = found + self.revalidations + self.misses
        return found / lookups if lookups else 0.0
