# jump_hash and redis_slot.
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.stdint cimport int64_t, uint64_t

from headgate._c.keys cimport hg_key, hg_key_of
from headgate._c.xxh64 cimport hg_xxh64

from headgate._base.checks import checked_int


cdef extern from "jump.h" nogil:
    int64_t hg_jump(uint64_t key, int64_t buckets)
    unsigned hg_redis_slot(const unsigned char *data, size_t size)


def jump_hash(key, buckets, /):
    """The bucket of `key`, in [0, buckets), by jump consistent hashing.

    When n buckets become n + 1, 1 / (n + 1) of the keys move, all to the new bucket; only the last
    bucket can be removed. An ``int`` in [-2**63, 2**64) is itself the hash, modulo 2**64; a ``str`` or
    ``bytes`` is hashed by XXH64.

    Source: Lamping and Veach, "A fast, minimal memory, consistent hash algorithm", 2014.

    Raises TypeError if `key` is neither str, bytes nor int or `buckets` is not an int, ValueError if
    they are out of range; `buckets` is in [1, 2**31].

    Complexity: O(log buckets).

    >>> jump_hash(256, 1024)
    520
    """
    cdef hg_key plain
    cdef uint64_t hash
    if isinstance(key, int):
        if not -2**63 <= int.__pos__(key) < 2**64:
            raise ValueError(f"key must be in [-2**63, 2**64), got {key!r}")
        hash = PyLong_AsUnsignedLongLongMask(key)
    else:
        hg_key_of(key, b"key", &plain)
        hash = hg_xxh64(plain.data, plain.size, 0)
    buckets = checked_int("buckets", buckets)
    if not 1 <= buckets <= 2**31:
        raise ValueError(f"buckets must be in [1, 2**31], got {buckets!r}")
    return hg_jump(hash, buckets)


def redis_slot(key, /):
    """The slot of `key`, in [0, 16384), in a Redis or Valkey cluster.

    If there is a hash tag, text between the first ``{`` and the next ``}``, only that is hashed: keys
    with the same tag are in the same slot. The hash is CRC-16/XMODEM.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

    Raises TypeError if `key` is neither str, bytes nor int, ValueError for an int outside
    [-2**63, 2**63).

    Complexity: O(len(key)).

    >>> redis_slot("{user1000}.following") == redis_slot("{user1000}.followers")
    True
    """
    cdef hg_key plain
    hg_key_of(key, b"key", &plain)
    return hg_redis_slot(plain.data, plain.size)
