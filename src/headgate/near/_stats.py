"""The counters of a near table."""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        hits: int
        misses: int
        negative_hits: int
        stored: int
        overtaken: int
        invalidations: int
        flushes: int
        errors: int
        entries: int
        pending: int
        fresh: int
        oldest: float
else:
    _Fields = namedtuple("_Fields", (
        "hits", "misses", "negative_hits", "stored", "overtaken", "invalidations", "flushes", "errors",
        "entries", "pending", "fresh", "oldest"))


class NearStats(_Fields):
    """A snapshot of a near table's counters.

    `hits` and `misses` count lookups; `negative_hits` are the hits on a key that is known to be absent. Of
    the fetches after a miss, `stored` were kept, and `overtaken` were not, as the key was written or the
    connection lost meanwhile. `invalidations` counts the keys that servers announced, `flushes` the times at
    which all entries of a server were dropped. `errors` counts calls to the store that failed.

    `entries` can be served now, `pending` keys are being fetched, `fresh` servers are heard of. `oldest` is
    the time in seconds since the oldest of the entries was fetched, 0.0 if there is none.

    >>> NearStats(3, 1, 0, 1, 0, 0, 0, 0, entries=1, pending=0, fresh=1, oldest=0.5).hit_ratio
    0.75
    """

    __slots__ = ()

    @property
    def hit_ratio(self) -> float:
        """Hits over lookups, 0.0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0
