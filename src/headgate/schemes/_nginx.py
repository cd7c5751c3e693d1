"""nginx."""

from collections.abc import Sequence
from zlib import crc32

from headgate.schemes._program import Points, Program
from headgate.schemes._scheme import Scheme


def _base(server: bytes) -> int:
    """CRC-32 of host, NUL and port; a ``unix:`` path has no port."""
    if server[:5].lower() == b"unix:":
        return crc32(server[5:] + b"\0")
    host, colon, port = server.rpartition(b":")
    if not colon or not (port.isdigit() or port == b""):
        host, port = server, b""
    return crc32(host + b"\0" + port)


def _points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
    points = []
    for name, weight in zip(names, weights, strict=True):
        base, previous, own = _base(name), 0, []
        for _ in range(160 * weight):
            previous = crc32(previous.to_bytes(4, "little"), base)
            own.append(previous)
        points.append(own)
    return points


def nginx() -> Scheme:
    """nginx's ``hash ... consistent`` and Cache::Memcached::Fast: 160 points per unit of weight.

    Nodes are the server strings of the configuration. Of equal points, that of the first server is used.

    Source: ngx_http_upstream_hash_module.c of nginx 1.22.1.

    >>> nginx()
    nginx()
    """
    return Program("nginx", {}, _points, key_hash="crc32", points_per_weight=160)
