"""libmemcached."""

from collections.abc import Sequence

from headgate.schemes._hashes import KEY_HASHES
from headgate.schemes._ketama import ketama_digests, memcached_points, starved_ketama, without_default_port
from headgate.schemes._program import Points, Program, check_choice, check_flag
from headgate.schemes._scheme import Options, Scheme


def libmemcached(weighted: bool = True, hash: str = "md5") -> Scheme:
    """libmemcached's ketama, as in pylibmc and PHP's memcached, which use it.

    If `weighted` is true, MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED: points by MD5 in proportion to the
    weights, keys by MD5. Otherwise MEMCACHED_BEHAVIOR_KETAMA: 100 points per node by `hash`,
    ``"default"`` (Jenkins' one-at-a-time) or ``"md5"``, which also hashes the keys; if any weight is
    above 1, points are as with `weighted`. Nodes are ``host:port``; port 11211 is omitted.

    Point counts are rounded in single precision, as in libmemcached, so 100 equal nodes have 156 points
    each instead of 160, and a node of small weight may have none, which is a RuntimeWarning.

    Source: libhashkit and libmemcached/hosts.cc of libmemcached 1.1.4.

    Raises ValueError for another `hash`, TypeError unless `weighted` is a bool.

    >>> libmemcached(weighted=False)
    libmemcached(weighted=False, hash='md5')
    """
    check_flag("weighted", weighted)
    check_choice("hash", hash, ("default", "md5"))
    key_hash = "md5" if weighted or hash == "md5" else "one_at_a_time"
    hash_point = KEY_HASHES[key_hash]

    def points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
        if weighted or max(weights, default=1) > 1:
            return memcached_points(names, weights)
        plain = [without_default_port(name) for name in names]
        return [[hash_point(b"%b-%d" % (name, j)) for j in range(100)] for name in plain]

    def starved(weights: Sequence[int]) -> int | None:
        return starved_ketama(ketama_digests, weights) if weighted or max(weights) > 1 else None

    options: Options = {"weighted": weighted, "hash": hash}
    return Program("libmemcached", options, points, key_hash=key_hash, starved=starved)
