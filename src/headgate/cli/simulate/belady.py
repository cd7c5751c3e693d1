"""Belady's algorithm: the hits of a cache that knows all future requests."""

from array import array
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from headgate.cli.simulate.records import Chunk

NAME = "belady"
_NEVER = 2**62
_STALE = 8


class Belady:
    """Records the requests of a log, then counts the hits of a cache that knows them in advance.

    The entry whose next request is furthest in the future is evicted, which may be the new one. So no
    cache of that size has more hits if all entries weigh the same; with weights there may be better choices.
    Takes up to 32 bytes per request.
    """

    def __init__(self, ttl: float | None) -> None:
        self._numbers: dict[Any, int] = {}
        self._keys = array("q")
        self._weights = array("q")
        self._times = array("q")
        self._lifetime = None if ttl is None else round(ttl * 1e9)
        self._following = array("q")

    def record(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks, and record them."""
        for chunk in chunks:
            numbers = self._numbers
            self._keys.extend([numbers.setdefault(key, len(numbers)) for key in chunk.keys])
            self._weights.extend(chunk.weights or ())
            self._times.extend(chunk.times or ())
            yield chunk
        self._following = self._look_ahead()

    def _look_ahead(self) -> "array[int]":
        """For each request, the number of the next request for its key."""
        following = array("q", [_NEVER]) * len(self._keys)
        seen = array("q", [_NEVER]) * len(self._numbers)
        for at in range(len(self._keys) - 1, -1, -1):
            key = self._keys[at]
            following[at] = seen[key]
            seen[key] = at
        return following

    def hits(self, maxsize: int) -> tuple[int, int]:
        """The number of hits of a cache, and their weight. O(log entries) per request."""
        stored: dict[int, tuple[int, int, int]] = {}  # by key: next request, weight, deadline
        farthest: list[tuple[int, int]] = []
        hits = hit_weight = size = 0
        for at, (key, following) in enumerate(zip(self._keys, self._following, strict=True)):
            now = self._times[at] if self._lifetime is not None else 0
            weight = self._weights[at] if self._weights else 1
            found = stored.pop(key, None)
            if found is not None:
                size -= found[1]
            if found is not None and now < found[2]:
                hits += 1
                hit_weight += weight
                _, held, end = found
            else:
                held, end = weight, _NEVER if self._lifetime is None else now + self._lifetime
            if held > maxsize or following == _NEVER or not self._lives(following, end):
                continue
            stored[key] = following, held, end
            size += held
            heappush(farthest, (-following, key))
            while size > maxsize:
                size -= _farthest_weight(stored, farthest)
            if len(farthest) > _STALE * (len(stored) + _STALE):
                farthest = [(-found[0], key) for key, found in stored.items()]
                heapify(farthest)
        return hits, hit_weight

    def _lives(self, following: int, end: int) -> bool:
        """Whether an entry has not expired at its next request."""
        return self._lifetime is None or self._times[following] < end


def _farthest_weight(stored: dict[int, tuple[int, int, int]], farthest: list[tuple[int, int]]) -> int:
    """Remove the entry whose next request is furthest in the future, and return its weight."""
    while True:
        when, key = heappop(farthest)
        found = stored.get(key)
        if found is not None and found[0] == -when:
            del stored[key]
            return found[1]
