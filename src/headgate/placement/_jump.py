"""jump_hash and redis_slot in pure Python."""

from binascii import crc_hqx

from headgate._base.checks import checked_int
from headgate._base.keys import key_bytes
from headgate.hashing._pure import _MASK
from headgate.placement._base import _key_hash


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
    if isinstance(key, int):
        hash = int.__pos__(key)
        if not -(2**63) <= hash < 2**64:
            raise ValueError(f"key must be in [-2**63, 2**64), got {key!r}")
        hash &= _MASK
    else:
        hash = _key_hash(key)
    buckets = checked_int("buckets", buckets)
    if not 1 <= buckets <= 2**31:
        raise ValueError(f"buckets must be in [1, 2**31], got {buckets!r}")
    bucket = after = 0
    while after < buckets:
        bucket = after
        hash = (hash * 2862933555777941757 + 1) & _MASK
        after = int((bucket + 1) * (2147483648.0 / ((hash >> 33) + 1)))
    return bucket


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
    data = key_bytes(key, "key")
    _, _, after = data.partition(b"{")
    tag, close, _ = after.partition(b"}")
    return crc_hqx(tag if close and tag else data, 0) & 16383
