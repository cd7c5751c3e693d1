"""Replicas in distinct zones, against a naive model: the first node of each zone, then the others."""

import copy
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = [f"10.0.0.{i}:6379" for i in range(24)]
ZONES = {name: f"rack-{i % 4}" for i, name in enumerate(NAMES)}
KINDS = {
    "ring": lambda module, nodes: module.HashRing(nodes, 20),
    "nearest": lambda module, nodes: module.HashRing(nodes, scheme="haproxy", node_key=lambda node: node),
    "rendezvous": lambda module, nodes: module.Rendezvous(nodes),
    "maglev": lambda module, nodes: module.Maglev(nodes, 251),
}
STABLE = ("ring", "rendezvous")
"""Those whose nodes' order of preference does not depend on the other nodes."""


def naive(order, n, zone_of):
    """The first node of each zone in this order, then the others."""
    first = {}
    for node in order:
        first.setdefault(zone_of(node), node)
    heads = list(first.values())
    return (heads + [node for node in order if node not in heads])[:n]


@st.composite
def clusters(draw):
    """Weights, zones, and a number of replicas that may be above that of either."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    weights = {name: draw(st.sampled_from([0, 1, 1, 2])) for name in names}
    racks = draw(st.integers(1, 8))
    zones = {name: draw(st.integers(0, racks)) for name in names}
    return weights, zones, draw(st.integers(0, len(names) + 2))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "nearest"])
@given(cluster=clusters(), keys=st.lists(st.text(max_size=5), min_size=1, max_size=3))
@settings(max_examples=40)
def test_replicas_are_those_of_the_model(twins, kind, cluster, keys):
    weights, zones, n = cluster
    for placement in [KINDS[kind](each.placement, weights) for each in twins]:
        for key in keys:
            order = placement.preference(key)
            found = placement.get_nodes(key, n, zones=zones)
            assert found == naive(order, n, zones.get)
            assert found == placement.get_nodes(key, n, zones=zones.get)
            assert found[:1] == order[:1] if n else found == []
            assert len({zones[node] for node in found}) == min(n, len({zones[node] for node in order}))
            for less in range(n):
                assert placement.get_nodes(key, less, zones=zones) == found[:less]


@pytest.mark.parametrize("kind", STABLE)
@given(cluster=clusters(), data=st.data())
@settings(max_examples=40)
def test_a_change_of_a_node_replaces_at_most_one_replica(twins, kind, cluster, data):
    weights, zones, n = cluster
    gone = data.draw(st.sampled_from(sorted(weights)))
    for each in twins:
        whole = KINDS[kind](each.placement, weights)
        rest = copy.copy(whole)
        rest.remove_node(gone)
        for key in range(20):
            before, after = (set(place.get_nodes(key, n, zones=zones)) for place in (whole, rest))
            assert len(after - before) <= (gone in before)
            assert before - after <= {gone}


@pytest.mark.parametrize("kind", KINDS)
def test_few_zones_among_many_nodes(twin, kind):
    nodes = range(1, 25) if kind == "nearest" else NAMES
    placement = KINDS[kind](twin.placement, nodes)
    for racks in (1, 2, 3, 24):
        zones = {node: at % racks for at, node in enumerate(nodes)}
        for key in range(100):
            order = placement.preference(key)
            for n in (1, 3, 5, 24, 2**70):
                assert placement.get_nodes(key, n, zones=zones) == naive(order, n, zones.get)


def test_a_node_of_a_rare_zone_is_found(twin):
    ring = twin.placement.HashRing(NAMES)
    zones = dict.fromkeys(NAMES, "big") | {NAMES[7]: "small"}
    for key in range(200):
        assert NAMES[7] in ring.get_nodes(key, 2, zones=zones)


def test_replicas_share_the_load_by_zone(twin):
    ring = twin.placement.HashRing(NAMES)
    found = Counter(ZONES[node] for key in range(2000) for node in ring.get_nodes(key, 4, zones=ZONES))
    assert set(found.values()) == {2000}


def test_a_zone_may_be_any_hashable_object_and_come_from_anything_callable(twin):
    ring = twin.placement.HashRing(NAMES)
    zones = defaultdict(lambda: ("eu", 1), {NAMES[0]: ("us", 0), NAMES[1]: 0, NAMES[2]: ""})
    for key in range(50):
        expected = naive(ring.preference(key), 3, lambda node: zones[node])
        assert ring.get_nodes(key, 3, zones=zones) == expected
        assert ring.get_nodes(key, 3, zones=lambda node: zones[node]) == expected


@pytest.mark.parametrize("scheme", ["headgate", "libmemcached", "nginx", "envoy"])
def test_rings_of_other_programs_have_zones_too(twin, scheme):
    ring = twin.placement.HashRing(NAMES, scheme=scheme)
    for key in ("a", "b", "c"):
        assert ring.get_nodes(key, 3, zones=ZONES) == naive(ring.preference(key), 3, ZONES.get)


def test_a_ring_of_another_hash_has_zones_too(twin):
    from headgate import schemes

    ring = twin.placement.HashRing(NAMES, 5, scheme=schemes.headgate(hash="md5"))
    zones = dict.fromkeys(NAMES, "one")
    assert ring.get_nodes("key", 3, zones=zones) == ring.get_nodes("key", 3)


@pytest.mark.parametrize(("zones", "error", "message"), [
    (3, TypeError, "zones must be a mapping of node to zone or a callable, got 3"),
    ({}, ValueError, "zones must have a zone for each node, got none for 'a'"),
    ({"a": None, "b": 1}, ValueError, "zones must have a zone for each node, got none for 'a'"),
    (lambda node: None, ValueError, "zones must have a zone for each node, got none for 'a'"),
    ({"a": []}, TypeError, "zones must be hashable, got [] for 'a'"),
])
def test_errors_of_zones(twin, zones, error, message):
    ring = twin.placement.HashRing(["a"])
    with pytest.raises(error) as raised:
        ring.get_nodes("key", 1, zones=zones)
    assert str(raised.value) == message


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
def test_an_error_of_a_callable_reaches_the_caller(twin, error):
    def zone(node):
        raise error(node)

    ring = twin.placement.HashRing(["a"])
    with pytest.raises(error) as raised:
        ring.get_nodes("key", 1, zones=zone)
    assert raised.value.args == ("a",)


def test_a_callable_that_changes_the_ring_sees_one_state_of_it(twin):
    ring = twin.placement.HashRing(NAMES)
    order = ring.preference("key")

    def zone(node):
        ring.replace_nodes(["other"])
        return node

    assert ring.get_nodes("key", 3, zones=zone) == order[:3]
    assert ring.get_nodes("key", 3) == ["other"]


def test_a_callable_that_contradicts_itself_ends(twin):
    calls = iter(range(10**6))
    ring = twin.placement.HashRing(NAMES)
    answers = [0] * 12 + list(range(24))
    found = ring.get_nodes("key", 3, zones=lambda node: answers.pop(0) if answers else next(calls) * 0)
    assert len(found) == len(set(found)) == 3
