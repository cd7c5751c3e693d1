"""How keys move between two memberships under weighted rendezvous hashing, in closed form.

A node of weight w has the distance E / w from a key, where E = -ln(u) is exponentially distributed; the
nearest node owns the key. Let node i have weight w[i] before and v[i] after (0 if absent), and
r[i] = w[i] / v[i]. A key moves from a to b if a is the nearest before, at distance t, b is the nearest after,
at distance x * t, and every other node is farther away both times; integrating over t leaves

    w[a] * v[b] * integral of dx / M(x)**2 from r[b] to r[a],    M(x) = sum of max(w[i], v[i] * x)

which is 0 unless r[b] < r[a]. M is linear between two of the r[i], so each piece of the integral from
x to y is (y - x) / (M(x) * M(y)).
"""

from collections.abc import Mapping
from itertools import pairwise
from math import inf

Weights = Mapping[bytes, float]


def _integral(old: Weights, new: Weights, ratios: Mapping[bytes, float]) -> dict[float, float]:
    """The integral of 1 / M**2 from 0 to each of the ratios."""
    ends = sorted({0.0, inf, *ratios.values()})
    result, total = {0.0: 0.0}, 0.0
    for start, end in pairwise(ends):
        constant = sum(weight for name, weight in old.items() if ratios[name] > start)
        slope = sum(weight for name, weight in new.items() if ratios[name] <= start)
        at_start = constant + slope * start
        whole = end == inf
        total += 1 / (slope * at_start) if whole else (end - start) / (at_start * (constant + slope * end))
        result[end] = total
    return result


def expected_moves(old: Weights, new: Weights) -> dict[tuple[bytes | None, bytes | None], float]:
    """{(old name, new name): share of all keys}; the name is None on a side without nodes."""
    if not old or not new:
        whole = old or new
        total = sum(whole.values())
        return {(name, None) if old else (None, name): weight / total for name, weight in whole.items()}
    ratios = {name: old.get(name, 0) / new[name] if name in new else inf for name in {**old, **new}}
    integral = _integral(old, new, ratios)
    return {
        (was, now): old_weight * new_weight * (integral[ratios[was]] - integral[ratios[now]])
        for was, old_weight in old.items()
        for now, new_weight in new.items()
        if ratios[now] < ratios[was]
    }
