"""The edge of the example under attack: what deceives proxies and caches, and documents that are wrong."""

import asyncio
import json
import socket
import time
from contextlib import suppress

import aiohttp
import pytest
import yaml
from aiohttp import web
from edge_site import EdgeServer, SiteOrigin, document
from raw_origin import raw_origin, talk
from redis_servers import RedisServer
from routes import Settings
from watchdog import PATIENCE, in_a_loop, until

from headgate.config import ConfigError, load


class EchoingOrigin(SiteOrigin):
    """Its ``/seen`` may be stored by language, and shows what reached it."""

    async def _seen(self, request):
        fields = {name.lower(): value for name, value in request.headers.items()}
        shown = {**fields, "target": request.raw_path}
        return web.json_response(shown, headers={"Cache-Control": "max-age=60", "Vary": "Accept-Language"})


@pytest.fixture(scope="module")
def origin():
    with EchoingOrigin() as origin:
        yield origin


@pytest.fixture(scope="module")
def site(origin, redis_server, tmp_path_factory):
    made = document([origin], redis_server.port)
    with EdgeServer(tmp_path_factory.mktemp("abuse"), "paris", made) as server:
        yield server


@pytest.mark.parametrize("said", [
    "unknown", "192.0.2.1:80", "[2001:db8::1]", "_hidden", "127.0.0.1, ?", ",,"])
def test_a_trusted_proxy_may_not_know_its_client(site, said):
    assert site.get("/version", X_Forwarded_For=said)[0] == 200


def test_only_proxies_set_the_fields_of_proxies(site):
    """Nor are there names that origins under CGI or WSGI cannot tell from theirs."""
    request = (b"GET /seen/fields HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n"
               b"X_Forwarded_For: 6.6.6.6\r\nX_Edge_Region: moon\r\nContent_Length: 7\r\n"
               b"X-Forwarded-Port: 99\r\nX-Forwarded-Prefix: /evil\r\nX-Forwarded-Host: evil.test\r\n\r\n")
    seen = json.loads(in_a_loop(talk(site.port, request)).rpartition(b"\r\n\r\n")[2])
    assert {name for name in seen if "_" in name or name.startswith("x-edge")} == set()
    forwarded = {name: value for name, value in seen.items() if name.startswith("x-forwarded-")}
    assert forwarded == {
        "x-forwarded-for": "127.0.0.1", "x-forwarded-host": "site.test", "x-forwarded-proto": "http"}


def test_a_field_of_one_connection_chooses_no_variant(site):
    """The origin does not see it, so that its response would be stored for others."""
    site.get("/seen/variant", Accept_Language="de", Connection="Accept-Language")
    _, fields, body = site.get("/seen/variant", Accept_Language="de")
    assert json.loads(body)["accept-language"] == "de" and "hit" not in fields["cache-status"]


def test_each_scheme_has_its_responses_and_purges(site, origin):
    def scheme(said, source="127.0.0.1"):
        status, _, body = site.get("/seen/scheme", X_Forwarded_Proto=said, source=source)
        assert status == 200
        return json.loads(body)["x-forwarded-proto"]

    for _ in range(2):
        assert (scheme("http"), scheme("https"), scheme("gopher")) == ("http", "https", "http")
        assert scheme("https", source="127.0.0.9") == "http"  # which is not trusted
    assert origin.requests["GET", "/seen/scheme"] == 2
    site.purge(url="https://site.test/seen/scheme")
    assert (scheme("http"), scheme("https")) == ("http", "https")
    assert origin.requests["GET", "/seen/scheme"] == 3


@pytest.mark.parametrize("target", [
    "/seen/../status/201", "/seen/%2e%2E/status/201", "/seen/..%2fstatus/201", "/seen/.", "/seen/..;/x",
    "/seen\\..\\x", "/seen/a%00b", "/seen/a%0d%0ab", "/x/../.edge/metrics",
])
def test_a_path_that_may_lead_elsewhere_is_refused(site, origin, target):
    before = len(origin.seen)
    request = f"GET {target} HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"
    assert in_a_loop(talk(site.port, request.encode()))[:13] == b"HTTP/1.1 400 "
    assert len(origin.seen) == before


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_methods_of_one_connection_are_refused(site, origin, method):
    before = len(origin.seen)
    assert site.get("/version", method)[0] in (400, 501)
    assert len(origin.seen) == before


WRONG = [
    {"url": "foo"}, {"url": True}, {"url": ""}, {"tag": 5}, {"prefix": "x"}, {"url": "http://[::1/"},
    {"tag": "a", "stale": "yes"}, {"tag": "a", "url": "/"}, {}, [], 5, {"tag": "a", "at": 5.0},
    {"url": "/\ud800"},
]


def test_wrong_purges_make_nothing_stale(site):
    site.get("/seen/kept")
    for text in (*map(json.dumps, WRONG), "", "[" * 60_000, "{" * 70_000, '"' + "x" * 70_000):
        assert site.get("/.edge/purges", "POST", text, Authorization="Bearer secret")[0] == 400, text
    assert site.get("/.edge/purges?after=0", Authorization="Bearer secret")[0] == 400  # the log is Redis'
    site.purge(tag="other")
    assert "; hit" in site.get("/seen/kept")[1]["cache-status"]


def test_a_purge_without_its_log_is_refused(origin, tmp_path):
    with RedisServer(tmp_path) as redis, EdgeServer(
            tmp_path, "paris", document([origin], redis.port)) as server:
        server.purge(tag="a")
        wanted = {"Authorization": "Bearer secret"}
        redis.stop()
        assert server.get("/.edge/purges", "POST", '{"tag": "a"}', **wanted)[0] == 503
        redis.kill()
        assert server.get("/.edge/purges", "POST", '{"tag": "a"}', **wanted)[0] == 503
        assert server.get("/version/without")[0] == 200


def test_routes_follow_the_document_whatever_happened_to_it(origin, redis_server, tmp_path):
    made = document([origin], redis_server.port)
    routes = made["x-edge"]["routes"] = [{"to": "origins", "prefix": "/version"}]
    with EdgeServer(tmp_path, "paris", made) as server, SiteOrigin() as other:
        def status(path):
            return server.get(path)[0]

        assert status("/version") == 200 and status("/chunked") == status("/status/200") == 421
        server.config.write_text("routes: [")
        time.sleep(1)
        routes.append({"to": "origins", "prefix": "/chunked"})
        server.write(made)
        until(lambda: status("/chunked") == 200)
        server.config.rename(tmp_path / "elsewhere")
        time.sleep(1)
        # A balancer and a route to it, in place: the gate waits for a second reading.
        made["balancers"]["others"] = {"kind": "least_loaded", "servers": [other.url]}
        routes.append({"to": "others", "prefix": "/status"})
        server.config.write_text(yaml.safe_dump(made))
        until(lambda: status("/status/200") == 200)
        assert other.requests["GET", "/status/200"] == 1


def test_a_document_that_changes_under_load_costs_no_request(origin, redis_server, tmp_path):
    """Routes and their balancer get other names."""
    made = document([origin], redis_server.port)
    with EdgeServer(tmp_path, "paris", made) as server:
        for name in ("fresh", "newer"):
            made["balancers"] = {name: {"kind": "round_robin", "servers": [origin.url]}}
            made["x-edge"]["routes"] = [{"to": name}, {"to": name, "prefix": f"/status/20{len(name)}"}]
            server.write(made)
            ends = time.monotonic() + 1.5
            while time.monotonic() < ends:
                assert server.get("/version")[0] == 200


@pytest.mark.parametrize("part", [
    "5", "{}", "null", "{routes: 5}", "{routes: [], colour: red}", "{routes: [], trusted: []}",
    "{routes: [{to: a, idle: x}]}", "{routes: [{to: a, prefix: 5}]}", "{routes: [{to: a, prefix: b}]}",
    "{routes: [{to: a, attempts: 0}]}", "{routes: [{to: a, key: path}]}", "{routes: [{to: a, head: -1}]}",
    "{routes: [{to: a, colour: red}]}", "{routes: [{to: b}]}", "{routes: [{to: [a]}]}", "{routes: [5]}",
    "{routes: [], operators: 5}", "{routes: [], operators: [x]}", "{routes: [], regions: [a]}",
    "{routes: [], regions: {a: b}}", "{routes: [], purges: {store: main}}",
    "{routes: [], purges: {colour: a}}",
    *[f"{{routes: [{{to: a, {wrong}}}]}}" for wrong in (
        'host: ""', "host: é", "priority: []", "connect: .nan", "idle: .inf", "head: true",
        "attempts: true")],
    *[f"{{routes: [], purges: {{{wrong}}}}}" for wrong in (
        "skew: -1", "skew: x", "every: 0", "every: .nan", "name: 5", "poll: 5", "store: []")],
    "{routes: [], regions: {a: [5]}}", '{routes: [], regions: {"": [10.0.0.1]}}',
    "{routes: [], operators: [5]}", '{routes: [], regions: {"a\\nb: c": [10.0.0.1]}}',
    "{routes: [], regions: {a: [unix]}}",
    "{routes: [], stall: .nan}", "{routes: [], stall: true}",
    "{routes: [], stall: 0}", "{routes: [], token: change-me}", "{routes: [], token: 5}",
    "{routes: []}\nhttp: {trusted: 2}", "{routes: []}\nhttp: {trusted: [x]}",
])
def test_settings_that_are_wrong_are_refused(part):
    text = f"balancers: {{a: {{kind: random, servers: [s]}}}}\nx-edge: {part}"
    with pytest.raises(ConfigError) as caught:
        load(text, extensions={"x-edge": Settings.parse})
    (problem,) = caught.value.errors
    assert problem.place.startswith("$.x-edge")


def test_a_network_may_be_given_by_an_address_in_it():
    part = "{routes: [], regions: {north: [10.1.2.3/8, 'fd00::1/8']}, operators: [10.1.2.3/8]}"
    gate = load(f"x-edge: {part}", extensions={"x-edge": Settings.parse})
    found = [gate.extensions["x-edge"].region(client) for client in ("10.9.9.9", "fd12::", "11.1.2.3")]
    assert found == ["north", "north", "elsewhere"]


HEAD = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"
RESPONSES = {
    "a status below all": b"HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok",
    "a status above all": b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    "a coding of one hop": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello",
    "no head": b"hello\r\n\r\n",
}


async def _reset_in_the_middle(origin, at, reader, writer):
    """A body whose end is that of its connection, which breaks."""
    if b"\r\n\r\n" in origin.received[at]:
        writer.write(HEAD + b"\r\nhello")
        await writer.drain()
        await asyncio.sleep(0.1)  # what comes at once cannot be told from an end
        linger = b"\1\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


def test_responses_without_a_meaning_are_not_passed_on(redis_server, tmp_path):
    get = b"GET /x HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"

    async def main():
        async with raw_origin() as origin:
            made = document([f"http://127.0.0.1:{origin.port}"], redis_server.port)
            made["balancers"]["origins"]["max_failures"] = 100
            with EdgeServer(tmp_path, "paris", made) as server:
                for name, origin.response in RESPONSES.items():
                    for _ in range(2):
                        response = await talk(server.port, get)
                        assert response[:13] == b"HTTP/1.1 502 ", (name, response)
                origin.response = _reset_in_the_middle
                for _ in range(2):
                    before = len(origin.received)
                    response = await talk(server.port, get)
                    assert not response.endswith(b"0\r\n\r\n"), response
                    assert len(origin.received) > before, "it was stored"
                origin.response = HEAD + b"\r\nhello"
                assert (await talk(server.port, get)).endswith(b"hello\r\n0\r\n\r\n")

    in_a_loop(main())


def test_a_client_that_takes_nothing_of_a_stored_response_is_cut(origin, redis_server, tmp_path):
    made = document([origin], redis_server.port, x_edge__stall=1.0)
    with EdgeServer(tmp_path, "paris", made) as server:
        path = "/file/8300000?stored"
        whole = len(server.get(path)[2])
        assert "hit" in server.get(path)[1]["cache-status"]
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode())
        time.sleep(3)
        received = 0
        with suppress(ConnectionError):
            while part := client.recv(2**16):
                received += len(part)
        assert 0 < received < whole
        client.close()


def test_a_host_with_a_final_dot_is_the_same_host(site, origin):
    """Nor is there a response that a purge does not concern."""
    path = "/version/dotted"
    assert "stored" in site.get(path)[1]["cache-status"]
    assert "hit" in site.get(path, Host="site.test.")[1]["cache-status"]
    assert json.loads(site.get("/seen/dotted", Host="site.test.")[2])["host"] == "site.test"


def test_an_edge_ends_although_a_client_takes_nothing(redis_server, tmp_path):
    with SiteOrigin() as origin:
        made = document([origin], redis_server.port)
        with EdgeServer(tmp_path, "paris", made, "--stop-timeout", "1") as server, server.connect() as client:
            client.sendall(b"GET /endless/ending HTTP/1.1\r\nHost: site.test\r\n\r\n")
            assert client.recv(1)
            server.end()


def test_a_websocket_that_says_nothing_ends(origin, redis_server, tmp_path):
    made = document([origin], redis_server.port)
    made["x-edge"]["routes"][0]["quiet"] = 1.0
    with EdgeServer(tmp_path, "paris", made) as server:
        async def main():
            async with aiohttp.ClientSession() as session, session.ws_connect(
                    f"http://127.0.0.1:{server.port}/ws", headers={"Host": "site.test"}) as silent:
                for _ in range(4):
                    await silent.send_str("ab")
                    assert await silent.receive_str() == "ba"
                    await asyncio.sleep(0.4)
                assert (await silent.receive(timeout=PATIENCE)).type is aiohttp.WSMsgType.CLOSE
            assert silent.close_code == 1001

        in_a_loop(main())
