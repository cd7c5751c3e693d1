"""Envoy."""

from collections.abc import Sequence
from math import ceil

from headgate._base.checks import checked_int
from headgate.hashing import xxh64
from headgate.schemes._hashes import Hash
from headgate.schemes._program import Points, Program, check_choice
from headgate.schemes._scheme import Options, Scheme

_MASK64 = 0xFFFF_FFFF_FFFF_FFFF


def _murmur64a(data: bytes) -> int:
    """MurmurHash64A with the seed of libstdc++'s std::hash."""
    multiplier = 0xC6A4A7935BD1E995
    h = 0xC70F6907 ^ len(data) * multiplier & _MASK64
    whole = len(data) & ~7
    for start in range(0, whole, 8):
        k = int.from_bytes(data[start : start + 8], "little") * multiplier & _MASK64
        h = (h ^ (k ^ k >> 47) * multiplier & _MASK64) * multiplier & _MASK64
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * multiplier & _MASK64
    h = (h ^ h >> 47) * multiplier & _MASK64
    return h ^ h >> 47


def envoy(hash: str = "xxhash", minimum_ring_size: int = 1024, maximum_ring_size: int = 8388608) -> Scheme:
    """Envoy's RING_HASH: nodes are hashed by ``"xxhash"`` or ``"murmur2"``, keys always by XXH64.

    Nodes are ``ip:port``, or the ``hash_key`` of the metadata ``envoy.lb``. Points are in proportion to
    the weights, at least one for the least weight, so their number depends on the other nodes. Points that
    Envoy loses by rounding, or to `maximum_ring_size`, are also missing here.

    Source: ring_hash_lb.cc of Envoy 1.40.

    Raises ValueError for another `hash`, or unless 1 <= minimum_ring_size <= maximum_ring_size <= 8388608,
    TypeError unless these are ints.

    >>> envoy(minimum_ring_size=2048)
    envoy(hash='xxhash', minimum_ring_size=2048, maximum_ring_size=8388608)
    """
    check_choice("hash", hash, ("xxhash", "murmur2"))
    minimum_ring_size = checked_int("minimum_ring_size", minimum_ring_size)
    maximum_ring_size = checked_int("maximum_ring_size", maximum_ring_size)
    if not 1 <= minimum_ring_size <= maximum_ring_size <= 8388608:
        raise ValueError("minimum_ring_size and maximum_ring_size must be in order in [1, 8388608], "
                         f"got {minimum_ring_size!r} and {maximum_ring_size!r}")
    hash_point: Hash = xxh64 if hash == "xxhash" else _murmur64a

    def scale_of(weights: Sequence[int]) -> float:
        lightest = min(weights) / sum(weights)
        return min(ceil(lightest * minimum_ring_size) / lightest, float(maximum_ring_size))

    def counts(weights: Sequence[int]) -> list[int]:
        result: list[int] = []
        total, made, target = sum(weights), 0, 0.0
        scale = scale_of(weights) if weights else 0.0
        for weight in weights:
            target += scale * (weight / total)
            result.append(ceil(target) - made)
            made = ceil(target)
        return result

    def points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
        return [[hash_point(b"%b_%d" % (name, i)) for i in range(count)]
                for name, count in zip(names, counts(weights), strict=True)]

    def starved(weights: Sequence[int]) -> int | None:
        if scale_of(weights) * min(weights) / sum(weights) > 1.5:  # too many points to lose all by rounding
            return None
        given = zip(weights, counts(weights), strict=True)
        return next((weight for weight, count in given if not count), None)

    options: Options = {
        "hash": hash, "minimum_ring_size": minimum_ring_size, "maximum_ring_size": maximum_ring_size,
    }
    return Program("envoy", options, points, key_hash="xxh64", wide=True, starved=starved)
