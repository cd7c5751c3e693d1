"""The edge of the example as a reverse proxy: bytes, fields, failures and abuse."""

import json
import os
import re
import threading
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from itertools import count

import aiohttp
import pytest
from edge_example import malformed, malformed_chunks
from edge_site import EdgeServer, SiteOrigin, content, document
from raw_origin import raw_origin, talk
from watchdog import PATIENCE, in_a_loop, until

GET = b"GET /%b HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def origin():
    with SiteOrigin() as origin:
        yield origin


@pytest.fixture(scope="module")
def site(origin, redis_server, tmp_path_factory):
    """One edge before one origin."""
    made = document([origin], redis_server.port)
    with EdgeServer(tmp_path_factory.mktemp("site"), "paris", made) as server:
        yield server


def direct(origin, path, method="GET", body=None, **fields):
    connection = HTTPConnection("127.0.0.1", origin.port, timeout=PATIENCE)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in fields.items()})
    response = connection.getresponse()
    found = response.status, response.read(), response.headers
    connection.close()
    return found


@pytest.mark.parametrize("path", [
    "/file/0", "/file/1", "/file/5000000", "/file/70000?stored", "/chunked", "/status/404", "/status/500",
    "/status/204", "/status/418", "/version",
])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bytes_are_those_of_the_origin(site, origin, path, method):
    status, body, fields = direct(origin, path, method)
    for _ in range(2):  # the second may be from the cache
        found = site.get(path, method)
        assert (found[0], found[2]) == (status, body)
        for name in ("Content-Type", "ETag", "X-Of", "Cache-Control"):
            assert found[1].get(name.lower()) == fields[name]
        if fields["Content-Length"]:
            assert found[1].get("content-length", "0") == fields["Content-Length"]


@pytest.mark.parametrize("part", ["0-0", "100-4999", "-17", "69000-", "5-99999999"])
@pytest.mark.parametrize("path", ["/file/70001", "/file/70001?stored"])
def test_ranges_are_those_of_the_origin(site, origin, path, part):
    site.get(path)
    status, body, fields = direct(origin, path, Range=f"bytes={part}")
    found = site.get(path, Range=f"bytes={part}")
    assert (found[0], found[2], found[1]["content-range"]) == (status, body, fields["Content-Range"])


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_requests_arrive(site, size, is_chunked):
    body = content("up", size)
    parts = iter([body[:100], body[100:]]) if is_chunked else body
    assert site.get("/echo", "POST", parts)[2] == body


@pytest.mark.parametrize("path", ["/cut", "/cut/chunked"])
def test_a_body_that_is_cut_is_never_whole(site, path):
    for _ in range(2):
        with pytest.raises(HTTPException):
            site.get(path)


def test_fields_of_the_way(site):
    status, _, body = site.get("/fields", Connection="x-hop", X_Hop="1", X_End="2", Keep_Alive="timeout=9",
                               Proxy_Authorization="Basic eDp5", TE="trailers", X_Edge_Region="moon",
                               Forwarded="for=6.6.6.6", X_Forwarded_For="6.6.6.6", source="127.0.0.9")
    fields = {}
    for name, value in json.loads(body):
        assert name.lower() not in fields, "each field once"
        fields[name.lower()] = value
    assert status == 200
    hop_by_hop = {"x-hop", "keep-alive", "proxy-authorization", "te", "x-edge-region", "connection"}
    assert not hop_by_hop & set(fields)
    assert fields["x-end"] == "2" and fields["host"] == "site.test" and fields["via"] == "1.1 paris"
    assert fields["forwarded"] == "for=127.0.0.9;host=site.test;proto=http"  # not what the client says
    assert fields["x-forwarded-for"] == "127.0.0.9" and fields["x-forwarded-host"] == "site.test"
    assert fields["cdn-loop"] == "paris"
    _, _, body = site.get("/fields", X_Forwarded_For="192.0.2.7", Forwarded="for=192.0.2.7")
    trusted = {name.lower(): value for name, value in json.loads(body)}
    assert trusted["x-forwarded-for"] == "192.0.2.7, 127.0.0.1"
    assert trusted["forwarded"] == "for=192.0.2.7, for=127.0.0.1;host=site.test;proto=http"


@pytest.mark.parametrize("fields", [
    {"CDN_Loop": "paris"}, {"CDN_Loop": "other; a=b, paris; x"}, {"Via": "1.1 paris"},
    {"Via": "1.0 a, 1.1 paris (comment)"}, {"Via": ", ".join(["1.1 a"] * 9)},
])
def test_loops_end(site, fields):
    assert site.get("/version", **fields)[0] == 508


def test_a_request_goes_round_no_loop_of_edges(redis_server, tmp_path):
    made = document(["http://127.0.0.1:1"], redis_server.port)
    with EdgeServer(tmp_path, "one", made) as one:
        made["balancers"]["origins"]["servers"] = [f"http://127.0.0.1:{one.port}"]
        with EdgeServer(tmp_path, "two", made) as two:
            one.write(document([f"http://127.0.0.1:{two.port}"], redis_server.port))
            until(lambda: one.get("/version")[0] == 508)


def test_every_malformed_request_is_refused_and_others_are_served(redis_server, tmp_path):
    """Or it has one meaning that no server can mistake: hyper drops the length beside chunks, and closes."""
    ok = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    understood = {
        "equal lengths twice", "length and chunks", "chunks and length", "too many digits",
        "no line after the data"}
    requests = {**malformed("/x", "site.test"), **malformed_chunks("/x", "site.test")}

    async def respond(origin, number, reader, writer):
        """To whole requests only: to half of one the edge would pass a response on, rightly."""
        head, blank, body = origin.received[number].partition(b"\r\n\r\n")
        if blank and (b"chunked" not in head.lower() or body.endswith(b"0\r\n\r\n")):
            writer.write(ok)
            writer.close()

    async def main():
        async with raw_origin(respond) as origin:
            made = document([f"http://127.0.0.1:{origin.port}"], redis_server.port)
            with EdgeServer(tmp_path, "paris", made) as server:
                for name, data in requests.items():
                    before = len(origin.received)
                    response = await talk(server.port, data + b"\r\n\r\n" + GET % b"probe")
                    check(name, response, origin.received[before:])
                    assert b" 200 " in await talk(server.port, GET % b"good"), name

    def check(name, response, received):
        refused = response[:13] in (b"", b"HTTP/1.1 400 ", b"HTTP/1.1 502 ")
        assert refused or name in understood, (name, response)
        assert all(b"smuggled" not in each for each in received), (name, received)
        assert all(each.count(b"HTTP/1.1\r\n") <= 1 for each in received), (name, received)
        assert sum(each.startswith(b"POST") for each in received) <= 1, (name, received)

    in_a_loop(main())


def test_slow_and_huge_requests_end_while_others_are_served(site, origin):
    slow_head, slow_body = site.connect(), site.connect()
    slow_head.sendall(b"GET /version HTTP/1.1\r\nHost: site.test\r\nX-")
    slow_body.sendall(b"POST /echo HTTP/1.1\r\nHost: site.test\r\nContent-Length: 10\r\n\r\nab")
    for head in (b"X: " + b"y" * 100_000, b"X: y\r\n" * 20_000, b"X" * 70_000):
        huge = site.connect()
        with suppress(ConnectionError):
            huge.sendall(b"GET /version HTTP/1.1\r\nHost: site.test\r\n" + head + b"\r\n\r\n")
            assert huge.recv(100)[:13] in (b"", b"HTTP/1.1 431 ", b"HTTP/1.1 400 ")
        huge.close()
    began = time.monotonic()
    assert site.get("/version")[0] == 200
    assert time.monotonic() - began < 2
    assert slow_body.recv(1000)[:13] == b"HTTP/1.1 400 "  # after the idle time of its route, 2 s
    assert slow_head.recv(1000)[:13] in (b"", b"HTTP/1.1 408 ")  # after the second of the server
    assert time.monotonic() - began < 30
    slow_head.close()
    slow_body.close()


def test_timeouts_of_the_origin(site):
    began = time.monotonic()
    status, _, _ = site.get("/slow/30")
    assert status == 504 and time.monotonic() - began < 15


def test_a_client_that_leaves_ends_the_request_at_the_origin(site, origin):
    for path in ("/endless/1", "/endless/2"):
        client = site.connect()
        client.sendall(GET % path[1:].encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        client.close()
        seen = -1
        deadline = time.monotonic() + PATIENCE
        while seen != (seen := origin.requests["parts", path]):
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_a_client_that_does_not_read_stops_the_origin(site, origin):
    """Back-pressure: what is not read is not fetched, but for the buffers in between."""
    client = site.connect()
    client.sendall(GET % b"endless/3")
    assert client.recv(100).startswith(b"HTTP/1.1 200")
    time.sleep(0.5)
    seen = origin.requests["parts", "/endless/3"]
    time.sleep(0.5)
    assert origin.requests["parts", "/endless/3"] <= seen + 1
    client.close()


def test_websockets_pass_both_ways(site):
    async def refused():
        url = f"http://127.0.0.1:{site.port}/version"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url, headers={"Host": "site.test"})

    in_a_loop(site.talk())
    in_a_loop(refused())


def test_own_pages_are_for_operators(site):
    assert site.get("/.edge/metrics")[0] == 200
    assert b"headgate" in site.get("/.edge/metrics")[2]
    assert site.get("/.edge/metrics", X_Forwarded_For="192.0.2.1")[0] == 404
    assert site.get("/.edge/dashboard/")[0] == 200
    assert site.get("/.edge/dashboard/", X_Forwarded_For="192.0.2.1")[0] == 403
    assert site.get("/.edge/purges", "POST", b'{"tag": "x"}')[0] == 401
    assert site.get("/.edge/purges", "POST", b'{"colour": "x"}', Authorization="Bearer secret")[0] == 400
    assert site.get("/.edge/other")[0] == 404
    assert site.health()["pop"] == "paris"


def test_clients_that_break_off_uploads_eject_no_origin(site):
    for _ in range(10):
        client = site.connect()
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1000000\r\n\r\nab")
        client.close()
    metrics = site.get("/.edge/metrics")[2].decode()
    assert site.get("/version")[0] == 200
    assert not [line for line in metrics.splitlines() if "ejected" in line and line.endswith(" 1.0")], metrics


def test_routes_by_host_and_path_and_a_document_that_is_changed(redis_server, tmp_path):
    with SiteOrigin() as one, SiteOrigin() as two:
        one.version, two.version = 1, 2
        made = document([one], redis_server.port)
        made["balancers"]["others"] = {"kind": "least_loaded", "servers": [two.url]}
        made["x-edge"]["routes"] = [
            {"to": "origins", "host": "site.test"},
            {"to": "others", "host": "site.test", "prefix": "/version/b"},
            {"to": "others", "host": "*.wild.test"},
        ]
        with EdgeServer(tmp_path, "paris", made) as server:
            def version(path, host="site.test"):
                status, _, body = server.get(path, Host=host)
                return int(body) if status == 200 else status

            assert version("/version/a") == version("/version/bc") == 1
            assert version("/version/b") == version("/version/b/c") == 2
            assert version("/version/a", "a.wild.test") == version("/version/a", "a.b.wild.test") == 2
            assert version("/version/a", "wild.test") == version("/version/a", "evil-site.test") == 421

            made["x-edge"]["routes"][0]["to"] = "nowhere"
            made["levels"] = {"public": {"ip": "3/min"}}
            made["http"] |= {"limit": "public", "keys": {"ip": "client"}}
            server.write(made)  # the document is refused, its limit too
            time.sleep(1)
            fresh = count()  # paths that are not cached
            assert "ratelimit" not in server.get("/version/d", source="127.0.0.3")[1]
            made["x-edge"]["routes"][0]["to"] = "origins"
            server.write(made)
            until(lambda: "ratelimit" in server.get("/version/d", source="127.0.0.3")[1])
            assert [server.get("/version/e", source="127.0.0.4")[0] for _ in range(4)] == [200] * 3 + [429]
            made["x-edge"]["routes"][0]["to"] = "others"
            made["levels"]["public"]["ip"] = "1000/min"
            server.write(made)
            until(lambda: server.get(f"/version/{next(fresh)}", source="127.0.0.5")[2] == b"2")
            until(lambda: server.get("/version/g", source="127.0.0.4")[0] == 200)
            server.config.write_text("limits: [")
            time.sleep(1)
            assert server.get("/version/h", source="127.0.0.6")[2] == b"2"


def test_unimportant_requests_are_shed_first(redis_server, tmp_path):
    with SiteOrigin() as origin:
        made = document([origin], redis_server.port)
        made["concurrency"] = {
            "requests": {"algorithm": "fixed", "limit": 2, "priorities": {"high": 1, "low": 0.5}}}
        made["http"] |= {"shed": "requests", "priority": "header x-edge-priority"}
        made["x-edge"]["routes"] = [{"to": "origins", "priority": "high"},
                                    {"to": "origins", "prefix": "/slow", "priority": "low"}]
        with EdgeServer(tmp_path, "paris", made) as server:
            slow = server.connect()
            slow.sendall(GET % b"slow/1.5")
            until(lambda: origin.requests["GET", "/slow/1.5"])
            status, fields, _ = server.get("/slow/0", X_Edge_Priority="high")  # not what a client says
            assert status == 503 and "retry-after" in fields
            assert server.get("/version")[0] == 200
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
            slow.close()
            until(lambda: server.get("/slow/0")[0] == 200)


def test_an_origin_whose_health_fails_gets_no_requests(redis_server, tmp_path):
    with SiteOrigin() as one, SiteOrigin() as two:
        made = document([one, two], redis_server.port)
        made["x-edge"]["health"] = {"path": "/version/health", "every": 0.05, "fall": 1, "rise": 1}

        def asked(origin):
            return origin.requests["GET", "/file/5"]

        with EdgeServer(tmp_path, "paris", made) as server:
            def down():
                text = server.get("/.edge/metrics")[2].decode()
                return 'headgate_balancer_servers{balancer="origins",health="down"} 1.0' in text

            one.broken = True
            until(down)
            metrics = server.get("/.edge/metrics")[2].decode()
            assert f'headgate_health_up{{checks="origins",server="{one.url}"}} 0.0' in metrics
            assert 'headgate_purges_gaps_total{purges="edge"} 0.0' in metrics
            before = asked(one)
            assert [server.get("/file/5")[0] for _ in range(10)] == [200] * 10
            assert asked(one) == before and asked(two) >= 10
            made["x-edge"]["health"]["every"] = 0
            server.write(made)  # refused: the checks go on
            one.broken = False
            until(lambda: not down())
            until(lambda: server.get("/file/5")[0] == 200 and asked(one) > before)
            one.broken = True
            until(down)
            del made["x-edge"]["health"]
            server.write(made)
            until(lambda: not down())


def test_retries_are_bounded_where_all_origins_fail(redis_server, tmp_path):
    with SiteOrigin() as one, SiteOrigin() as two, SiteOrigin() as three:
        origins = one, two, three
        with EdgeServer(tmp_path, "paris", document(origins, redis_server.port)) as server:
            for origin in origins:
                origin.broken = True
            start = time.monotonic()
            assert {server.get("/status/200")[0] for _ in range(200)} == {503}
            windows = (time.monotonic() - start) // 10 + 2
        asked = sum(origin.requests["GET", "/status/200"] for origin in origins)
        assert 200 + 50 <= asked <= 200 + 0.2 * 200 + 100 * windows  # of 600 without a budget


def test_a_killed_origin_costs_no_idempotent_request(redis_server, tmp_path):
    with SiteOrigin() as one, SiteOrigin() as two:
        made = document([one, two], redis_server.port)
        with EdgeServer(tmp_path, "paris", made) as server:
            outcomes, stop = [], threading.Event()

            def load():
                while not stop.is_set():
                    outcomes.append(server.get("/slow/0.01")[0])

            threads = [threading.Thread(target=load) for _ in range(6)]
            for thread in threads:
                thread.start()
            until(lambda: len(outcomes) > 50)
            one.kill()
            at = len(outcomes)
            until(lambda: len(outcomes) > at + 150)
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
            assert set(outcomes) == {200}
            before = sum(two.requests.values())
            assert [server.get("/echo", "POST", b"x")[0] for _ in range(10)] == [200] * 10
            assert sum(two.requests.values()) == before + 10


def test_a_post_that_may_have_arrived_is_not_repeated(redis_server, tmp_path):
    with SiteOrigin() as one, SiteOrigin() as two:
        one.broken = True
        with EdgeServer(tmp_path, "paris", document([one, two], redis_server.port)) as server:
            assert {server.get("/echo", "POST", b"x")[0] for _ in range(2)} == {200, 503}
            assert sum(one.requests.values()) == sum(two.requests.values()) == 1
            assert server.get("/status/200")[0] == server.get("/status/201")[0] // 201 * 200 == 200


def test_nothing_grows_with_clients_that_vanish(redis_server, tmp_path):
    """Descriptors and tasks come back, and memory settles."""
    with SiteOrigin() as origin, EdgeServer(
            tmp_path, "paris", document([origin], redis_server.port)) as server:
        worker = server.worker()

        def descriptors():
            return len(os.listdir(f"/proc/{worker}/fd"))

        def memory():
            with open(f"/proc/{worker}/statm") as file:
                return int(file.read().split()[1]) * 4096

        def tasks():
            text = server.get("/.edge/metrics")[2].decode()
            return float(re.search("^edge_tasks (.*)", text, re.MULTILINE)[1])

        def vanish(count):
            for number in range(count):
                client = server.connect()
                client.sendall(GET % (b"endless/1", b"slow/5", b"file/5000000", b"echo")[number % 4])
                if number % 3 and number % 4 != 1:
                    client.recv(10)
                client.close()

        server.get("/version")
        most = descriptors() + 16  # connections to the origin are kept
        idle = tasks()
        vanish(100)
        until(lambda: descriptors() < most)
        until(lambda: tasks() <= idle)
        before = memory()
        vanish(300)
        until(lambda: descriptors() < most)
        until(lambda: tasks() <= idle)
        assert memory() - before < 20_000_000
