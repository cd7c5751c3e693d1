"""Envoy sends 1,000 new requests to the hosts that placements of the same scheme return."""

import json
from functools import partial

import pytest
from proxies import fresh_keys, new_origins, origins_of
from servers import configured

from headgate import schemes

CLUSTERS = {
    "ring": {"lb_policy": "RING_HASH"},
    "large": {"lb_policy": "RING_HASH", "ring_hash_lb_config": {
        "minimum_ring_size": 4096, "hash_function": "MURMUR_HASH_2"}},
    "small": {"lb_policy": "RING_HASH", "ring_hash_lb_config": {
        "minimum_ring_size": 1, "maximum_ring_size": 29}},
    "named": {"lb_policy": "RING_HASH"},
    "maglev": {"lb_policy": "MAGLEV"},
    "little maglev": {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 13}},
}


def hash_key(fleet, name):
    """The name by which a host is hashed: in one fleet its metadata."""
    return f"größe {name}" if fleet == "named" else name


def address(name):
    host, port = name.split(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def listener(name, route):
    """An Envoy that routes every request by `route`."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network."
                 "http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    }
    return {"name": name, "address": address(name), "filter_chains": [
        {"filters": [{"name": "http", "typed_config": manager}]}]}


def cluster(name, options, origins):
    endpoints = [{"endpoint": {"address": address(origin)}, "load_balancing_weight": weight,
                  "metadata": {"filter_metadata": {"envoy.lb": {"hash_key": hash_key(name, origin)}}}}
                 for origin, weight in origins.items()]
    return {"name": name, "type": "STATIC", **options,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}}


def configuration(port, origins):
    by_key = {"cluster_header": "x-fleet", "hash_policy": [{"header": {"header_name": "x-key"}}]}
    answering = [listener(name, {"direct_response": {"status": 200, "body": {"inline_string": name}}})
                 for name in origins]
    return json.dumps({"static_resources": {
        "listeners": [listener(f"127.0.0.1:{port}", {"route": by_key}), *answering],
        "clusters": [cluster(name, options, origins) for name, options in CLUSTERS.items()],
    }})


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    folder, origins = tmp_path_factory.mktemp("envoy"), new_origins()
    arguments = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error", "--config-path"]
    with configured("envoy", arguments, folder, lambda port: configuration(port, origins)) as server:
        yield server, origins


@pytest.mark.parametrize(("fleet", "scheme"), [
    ("ring", schemes.envoy()),
    ("large", schemes.envoy(hash="murmur2", minimum_ring_size=4096)),
    ("small", schemes.envoy(minimum_ring_size=1, maximum_ring_size=29)),
    ("named", schemes.envoy()),
])
def test_envoy_hashes_on_its_ring_to_our_pick(envoy, twins, fleet, scheme):
    proxy, origins = envoy
    keys = fresh_keys()
    hosts = origins_of(proxy.port, fleet, keys)
    for twin in twins:
        ring = twin.placement.HashRing(origins, scheme=scheme, node_key=partial(hash_key, fleet))
        assert hosts == ring.get_many(keys)


@pytest.mark.parametrize(("fleet", "size"), [("maglev", 65537), ("little maglev", 13)])
def test_envoy_hashes_by_maglev_to_our_pick(envoy, twins, fleet, size):
    proxy, origins = envoy
    keys = fresh_keys()
    hosts = origins_of(proxy.port, fleet, keys)
    for twin in twins:
        assert hosts == twin.placement.Maglev(origins, size).get_many(keys)
