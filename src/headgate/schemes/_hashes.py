"""How programs hash keys; the compiled twin has functions of its own, which tests compare with these."""

import hashlib
from collections.abc import Callable
from zlib import crc32

from headgate.hashing import xxh64

Hash = Callable[[bytes], int]

MASK32 = 0xFFFF_FFFF


def md5(data: bytes) -> bytes:
    """The MD5 of the bytes; no partial, which CPython changes at its first call with keywords."""
    return hashlib.md5(data, usedforsecurity=False).digest()


def _signed(data: bytes) -> tuple[int, ...]:
    """The bytes as values of a signed char."""
    return tuple(byte - 256 if byte & 128 else byte for byte in data)


def _md5_word(data: bytes) -> int:
    """The first four bytes of the MD5, little-endian."""
    return int.from_bytes(md5(data)[:4], "little")


def md5_top(data: bytes) -> int:
    """The upper half of the MD5, big-endian."""
    return int.from_bytes(md5(data)[:8], "big")


def _crc32_15(data: bytes) -> int:
    """The 15 bits of a CRC-32 that memcached clients use."""
    return crc32(data) >> 16 & 0x7FFF


def _one_at_a_time(data: bytes) -> int:
    """Jenkins' one-at-a-time hash, over signed chars."""
    h = 0
    for byte in _signed(data):
        h = (h + byte) & MASK32
        h = (h + (h << 10)) & MASK32
        h ^= h >> 6
    h = (h + (h << 3)) & MASK32
    h ^= h >> 11
    return (h + (h << 15)) & MASK32


def _fnv1a_64_word(data: bytes) -> int:
    """FNV-1a of 64 bits, computed in a 32-bit variable, over signed chars."""
    h = 0x84222325
    for byte in _signed(data):
        h = (h ^ byte) * 0x1B3 & MASK32
    return h


def _sdbm(data: bytes) -> int:
    h = 0
    for byte in data:
        h = (byte + (h << 6) + (h << 16) - h) & MASK32
    return h


def _djb2(data: bytes) -> int:
    h = 5381
    for byte in data:
        h = (h * 33 + byte) & MASK32
    return h


def _wt6(data: bytes) -> int:
    """HAProxy's wt6: two words, rotated by numbers of bits that depend on them."""
    h0, h1, step0, step1 = 0xA53C965A, 0x5CA6953A, 6, 18
    for byte in data:
        h0 = ~(h0 ^ byte) & MASK32
        h1 = ~(h1 + byte) & MASK32
        h0, h1 = (h1 << step0 | h1 >> 32 - step0) & MASK32, (h0 << step1 | h0 >> 32 - step1) & MASK32
        mixed = (h0 >> 16 ^ h1) & 0xFFFF
        step0, step1 = mixed & 31, mixed >> 11
    return h0 ^ h1


def full_hash(a: int) -> int:
    """HAProxy's function of this name: Jenkins' integer hash in six steps, then a multiplication."""
    a = (a + 0x7ED55D16 + (a << 12)) & MASK32
    a = a ^ 0xC761C23C ^ a >> 19
    a = (a + 0x165667B1 + (a << 5)) & MASK32
    a = (a + 0xD3A2646C ^ a << 9) & MASK32
    a = (a + 0xFD7046C5 + (a << 3)) & MASK32
    a = a ^ 0xB55A4F09 ^ a >> 16
    return a * 3221225473 & MASK32


def _avalanched(hash: Hash) -> Hash:
    return lambda data: full_hash(hash(data))


HAPROXY_HASHES: dict[str, Hash] = {"sdbm": _sdbm, "djb2": _djb2, "wt6": _wt6, "crc32": crc32}

KEY_HASHES: dict[str, Hash] = {
    "xxh64": xxh64,
    "md5": _md5_word,
    "md5_top": md5_top,
    "crc32": crc32,
    "crc32_15": _crc32_15,
    "one_at_a_time": _one_at_a_time,
    "fnv1a_64": _fnv1a_64_word,
    **HAPROXY_HASHES,
    **{f"{name}_avalanche": _avalanched(hash) for name, hash in HAPROXY_HASHES.items()},
}
