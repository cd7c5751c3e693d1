"""Connections of a proxy that are used again, and a server that says more than it was asked for."""

import asyncio

import pytest
from asgi_exchanges import Exchange, Socket
from raw_origin import raw_origin
from watchdog import in_a_loop

from headgate import RetryBudget, RoundRobin
from headgate.adapters.proxy import Hop, ReverseProxy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


class Talkative:
    """Responds with the path, and says `more` on its first connection when `say` is called."""

    def __init__(self, more):
        self._more, self._first = more, None

    async def respond(self, origin, at, reader, writer):
        self._first = self._first or writer
        target = origin.received[at].rpartition(b"GET ")[2].split()[0]
        writer.write(OK + target)

    def say(self):
        self._first.write(self._more)


@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("more", [
    OK + b"!!", OK, b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n", b"nonsense"])
def test_what_a_server_says_unasked_is_no_response_to_another_client(more, is_read):
    """Whether the event loop has read it yet or not."""
    async def main():
        server = Talkative(more)
        async with raw_origin(server.respond) as origin, ReverseProxy(
                RoundRobin([f"http://127.0.0.1:{origin.port}"]), Hop("paris")) as proxy:
            assert (await Exchange(proxy, "/a").response()).body == b"/a"
            server.say()
            for _ in range(10 if is_read else 0):
                await asyncio.sleep(0)
            for path in ("/b", "/c"):
                assert (await Exchange(proxy, path).response()).body == path.encode()
            assert len(origin.received) == 2

    in_a_loop(main())


@pytest.mark.parametrize("method", ["GET", "DELETE", "websocket"])
@pytest.mark.parametrize("attempts, budget, sent", [
    (1, None, 1), (2, None, 2), (3, None, 3), (3, RetryBudget(share=0, per_second=0), 1)])
def test_a_request_is_sent_as_often_as_attempts_and_budget_allow(method, attempts, budget, sent):
    """aiohttp itself would repeat all of them."""
    async def main():
        async def break_off(origin, at, reader, writer):
            writer.close()

        async with raw_origin(break_off) as one, raw_origin(break_off) as two, raw_origin(break_off) as three:
            origins = [one, two, three]
            servers = RoundRobin([f"http://127.0.0.1:{origin.port}" for origin in origins])
            options = {"attempts": attempts, "budget": budget, "backoff": 0}
            async with ReverseProxy(servers, Hop("paris"), **options) as proxy:
                if method == "websocket":
                    assert (await Socket(proxy).next())["type"] == "websocket.close"
                else:
                    assert (await Exchange(proxy, method=method).response()).status == 502
            assert sum(len(origin.received) for origin in origins) == sent

    in_a_loop(main())


@pytest.mark.parametrize("method, parts, status, sent", [
    ("GET", [], 200, 2), ("DELETE", [], 200, 2), ("POST", [], 502, 1), ("PUT", [b"a"], 502, 1)])
def test_an_idle_connection_may_be_closed_when_a_request_is_on_its_way(method, parts, status, sent):
    """The only server is asked once more, on another connection."""
    async def main():
        async def respond(origin, at, reader, writer):
            if b"/second" in origin.received[at] and b"/first" in origin.received[at]:
                writer.close()
            else:
                writer.write(OK + b"ok")

        async with raw_origin(respond) as origin, ReverseProxy(
                RoundRobin([f"http://127.0.0.1:{origin.port}"]), Hop("paris"), attempts=1) as proxy:
            assert (await Exchange(proxy, "/first").response()).status == 200
            exchange = Exchange(proxy, "/second", method=method, parts=parts)
            assert (await exchange.response()).status == status
            assert sum(received.count(b" /second ") for received in origin.received) == sent

    in_a_loop(main())


def test_a_connection_is_used_again_while_its_server_is_silent():
    async def main():
        async with raw_origin(Talkative(b"").respond) as origin, ReverseProxy(
                RoundRobin([f"http://127.0.0.1:{origin.port}"]), Hop("paris")) as proxy:
            for path in ("/a", "/b", "/c"):
                assert (await Exchange(proxy, path).response()).body == path.encode()
            assert len(origin.received) == 1

    in_a_loop(main())
