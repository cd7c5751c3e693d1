"""twemproxy."""

from functools import partial

from headgate.schemes._ketama import ketama_digests, memcached_points, starved_ketama
from headgate.schemes._program import Program, check_choice
from headgate.schemes._scheme import Scheme


def twemproxy(hash: str = "fnv1a_64") -> Scheme:
    """twemproxy's ketama, with keys hashed by ``"fnv1a_64"``, ``"md5"``, ``"crc32"`` or ``"crc32a"``.

    Nodes are ``host:port``, without port 11211, or the names of the servers in the configuration.
    Points are those of libmemcached with weights, rounded in the same way. ``"crc32"`` is 15 bits of the
    CRC, ``"crc32a"`` all of it, and ``"fnv1a_64"`` is truncated to 32 bits at each step.

    Source: src/hashkit of twemproxy 0.5.0.

    Raises ValueError for another `hash`.

    >>> twemproxy(hash="crc32a")
    twemproxy(hash='crc32a')
    """
    hashes = {"fnv1a_64": "fnv1a_64", "md5": "md5", "crc32": "crc32_15", "crc32a": "crc32"}
    check_choice("hash", hash, tuple(hashes))
    starved = partial(starved_ketama, ketama_digests)
    return Program("twemproxy", {"hash": hash}, memcached_points, key_hash=hashes[hash], starved=starved)
