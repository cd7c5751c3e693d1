"""Textbook implementations to compare with: short and clear, not optimized."""

import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import md5
from typing import Any


class LRU:
    """Evicts the least recently used entry."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any) -> Any:
        if key not in self.entries:
            return None
        self.entries.move_to_end(key)
        return self.entries[key]

    def put(self, key: Any, value: Any) -> None:
        if key in self.entries:
            self.entries.move_to_end(key)
        self.entries[key] = value
        if len(self.entries) > self.capacity:
            self.entries.popitem(last=False)


class Ring:
    """Consistent hashing: every node has `replicas` points on the ring."""

    def __init__(self, nodes: Iterable[str], replicas: int) -> None:
        self.replicas = replicas
        self.points: list[int] = []
        self.owners: dict[int, str] = {}
        for node in nodes:
            self._place(node)
        self.points.sort()

    def _hash(self, text: str) -> int:
        return int(md5(text.encode(), usedforsecurity=False).hexdigest(), 16)

    def _place(self, node: str) -> None:
        for replica in range(self.replicas):
            point = self._hash(f"{node}:{replica}")
            self.points.append(point)
            self.owners[point] = node

    def add_node(self, node: str) -> None:
        self._place(node)
        self.points.sort()

    def remove_node(self, node: str) -> None:
        self.points = [point for point in self.points if self.owners[point] != node]
        self.owners = {point: owner for point, owner in self.owners.items() if owner != node}

    def get_node(self, key: str) -> str:
        at = bisect_right(self.points, self._hash(key)) % len(self.points)
        return self.owners[self.points[at]]


class TokenBucket:
    """Refilled at a constant rate; a request takes a token or is denied."""

    def __init__(self, capacity: float, refill_rate: float) -> None:
        self.capacity = capacity
        self.refill_rate = refill_rate
        self.tokens = float(capacity)
        self.updated = time.monotonic()

    def consume(self, tokens: float = 1) -> bool:
        now = time.monotonic()
        self.tokens = min(self.capacity, self.tokens + (now - self.updated) * self.refill_rate)
        self.updated = now
        if self.tokens < tokens:
            return False
        self.tokens -= tokens
        return True
