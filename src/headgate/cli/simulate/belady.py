"""Belady's choice: the hits of a cache that knows all requests to come."""

from array import array
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from headgate.cli.simulate.records import Chunk

NAME = "belady"
_NEVER = 2**62
_STALE = 8


class Foresight:
    """The requests of a log, noted as they pass, and what a cache that had foreseen them would have hit.

    The entry whose next hit is farthest gives way, which may be the newcomer. So no cache of that size hits
    more often, as long as all entries weigh alike; with weights there may be better choices. It takes up
    to 32 bytes a request.
    """

    def __init__(self, ttl: float | None) -> None:
        self._numbers: dict[Any, int] = {}
        self._keys = array("q")
        self._weights = array("q")
        self._times = array("q")
        self._lifetime = None if ttl is None else round(ttl * 1e9)
        self._following = array("q")

    def watch(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The chunks, noted."""
        for chunk in chunks:
            numbers = self._numbers
            self._keys.extend([numbers.setdefault(key, len(numbers)) for key in chunk.keys])
            self._weights.extend(chunk.weights or ())
            self._times.extend(chunk.times or ())
            yield chunk
        self._following = self._look_ahead()

    def _look_ahead(self) -> "array[int]":
        """For each request the number of the next one for its key."""
        following = array("q", [_NEVER]) * len(self._keys)
        seen = array("q", [_NEVER]) * len(self._numbers)
        for at in range(len(self._keys) - 1, -1, -1):
            key = self._keys[at]
            following[at] = seen[key]
            seen[key] = at
        return following

    def hits(self, maxsize: int) -> tuple[int, int]:
        """How many requests a cache hits, and what they weigh. O(log entries) a request."""
        stored: dict[int, tuple[int, int, int]] = {}  # by key: its next hit, its weight, its end
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
        """Whether an entry is there when it is asked for next."""
        return self._lifetime is None or self._times[following] < end


def _farthest_weight(stored: dict[int, tuple[int, int, int]], farthest: list[tuple[int, int]]) -> int:
    """Remove the entry whose next hit is farthest; what it weighed."""
    while True:
        when, key = heappop(farthest)
        found = stored.get(key)
        if found is not None and found[0] == -when:
            del stored[key]
            return found[1]
