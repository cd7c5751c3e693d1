"""The reverse proxy before servers on loopback, driven without a server of its own."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from asgi_driver import call, scope_of
from asgi_exchanges import Exchange
from raw_origin import raw_origin
from watchdog import in_a_loop

from headgate import KeyHash, RetryBudget, RoundRobin
from headgate.adapters import keys
from headgate.adapters.asgi import CacheMiddleware
from headgate.adapters.proxy import ConnectionPool, Hop, ReverseProxy, StrictMiddleware, _reverse
from headgate.adapters.proxy._pool import balancing
from headgate.httpcache import HTTPCache

LARGE = bytes(range(256)) * 8000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOP = Hop("paris", ["10.0.0.0/8"], internal=["x-edge-"])


@asynccontextmanager
async def served(handler):
    """The URL of an origin, in this loop."""
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxied(*servers, hop=HOP, **options):
    async with ReverseProxy(RoundRobin(servers), hop, **options) as proxy:
        yield proxy


def url_of(origin):
    return f"http://127.0.0.1:{origin.port}"


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def _site(request):
    """Responses of several kinds, by path."""
    kind, _, rest = request.path[1:].partition("/")
    if kind == "file":
        body = LARGE[:int(rest)]
        part = request.http_range
        if part.start is None:
            return web.Response(body=body, headers={"ETag": f'"{rest}"', "X-A": "1"})
        found = body[part.start:part.stop]
        return web.Response(body=found, status=206, headers={"Content-Range": f"bytes {part.start}-/{rest}"})
    if kind == "chunked":
        response = web.StreamResponse(headers={"Trailer": "x"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for at in range(0, 50_000 if request.method != "HEAD" else 0, 10_000):
            await response.write(LARGE[at:at + 10_000])
        return response
    if kind == "status":
        return web.Response(status=int(rest), headers={"Location": "/elsewhere", "Set-Cookie": "a=b"})
    if kind == "packed":
        return web.Response(body=b"\x1f\x8bno gzip", headers={"Content-Encoding": "gzip"})
    assert kind == "echo"
    return web.Response(body=await request.read())


@pytest.mark.parametrize("path", [
    "/file/0", "/file/1", "/file/2000000", "/chunked", "/status/204", "/status/304", "/status/302",
    "/status/404", "/status/500", "/packed"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_bytes_are_those_of_the_server(path, method):
    async def main():
        async with served(_site) as url, proxied(url) as proxy, aiohttp.ClientSession(
                auto_decompress=False) as session:
            async with session.request(method, url + path, allow_redirects=False) as direct:
                body = await direct.read()
            response = await Exchange(proxy, path, method=method).response()
            assert (response.status, response.body) == (direct.status, body)
            dropped = {"date", "transfer-encoding", "connection", "trailer", "keep-alive"}
            wanted = {name.lower(): value for name, value in direct.headers.items()}
            found = response.fields
            for fields in (wanted, found):
                for name in dropped:
                    fields.pop(name, None)
            assert found == {**wanted, "via": "1.1 paris"}
            assert not response.messages[-1].get("more_body")

    in_a_loop(main())


@pytest.mark.parametrize("part, start, stop", [
    ("0-0", 0, 1), ("100-4999", 100, 5000), ("1999999-", 1_999_999, 2_000_000)])
def test_ranges_pass(part, start, stop):
    async def main():
        async with served(_site) as url, proxied(url) as proxy:
            fields = [("range", f"bytes={part}")]
            response = await Exchange(proxy, "/file/2000000", headers=fields).response()
            assert response.status == 206 and response.body == LARGE[start:stop]

    in_a_loop(main())


@pytest.mark.parametrize("size", [0, 1, 2_000_000])
@pytest.mark.parametrize("form", ["length", "chunks", "http2"])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_bodies_of_requests_arrive(size, form, method):
    body = LARGE[:size]

    async def main():
        async with served(_site) as url, proxied(url) as proxy:
            fields = [("content-length", str(size))] if form == "length" else []
            exchange = Exchange(proxy, "/echo", method=method, parts=[body[:7], body[7:]], headers=fields,
                                is_http2=form == "http2")
            assert (await exchange.response()).body == body

    in_a_loop(main())


def test_the_head_of_a_request_is_kept_to_the_byte():
    async def main():
        async with raw_origin(OK) as origin, proxied(url_of(origin) + "/base/") as proxy:
            path = "/a%2Fb;c=%7e/\"<>|^`{}'\\[]~é"
            fields = [("x-utf8", "ä".encode().decode("latin-1")), ("x-latin", "\xe4"), ("x-tab", "a\tb"),
                      ("user-agent", "me"), ("x-a", "1"), ("x-a", "2"), ("x_b", "3"),
                      ("x-edge-region", "moon"), ("connection", "x-hop, close"), ("x-hop", "4"),
                      ("expect", "100-continue")]
            await Exchange(proxy, "/decoded", raw_path=path.encode(), query_string=b"q=%20&r=\xe9#?",
                           headers=fields).response()
            target, _, head = origin.received[0].partition(b"\r\n")
            assert target == (b"GET /base/a%2Fb;c=%7e/\"<>|^`{}'\\[]~%C3%A9?q=%20&r=%E9%23? HTTP/1.1")
            assert head.split(b"\r\n")[:-2] == [
                b"host: site.test", b"x-utf8: \xc3\xa4", b"x-latin: \xc3\xa4", b"x-tab: a\tb",
                b"user-agent: me", b"x-a: 1", b"x-a: 2", b"via: 1.1 paris",
                b"forwarded: for=192.0.2.1;host=site.test;proto=http",
                b"x-forwarded-for: 192.0.2.1", b"x-forwarded-host: site.test", b"x-forwarded-proto: http",
                b"cdn-loop: paris"]
            await Exchange(proxy, "/a?b#c d/ä", raw_path=None).response()
            assert origin.received[1].startswith(b"GET /base/a%3Fb%23c%20d/%C3%A4 HTTP/1.1\r\n")

    in_a_loop(main())


def test_the_host_may_be_that_of_the_server():
    async def main():
        async with raw_origin(OK) as origin, proxied(url_of(origin), preserve_host=False) as proxy:
            await Exchange(proxy, client=None, scheme="https").response()
            head = origin.received[0].lower()
            assert f"host: 127.0.0.1:{origin.port}\r\n".encode() in head
            assert b"x-forwarded-host: site.test\r\nx-forwarded-proto: https\r\n" in head
            assert b"forwarded: for=unknown;host=site.test;proto=https\r\n" in head

    in_a_loop(main())


@pytest.mark.parametrize("options", [
    {"host": ""}, {"host": "a,b"}, {"path": "/../x"}, {"raw_path": b"@evil.test/"}, {"method": "TRACE"},
    {"method": "trace"}, {"method": "delete"}, {"method": "Get"},
    *[{"headers": [field]} for field in (
        ("host", "b"), ("content-length", "5, 5"), ("cdn-loop", "paris"), ("x", "a\rb"),
        ("transfer-encoding", "gzip, chunked"))]])
def test_what_is_ambiguous_reaches_no_server(options):
    async def main():
        async with raw_origin(OK) as origin, proxied(url_of(origin)) as proxy:
            response = await Exchange(proxy, **options).response()
            assert response.status in (400, 501, 508) and not origin.received
            assert response.fields["content-type"] == "application/problem+json"
            assert json.loads(response.body)["status"] == response.status

    in_a_loop(main())


HEAD = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"
RESPONSES = {
    "a status below all": b"HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok",
    "a status above all": b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx",
    "a coding of one hop": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello",
    "a control character": HEAD + b"X-B: a\x07b\r\nContent-Length: 2\r\n\r\nok",
    "no content of a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    "no head": b"hello\r\n\r\n",
    "nothing": b"",
    "half a head": HEAD + b"X-B: y",
    "a huge head": HEAD + b"X-B: " + b"y" * 200_000 + b"\r\n\r\n",
    "an endless head": HEAD + b"X-B: y\r\n" * 50_000 + b"\r\n",
}


@pytest.mark.parametrize("response", RESPONSES)
def test_responses_without_a_meaning(response):
    async def main():
        async def respond(origin, at, reader, writer):
            if b"\r\n\r\n" in origin.received[at]:
                writer.write(RESPONSES[response])
                writer.close()

        async with raw_origin(respond) as origin, proxied(url_of(origin), attempts=1) as proxy:
            found = await Exchange(proxy).response()
            assert found.status == 502 and found.fields["cache-control"] == "no-store"

    in_a_loop(main())


def test_interim_responses_are_dropped():
    async def main():
        interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        async with raw_origin(interim + OK) as origin, proxied(url_of(origin)) as proxy:
            response = await Exchange(proxy).response()
            assert (response.status, response.body) == (200, b"ok") and "link" not in response.fields

    in_a_loop(main())


def test_a_response_may_end_with_its_connection():
    async def main():
        async def respond(origin, at, reader, writer):
            if b"\r\n\r\n" in origin.received[at]:
                writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
                writer.close()

        async with raw_origin(respond) as origin, proxied(url_of(origin)) as proxy:
            response = await Exchange(proxy).response()
            assert response.body == b"hello" and response.fields["via"] == "1.0 paris"

    in_a_loop(main())


@pytest.mark.parametrize("head", [b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_a_body_that_breaks_off_before_its_first_byte_is_a_502(head):
    """Also under a server that sends the head with the body's first part, and behind a cache."""
    async def main():
        async with raw_origin(HEAD + head) as origin, proxied(url_of(origin)) as proxy:
            response = await Exchange(proxy).response()
            assert response.status == 502 and proxy.counters()[url_of(origin)].failed == 1
            cached = CacheMiddleware(proxy, HTTPCache(stale_if_error=60))
            origin.response = HEAD + b"Cache-Control: max-age=0\r\n" + OK.partition(b"\r\n")[2]
            assert (await Exchange(cached).response()).body == b"ok"
            origin.response = HEAD + b"Cache-Control: max-age=0\r\n" + head
            assert (await Exchange(cached).response()).body == b"ok"

    in_a_loop(main())


def test_the_head_of_a_response_that_says_nothing_goes_out(monkeypatch):
    """With an empty part, as granian sends no head alone."""
    monkeypatch.setattr(_reverse, "_HEAD_WAITS", 0.01)

    async def main():
        heard = asyncio.Event()

        async def respond(origin, at, reader, writer):
            writer.write(HEAD + b"Content-Length: 2\r\n\r\n")
            await heard.wait()
            writer.write(b"ok")

        async with raw_origin(respond) as origin, proxied(url_of(origin)) as proxy:
            exchange = Exchange(proxy)
            await until(lambda: len(exchange.messages) == 2)
            assert exchange.messages[1] == {"type": "http.response.body", "body": b"", "more_body": True}
            heard.set()
            assert (await exchange.response()).body == b"ok"

    in_a_loop(main())


@pytest.mark.parametrize("said, passed", [
    ("1", "0"), ("30", "29"), ("x", "x"), ("-1", "-1"), (None, None)])
@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_max_forwards_counts_hops_of_options(method, said, passed):
    """It means nothing for other methods, RFC 9110 7.6.2, and TRACE is refused."""
    async def main():
        async with raw_origin(OK) as origin, proxied(url_of(origin)) as proxy:
            fields = [] if said is None else [("max-forwards", said)]
            assert (await Exchange(proxy, method=method, headers=fields).response()).status == 200
            wanted = said if method == "GET" else passed
            found = [line for line in origin.received[0].lower().split(b"\r\n") if b"max-forwards" in line]
            assert found == ([] if wanted is None else [f"max-forwards: {wanted}".encode()])

    in_a_loop(main())


@pytest.mark.parametrize("said", ["0", "00"])
def test_options_without_forwards_left_end_here(said):
    async def main():
        async with raw_origin(OK) as origin, proxied(url_of(origin)) as proxy:
            response = await Exchange(proxy, method="OPTIONS", headers=[("max-forwards", said)]).response()
            assert (response.status, response.body) == (204, b"") and not origin.received
            assert response.fields == {"via": "1.1 paris"}

    in_a_loop(main())


@pytest.mark.parametrize("head, tail", [
    (b"Content-Length: 9\r\n\r\nhello", b""), (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b""),
    (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"zz\r\n"), (b"\r\nhello", None)])
def test_a_body_that_breaks_off_is_never_complete(head, tail):
    """Without an end of its own it is told from a complete one if the connection is reset. aiohttp stops at a
    malformed chunk, whose body ends after the idle time."""
    async def main():
        sent = asyncio.Event()

        async def respond(origin, at, reader, writer):
            if b"\r\n\r\n" in origin.received[at]:
                writer.write(HEAD + head)
                await writer.drain()
                await sent.wait()
                if tail is None:
                    linger = b"\1\0\0\0\0\0\0\0"
                    writer.get_extra_info("socket").setsockopt(1, 13, linger)
                    writer.transport.abort()
                else:
                    writer.write(tail)
                    writer.close()

        async with raw_origin(respond) as origin:
            servers = RoundRobin([url_of(origin)])
            async with ReverseProxy(servers, HOP, idle_timeout=1) as proxy:
                exchange = Exchange(proxy)
                await until(lambda: len(exchange.messages) == 2)
                sent.set()
                with pytest.raises((aiohttp.ClientError, TimeoutError)):
                    await exchange.response()
                assert not exchange.is_complete
                if tail is not None:
                    assert next(iter(proxy.counters().values())).failed == 1

    in_a_loop(main())


async def _hung(origin, at, reader, writer):
    """Read everything, say nothing."""


def test_a_server_that_hangs_is_a_504_and_another_one_is_tried():
    async def main():
        async with raw_origin(_hung) as hung, raw_origin(OK) as healthy:
            async with proxied(url_of(hung), attempt_timeout=0.05) as proxy:
                response = await Exchange(proxy).response()
                assert response.status == 504
                assert proxy.counters()[url_of(hung)].failed == 1
            async with proxied(url_of(hung), url_of(healthy), attempt_timeout=0.05) as proxy:
                for _ in range(2):
                    assert (await Exchange(proxy).response()).status == 200
                counters = proxy.counters()[url_of(hung)]
                assert 1 <= counters.requests == counters.failed

    in_a_loop(main())


def test_a_server_that_hangs_after_a_body_has_the_idle_time():
    async def main():
        async with raw_origin(_hung) as hung, proxied(url_of(hung), idle_timeout=0.05) as proxy:
            response = await Exchange(proxy, method="POST", parts=[b"a", b"b"]).response()
            assert response.status == 504 and proxy.counters()[url_of(hung)].failed == 1

    in_a_loop(main())


def test_a_server_that_hangs_amid_a_body_breaks_it_off():
    async def main():
        async with raw_origin(HEAD + b"Content-Length: 9\r\n\r\nhello") as origin:
            async def respond(origin, at, reader, writer):
                if b"\r\n\r\n" in origin.received[at]:
                    writer.write(HEAD + b"Content-Length: 9\r\n\r\nhello")

            origin.response = respond
            async with proxied(url_of(origin), idle_timeout=0.05) as proxy:
                exchange = Exchange(proxy)
                with pytest.raises(TimeoutError):
                    await exchange.response()
                assert len(exchange.messages) == 2 and not exchange.is_complete

    in_a_loop(main())


def test_a_client_that_takes_nothing_breaks_a_body_off():
    async def main():
        async with served(_site) as url, proxied(url, idle_timeout=0.05) as proxy:
            exchange = Exchange(proxy, "/file/2000000", takes=2)
            with pytest.raises(TimeoutError):
                await exchange.response()

    in_a_loop(main())


def test_no_server_is_a_502_and_is_retried_elsewhere():
    async def main():
        async with raw_origin(OK) as origin, proxied("http://127.0.0.1:1", url_of(origin)) as proxy:
            for _ in range(4):
                assert (await Exchange(proxy, method="POST", parts=[b"a"]).response()).status == 200
        async with proxied("http://127.0.0.1:1") as proxy:
            assert (await Exchange(proxy).response()).status == 502

    in_a_loop(main())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_a_body_is_sent_once_whatever_breaks(method):
    """A stream that was read cannot be sent again: what is left of it would be taken for the whole."""
    async def main():
        async def respond(origin, at, reader, writer):
            if origin.received[at].endswith(b"0\r\n\r\n"):
                writer.close()

        async with raw_origin(respond) as one, raw_origin(respond) as two:
            async with proxied(url_of(one), url_of(two)) as proxy:
                response = await Exchange(proxy, method=method, parts=[b"hello", b"world"]).response()
                assert response.status == 502
            assert len(one.received) + len(two.received) == 1

    in_a_loop(main())


def test_a_response_before_the_end_of_a_body_ends_the_connection_to_the_server():
    """What follows on it would be taken for the rest of the body."""
    async def main():
        async def respond(origin, at, reader, writer):
            if b"hello" in origin.received[at]:
                writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\nno")
            elif origin.received[at].startswith(b"GET"):
                writer.write(OK)

        async with raw_origin(respond) as origin, proxied(url_of(origin)) as proxy:
            for _ in range(3):
                exchange = Exchange(proxy, method="POST", parts=[b"hello", ...])
                assert (await exchange.response()).status == 413 and exchange.is_complete
                assert (await Exchange(proxy).response()).body == b"ok"
            assert all(received.count(b" HTTP/1.1\r\n") == 1 for received in origin.received
                       if received.startswith(b"POST"))

    in_a_loop(main())


@pytest.mark.parametrize("messages", [0, 3])
def test_a_client_that_leaves_ends_its_request_at_the_server(messages):
    async def main():
        left = asyncio.Event()

        async def endless(request):
            response = web.StreamResponse()
            try:
                if not messages:
                    await asyncio.Event().wait()
                await response.prepare(request)
                while True:
                    await response.write(bytes(1000))
                    await asyncio.sleep(0)
            finally:
                left.set()

        async with served(endless) as url:
            servers = RoundRobin([url])
            async with ReverseProxy(servers, HOP) as proxy:
                exchange = Exchange(proxy)
                await until(lambda: len(exchange.messages) >= messages and servers.records[0].in_flight)
                exchange.leave()
                await exchange.response()
                assert not exchange.is_complete
                await left.wait()
                await until(lambda: not servers.records[0].in_flight)
                assert proxy.counters()[url].failed == 0

    in_a_loop(main())


def test_a_client_that_leaves_with_the_end_of_its_response_cuts_nothing():
    """Servers say so as soon as they have that, which middlewares may not have passed on yet."""
    async def main():
        async with raw_origin(OK) as origin, proxied(url_of(origin)) as proxy:
            exchange = Exchange(proxy, takes=2)
            await until(lambda: len(exchange.messages) == 2)
            for _ in range(5):
                await asyncio.sleep(0)
            exchange.leave()
            for _ in range(5):
                await asyncio.sleep(0)
            exchange.resume.set()
            await exchange.response()
            assert exchange.is_complete

    in_a_loop(main())


def test_a_cancelled_request_is_cancelled():
    async def main():
        async with raw_origin(_hung) as origin, proxied(url_of(origin)) as proxy:
            exchange = Exchange(proxy)
            await until(lambda: origin.received)
            exchange.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await exchange.task

    in_a_loop(main())


@pytest.mark.parametrize("last", [None, ...], ids=["leaves", "falls silent"])
def test_an_upload_that_breaks_off_has_no_end_and_blames_no_server(last):
    async def main():
        async with raw_origin(_hung) as origin, proxied(url_of(origin), idle_timeout=0.2) as proxy:
            response = await Exchange(proxy, method="POST", parts=[b"hello", last]).response()
            assert response.status == 400 and response.fields["connection"] == "close"
            assert proxy.counters()[url_of(origin)].failed == 0
            await until(lambda: b"hello\r\n" in origin.received[0])
            assert b"0\r\n\r\n" not in origin.received[0]

    in_a_loop(main())


def test_a_client_that_does_not_read_stops_the_server():
    """What is not taken is not fetched, but for the buffers in between."""
    async def main():
        written = 0

        async def endless(request):
            nonlocal written
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(bytes(2**16))
                written += 2**16

        async with served(endless) as url, proxied(url) as proxy:
            exchange = Exchange(proxy, takes=2)
            await until(lambda: len(exchange.messages) == 2)
            before = -1
            while before != written:
                before = written
                for _ in range(200):
                    await asyncio.sleep(0.0005)
            assert written < 16_000_000
            exchange.leave()
            exchange.resume.set()
            await exchange.response()

    in_a_loop(main())


def test_requests_of_a_client_go_to_its_server():
    async def main():
        async with raw_origin(OK) as one, raw_origin(OK) as two:
            servers = KeyHash([url_of(one), url_of(two)])
            async with ReverseProxy(servers, HOP, key=keys.client(["10.0.0.0/8"])) as proxy:
                for number in range(40):
                    forwarded = ("x-forwarded-for", f"192.0.2.{number}")
                    await Exchange(proxy, client=("10.0.0.1", 5), headers=[forwarded]).response()
                    await Exchange(proxy, client=(f"192.0.2.{number}", 5)).response()
            for origin in (one, two):
                clients = [received.partition(b"x-forwarded-for: ")[2].split(b"\r\n")[0].split(b",")[0]
                           for received in origin.received]
                assert all(clients.count(client) == 2 for client in clients) and 8 < len(clients) < 72

    in_a_loop(main())


@pytest.mark.parametrize("options, error", [
    ({"attempts": 0}, "attempts must be positive, got 0"),
    ({"key": 5}, "key must be callable or None, got 5"),
    ({"key": keys.client}, r"key must be what client\(\) returns, got the function client itself"),
    ({"pool": 5}, "pool must be a ConnectionPool or None, got 5"),
    ({"connect_timeout": 0}, "connect_timeout must be positive, got 0"),
    ({"attempt_timeout": -1}, "attempt_timeout must be positive, got -1"),
    ({"deadline": 0}, "deadline must be positive, got 0"),
    ({"idle_timeout": float("nan")}, "idle_timeout must be positive, got nan"),
    ({"quiet_timeout": "x"}, "quiet_timeout must be a number, got 'x'"),
    ({"budget": 5}, "budget must be a RetryBudget or None, got 5"),
    ({"statuses": 5}, "statuses must be a collection of ints, got 5"),
    ({"colour": 5}, "colour"),
])
def test_errors_name_the_option(options, error):
    with pytest.raises((TypeError, ValueError), match=error):
        ReverseProxy(RoundRobin(["http://a"]), HOP, **options)


def test_errors_name_the_balancer_and_the_hop():
    for balancer, hop, error in [(5, HOP, "balancer must be"),
                                 (RoundRobin(["a"]), HOP, "server must be an origin"),
                                 (RoundRobin(["http://a"]), "x", "hop must be a Hop, got 'x'"),
                                 (KeyHash(["http://a"]), HOP, "key must be a function")]:
        with pytest.raises((TypeError, ValueError), match=error):
            ReverseProxy(balancer, hop)
    with pytest.raises(TypeError, match="hop must be a Hop, got 5"):
        StrictMiddleware(None, 5)
    for per_server in (0, "5"):
        with pytest.raises((TypeError, ValueError), match=f"per_server must be .*, got {per_server!r}"):
            ConnectionPool(per_server)


def test_options_reach_the_balancer():
    async def main():
        events = []
        async with raw_origin(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n") as one, raw_origin(
                b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n") as two:
            async with proxied(url_of(one), url_of(two), attempts=2, backoff=0, on_event=events.append,
                               budget=RetryBudget(share=0, per_second=0)) as proxy:
                assert (await Exchange(proxy).response()).status == 503
            async with proxied(url_of(one), url_of(two), statuses=(), on_event=events.append) as proxy:
                assert (await Exchange(proxy).response()).status == 503
        assert [event.kind for event in events] == ["failed", "abandoned", "failed"]

    in_a_loop(main())


def test_other_requests_of_a_pool_are_not_balanced():
    async def main():
        async with raw_origin(OK) as one, raw_origin(OK) as two, ConnectionPool() as pool:
            proxy = ReverseProxy(RoundRobin([url_of(one)]), HOP, pool=pool)
            response = await call(proxy, scope_of(headers=[("host", "a")]))  # in this task
            assert balancing.get() is None
            async with pool.session().get(url_of(two)) as other:
                assert await other.read() == response.body == b"ok"
            assert len(one.received) == len(two.received) == 1

    in_a_loop(main())


def test_proxies_share_the_connections_of_a_pool():
    async def main():
        peers = set()

        async def handler(request):
            peers.add(request.transport.get_extra_info("peername"))
            return web.Response()

        async with served(handler) as url, ConnectionPool() as pool:
            for _ in range(3):
                async with proxied(url, pool=pool) as proxy:
                    assert (await Exchange(proxy).response()).status == 200
            assert len(peers) == 1

    in_a_loop(main())


def test_connections_belong_to_a_loop_and_are_opened_again():
    pool = ConnectionPool()

    async def main():
        async with served(_site) as url:
            proxy = ReverseProxy(RoundRobin([url]), HOP, pool=pool)
            for _ in range(2):
                assert (await Exchange(proxy, "/file/5").response()).status == 200
                await pool.aclose()
            await pool.aclose()

    async def another():
        pool.session()

    async def holding():
        pool.session()
        with pytest.raises(RuntimeError, match="belong to the event loop"):
            await asyncio.to_thread(asyncio.run, another())
        await pool.aclose()

    for _ in range(2):
        in_a_loop(main())
    in_a_loop(holding())


def test_the_lifespan_of_a_server_closes_the_connections():
    async def main():
        sent, messages = [], asyncio.Queue()
        async with raw_origin(OK) as origin:
            proxy = ReverseProxy(RoundRobin([url_of(origin)]), HOP)

            async def send(message):
                sent.append(message["type"])

            life = asyncio.create_task(proxy({"type": "lifespan"}, messages.get, send))
            messages.put_nowait({"type": "lifespan.startup"})
            assert (await Exchange(proxy).response()).status == 200
            session = proxy._pool.session()
            messages.put_nowait({"type": "lifespan.shutdown"})
            await life
            assert session.closed
            assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    in_a_loop(main())


@pytest.mark.parametrize("host, received", [
    ("a.test.", b"a.test"), ("a.test.:80", b"a.test:80"), ("a.test:80", b"a.test:80"),
    ("[::1]:80", b"[::1]:80")])
def test_a_front_knows_a_host_by_one_name(host, received):
    async def app(scope, receive, send):
        assert (b"host", received) in scope["headers"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main():
        assert (await Exchange(StrictMiddleware(app, HOP), host=host).response()).status == 200

    in_a_loop(main())


def test_a_front_passes_on_what_it_has_checked():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def main():
        front = StrictMiddleware(app, HOP)
        fields = [("x-forwarded-proto", "https"), ("x-edge-region", "moon"), ("x_a", "b"), ("x-user", "ann"),
                  ("connection", "x-user, x-forwarded-proto")]
        assert (await Exchange(front, client=("10.0.0.1", 5), headers=fields).response()).status == 200
        assert seen[-1]["scheme"] == "https"
        assert [name for name, _ in seen[-1]["headers"]] == [b"host", b"x-forwarded-proto", b"connection"]
        assert (await Exchange(front, headers=fields).response()).status == 200
        assert seen[-1]["scheme"] == "http"
        for options, status in (({"host": ""}, 400), ({"method": "CONNECT"}, 501),
                                ({"headers": [("via", "1.1 paris")]}, 508)):
            response = await Exchange(front, **options).response()
            assert response.status == status and ("connection" in response.fields) == (status != 508)
        await front({"type": "lifespan"}, None, None)
        secure = scope_of(kind="websocket", headers=[("host", "a"), ("x-forwarded-proto", "https")],
                          client=("10.0.0.1", 5), scheme="ws")
        await front(secure, None, None)
        assert [(scope["type"], scope.get("scheme")) for scope in seen[-2:]] == [
            ("lifespan", None), ("websocket", "wss")]
        assert len(seen) == 4

    in_a_loop(main())
