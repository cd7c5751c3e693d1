"""WebSockets through the reverse proxy, to a server on loopback."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from asgi_exchanges import Socket
from raw_origin import raw_origin
from watchdog import in_a_loop

from headgate import RoundRobin
from headgate.adapters.proxy import Hop, ReverseProxy

HOP = Hop("paris", ["10.0.0.0/8"])


async def _chat(request):
    """Returns messages backwards, or does as one says."""
    if request.path != "/":
        return web.Response(status=int(request.path[1:]))
    socket = web.WebSocketResponse(protocols=("chat",))
    await socket.prepare(request)
    async for message in socket:
        if message.data == "close":
            await socket.close(code=4001, message=b"enough")
        elif message.data == "drop":
            request.transport.abort()
        elif message.data == "huge":
            await socket.send_str("x" * 5_000_000)
        elif message.data == "fields":
            fields = {name.lower(): value for name, value in request.headers.items()}
            await socket.send_str(json.dumps(fields))
        elif isinstance(message.data, str):
            await socket.send_str(message.data[::-1])
        else:
            await socket.send_bytes(message.data[::-1])
    request.app[CODES].append(socket.close_code)
    return socket


CODES = web.AppKey("codes", list)


@asynccontextmanager
async def chat(**options):
    """A proxy before the chat, and the codes that its server has got."""
    app = web.Application()
    app[CODES] = codes = []
    app.router.add_get("/{path:.*}", _chat)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ReverseProxy(
                RoundRobin([f"http://127.0.0.1:{runner.addresses[0][1]}"]), HOP, **options) as proxy:
            yield proxy, codes
    finally:
        await runner.cleanup()


async def _accepted(socket):
    accept = await socket.next()
    assert accept["type"] == "websocket.accept"
    return accept


def test_messages_pass_both_ways():
    async def main():
        async with chat() as (proxy, codes):
            socket = Socket(proxy, subprotocols=["other", "chat"])
            assert (await _accepted(socket))["subprotocol"] == "chat"
            socket.send(text="headgate", bytes=None)
            assert (await socket.next())["text"] == "etagdaeh"
            large = bytes(range(256)) * 2000
            socket.send(bytes=large)
            assert (await socket.next())["bytes"] == large[::-1]
            socket.close(4000, "bye")
            await socket.task
            while not codes:
                await asyncio.sleep(0.001)
            assert codes == [4000]

    in_a_loop(main())


def test_a_handshake_has_the_fields_of_a_request():
    async def main():
        async with chat() as (proxy, _):
            fields = [("sec-websocket-key", "AAAA"), ("sec-websocket-extensions", "permessage-deflate"),
                      ("upgrade", "websocket"), ("connection", "Upgrade"), ("origin", "https://a"),
                      ("x-forwarded-proto", "https"), ("sec-websocket-version", "13")]
            socket = Socket(proxy, headers=fields, client=("10.0.0.1", 5))
            await _accepted(socket)
            socket.send(text="fields")
            found = json.loads((await socket.next())["text"])
            assert found["origin"] == "https://a" and found["x-forwarded-proto"] == "https"
            assert found["sec-websocket-key"] != "AAAA" and "sec-websocket-extensions" not in found
            assert found["via"] == "1.1 paris" and found["host"] == "site.test"
            socket.close()
            await socket.task

    in_a_loop(main())


@pytest.mark.parametrize("code, passed", [
    (1005, 1000), (1000, 1000), (1006, 1001), (1015, 1001), (3000, 3000)])
def test_codes_of_a_client(code, passed):
    async def main():
        async with chat() as (proxy, codes):
            socket = Socket(proxy)
            await _accepted(socket)
            socket.close(code)
            await socket.task
            while not codes:
                await asyncio.sleep(0.001)
            assert codes == [passed]

    in_a_loop(main())


@pytest.mark.parametrize("said, code", [("close", 4001), ("drop", 1011), ("huge", 1009)])
def test_a_server_that_ends_a_socket(said, code):
    async def main():
        async with chat() as (proxy, _):
            socket = Socket(proxy)
            await _accepted(socket)
            socket.send(text=said)
            assert await socket.next() == {"type": "websocket.close", "code": code}
            await socket.task

    in_a_loop(main())


def test_a_socket_that_says_nothing_ends():
    async def main():
        async with chat(quiet_timeout=0.05) as (proxy, _):
            socket = Socket(proxy)
            await _accepted(socket)
            assert await socket.next() == {"type": "websocket.close", "code": 1001}
            await socket.task

    in_a_loop(main())


@pytest.mark.parametrize("path, host, status", [("/401", "a", 401), ("/499", "a", 499), ("/", "a,b", 400)])
def test_a_handshake_that_is_refused(path, host, status):
    async def main():
        async with chat() as (proxy, _):
            socket = Socket(proxy, path, host=host, extensions={"websocket.http.response": {}})
            start = await socket.next()
            assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
            await socket.task
            socket = Socket(proxy, path, host=host)
            assert await socket.next() == {"type": "websocket.close", "code": 1008}
            await socket.task

    in_a_loop(main())


@pytest.mark.parametrize("response, status", [(None, 504), (b"HTTP/1.1 200 OK\r\n\r\n", 502), (b"\0", 502)])
def test_a_server_without_a_handshake(response, status):
    async def main():
        async def hang(origin, at, reader, writer):
            """Say nothing."""

        async with raw_origin(response or hang) as origin:
            servers = RoundRobin([f"http://127.0.0.1:{origin.port}"])
            async with ReverseProxy(servers, HOP, attempt_timeout=0.1) as proxy:
                socket = Socket(proxy, extensions={"websocket.http.response": {}})
                assert (await socket.next())["status"] == status
                await socket.task

    in_a_loop(main())
