"""HAProxy."""

from collections.abc import Sequence

from headgate.schemes._hashes import HAPROXY_HASHES, MASK32, full_hash
from headgate.schemes._program import Points, Program, check_choice
from headgate.schemes._scheme import Options, Scheme


def _points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
    ids = [int.from_bytes(name, "little") for name in names]
    return [[full_hash((number * 4096 + i) & MASK32) for i in range(16 * weight)]
            for number, weight in zip(ids, weights, strict=True)]


def _check(node: object, number: int | None, weight: int) -> None:
    """Raises ValueError for a server id or a weight that HAProxy does not take."""
    if number is None or not 1 <= number < 2**31:
        raise ValueError(f"node must be a server id in [1, 2**31) under the scheme haproxy, got {node!r}")
    if weight > 256:
        raise ValueError(f"weight must be at most 256 under the scheme haproxy, got {weight!r}")


def haproxy(hash: str | None = None, avalanche: bool | None = None) -> Scheme:
    """HAProxy's ``hash-type consistent``: 16 points per unit of weight; the *nearest* point owns a key.

    Nodes are the ids of the servers, as int, in [1, 2**31); weights are at most 256. `hash` is
    ``"sdbm"``, ``"djb2"``, ``"wt6"`` or ``"crc32"``; None is HAProxy's default, sdbm with avalanche.
    `avalanche` mixes the hash of the key once more, as the keyword ``avalanche`` of the configuration
    does; None means True if `hash` is None, else False.

    Source: lb_chash.c and hash.c of HAProxy 2.6.12.

    Raises ValueError for another `hash`, TypeError unless `avalanche` is a bool or None.

    >>> haproxy(hash="sdbm")
    haproxy(hash='sdbm', avalanche=False)
    """
    check_choice("hash", hash, (None, *HAPROXY_HASHES))
    if avalanche is None:
        avalanche = hash is None
    elif not isinstance(avalanche, bool):
        raise TypeError(f"avalanche must be a bool or None, got {avalanche!r}")
    key_hash = f"{hash or 'sdbm'}_avalanche" if avalanche else hash or "sdbm"
    options: Options = {"hash": hash, "avalanche": avalanche}
    return Program("haproxy", options, _points, key_hash=key_hash, points_per_weight=16, nearest=True,
                   check=_check)
