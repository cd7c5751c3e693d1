"""XXH64 and splitmix64 in pure Python; drawn and explained in docs/internals/hashing.md."""

from struct import unpack_from

from headgate._base.checks import checked_int

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_P1 = 0x9E37_79B1_85EB_CA87
_P2 = 0xC2B2_AE3D_27D4_EB4F
_P3 = 0x1656_67B1_9E37_79F9
_P4 = 0x85EB_CA77_C2B2_AE63
_P5 = 0x27D4_EB2F_1656_67C5
_GOLDEN_GAMMA = 0x9E37_79B9_7F4A_7C15


def _as_bytes(data):
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, bytes):
        return data
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise TypeError(f"data must be str, bytes or a buffer, got {data!r}") from None


def xxh64(data, seed=0):
    """The 64-bit xxHash of `data`, as an int in [0, 2**64).

    A ``str`` is hashed as its UTF-8, any buffer as its bytes in C order. The result is the
    same on every platform, whatever its byte order.

    Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md

    Raises TypeError if `data` is neither str, bytes nor a buffer or `seed` is no int,
    ValueError if `seed` is outside [0, 2**64).

    Complexity: O(len(data)).

    >>> hex(xxh64("headgate"))
    '0xe8a56f3cf2e45edc'
    >>> xxh64("é") == xxh64("é".encode())
    True
    """
    seed = checked_int("seed", seed)
    if not 0 <= seed <= _MASK:
        raise ValueError(f"seed must be in [0, 2**64), got {seed!r}")
    return _xxh64_bytes(_as_bytes(data), seed)


def _round(acc, lane):
    acc = (acc + lane * _P2) & _MASK
    return ((acc << 31 | acc >> 33) * _P1) & _MASK


def _stripes(data, seed):
    v1, v2, v3, v4 = (seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK
    for start in range(0, len(data) - 31, 32):
        l1, l2, l3, l4 = unpack_from("<4Q", data, start)
        v1, v2, v3, v4 = _round(v1, l1), _round(v2, l2), _round(v3, l3), _round(v4, l4)
    acc = (v1 << 1 | v1 >> 63) + (v2 << 7 | v2 >> 57) + (v3 << 12 | v3 >> 52) + (v4 << 18 | v4 >> 46)
    acc &= _MASK
    for v in (v1, v2, v3, v4):
        acc = ((acc ^ _round(0, v)) * _P1 + _P4) & _MASK
    return acc


def _xxh64_bytes(data, seed=0):
    size = len(data)
    acc = _stripes(data, seed) if size >= 32 else (seed + _P5) & _MASK
    acc = (acc + size) & _MASK
    for at in range(size & ~31, size - 7, 8):
        acc ^= _round(0, unpack_from("<Q", data, at)[0])
        acc = ((acc << 27 | acc >> 37) * _P1 + _P4) & _MASK
    at = size & ~7
    if size & 4:
        acc ^= unpack_from("<I", data, at)[0] * _P1 & _MASK
        acc = ((acc << 23 | acc >> 41) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        acc ^= byte * _P5 & _MASK
        acc = ((acc << 11 | acc >> 53) * _P1) & _MASK
    acc = ((acc ^ acc >> 33) * _P2) & _MASK
    acc = ((acc ^ acc >> 29) * _P3) & _MASK
    return acc ^ acc >> 32


def splitmix64(x):
    """The splitmix64 generator's output for the state `x`, as an int in [0, 2**64).

    `x` is taken modulo 2**64. The golden gamma is added, then the finalizer mixes: a bijection
    on 64-bit words, good at spreading counters.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014,
    and Vigna's splitmix64.c.

    Raises TypeError if `x` is no int.

    Complexity: O(1).

    >>> hex(splitmix64(0))
    '0xe220a8397b1dcdaf'
    >>> splitmix64(2**64) == splitmix64(0)
    True
    """
    z = (checked_int("x", x) + _GOLDEN_GAMMA) & _MASK
    z = ((z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9) & _MASK
    z = ((z ^ z >> 27) * 0x94D0_49BB_1331_11EB) & _MASK
    return z ^ z >> 31
