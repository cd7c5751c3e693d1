"""The forward proxy of the example: what it passes on, and what nobody can make it do."""

import asyncio
import io
import json
import socket
import sys
import time
from contextlib import asynccontextmanager

import forward
import pytest
from edge_example import malformed, malformed_chunks
from name_server import name_server
from names import Names
from raw_origin import raw_origin, talk
from servers import Server
from watchdog import in_a_loop


def get(host):
    return f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def connect(host):
    return f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


@asynccontextmanager
async def proxy(*, allow=("localhost",), inside=("127.0.0.0/8",), addresses=(), silent=None, **settings):
    """A proxy, and the name server that it asks."""
    audit = io.StringIO()
    async with name_server(addresses, silent) as resolver:
        names = Names([resolver.address])
        server = forward.ForwardProxy(forward.Settings(list(allow), list(inside), **settings), names, audit)
        async with await server.start("127.0.0.1", 0) as listener:
            server.port = listener.sockets[0].getsockname()[1]
            server.audit, server.resolver = audit, resolver
            yield server
            while server.open:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)  # the ends of connections that were closed
        await names.close()


@asynccontextmanager
async def proxied(*response, **settings):
    """A proxy, and an origin that it may reach by the name localhost."""
    async with raw_origin(*response) as origin:
        settings = {"allow": [f"localhost:{origin.port}", f"*.inside.test:{origin.port}"], **settings}
        async with proxy(**settings) as server:
            yield server, origin, f"localhost:{origin.port}"


def status(response):
    return int(response.split(b" ")[1]) if response else None


async def settled(server):
    """The last line of the audit log, once no connection is open."""
    while server.open:
        await asyncio.sleep(0.001)
    return json.loads(server.audit.getvalue().splitlines()[-1])


def test_a_request_passes_without_the_fields_of_its_connection():
    async def main():
        async with proxied() as (server, origin, host):
            response = await talk(server.port, (
                f"POST http://{host}/a?b HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n"
                "Connection: x-hop\r\nX-Hop: 1\r\nX-End: 2\r\nTE: trailers\r\n"
                "Proxy-Authorization: Basic eDp5\r\n\r\nbody").encode())
            assert status(response) == 200
            assert response.endswith(b"\r\n\r\nhello")
            assert b"Connection: close" in response
            head, body = origin.received[0].split(b"\r\n\r\n")
            assert head.startswith(b"POST /a?b HTTP/1.1\r\nHost: " + host.encode())
            assert body == b"body"
            names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
            assert names == {b"host", b"content-length", b"x-end", b"via", b"connection"}
            line = await settled(server)
            assert (line["client"], line["status"], line["up"], line["down"]) == ("127.0.0.1", 200, 4, 5)

    in_a_loop(main())


def test_chunks_pass_in_both_directions():
    chunked = (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
               b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n")

    async def main():
        async with proxied(chunked) as (server, origin, host):
            response = await talk(server.port, (
                f"PUT http://{host}/ HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
                "5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n").encode())
            assert response.endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            while not origin.received[0].endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"):
                await asyncio.sleep(0.001)

    in_a_loop(main())


@pytest.mark.parametrize("minor", [0, 1])
def test_a_client_of_an_old_version_gets_no_chunks_and_no_interim_responses(minor):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"

    async def main():
        async with proxied(hints + chunked) as (server, origin, host):
            response = await talk(server.port, get(host).replace(b"/1.1", b"/1.%d" % minor, 1))
            body = response.rpartition(b"close\r\n")[2]
            if minor:
                passed = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
                assert response.startswith(passed + b"HTTP/1.1 200 OK\r\n")
                assert body == b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
            else:
                assert response.startswith(b"HTTP/1.1 200 OK\r\n") and body == b"\r\nabc"
            assert b"Via: 1.%d forward" % minor in origin.received[0]

    in_a_loop(main())


def test_an_origin_that_reads_no_more_is_no_fault_of_the_client():
    """Whether its early response can still be read is up to the system."""
    async def refuse(origin, at, reader, writer):
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        writer.close()

    async def main():
        async with proxied(refuse) as (server, _, host):
            body = bytes(20_000_000)
            head = f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head.encode() + body)
            assert status(await reader.readline()) in (413, 502)
            writer.close()

    in_a_loop(main())


@pytest.mark.parametrize("method, said, passed", [
    ("OPTIONS", "2", "1"), ("OPTIONS", "x", "x"), ("GET", "0", "0")])
def test_max_forwards_counts_hops(method, said, passed):
    async def main():
        async with proxied() as (server, origin, host):
            request = get(host).replace(b"GET", method.encode()).replace(
                b"\r\n\r\n", f"\r\nMax-Forwards: {said}\r\n\r\n".encode())
            assert status(await talk(server.port, request)) == 200
            assert f"\r\nmax-forwards: {passed}\r\n".encode() in origin.received[0]

    in_a_loop(main())


@pytest.mark.parametrize("method, wanted", [("OPTIONS", 204), ("TRACE", 501)])
def test_methods_that_end_here(method, wanted):
    async def main():
        async with proxied() as (server, origin, host):
            request = get(host).replace(b"GET", method.encode())[:-2] + b"Max-Forwards: 0\r\n\r\n"
            assert status(await talk(server.port, request)) == wanted and not origin.received

    in_a_loop(main())


def test_connect_is_a_tunnel_of_bytes():
    async def echo(origin, at, reader, writer):
        writer.write(origin.received[at][-2:])

    async def main():
        async with proxied(echo) as (server, _, host):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(connect(host))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
            for data in (b"\0\xff", b"ab"):
                writer.write(data)
                assert await reader.readexactly(2) == data
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            assert (await settled(server))["method"] == "CONNECT"

    in_a_loop(main())


@pytest.mark.parametrize("form", ["GET", "CONNECT"])
def test_malformed_heads_reach_no_origin(form):
    async def main():
        async with proxied(rate="10000/s") as (server, origin, host):
            target = host if form == "CONNECT" else f"http://{host}/"
            for name, data in malformed(target, host).items():
                data = data.replace(b"GET ", form.encode() + b" ", 1)
                response = await talk(server.port, data + b"\r\n\r\n")
                assert status(response) == 400, (name, response)
            assert origin.received == []

    in_a_loop(main())


def test_other_forms_of_targets_are_refused():
    async def main():
        async with proxied(rate="10000/s") as (server, origin, host):
            other = host.replace("localhost", "other.test")
            for line, field in (
                ("GET / HTTP/1.1", host), ("GET * HTTP/1.1", host), (f"GET ftp://{host}/ HTTP/1.1", host),
                (f"GET https://{host}/ HTTP/1.1", host), (f"GET http://a@{host}/ HTTP/1.1", host),
                (f"GET http://{host}/ HTTP/1.1", other), (f"GET http://{host}/ HTTP/1.1", "localhost:1"),
                (f"GET http://{host}/#x HTTP/1.1", host), ("CONNECT localhost HTTP/1.1", "localhost"),
                (f"CONNECT {host} HTTP/1.1", other), (f"CONNECT http://{host}/ HTTP/1.1", host),
                ("CONNECT localhost:0 HTTP/1.1", "localhost:0"), ("GET http:/// HTTP/1.1", host),
                ("CONNECT localhost:65536 HTTP/1.1", "localhost:65536"),
            ):
                response = await talk(server.port, f"{line}\r\nHost: {field}\r\n\r\n".encode())
                assert status(response) == 400, (line, field, response)
            assert origin.received == []

    in_a_loop(main())


def test_malformed_chunks_end_the_request_at_the_origin():
    async def main():
        async with proxied(rate="10000/s") as (server, origin, host):
            origin.response = lambda *arguments: asyncio.sleep(0)  # it waits for the end of the body
            for name, data in malformed_chunks(f"http://{host}/", host).items():
                response = await talk(server.port, data)
                assert status(response) in (400, None), (name, response)
            assert all(b"\r\n0\r\n" not in received for received in origin.received)
            assert all(received.count(b"HTTP/1.1") == 1 for received in origin.received)

    in_a_loop(main())


def test_what_follows_a_request_is_not_read():
    async def main():
        async with proxied() as (server, origin, host):
            one = f"GET http://{host}/1 HTTP/1.1\r\nHost: {host}\r\n\r\n"
            await talk(server.port, (one + one.replace("/1", "/2")).encode())
            assert len(origin.received) == 1
            assert b"/2" not in origin.received[0]

    in_a_loop(main())


def test_no_name_leads_inside(monkeypatch):
    """Names are resolved once, and the addresses that were checked are those that are connected to."""
    inside = [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fec0::1",
        "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::", "2001:0:0:0:0:0:80ff:fffe", "2001:db8::1",
        "192.0.0.8", "192.88.99.1", "3fff::1",
    ]
    outside = ["1.1.1.1", "2606:4700::1111"]
    cases = [*([address] for address in inside), outside, [inside[0], *outside, inside[1]]]
    forms = {f"{form.__name__}{at}.inside.test": (form, case)
             for at, case in enumerate(cases) for form in (connect, get)}
    addresses = {name: case for name, (_, case) in forms.items()}
    connected = []

    async def main():
        async def sock_connect(connection, address):
            connected.append(address)
            raise ConnectionRefusedError

        async with proxied(inside=[], rate="10000/s", addresses=addresses) as (server, origin, _):
            monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
            for name, (form, case) in forms.items():
                response = await talk_blocking(server.port, form(f"{name}:{origin.port}"))
                assert status(response) in ((403,) if len(case) == 1 else (403, 502)), (case, response)
                reached = sorted(address[0] for address in connected)
                assert reached == [each for each in outside if each in case]
                assert all(address[1] == origin.port for address in connected)
                connected.clear()
            assert sorted(server.resolver.asked) == sorted(addresses)  # once, so that no second reply counts

    in_a_loop(main())


async def talk_blocking(port, data):
    """`talk` in a thread, whose own connections the patched loop does not see."""
    def work():
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
            received = b""
            while part := connection.recv(65536):
                received += part
            return received
    return await asyncio.to_thread(work)


def test_what_is_not_allowed_is_not_even_resolved(monkeypatch):
    async def main():
        async with proxy(allow=["example.test:80", "*.open.test:443"], rate="10000/s") as server:
            for target in ("127.0.0.1:80", "2130706433:80", "0x7f.1:80", "0177.0.0.1:80", "127.1:80",
                           "[::1]:80",
                           "[::ffff:127.0.0.1]:80", "localhost:80", "example.test:8080", "open.test:443",
                           "a.open.test:80", "example.test.evil.test:80", "notexample.test:80"):
                for data in (connect(target), get(target)):
                    response = await talk(server.port, data)
                    assert status(response) == 403, (data, response)
            assert server.resolver.asked == []

    in_a_loop(main())


def test_loopback_is_refused_where_its_name_is_allowed():
    """Also as a number, which is an address for libc, but a name here."""
    async def main():
        addresses = ["localhost:80", "127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"]
        async with proxy(allow=[*addresses, "127.1:80"], inside=[], rate="10000/s") as server:
            for target in addresses:
                response = await talk(server.port, connect(target))
                assert status(response) == 403 and b"destination_ip_prohibited" in response, response
            assert server.resolver.asked == []
            response = await talk(server.port, connect("127.1:80"))
            assert status(response) == 502 and b"dns_error" in response, response

    in_a_loop(main())


def test_no_name_waits_for_the_server_of_another():
    """More names than a pool of threads resolves at once are pending when another one is resolved."""
    pending = 64

    async def main():
        async with raw_origin() as origin:
            host = f"known.test:{origin.port}"
            async with proxy(allow=[host, "*.silent.test:80"], rate="10000/s", connections=2 * pending,
                             connect_timeout=600, addresses={"known.test": ["127.0.0.1"]},
                             silent=".silent.test") as server:
                clients = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(pending)]
                for at, (_, writer) in enumerate(clients):
                    writer.write(connect(f"n{at}.silent.test:80"))
                while len(set(server.resolver.asked)) < pending:
                    await asyncio.sleep(0.001)
                assert status(await talk(server.port, get(host))) == 200
                assert server.open >= pending
                for _, writer in clients:
                    writer.close()

    in_a_loop(main())


def test_a_silent_name_server_is_a_timeout():
    async def main():
        async with proxy(allow=["*.silent.test:80"], silent=".silent.test", connect_timeout=0.2) as server:
            response = await talk(server.port, connect("a.silent.test:80"))
            assert status(response) == 504 and b"dns_timeout" in response, response

    in_a_loop(main())


def test_slow_and_endless_heads_end_while_others_are_served():
    async def main():
        async with proxied(head_timeout=0.3) as (server, _, host):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nX-".encode())
            good = get(host)
            assert status(await talk(server.port, good)) == 200
            assert status(await reader.read()) == 408
            writer.close()
            assert status(await talk(server.port, good[:-2] + b"X: " + b"y" * 40_000)) == 431
            assert status(await talk(server.port, good[:-2] + b"X: y\r\n" * 10_000)) == 431

    in_a_loop(main())


def test_idle_and_total_timeouts():
    async def silent(*arguments):
        """The origin says nothing."""

    async def trickle(origin, at, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def main():
        async with proxied(silent, idle_timeout=0.2) as (server, _, host):
            good = get(host)
            assert status(await talk(server.port, good)) == 504
            tunnel = connect(host)
            assert status(await talk(server.port, tunnel)) == 200
        async with proxied(trickle, idle_timeout=5, total_timeout=0.3) as (server, _, host):
            good = get(host)
            assert (await talk(server.port, good)).endswith(b"xx")
            assert (await settled(server))["seconds"] < 5

    in_a_loop(main())


def test_a_body_that_is_cut_is_cut_for_the_client():
    async def main():
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
        async with proxied(cut) as (server, _, host):
            response = await talk(server.port, get(host))
            assert b"Content-Length: 10" in response or b"content-length: 10" in response
            assert (await settled(server))["reason"] == "the body ended before its length"

    in_a_loop(main())


def test_limits_by_client_and_a_log_that_masks_it():
    async def main():
        async with proxied(rate="2/min", connections=2, mask=(24, 48)) as (server, _, host):
            good = get(host)
            responses = [await talk(server.port, good) for _ in range(3)]
            assert [status(response) for response in responses] == [200, 200, 429]
            assert b"Proxy-Status: forward; error=http_request_denied\r\n" in responses[2]
            assert b"\r\nRetry-After: " in responses[2]
            assert (await settled(server))["client"] == "127.0.0.0/24"
            idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
            while server.open < 2:
                await asyncio.sleep(0.001)
            assert status(await talk(server.port, good)) == 503
            for _, writer in idle:
                writer.close()

    in_a_loop(main())


def test_a_client_with_too_many_connections_takes_none_of_the_others():
    async def main():
        settings = {"connections": 2, "most_connections": 4, "client_bits": (32, 64)}
        async with proxied(**settings) as (server, _, host):
            held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(30)]
            for _, writer in held:
                writer.write(b"GET http")  # and no more, also after a refusal
            assert {status(await reader.readuntil()) for reader, _ in held[2:]} == {503}
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
            writer.write(get(host))
            assert status(await reader.read()) == 200
            for _, each in [*held, (reader, writer)]:
                each.transport.abort()

    in_a_loop(main())


def test_bytes_are_shaped():
    size, rate = 400_000, 400_000

    async def main():
        body = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
        async with proxied(body, bytes_per_second=rate) as (server, _, host):
            good = get(host)
            began = time.monotonic()
            responses = await asyncio.gather(talk(server.port, good), talk(server.port, good))
            assert all(len(response) > size for response in responses)
            assert time.monotonic() - began > (2 * size - rate) / rate  # all but one burst waits

    in_a_loop(main())


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
def test_data_that_waits_for_its_rate_is_not_idle(method):
    """The second piece waits for twice the idle time."""
    size, rate = 2 * forward.PIECE, forward.PIECE // 2

    async def main():
        body = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
        async with proxied(body, bytes_per_second=rate, idle_timeout=1.0) as (server, _, host):
            request = get(host)
            if method == "CONNECT":
                request = connect(host) + b"GET / HTTP/1.1\r\n\r\n"
            assert (await talk(server.port, request)).endswith(bytes(size))

    in_a_loop(main())


def test_clients_that_vanish_leave_nothing():
    async def forever(origin, at, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()

    async def main():
        async with proxied(forever, rate="10000/s") as (server, _, host):
            for line in (get(host), connect(host)):
                before = len(asyncio.all_tasks())
                for _ in range(20):
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.write(line)
                    await reader.readuntil(b"\r\n\r\n")
                    if b"CONNECT" in line:
                        writer.write(b"x")
                        await reader.readexactly(1000)
                    writer.transport.abort()
                while server.open or len(asyncio.all_tasks()) > before:
                    await asyncio.sleep(0.005)
            assert not server._open

    in_a_loop(main())


def test_the_command_runs(capfd):
    async def main():
        async with raw_origin() as origin:
            host = f"localhost:{origin.port}"
            command = [sys.executable, forward.__file__, "--allow", host, "--inside", "127.0.0.0/8", "--mask"]
            with Server(lambda port: [*command, "--port", str(port)]) as server:
                assert status(await talk(server.port, get(host))) == 200

    in_a_loop(main())
    assert {json.loads(line)["client"] for line in capfd.readouterr().out.splitlines()} == {"127.0.0.0/24"}


def test_a_document_is_followed(tmp_path):
    path = tmp_path / "edge.yaml"

    def write(**settings):
        fresh = tmp_path / "fresh"
        fresh.write_text(json.dumps({"x-forward": settings}))
        fresh.replace(path)

    async def main():
        async with proxied(rate="10000/h") as (server, _, host):
            async def until_it_is(expected):
                while status(await talk(server.port, get(host))) != expected:
                    await asyncio.sleep(0.02)

            write(allow=[host])
            following = asyncio.create_task(server.follow(path))
            await until_it_is(200)
            write(allow=["other.test"], rate="9000/h")
            await until_it_is(403)
            write(allow=5)
            while '{"error"' not in server.audit.getvalue():
                await asyncio.sleep(0.02)
            assert status(await talk(server.port, get(host))) == 403
            path.write_bytes(b"x-forward: \xff")
            while server.audit.getvalue().count('{"error"') < 2:
                await asyncio.sleep(0.02)
            assert not following.done()
            write(allow=[host], inside=["127.0.0.0/8"], rate="9000/h", bytes_per_second=10**6)
            await until_it_is(200)
            write(allow=[host], inside=["127.0.0.0/8"], rate="1/h")
            await until_it_is(429)  # what was charged before is owed
            following.cancel()

    in_a_loop(main())


@pytest.mark.parametrize("wrong", [
    {"connections": "many"}, {"idle_timeout": 0}, {"bytes_per_second": None}, {"mask": [24]}, {"mask": 24},
    {"client_bits": [64, 32]}, {"colour": "red"}, {}, {"allow": "a.test:443"}, {"inside": "10.0.0.0/8"},
])
def test_settings_that_are_wrong_are_refused(wrong):
    with pytest.raises(ValueError, match=r"x-forward|v4|unpack"):
        forward.Settings.parse(json.dumps({"x-forward": {**({"allow": []} if wrong else {}), **wrong}}))
