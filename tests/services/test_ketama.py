"""memcached clients and a proxy store 1,000 new keys where rings of the same scheme place them."""

import secrets
from contextlib import ExitStack, closing

import pytest
from servers import configured, free_port, memcached

from headgate import schemes

pymemcache = pytest.importorskip("pymemcache", reason="pymemcache is not installed")
WEIGHTS = [1, 2, 1, 4]
UNWEIGHTED = [1, 1, 1, 1]
TWEMPROXY = """
fleet:
  listen: 127.0.0.1:{port}
  hash: {hash}
  distribution: ketama
  timeout: 60000
  servers:
{servers}
"""


@pytest.fixture
def fleet():
    """The names of some memcached servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(memcached()).name for _ in WEIGHTS]


def check(fleet, store, places):
    """New keys that `store` is called with, and their value, are where all `places` return."""
    keys = [secrets.token_urlsafe(1 + secrets.randbelow(60)) for _ in range(1000)]
    for key in keys:
        store(key, "1")
    for server in fleet:
        with closing(pymemcache.Client(server)) as plain:
            there = set(plain.get_many(keys))
        for place in places:
            assert there == {key for key in keys if place.get_node(key) == server}


@pytest.mark.parametrize(("weights", "behaviors", "options"), [
    (WEIGHTS, {"ketama_weighted": True}, {}),
    (UNWEIGHTED, {"ketama_weighted": True}, {}),
    (UNWEIGHTED, {"ketama": True}, {"weighted": False, "hash": "default"}),
    (UNWEIGHTED, {"ketama": True, "hash": "md5"}, {"weighted": False}),
    (WEIGHTS, {"ketama": True, "hash": "md5"}, {"weighted": False}),
])
def test_libmemcached(twins, fleet, weights, behaviors, options):
    pylibmc = pytest.importorskip("pylibmc", reason="pylibmc is not installed")
    weighted = dict(zip(fleet, weights, strict=True))
    client = pylibmc.Client([f"{name}:{weight}" for name, weight in weighted.items()], behaviors=behaviors)
    scheme = schemes.libmemcached(**options)
    check(fleet, client.set, [twin.placement.HashRing(weighted, scheme=scheme) for twin in twins])


@pytest.mark.parametrize("hash", ["fnv1a_64", "md5", "crc32", "crc32a"])
def test_twemproxy(twins, fleet, tmp_path, hash):
    weighted = dict(zip(fleet, WEIGHTS, strict=True))
    servers = "\n".join(f"    - {name}:{weight}" for name, weight in weighted.items())
    rings = [twin.placement.HashRing(weighted, scheme=schemes.twemproxy(hash=hash)) for twin in twins]
    statistics = "-a", "127.0.0.1", "-s", str(free_port())
    with (
        configured("nutcracker", [*statistics, "-o", str(tmp_path / "log"), "-c"], tmp_path,
                   lambda port: TWEMPROXY.format(port=port, hash=hash, servers=servers)) as proxy,
        closing(pymemcache.Client(proxy.name, default_noreply=False)) as client,
    ):
        check(fleet, client.set, rings)


@pytest.mark.parametrize("ketama", [False, True])
def test_uhashring(twins, fleet, ketama):
    uhashring = pytest.importorskip("uhashring", reason="uhashring is not installed")
    hashed = {"hash_fn": "ketama"} if ketama else {}
    with closing(pymemcache.HashClient(fleet, hasher=lambda: uhashring.HashRing(**hashed),
                                       default_noreply=False)) as client:
        scheme = schemes.uhashring(ketama=ketama)
        check(fleet, client.set, [twin.placement.HashRing(fleet, scheme=scheme) for twin in twins])


def test_pymemcache(twins, fleet):
    with closing(pymemcache.HashClient(fleet, default_noreply=False)) as client:
        check(fleet, client.set,
              [twin.placement.Rendezvous(fleet, scheme="pymemcache") for twin in twins])
