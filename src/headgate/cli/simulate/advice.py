"""One sentence of advice from hit ratios."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from headgate.cli.simulate import belady
from headgate.cli.simulate.engine import Point

_REFERENCE = "lru"
_WORTH = 1.05
_ENOUGH = 0.01


class Equivalence(NamedTuple):
    """`point` has the hit ratio of LRU with `lru_size` entries, or with more (`beyond`)."""

    point: Point
    lru_size: int
    beyond: bool

    @property
    def gain(self) -> tuple[float, float]:
        """The factor of memory saved, and for ties the hit ratio."""
        return self.lru_size / self.point.maxsize, self.point.hit_ratio


def advice(points: Sequence[Point]) -> str:
    """The policy that saves most memory compared to LRU, or if none does, a sufficient size."""
    points = [point for point in points if point.policy != belady.NAME]
    if not points:
        return "Belady's algorithm knows all future requests: its hit ratios are an upper bound for caches."
    curve = [point for point in points if point.policy == _REFERENCE]
    found = [
        _equivalent(point, curve) for point in points if curve and point.policy != _REFERENCE and point.hits
    ]
    best = max(found, key=lambda equivalence: equivalence.gain, default=None)
    if best is not None and best.gain >= (_WORTH, 0):
        more = "more than " if best.beyond else ""
        return (
            f"{best.point.policy} with {best.point.maxsize:,} hits as often ({best.point.hit_ratio:.2%}) "
            f"as LRU with {more}{best.lru_size:,}."
        )
    return _sufficient(points)


def _equivalent(point: Point, curve: Sequence[Point]) -> Equivalence:
    """The size at which LRU's curve, interpolated linearly over the log of the size, has the hit ratio."""
    for low, high in pairwise(curve):
        if low.hit_ratio < point.hit_ratio <= high.hit_ratio:
            share = (point.hit_ratio - low.hit_ratio) / (high.hit_ratio - low.hit_ratio)
            size = math.exp(math.log(low.maxsize) + share * math.log(high.maxsize / low.maxsize))
            return Equivalence(point, round(size), False)
    beyond = point.hit_ratio > curve[-1].hit_ratio
    return Equivalence(point, curve[-1 if beyond else 0].maxsize, beyond)


def _sufficient(points: Sequence[Point]) -> str:
    best = max(points, key=lambda point: point.hit_ratio)
    curve = [point for point in points if point.policy == best.policy]
    if not best.hits:
        return f"No cache has a hit with a size of {curve[-1].maxsize:,} or less: try larger sizes."
    if len(curve) == 1:
        return f"{best.policy} with {best.maxsize:,} hits {best.hit_ratio:.2%}."
    enough = next(point for point in curve if point.hit_ratio >= best.hit_ratio - _ENOUGH)
    if enough.maxsize < curve[-1].maxsize:
        return (
            f"{best.policy} with {enough.maxsize:,} hits {enough.hit_ratio:.2%}, within a point of the best "
            f"({best.hit_ratio:.2%} with {best.maxsize:,})."
        )
    return (
        f"{best.policy} still gains with size, {curve[-1].hit_ratio - curve[-2].hit_ratio:.2%} more hits "
        f"from {curve[-2].maxsize:,} to {curve[-1].maxsize:,}: try larger sizes."
    )
