"""The purges that have a time: what was generated before it is not stored, whenever it comes."""

from __future__ import annotations

from headgate.httpcache._purging import KEY, PATH, PATH_PREFIX, PREFIX, TAG, URL, path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._purging import Purge

MOST, MOST_PREFIXES = 4096, 256
_PREFIXES = frozenset((PREFIX, PATH_PREFIX))


class DatedPurges:
    """The latest time of each purge, of at most `MOST` and `MOST_PREFIXES` with prefixes.

    `floor` is the latest time that was forgotten, or that concerns all responses.

    >>> from headgate.httpcache._purging import Purge
    >>> purges = DatedPurges()
    >>> purges.add(Purge(TAG, b"news", at=7))
    >>> purges.latest(b"k", b"http://a/", (b"news",)), purges.latest(b"k", b"http://a/", ())
    (7, 0)
    """

    __slots__ = ("_exact", "_prefixes", "floor")

    def __init__(self) -> None:
        self.floor = 0
        self._exact: dict[tuple[bytes, bytes], int] = {}
        self._prefixes: dict[tuple[bytes, bytes], int] = {}

    def __bool__(self) -> bool:
        return bool(self.floor or self._exact or self._prefixes)

    def add(self, purge: Purge) -> None:
        """Remember a purge. Complexity: O(1)."""
        if purge.kind == PATH_PREFIX and purge.value == b"/":
            self.floor = max(self.floor, purge.at)
            return
        times, most = (self._prefixes, MOST_PREFIXES) if purge.kind in _PREFIXES else (self._exact, MOST)
        place = purge.kind, purge.value
        times[place] = max(purge.at, times.pop(place, 0))
        if len(times) > most:
            self.floor = max(self.floor, times.pop(next(iter(times))))

    def latest(self, key: bytes, url: bytes, tags: tuple[bytes, ...]) -> int:
        """The latest time of those that match a response, in nanoseconds since 1970, 0 if there is none.

        Complexity: O(number of tags and prefixes).
        """
        latest, exact = self.floor, self._exact
        if exact:
            places = [(URL, url), (KEY, key), (PATH, path_of(url)), *((TAG, tag) for tag in tags)]
            latest = max(latest, *(exact.get(place, 0) for place in places))
        for (kind, value), at in self._prefixes.items():
            if at > latest and (url if kind == PREFIX else path_of(url)).startswith(value):
                latest = at
        return latest

    def _check(self) -> None:
        """Raises AssertionError unless the bounds hold."""
        assert len(self._exact) <= MOST and len(self._prefixes) <= MOST_PREFIXES, "dated purges are bounded"
