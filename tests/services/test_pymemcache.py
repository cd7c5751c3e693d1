"""The hasher for pymemcache: its contract, pymemcache's own placement, and several memcached servers."""

import threading
from contextlib import ExitStack, closing
from hashlib import sha256

import pytest
from servers import memcached
from watchdog import PATIENCE

from headgate import HashRing, schemes
from headgate.adapters.pymemcache import hasher

pymemcache = pytest.importorskip("pymemcache", reason="pymemcache is not installed")
KEYS = [sha256(b"%d" % i).hexdigest() for i in range(300)]
NODES = [f"10.0.0.{i}:11211" for i in range(1, 9)]
SCHEMES = ["headgate", "pymemcache", "uhashring", "libmemcached", "twemproxy", "nginx"]


def filled(make, nodes=NODES):
    servers = make()
    for node in nodes:
        servers.add_node(node)
    return servers


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_contract_of_a_hasher(scheme):
    servers = hasher(scheme)()
    assert servers.get_node("key") is None
    for node in NODES:
        servers.add_node(node)
        servers.add_node(node)
    before = {key: servers.get_node(key) for key in KEYS}
    assert set(before.values()) == set(NODES)
    servers.remove_node(NODES[0])
    assert {servers.get_node(key) for key in KEYS} == set(NODES[1:])
    servers.add_node(NODES[0])
    assert {key: servers.get_node(key) for key in KEYS} == before


def test_each_client_has_a_placement_of_its_own():
    make = hasher()
    one, other = make(), make()
    one.add_node("a:1")
    assert one.get_node("key") == "a:1"
    assert other.get_node("key") is None


@pytest.mark.parametrize("key", ["plain", b"plain", "grüße", "", b"\xff"])
def test_pymemcache_scheme_is_where_the_client_has_it(key):
    rendezvous = pytest.importorskip("pymemcache.client.rendezvous").RendezvousHash(list(NODES))
    assert filled(hasher("pymemcache")).get_node(key) == rendezvous.get_node(key)


@pytest.mark.parametrize("ketama", [False, True])
def test_uhashring_scheme_is_where_uhashring_has_it(ketama):
    uhashring = pytest.importorskip("uhashring", reason="uhashring is not installed")
    peer = uhashring.HashRing(NODES, **({"hash_fn": "ketama"} if ketama else {}))
    servers = filled(hasher(schemes.uhashring(ketama=ketama)))
    keys = KEYS + [key.encode() for key in KEYS]
    assert [servers.get_node(key) for key in keys] == [peer.get_node(key) for key in keys]


@pytest.mark.parametrize("scheme", ["headgate", "libmemcached", "twemproxy", "nginx"])
def test_bytes_and_str_are_one_key(scheme):
    servers = filled(hasher(scheme))
    assert [servers.get_node(key) for key in KEYS] == [servers.get_node(key.encode()) for key in KEYS]


def test_weights_and_node_keys_reach_the_placement():
    weights = dict.fromkeys(NODES, 1) | {NODES[0]: 3}
    servers = filled(hasher("libmemcached", weights={NODES[0]: 3,}))
    ring = HashRing(weights, scheme="libmemcached")
    assert [servers.get_node(key) for key in KEYS] == [ring.get_node(key) for key in KEYS]
    ids = {node: i + 1 for i, node in enumerate(NODES)}
    servers = filled(hasher("haproxy", node_key=ids.__getitem__))
    ring = HashRing(NODES, scheme="haproxy", node_key=ids.__getitem__)
    assert [servers.get_node(key) for key in KEYS] == [ring.get_node(key) for key in KEYS]


def test_a_weight_of_no_server_is_refused_at_the_first_lookup():
    weights = {NODES[0]: 3, "10.0.0.2": 9, "10.0.0.3": 9}
    servers = filled(hasher(weights=weights))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"weights must be of .* got '10\.0\.0\.2', '10\.0\.0\.3'$"):
            servers.get_node("key")
    servers.add_node("10.0.0.2")
    servers.add_node("10.0.0.3")
    assert servers.get_node("key") == servers.placement.get_node("key")
    servers.remove_node("10.0.0.3")
    assert servers.get_node("key") == servers.placement.get_node("key")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_to_remove_what_is_not_there_is_the_error_of_pymemcache(scheme):
    peer = pytest.importorskip("pymemcache.client.rendezvous").RendezvousHash(list(NODES))
    for servers in (peer, filled(hasher(scheme))):
        with pytest.raises(ValueError, match=r"10\.0\.0\.99:1"):
            servers.remove_node("10.0.0.99:1")


def test_a_wrong_argument_is_refused_at_once():
    with pytest.raises(ValueError, match=r"scheme must be one of .* got 'ketama'"):
        hasher("ketama")
    with pytest.raises(TypeError, match=r"weights must be a mapping of .* or None, got \['a:1'\]"):
        hasher(weights=["a:1"])
    with pytest.raises(TypeError, match="node_key must be callable or None, got 'name'"):
        hasher(node_key="name")


def test_threads_that_revive_one_server():
    servers = hasher()()
    barrier = threading.Barrier(8)

    def revive():
        barrier.wait()
        for node in NODES:
            servers.add_node(node)

    threads = [threading.Thread(target=revive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert servers.placement.nodes == tuple(NODES)


@pytest.fixture
def fleet():
    with ExitStack() as stack:
        yield [stack.enter_context(memcached()) for _ in range(3)]


@pytest.fixture
def connect(fleet):
    """A function that returns a HashClient of the fleet, which is closed after the test."""
    with ExitStack() as stack:
        def connect(scheme, **options):
            servers = [server.name for server in fleet]
            client = pymemcache.HashClient(servers, hasher=hasher(scheme), timeout=PATIENCE,
                                           default_noreply=False, **options)
            stack.callback(client.close)
            return client

        yield connect


@pytest.mark.parametrize("scheme", SCHEMES)
def test_keys_are_on_the_servers_that_the_placement_names(fleet, connect, scheme):
    client = connect(scheme)
    assert client.set_many(dict.fromkeys(KEYS, "1")) == []
    expected = filled(hasher(scheme), [server.name for server in fleet])
    for server in fleet:
        with closing(pymemcache.Client(server.name)) as plain:
            there = plain.get_many(KEYS)
        assert set(there) == {key for key in KEYS if expected.get_node(key) == server.name}


@pytest.mark.parametrize("pooled", [False, True])
def test_a_server_dies_and_comes_back(fleet, connect, pooled):
    client = connect("headgate", use_pooling=pooled, retry_attempts=0, ignore_exc=True)
    placement = client.hasher.placement
    owners = {key: placement.get_node(key) for key in KEYS}
    client.set_many(dict.fromkeys(KEYS, "1"))
    dead = fleet[1]
    lost = {key for key in KEYS if owners[key] == dead.name}
    assert 0 < len(lost) < len(KEYS)
    dead.kill()
    for _ in range(2):  # first a connection is closed, then a new one is refused
        assert set(client.get_many(KEYS)) == set(KEYS) - lost
    assert dead.name not in placement
    assert client.set_many(dict.fromkeys(lost, "2")) == []
    assert set(client.get_many(KEYS)) == set(KEYS)
    dead.start()
    client.dead_timeout = 0
    client.get(KEYS[0])
    assert {key: placement.get_node(key) for key in KEYS} == owners
    assert set(client.get_many(KEYS)) == set(KEYS) - lost
