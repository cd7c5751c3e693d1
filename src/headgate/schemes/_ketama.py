"""Ketama, which several programs use: points by MD5, in proportion to the weights."""

from collections.abc import Callable, Sequence
from struct import Struct, pack, unpack

from headgate.schemes._hashes import md5
from headgate.schemes._program import Points

_four_words = Struct("<4I").unpack


def _float32(x: float) -> float:
    return float(unpack("<f", pack("<f", x))[0])


def without_default_port(name: bytes) -> bytes:
    """The name as memcached clients hash it: ``host`` for ``host:11211``."""
    return name.removesuffix(b":11211")


def ketama_digests(weight: int, nodes: int, total: int) -> int:
    """The number of MD5 digests of a node, in single precision as in libmemcached and twemproxy.

    By its rounding, each of 25, 47, 50, 55 ... equal nodes has 156 points instead of 160.
    """
    share = _float32(_float32(weight) / _float32(total))
    per_node = _float32(_float32(share * 160) / 4)
    return int(_float32(_float32(per_node * nodes) + _float32(1e-10)))


def ketama_points(names: Sequence[bytes], weights: Sequence[int],
                  digests: Callable[[int, int, int], int]) -> Points:
    """For each digest of a node the four little-endian words of md5(name-j)."""
    total = sum(weights)
    return [
        [word for j in range(digests(weight, len(names), total))
         for word in _four_words(md5(b"%b-%d" % (name, j)))]
        for name, weight in zip(names, weights, strict=True)
    ]


def starved_ketama(digests: Callable[[int, int, int], int], weights: Sequence[int]) -> int | None:
    """The weight of a node that gets no point, or None."""
    lightest = min(weights)
    return None if digests(lightest, len(weights), sum(weights)) else lightest


def memcached_points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
    return ketama_points([without_default_port(name) for name in names], weights, ketama_digests)
