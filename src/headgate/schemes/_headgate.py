"""headgate's own scheme."""

import hashlib
from functools import partial
from typing import Any

from headgate._base.checks import checked_int
from headgate.hashing import xxh64
from headgate.schemes._hashes import Hash
from headgate.schemes._scheme import Scheme


def _checked_word(hash: Hash, data: bytes) -> int:
    """The hash of `data` by a function of the user."""
    word = checked_int("hash(data)", hash(data))
    if not 0 <= word <= 0xFFFF_FFFF_FFFF_FFFF:
        raise ValueError(f"hash(data) must be in [0, 2**64), got {word!r}")
    return word


def _digest_word(name: str, data: bytes) -> int:
    """The first eight bytes of a digest of hashlib, little-endian; SHAKE digests are of any length."""
    digest: Any = hashlib.new(name, data, usedforsecurity=False)
    return int.from_bytes(digest.digest()[:8] if digest.digest_size else digest.digest(8), "little")


def _hash_of(hash: object) -> Hash:
    """The function that the argument `hash` is or names."""
    if callable(hash):
        return partial(_checked_word, hash)
    if not isinstance(hash, str):
        raise TypeError(f"hash must be a callable or a name of hashlib, got {hash!r}")
    if hash == "xxh64":
        return xxh64
    try:
        _digest_word(hash, b"")
    except ValueError:
        raise ValueError(f"hash must be 'xxh64' or a name of hashlib, got {hash!r}") from None
    return partial(_digest_word, hash)


def headgate(hash: str | Hash = "xxh64") -> Scheme:
    """headgate's own scheme, with `hash` as the hash function of node names and keys.

    A node of weight w has ``max(1, round(w * replicas))`` points, of which the i-th is
    splitmix64(hash(name) + i), and a key belongs to the owner of the first point at or after hash(key).
    `hash` is called with bytes and returns an int in [0, 2**64). The name of a hash of hashlib, such as
    ``"sha256"``, ``"sha3_256"`` or ``"blake2b"``, means the first eight bytes of its digest, as a
    little-endian int. Shares are only as even as the hash.

    An exception of the function is raised by the change or lookup that called it, which then changes
    nothing. A pickle of a ring has a reference to the function, so a ring with a lambda cannot be pickled.

    Raises ValueError if hashlib has no such name, TypeError if `hash` is neither a str nor callable.
    Changes and lookups raise TypeError if the function does not return an int, ValueError if that is out of
    range.

    >>> from headgate import HashRing
    >>> HashRing(["a", "b", "c"], scheme=headgate(hash="sha3_256")).get_node("user:1")
    'c'
    """
    return Scheme("headgate", {"hash": hash}, _hash_of(hash))
