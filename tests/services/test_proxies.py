"""nginx and HAProxy send 1,000 fresh requests where our picks of the same scheme say."""

import secrets
from ipaddress import IPv4Address, IPv6Address

import pytest
from proxies import REQUESTS, WEIGHTS, fresh_keys, new_origins, origins_of
from servers import configured

from headgate import schemes
from headgate.balance._settings import address_bytes, nginx_hash

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Client;
    {upstreams}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 100000;
        location / {{ proxy_pass http://$http_x_fleet; }}
    }}
    {origins}
}}
"""
NGINX_BALANCE = {
    "hash": "hash $arg_key consistent;",
    "header": "hash $http_x_key consistent;",
    "ip_hash": "ip_hash;",
    "ip_hash_down": "ip_hash;",
    "smooth": "",
}
HAPROXY = """
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
frontend proxy
    bind 127.0.0.1:{port}
    use_backend %[req.hdr(x-fleet)]
{fleets}
{origins}
"""
HAPROXY_BALANCE = {
    "uri": ("uri", "", {}),
    "parameter": ("url_param key", "", {}),
    "header": ("hdr(x-key)", "", {}),
    "hash": ("hash req.hdr(x-key)", "", {}),
    "sdbm": ("hdr(x-key)", "sdbm", {"hash": "sdbm"}),
    "djb2": ("hdr(x-key)", "djb2", {"hash": "djb2"}),
    "wt6": ("hdr(x-key)", "wt6", {"hash": "wt6"}),
    "crc32": ("hdr(x-key)", "crc32 avalanche", {"hash": "crc32", "avalanche": True}),
}


IDS = [1, 2**20 + 1, 4, 2**31 - 1, 59, 3 * 2**20]
"""The points of the first two are the same, since an id counts by its lower 20 bits."""


def sockets(folder):
    """Servers at sockets of Unix to their weights, named in both cases."""
    return {f"{'UNIX' if number % 2 else 'unix'}:{folder}/{number}.sock": weight
            for number, weight in enumerate(WEIGHTS)}


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    folder, origins = tmp_path_factory.mktemp("nginx"), new_origins()
    servers = [f"server {name} weight={weight};" for name, weight in origins.items()]
    servers_of = dict.fromkeys(NGINX_BALANCE, servers)
    servers_of["ip_hash_down"] = [*servers[:-1], servers[-1].replace(";", " down;")]
    upstreams = "".join(f"upstream {fleet} {{ {balance} {''.join(servers_of[fleet])} }}"
                        for fleet, balance in NGINX_BALANCE.items())
    upstreams += "upstream sockets { hash $http_x_key consistent; " + "".join(
        f"server {name} weight={weight};" for name, weight in sockets(folder).items()) + "}"
    answering = "".join(f'server {{ listen {name}; return 200 "{name}"; }}'
                        for name in [*origins, *sockets(folder)])
    arguments = ["-p", str(folder), "-e", "stderr", "-c"]
    with configured("nginx", arguments, folder, lambda port: NGINX.format(
            port=port, upstreams=upstreams, origins=answering)) as server:
        yield server, origins, sockets(folder)


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory):
    folder, origins = tmp_path_factory.mktemp("haproxy"), new_origins()
    servers = "".join(f"    server s{number} {name} id {IDS[number]} weight {weight}\n"
                      for number, (name, weight) in enumerate(origins.items()))
    fleets = "".join(f"backend {fleet}\n    balance {balance}\n    hash-type consistent {hash}\n{servers}"
                     for fleet, (balance, hash, _) in HAPROXY_BALANCE.items())
    answering = "".join(
        f"frontend o{number}\n    bind {name}\n"
        f"    http-request return status 200 content-type text/plain string {name}\n"
        for number, name in enumerate(origins))
    with configured("haproxy", ["-db", "-f"], folder, lambda port: HAPROXY.format(
            port=port, fleets=fleets, origins=answering)) as server:
        yield server, origins


@pytest.mark.parametrize("fleet", ["hash", "header", "sockets"])
def test_nginx_hashes_consistently_to_our_pick(nginx, twins, fleet):
    proxy, origins, paths = nginx
    keys = fresh_keys()
    served = origins_of(proxy.port, fleet, keys)
    servers = paths if fleet == "sockets" else origins
    for twin in twins:
        assert served == twin.placement.HashRing(servers, scheme="nginx").get_many(keys)


def finds_another(client):
    """Whether nginx's hashes lead away from the last server, without its falling back to turns."""
    hashed, up = 89, sum(WEIGHTS[:-1])
    for _ in range(20):
        hashed = nginx_hash(address_bytes(client, True), hashed)
        if hashed % sum(WEIGHTS) < up:
            return True
    return False


@pytest.mark.parametrize("fleet", ["ip_hash", "ip_hash_down"])
def test_nginx_hashes_addresses_to_our_pick(nginx, twins, fleet):
    proxy, origins, _ = nginx
    clients = [str(IPv4Address(secrets.randbits(32))) for _ in range(REQUESTS // 2)]
    clients += [str(IPv6Address(secrets.randbits(128))) for _ in range(REQUESTS // 2)]
    down = list(origins)[-1:] if fleet == "ip_hash_down" else ()
    if down:
        clients = list(filter(finds_another, clients))
    served = origins_of(proxy.port, fleet, ["-"] * len(clients), clients)
    for twin in twins:
        balancer = twin.balance.AddressHash(origins, scheme="nginx")
        assert served == [balancer.get_server(client, exclude=down) for client in clients]


def test_nginx_goes_round_by_weight_as_we_do(nginx, twins):
    proxy, origins, _ = nginx
    served = origins_of(proxy.port, "smooth", ["-"] * REQUESTS)
    for twin in twins:
        balancer = twin.balance.WeightedRoundRobin(origins, seed=0)
        assert served == [balancer.get_server() for _ in served]


@pytest.mark.parametrize("fleet", HAPROXY_BALANCE)
def test_haproxy_hashes_consistently_to_our_pick(haproxy, twins, fleet):
    proxy, origins = haproxy
    keys = fresh_keys()
    ids = dict(zip(origins, IDS, strict=True))
    scheme = schemes.haproxy(**HAPROXY_BALANCE[fleet][2])
    hashed = [f"/{key}" for key in keys] if fleet == "uri" else keys
    served = origins_of(proxy.port, fleet, keys)
    for twin in twins:
        ring = twin.placement.HashRing(origins, scheme=scheme, node_key=ids.__getitem__)
        assert served == ring.get_many(hashed)
