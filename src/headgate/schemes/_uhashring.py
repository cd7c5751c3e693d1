"""uhashring."""

from collections.abc import Sequence
from functools import partial

from headgate.schemes._hashes import md5_top
from headgate.schemes._ketama import ketama_points, starved_ketama
from headgate.schemes._program import Points, Program, check_flag
from headgate.schemes._scheme import Scheme


def _uhashring_digests(weight: int, nodes: int, total: int) -> int:
    return 40 * nodes * weight // total


def _last_writers(points: Points) -> Points:
    """Each point only for the last node that has it."""
    owners = {point: owner for owner, own in enumerate(points) for point in own}
    return [[point for point in own if owners[point] == owner] for owner, own in enumerate(points)]


def uhashring(ketama: bool = False) -> Scheme:
    """The Python package uhashring: its default ring, or its ketama mode.

    In both, a key belongs to the owner of the first point *after* its hash. The default ring has 160
    points per unit of weight, the 128-bit MD5 of ``name-i``, of which headgate compares the upper half. In
    ketama mode, point counts are exact integers, and of equal points that of the last node is used.

    Source: ring_meta.py and ring_ketama.py of uhashring 2.5.

    Raises TypeError unless `ketama` is a bool.

    >>> uhashring()
    uhashring(ketama=False)
    """
    check_flag("ketama", ketama)
    if ketama:
        def points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
            return _last_writers(ketama_points(names, weights, _uhashring_digests))

        starved = partial(starved_ketama, _uhashring_digests)
        return Program("uhashring", {"ketama": True}, points, key_hash="md5", exclusive=True, starved=starved)

    def digest_points(names: Sequence[bytes], weights: Sequence[int]) -> Points:
        return [[md5_top(b"%b-%d" % (name, i)) for i in range(160 * weight)]
                for name, weight in zip(names, weights, strict=True)]

    return Program("uhashring", {"ketama": False}, digest_points, key_hash="md5_top", wide=True,
                  exclusive=True, points_per_weight=160)
