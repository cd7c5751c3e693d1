"""Connections of a proxy to its servers."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from weakref import WeakSet

from headgate._base.checks import checked_int
from headgate.adapters._extras import extra
from headgate.adapters._polling import watched

with extra("aiohttp"):
    import aiohttp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from aiohttp import ClientHandlerType, ClientRequest, ClientTimeout
    from aiohttp.client_middlewares import ClientMiddlewareType
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

balancing: ContextVar[ClientMiddlewareType | None] = ContextVar("balancing", default=None)
"""The middleware of the request that a proxy sends at the moment."""
reused: ContextVar[bool] = ContextVar("reused", default=False)
"""Whether the connection that a request was sent on last has served another one before."""
_SET_BY_AIOHTTP = "User-Agent", "Accept", "Accept-Encoding", "Content-Type"


class _Connector(aiohttp.TCPConnector):
    """Uses no connection again whose server has said something unasked.

    aiohttp would take that for the response to the next request, which is another client's, and so on with
    every later response.
    """

    def __init__(self, per_server: int) -> None:
        super().__init__(limit=0, limit_per_host=per_server)
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            assert protocol is not None
            reused.set(protocol in self._used)
            if not reused.get():
                self._used.add(protocol)
                return connection
            if transport is not None and not protocol.should_close:
                has_input = watched(transport.get_extra_info("socket"))
                if not has_input():
                    return connection
            connection.close()


class ConnectionPool:
    """Connections to servers, at most `per_server` to each, which several `ReverseProxy` share.

    They are opened in the event loop that asks for the first one, and belong to it until ``aclose``;
    ``async with`` closes them too. Messages pass unchanged: nothing is decompressed, no cookies are kept, and
    no fields are added.

    Raises TypeError or ValueError if `per_server` is no positive int.

    >>> async def main():
    ...     async with ConnectionPool(per_server=64) as pool:
    ...         print(pool.session() is pool.session())
    >>> asyncio.run(main())
    True
    """

    __slots__ = ("_loop", "_per_server", "_session")

    def __init__(self, per_server: int = 256) -> None:
        if checked_int("per_server", per_server) < 1:
            raise ValueError(f"per_server must be positive, got {per_server!r}")
        self._per_server = per_server
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def session(self) -> aiohttp.ClientSession:
        """The session of aiohttp, which the first call opens. Raises RuntimeError in another event loop than
        the first one, while that is open."""
        loop, session = asyncio.get_running_loop(), self._session
        if self._loop is not loop or session is None or session.closed:
            if self._loop not in (None, loop) and session is not None and not self._loop.is_closed():
                raise RuntimeError("the connections of a pool belong to the event loop that has opened them")
            self._loop, self._session = loop, self._opened()
        assert self._session is not None
        return self._session

    def _opened(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=_Connector(self._per_server),
            middlewares=(_balance,),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SET_BY_AIOHTTP,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        session, self._session, self._loop = self._session, None, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        self.session()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.aclose()


async def _balance(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    """Pass a request through the middleware of its proxy, if it is one of a proxy: ``ws_connect`` takes no
    middlewares of its own."""
    middleware = balancing.get()
    return await (handler(request) if middleware is None else middleware(request, handler))
