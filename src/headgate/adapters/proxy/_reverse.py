"""A reverse proxy as an ASGI application: from a request to a server of a balancer and back."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from inspect import isawaitable
from ipaddress import IPv4Address
from random import getrandbits
from typing import Any
from urllib.parse import quote

from headgate._base.checks import checked_number
from headgate.adapters._extras import extra
from headgate.adapters.asgi._request import ASGIRequest
from headgate.adapters.keys import checked_extractor, is_of_networks
from headgate.adapters.proxy._body import ClientLeft, RequestBody
from headgate.adapters.proxy._fields import Refusal, forwarded_once, forwards_of, is_unambiguous
from headgate.adapters.proxy._strict import (
    CLOSE,
    checked_hop,
    peer_of,
    refusal_of_scope,
    refuse,
    scheme_of,
)
from headgate.balance import AddressHash, KeyHash
from headgate.limit._networks import address_of

with extra("aiohttp"):
    import aiohttp
    from yarl import URL

    from headgate.adapters.aiohttp import BalancedMiddleware
    from headgate.adapters.proxy._pool import ConnectionPool, balancing, reused
    from headgate.adapters.proxy._sockets import pump, without_handshake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
    from typing import Self, TypedDict, Unpack

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from headgate.adapters._http import Balancer, BalancerEvent, ServerCounters
    from headgate.adapters.asgi._types import Receive, Scope, Send
    from headgate.adapters.keys import Extractor
    from headgate.adapters.proxy._fields import Fields
    from headgate.adapters.proxy._hop import Hop
    from headgate.balance import RetryBudget

    class Retries(TypedDict, total=False):
        """Options of `BalancedMiddleware` that are its own business."""

        attempts: int
        statuses: Collection[int]
        budget: RetryBudget | None
        backoff: float
        on_event: Callable[[BalancerEvent], object] | None

_UPSTREAM = "upstream.invalid"
_BROKEN = aiohttp.ClientOSError, aiohttp.ServerDisconnectedError
_ERRORS = aiohttp.ClientError, TimeoutError, OSError
_UNQUOTED = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")
_LONGEST_HEAD = 64 * 1024
_HEAD_WAITS = 1.0
_NO_MEANING = Refusal(502, "The response of the server has no meaning.")
_key: ContextVar[Any] = ContextVar("key")


class ReverseProxy:
    """An ASGI application that passes requests and WebSockets on to the servers of `balancer`, over aiohttp.

    Bodies are streamed both ways, with back-pressure. Fields are those of `hop`, and what `StrictMiddleware`
    refuses is refused here too. A client that leaves ends its request at the server. A body that breaks off,
    on either side, never ends as a complete one. A server that cannot be reached, or whose response has no
    meaning, is a 502, one that does not respond in time a 504, both with problem+json.

    `pool` are the connections, which proxies for several balancers may share. Its own ones, the default, are
    opened when they are needed, and closed by ``aclose``, ``async with`` or the server's lifespan.

    `key` is an extractor of `headgate.adapters.keys`, for a balancer that needs a key; it may return an
    awaitable. Without a key, or an address for `AddressHash`, a request goes to a random server. Times are in
    seconds: `connect_timeout` for a connection, `attempt_timeout` for the head of each response, `deadline`
    for that after all attempts, `idle_timeout` between two parts of a body, in either direction, and
    `quiet_timeout` between two messages of a WebSocket. For a request with a body, `attempt_timeout` and
    `deadline` do not hold, as it is the client's time too: there the server has `idle_timeout` after the
    body. The other options are those of `BalancedMiddleware`: ``attempts=3``, ``statuses``, ``budget``,
    ``backoff``, ``on_event``, and ``preserve_host``, which is true here.

    Raises TypeError or ValueError if an argument has the wrong type or is out of range.

    >>> from headgate import RoundRobin
    >>> from headgate.adapters.proxy import Hop
    >>> servers = RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])
    >>> app = ReverseProxy(servers, Hop("edge", trusted=["10.0.0.0/8"]), attempts=2)
    >>> app.counters()["http://10.0.0.1:8080"].requests
    0
    """

    def __init__(self, balancer: Balancer, hop: Hop, *, pool: ConnectionPool | None = None,
                 key: Extractor | None = None, connect_timeout: float = 5.0,
                 attempt_timeout: float | None = 30.0, deadline: float | None = 60.0,
                 idle_timeout: float = 60.0, quiet_timeout: float = 300.0,
                 preserve_host: bool = True, **retries: Unpack[Retries]) -> None:
        self._hop = checked_hop(hop)
        if pool is not None and not isinstance(pool, ConnectionPool):
            raise TypeError(f"pool must be a ConnectionPool or None, got {pool!r}")
        self._owns_pool = pool is None
        self._pool = ConnectionPool() if pool is None else pool
        self._extract = checked_extractor("key", key)
        self._needs_address = isinstance(balancer, AddressHash)
        self._needs_key = self._needs_address or isinstance(balancer, KeyHash)
        if self._needs_address and is_of_networks(key):
            raise TypeError(f"key must be client(v6=128) for {balancer!r}, got networks by {key!r}")
        self._connect = _positive("connect_timeout", connect_timeout)
        self._idle = _positive("idle_timeout", idle_timeout)
        self._quiet = _positive("quiet_timeout", quiet_timeout)
        current = None if key is None else _current_key
        self._timed = BalancedMiddleware(
            balancer, _UPSTREAM, key=current, preserve_host=preserve_host, attempt_timeout=attempt_timeout,
            deadline=deadline, **retries)
        self._streamed = BalancedMiddleware(
            balancer, _UPSTREAM, key=current, preserve_host=preserve_host, **retries)

    def counters(self) -> dict[Any, ServerCounters]:
        """Counts for each server of the balancer, over all its adapters: see `ServerCounters`."""
        return self._timed.counters()

    async def aclose(self) -> None:
        """Close the connections, unless they are those of a `pool` that was given."""
        if self._owns_pool:
            await self._pool.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        refusal = refusal_of_scope(scope, self._hop)
        if refusal is not None:
            await refuse(scope, receive, send, refusal, CLOSE)
            return
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["method"] == "OPTIONS" and forwards_of(scope["headers"]) == 0:
            await self._respond(send)
        else:
            await self._request(scope, receive, send)

    async def _respond(self, send: Send) -> None:
        """Respond to an OPTIONS that is to go no further: RFC 9110 7.6.2."""
        fields = self._hop.response_fields([], "1.1")
        await send({"type": "http.response.start", "status": 204, "headers": fields})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """For a proxy that is the whole application of a server."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def _fields(self, scope: Scope) -> Fields:
        fields = scope["headers"]
        if scope.get("method") == "OPTIONS":
            fields = forwarded_once(fields)
        return self._hop.request_fields(
            fields, peer_of(scope), scheme_of(scope, self._hop), scope["http_version"])

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, until it is complete or its client has left."""
        body = RequestBody(scope, receive, self._idle)
        try:
            async with asyncio.timeout(None) as exchange:
                watch = asyncio.create_task(body.watch(exchange))
                try:
                    await self._exchange(scope, body, send)
                finally:
                    watch.cancel()
        except TimeoutError:
            if not exchange.expired():
                raise

    async def _exchange(self, scope: Scope, body: RequestBody, send: Send) -> None:
        started = False
        try:
            async with await self._response(scope, body) as response:
                fields = [(name.lower(), value) for name, value in response.raw_headers]
                if not _has_meaning(response.status, fields):
                    response.close()
                    await refuse(scope, _nothing, send, _NO_MEANING)
                    return
                connection = None if _has_end(fields) else response.connection
                protocol = None if connection is None else connection.protocol
                version = response.version
                first = await self._first(response.content)
                await send({
                    "type": "http.response.start", "status": response.status,
                    "headers": self._hop.response_fields(fields, f"1.{version.minor if version else 1}"),
                })
                started = True
                async for part in self._parts(first, response.content):
                    async with asyncio.timeout(self._idle):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                if protocol is not None and isinstance(protocol.exception(), aiohttp.ClientOSError):
                    raise aiohttp.ClientPayloadError("the connection that ends the body was reset")
            body.ended = True
            await send({"type": "http.response.body", "body": b""})
        except (*_ERRORS, ClientLeft) as error:
            if started:
                raise  # the server breaks the connection off, so that the body is not taken for complete
            await refuse(scope, _nothing, send, _failure(error, body), *([CLOSE] if body.left else []))

    async def _response(self, scope: Scope, body: RequestBody) -> ClientResponse:
        """The response of a server, whose body is yet to be read."""
        is_streamed = await body.is_present()
        key = await self._key_of(scope)
        with self._balanced(key, is_streamed):
            return await self._pool.session().request(
                scope["method"],
                _url(scope),
                data=body.parts() if is_streamed else None,
                headers=_decoded(self._fields(scope)),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect, sock_read=self._idle),
            )

    async def _key_of(self, scope: Scope) -> Any:
        """What a request is balanced by."""
        if self._extract is None:
            return None
        key = self._extract(ASGIRequest(scope))
        if isawaitable(key):
            key = await key
        if self._needs_address and isinstance(key, str):
            key = address_of(key)
        return str(IPv4Address(getrandbits(32))) if key is None and self._needs_key else key

    @contextmanager
    def _balanced(self, key: Any, is_streamed: bool = False) -> Iterator[None]:
        """Requests of aiohttp within are balanced, by this key."""
        keyed = _key.set(key)
        balanced = balancing.set(self._send_once if is_streamed else self._send)
        try:
            yield
        finally:
            balancing.reset(balanced)
            _key.reset(keyed)

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Balance a request that aiohttp repeats only where its server may have closed an idle connection.

        It would repeat whatever is idempotent: all attempts, beyond the retry budget.
        """
        try:
            return await self._timed(request, handler)
        except _BROKEN as error:
            if reused.get() or isinstance(error, aiohttp.ClientConnectorError):
                raise
            raise aiohttp.ClientConnectionError(str(error)) from error

    async def _send_once(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Balance a request whose body is a stream, which cannot be read again.

        Where a connection breaks, aiohttp itself repeats a PUT or DELETE, with what is left of its body.
        """
        try:
            return await self._streamed(request, handler)
        except _BROKEN as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                raise
            raise aiohttp.ClientConnectionError(str(error)) from error

    async def _first(self, content: aiohttp.StreamReader) -> bytes:
        """The first part of a body, empty if it has none, or none within a second.

        The head waits for it, as without a head a body that breaks off is still a 502; but the head of a
        stream of events does not wait for the first event.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEAD_WAITS):
                return await content.readany()
        return b""

    async def _parts(self, first: bytes, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        """The parts of the body of a response as they come.

        Where the first is late an empty one goes before it, as some servers send no head alone. The time is
        bounded here too: after a malformed chunk aiohttp neither goes on nor ends.
        """
        if first or not content.at_eof():
            yield first
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    part = await content.readany()
            except TimeoutError as error:
                content.set_exception(error)  # which makes it a failure of the server
                raise
            if not part:
                return
            yield part

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket, open as long as both sides are and one of them says something at times."""
        try:
            with self._balanced(await self._key_of(scope)):
                socket = await self._pool.session().ws_connect(
                    _url(scope),
                    protocols=scope.get("subprotocols", ()),
                    headers=_decoded(without_handshake(self._fields(scope))),
                    timeout=aiohttp.ClientWSTimeout(ws_close=5.0),
                )
        except _ERRORS as error:
            if isinstance(error, aiohttp.WSServerHandshakeError) and 300 <= error.status < 600:
                refusal = Refusal(error.status, "The server has refused the handshake.")
            else:
                refusal = _failure(error, None)
            await refuse(scope, receive, send, refusal)
            return
        async with socket:
            await receive()
            await send({"type": "websocket.accept", "subprotocol": socket.protocol, "headers": []})
            await pump(self._quiet, receive, send, socket)


def _current_key(request: ClientRequest) -> Any:
    return _key.get()


async def _nothing() -> Any:
    """What a request is received by, whose response does not depend on it."""
    raise AssertionError


def _url(scope: Scope) -> URL:
    """The target of a request, to the byte but for those that no URL may have.

    Servers differ in what they accept: a fragment would end the path, and it is written as UTF-8.
    """
    path = quote(scope.get("raw_path") or quote(scope["path"]), safe=_UNQUOTED.replace("?", ""))
    return URL.build(scheme="http", host=_UPSTREAM, path=path, encoded=True,
                     query_string=quote(scope.get("query_string", b""), safe=_UNQUOTED))


def _decoded(fields: Fields) -> list[tuple[str, str]]:
    """Fields as aiohttp takes them, which writes UTF-8: bytes that are not UTF-8 are taken for Latin-1."""
    return [(name.decode(), _text(value)) for name, value in fields]


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _has_meaning(status: int, fields: Fields) -> bool:
    """Whether a response can be passed on: a final one, of one meaning, with a head that others accept.

    One without content has no length but 0, which some servers send: RFC 9110 8.6.
    """
    length = sum([len(name) + len(value) for name, value in fields])
    return 200 <= status < 600 and length <= _LONGEST_HEAD and is_unambiguous(fields) and not (
        status == 204 and any(name == b"content-length" and value.strip(b"0") for name, value in fields))


def _has_end(fields: Fields) -> bool:
    """Whether a response says where it ends; else the end of its connection does."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in fields)


def _failure(error: BaseException, body: RequestBody | None) -> Refusal:
    """What a client gets for a request that has failed."""
    if body is not None and body.left:
        return Refusal(400, "The body of the request did not end.")
    if isinstance(error, TimeoutError):
        return Refusal(504, "The server did not respond in time.")
    return Refusal(502, "The server cannot be reached, or its response is malformed.")


def _positive(name: str, seconds: float) -> float:
    if not checked_number(name, seconds) > 0:
        raise ValueError(f"{name} must be positive, got {seconds!r}")
    return float(seconds)
