"""How the programs of a fleet place points and hash keys, so that a HashRing agrees with them.

A `Scheme` says where the points of a node lie, how a key is hashed and how the circle is searched.
The functions here make one with the options of the program: ``HashRing(nodes, scheme=haproxy())``;
``scheme="haproxy"`` is the same with the program's defaults. `headgate` is our own scheme, with another
hash function if there must be one. Both twins share this one copy; the compiled twin hashes keys by
functions of its own, which tests hold against those here.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from struct import Struct, pack, unpack
from sys import _getframe
from typing import Any
from warnings import warn
from zlib import crc32

from headgate._base.checks import checked_int
from headgate.hashing import xxh64

__all__ = ["Scheme", "envoy", "haproxy", "headgate", "libmemcached", "nginx", "twemproxy", "uhashring"]

_MASK32 = 0xFFFF_FFFF
_MASK64 = 0xFFFF_FFFF_FFFF_FFFF
_md5 = partial(hashlib.md5, usedforsecurity=False)
_four_words = Struct("<4I").unpack

Hash = Callable[[bytes], int]
Options = Mapping[str, str | int | bool | Hash | None]
Points = Sequence[Sequence[int]]


def _float32(x: float) -> float:
    return float(unpack("<f", pack("<f", x))[0])


def _signed(data: bytes) -> tuple[int, ...]:
    """The bytes as signed chars."""
    return tuple(byte - 256 if byte & 128 else byte for byte in data)


def _md5_word(data: bytes) -> int:
    """The first four bytes of the MD5, little-endian."""
    return int.from_bytes(_md5(data).digest()[:4], "little")


def _md5_top(data: bytes) -> int:
    """The upper half of the MD5, big-endian."""
    return int.from_bytes(_md5(data).digest()[:8], "big")


def _crc32_15(data: bytes) -> int:
    """The 15 bits of a CRC-32 that memcached clients take."""
    return crc32(data) >> 16 & 0x7FFF


def _one_at_a_time(data: bytes) -> int:
    """Jenkins' one-at-a-time hash, over signed chars."""
    h = 0
    for byte in _signed(data):
        h = (h + byte) & _MASK32
        h = (h + (h << 10)) & _MASK32
        h ^= h >> 6
    h = (h + (h << 3)) & _MASK32
    h ^= h >> 11
    return (h + (h << 15)) & _MASK32


def _fnv1a_64_word(data: bytes) -> int:
    """FNV-1a of 64 bits as it comes out of a 32-bit variable, over signed chars."""
    h = 0x84222325
    for byte in _signed(data):
        h = (h ^ byte) * 0x1B3 & _MASK32
    return h


def _sdbm(data: bytes) -> int:
    h = 0
    for byte in data:
        h = (byte + (h << 6) + (h << 16) - h) & _MASK32
    return h


def _djb2(data: bytes) -> int:
    h = 5381
    for byte in data:
        h = (h * 33 + byte) & _MASK32
    return h


def _wt6(data: bytes) -> int:
    """HAProxy's wt6: two words rotated by distances that the words themselves give."""
    h0, h1, step0, step1 = 0xA53C965A, 0x5CA6953A, 6, 18
    for byte in data:
        h0 = ~(h0 ^ byte) & _MASK32
        h1 = ~(h1 + byte) & _MASK32
        h0, h1 = (h1 << step0 | h1 >> 32 - step0) & _MASK32, (h0 << step1 | h0 >> 32 - step1) & _MASK32
        mixed = (h0 >> 16 ^ h1) & 0xFFFF
        step0, step1 = mixed & 31, mixed >> 11
    return h0 ^ h1


def _avalanche(a: int) -> int:
    """HAProxy's full_hash: Jenkins' integer mix of six steps, then a multiplication."""
    a = (a + 0x7ED55D16 + (a << 12)) & _MASK32
    a = a ^ 0xC761C23C ^ a >> 19
    a = (a + 0x165667B1 + (a << 5)) & _MASK32
    a = (a + 0xD3A2646C ^ a << 9) & _MASK32
    a = (a + 0xFD7046C5 + (a << 3)) & _MASK32
    a = a ^ 0xB55A4F09 ^ a >> 16
    return a * 3221225473 & _MASK32


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


def _avalanched(hash: Hash) -> Hash:
    return lambda data: _avalanche(hash(data))


_HAPROXY_HASHES: dict[str, Hash] = {"sdbm": _sdbm, "djb2": _djb2, "wt6": _wt6, "crc32": crc32}

KEY_HASHES: dict[str, Hash] = {
    "xxh64": xxh64,
    "md5": _md5_word,
    "md5_top": _md5_top,
    "crc32": crc32,
    "crc32_15": _crc32_15,
    "one_at_a_time": _one_at_a_time,
    "fnv1a_64": _fnv1a_64_word,
    **_HAPROXY_HASHES,
    **{f"{name}_avalanche": _avalanched(hash) for name, hash in _HAPROXY_HASHES.items()},
}


def _level_of_the_caller() -> int:
    """How many frames above its caller the package was called; the compiled twin has none."""
    package, level = __name__.partition(".")[0], 1
    frame = _getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


class Scheme:
    """How points are placed and keys are hashed; made by the functions of this module.

    `name` and `options` say which and how. Two schemes are equal when these are.
    """

    __slots__ = ("hash", "name", "options")

    def __init__(self, name: str, options: Options, hash: Hash) -> None:
        self.name = name
        self.options = options
        self.hash = hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scheme):
            return NotImplemented
        return (self.name, self.options) == (other.name, other.options)

    def __hash__(self) -> int:
        return hash((self.name, *self.options.items()))

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({options})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.name, self.options)


class Program(Scheme):
    """The scheme of another program."""

    __slots__ = ("_points", "_starved", "exclusive", "key_hash", "nearest", "points_per_weight", "wide")

    def __init__(
        self,
        name: str,
        options: Options,
        points: Callable[[Sequence[bytes], Sequence[int]], Points],
        *,
        key_hash: str,
        points_per_weight: int = 0,
        starved: Callable[[Sequence[int]], int | None] | None = None,
        wide: bool = False,
        exclusive: bool = False,
        nearest: bool = False,
    ) -> None:
        super().__init__(name, options, KEY_HASHES[key_hash])
        self.key_hash = key_hash
        self.points_per_weight = points_per_weight
        self.wide = wide
        self.exclusive = exclusive
        self.nearest = nearest
        self._points = points
        self._starved = starved

    def points(self, names: Sequence[bytes], weights: Sequence[int]) -> Points:
        """The points of each node, given all nodes or, where `points_per_weight` is set, any of them."""
        return self._points(names, weights)

    def check(self, node: object, number: int | None, weight: float) -> None:
        """Refuses what the program could not be configured with; `number` is the node's name if an int."""
        if not isinstance(weight, int):
            raise ValueError(f"weight must be an int under the scheme {self.name}, got {weight!r}")
        if weight >= 2**32:
            raise ValueError(f"weight must be below 2**32 under the scheme {self.name}, got {weight!r}")
        if self.name != "haproxy":
            return
        if number is None or not 1 <= number < 2**31:
            raise ValueError(f"node must be a server id in [1, 2**31) under the scheme haproxy, got {node!r}")
        if weight > 256:
            raise ValueError(f"weight must be at most 256 under the scheme haproxy, got {weight!r}")

    @property
    def may_starve(self) -> bool:
        """Whether a node may be so light that it gets no point."""
        return self._starved is not None

    def warn(self, weights: Sequence[int]) -> None:
        """Warns of a node that is so light among the others that the program gives it no point."""
        starved = self._starved(weights) if self._starved is not None and weights else None
        if starved is not None:
            warn(f"weight {starved} of {sum(weights)} in all is too light for a point under the scheme "
                 f"{self.name}: that node gets no key", RuntimeWarning, stacklevel=_level_of_the_caller())


def _remade(name: str, options: Options) -> Scheme:
    """What a pickle of a scheme calls."""
    return _MAKERS[name](**options)


def find(scheme: object) -> Scheme:
    """The scheme that an argument names or is."""
    if isinstance(scheme, Scheme):
        return scheme
    if isinstance(scheme, str) and scheme in _MAKERS:
        return _MAKERS[scheme]()
    raise ValueError(f"scheme must be one of {', '.join(_MAKERS)} or a Scheme, got {scheme!r}")


def _choose(name: str, value: object, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")


def _checked_word(hash: Hash, data: bytes) -> int:
    """What a hash function of the user's makes of `data`."""
    word = checked_int("hash(data)", hash(data))
    if not 0 <= word <= _MASK64:
        raise ValueError(f"hash(data) must be in [0, 2**64), got {word!r}")
    return word


def _digest_word(name: str, data: bytes) -> int:
    """The first eight bytes of a digest of hashlib, little-endian; those of a SHAKE may be of any length."""
    digest: Any = hashlib.new(name, data, usedforsecurity=False)
    return int.from_bytes(digest.digest()[:8] if digest.digest_size else digest.digest(8), "little")


def _hash_of(hash: object) -> Hash:
    """The function that the argument of `headgate` names or is."""
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
    """headgate's own scheme, with `hash` for the names of nodes and for keys.

    A node of weight w has ``max(1, round(w * replicas))`` points, splitmix64(hash(name) + i) being the i-th,
    and a key belongs to the owner of the first point at or after hash(key). `hash` is called with bytes and
    returns an int in [0, 2**64). The name of a hash of hashlib, such as ``"sha256"``, ``"sha3_256"`` or
    ``"blake2b"``, stands for the first eight bytes of its digest, read as little-endian. The shares are only
    as even as the hash is.

    What the function raises is raised by the change or the lookup that called it, and changes nothing. A ring
    is pickled with a reference to the function, so that a lambda cannot be.

    Raises ValueError if hashlib has no such name, TypeError if `hash` is neither a str nor callable. Where a
    hash is used it is a TypeError if it is no int, a ValueError if it is out of range.

    >>> from headgate import HashRing
    >>> HashRing(["a", "b", "c"], scheme=headgate(hash="sha3_256")).get_node("user:1")
    'c'
    """
    return Scheme("headgate", {"hash": hash}, _hash_of(hash))


def _without_default_port(name: bytes) -> bytes:
    """memcached clients write host for host:11211."""
    return name.removesuffix(b":11211")


def _ketama_digests(weight: int, nodes: int, total: int) -> int:
    """How many MD5 digests a node gets, as libmemcached and twemproxy count: in single precision.

    What is lost there gives 156 points instead of 160 to each of 25, 47, 50, 55 ... equal nodes.
    """
    share = _float32(_float32(weight) / _float32(total))
    per_node = _float32(_float32(share * 160) / 4)
    return int(_float32(_float32(per_node * nodes) + _float32(1e-10)))


def _uhashring_digests(weight: int, nodes: int, total: int) -> int:
    return 40 * nodes * weight // total


def _ketama_points(names: Sequence[bytes], weights: Sequence[int],
                   digests: Callable[[int, int, int], int]) -> Points:
    """Four little-endian words of md5(name-j) for each of a node's digests."""
    total = sum(weights)
    return [
        [word for j in range(digests(weight, len(names), total))
         for word in _four_words(_md5(b"%b-%d" % (name, j)).digest())]
        for name, weight in zip(names, weights, strict=True)
    ]


def _starved_ketama(weights: Sequence[int], digests: Callable[[int, int, int], int]) -> int | None:
    """The weight of a node that gets no point, or None."""
    lightest = min(weights)
    return None if digests(lightest, len(weights), sum(weights)) else lightest


def _memcached_points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
    return _ketama_points([_without_default_port(name) for name in names], weights, _ketama_digests)


def libmemcached(weighted: bool = True, hash: str = "md5") -> Scheme:
    """libmemcached's ketama, as in its clients pylibmc and PHP's memcached.

    `weighted` is MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED: MD5 points in proportion to the weights, keys
    by MD5. Else MEMCACHED_BEHAVIOR_KETAMA: 100 points a node by `hash`, ``"default"`` (Jenkins'
    one-at-a-time) or ``"md5"``, which also hashes the keys; as soon as one weight is above 1 the
    points are the weighted ones. Nodes are ``host:port``; port 11211 is left out.

    Quirks kept: point counts are rounded in single precision, so 100 equal nodes get 156 points
    each instead of 160, and a light node may get none; a warning tells.

    Source: libhashkit and libmemcached/hosts.cc of libmemcached 1.1.4.

    Raises ValueError for another `hash`, TypeError unless `weighted` is a bool.

    >>> libmemcached(weighted=False)
    libmemcached(weighted=False, hash='md5')
    """
    _flag("weighted", weighted)
    _choose("hash", hash, ("default", "md5"))
    key_hash = "md5" if weighted or hash == "md5" else "one_at_a_time"
    hash_point = KEY_HASHES[key_hash]

    def points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
        if weighted or max(weights, default=1) > 1:
            return _memcached_points(names, weights)
        plain = [_without_default_port(name) for name in names]
        return [[hash_point(b"%b-%d" % (name, j)) for j in range(100)] for name in plain]

    def starved(weights: Sequence[int]) -> int | None:
        return _starved_ketama(weights, _ketama_digests) if weighted or max(weights) > 1 else None

    options: Options = {"weighted": weighted, "hash": hash}
    return Program("libmemcached", options, points, key_hash=key_hash, starved=starved)


def twemproxy(hash: str = "fnv1a_64") -> Scheme:
    """twemproxy's ketama, keys hashed by ``"fnv1a_64"``, ``"md5"``, ``"crc32"`` or ``"crc32a"``.

    Nodes are ``host:port``, port 11211 left out, or the names that the configuration gives the
    servers. Points are libmemcached's weighted ones, with its rounding; ``"crc32"`` is 15 bits of
    the CRC, ``"crc32a"`` all of it, and ``"fnv1a_64"`` is cut to 32 bits on the way.

    Source: src/hashkit of twemproxy 0.5.0.

    Raises ValueError for another `hash`.

    >>> twemproxy(hash="crc32a")
    twemproxy(hash='crc32a')
    """
    hashes = {"fnv1a_64": "fnv1a_64", "md5": "md5", "crc32": "crc32_15", "crc32a": "crc32"}
    _choose("hash", hash, tuple(hashes))
    starved = partial(_starved_ketama, digests=_ketama_digests)
    return Program("twemproxy", {"hash": hash}, _memcached_points, key_hash=hashes[hash], starved=starved)


def _last_writers(points: Points) -> Points:
    """Leaves each point to the last node that has it."""
    owners = {point: owner for owner, own in enumerate(points) for point in own}
    return [[point for point in own if owners[point] == owner] for owner, own in enumerate(points)]


def uhashring(ketama: bool = False) -> Scheme:
    """The Python package uhashring: its default ring, or its ketama mode.

    Both take the owner of the first point *after* a key's hash. The default has 160 points for each
    unit of weight, 128-bit MD5 of ``name-i``, of which the upper half is compared here. In ketama
    mode counts are exact integers, and of equal points the last node's wins.

    Source: ring_meta.py and ring_ketama.py of uhashring 2.5.

    Raises TypeError unless `ketama` is a bool.

    >>> uhashring()
    uhashring(ketama=False)
    """
    _flag("ketama", ketama)
    if ketama:
        def points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
            return _last_writers(_ketama_points(names, weights, _uhashring_digests))

        starved = partial(_starved_ketama, digests=_uhashring_digests)
        return Program("uhashring", {"ketama": True}, points, key_hash="md5", exclusive=True, starved=starved)

    def digest_points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
        return [[_md5_top(b"%b-%d" % (name, i)) for i in range(160 * weight)]
                for name, weight in zip(names, weights, strict=True)]

    return Program("uhashring", {"ketama": False}, digest_points, key_hash="md5_top", wide=True,
                  exclusive=True, points_per_weight=160)


def _nginx_base(server: bytes) -> int:
    """CRC-32 of host, NUL, port; a ``unix:`` path has no port."""
    if server[:5].lower() == b"unix:":
        return crc32(server[5:] + b"\0")
    host, colon, port = server.rpartition(b":")
    if not colon or not (port.isdigit() or port == b""):
        host, port = server, b""
    return crc32(host + b"\0" + port)


def _nginx_points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
    points = []
    for name, weight in zip(names, weights, strict=True):
        base, previous, own = _nginx_base(name), 0, []
        for _ in range(160 * weight):
            previous = crc32(previous.to_bytes(4, "little"), base)
            own.append(previous)
        points.append(own)
    return points


def nginx() -> Scheme:
    """nginx's ``hash ... consistent``, also that of Cache::Memcached::Fast: 160 points a unit of weight.

    Nodes are the server strings as the configuration has them. Of equal points the first server's wins.

    Source: ngx_http_upstream_hash_module.c of nginx 1.22.1.

    >>> nginx()
    nginx()
    """
    return Program("nginx", {}, _nginx_points, key_hash="crc32", points_per_weight=160)


def envoy(hash: str = "xxhash", minimum_ring_size: int = 1024, maximum_ring_size: int = 8388608) -> Scheme:
    """Envoy's RING_HASH: nodes by ``"xxhash"`` or ``"murmur2"``, keys always by XXH64.

    Nodes are ``ip:port``, or what the metadata ``envoy.lb`` has as ``hash_key``. Every node has a
    multiple of its share of the weights in points, at least one for the lightest, so counts depend
    on the other nodes; what is lost in doubles, and to `maximum_ring_size`, is lost here too.

    Source: ring_hash_lb.cc of Envoy 1.40.

    Raises ValueError for another `hash`, or unless 1 <= minimum_ring_size <= maximum_ring_size <= 8388608,
    TypeError unless these are ints.

    >>> envoy(minimum_ring_size=2048)
    envoy(hash='xxhash', minimum_ring_size=2048, maximum_ring_size=8388608)
    """
    _choose("hash", hash, ("xxhash", "murmur2"))
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
        if scale_of(weights) * min(weights) / sum(weights) > 1.5:  # too much to lose in rounding
            return None
        given = zip(weights, counts(weights), strict=True)
        return next((weight for weight, count in given if not count), None)

    options: Options = {
        "hash": hash, "minimum_ring_size": minimum_ring_size, "maximum_ring_size": maximum_ring_size,
    }
    return Program("envoy", options, points, key_hash="xxh64", wide=True, starved=starved)


def _haproxy_points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
    ids = [int.from_bytes(name, "little") for name in names]
    return [[_avalanche((number * 4096 + i) & _MASK32) for i in range(16 * weight)]
            for number, weight in zip(ids, weights, strict=True)]


def haproxy(hash: str | None = None, avalanche: bool | None = None) -> Scheme:
    """HAProxy's ``hash-type consistent``: 16 points a unit of weight, the *nearer* neighbour wins.

    Nodes are the ids of the servers, as int, in [1, 2**31); weights go up to 256. `hash` is
    ``"sdbm"``, ``"djb2"``, ``"wt6"`` or ``"crc32"``; None is HAProxy's own default, sdbm with
    avalanche. `avalanche` mixes the hash of the key once more, as the configuration's word
    ``avalanche`` does; None means only where no hash is named.

    Source: lb_chash.c and hash.c of HAProxy 2.6.12.

    Raises ValueError for another `hash`, TypeError unless `avalanche` is a bool or None.

    >>> haproxy(hash="sdbm")
    haproxy(hash='sdbm', avalanche=False)
    """
    _choose("hash", hash, (None, *_HAPROXY_HASHES))
    if avalanche is None:
        avalanche = hash is None
    elif not isinstance(avalanche, bool):
        raise TypeError(f"avalanche must be a bool or None, got {avalanche!r}")
    key_hash = f"{hash or 'sdbm'}_avalanche" if avalanche else hash or "sdbm"
    options: Options = {"hash": hash, "avalanche": avalanche}
    return Program("haproxy", options, _haproxy_points, key_hash=key_hash, points_per_weight=16, nearest=True)


_MAKERS: dict[str, Callable[..., Scheme]] = {
    maker.__name__: maker for maker in (headgate, libmemcached, uhashring, twemproxy, nginx, envoy, haproxy)
}
