"""A middleware for aiohttp's client that balances over servers, with failover and health."""

from __future__ import annotations

import asyncio
from functools import partial
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.payload import BytesPayload
from yarl import URL

from headgate.adapters._http import Attempts, Failover, origin
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Unpack

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from headgate.adapters._http import Balancer, Flight, Options, ServerCounters

__all__ = ["BalancedMiddleware"]

_FAILURES = aiohttp.ClientConnectionError, aiohttp.ClientResponseError
_UNSENT = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError
_REPLACED = "Host", "Authorization"


def _over(flight: Flight, content: aiohttp.StreamReader) -> None:
    """The connection is given back, the body having been read, left or cut."""
    error = content.exception()
    if isinstance(error, Exception):
        flight.broke(error)
    else:
        flight.ended()


class BalancedMiddleware:
    """Sends each request for `host` to a server of `balancer`, and to another one where that fails.

    It serves all URLs of that host, ``ClientSession(middlewares=[BalancedMiddleware(balancer, "orders")])``,
    and lets the others pass. Servers are origins, ``"http://10.0.0.1:8080"``; a path stands before that of
    the request, and credentials become its Authorization.

    A request goes to at most `attempts` servers. One that was not sent, for want of a connection, may go
    to the next; one whose connection broke or timed out, or that got one of `statuses`, may do so if its
    method is idempotent, its body is no stream, and time and the budget for retries allow it. Then the last
    error or response stands; ``headgate.adapters.server_of`` says which server it came from. aiohttp itself
    repeats an idempotent request once more where the last connection broke.

    A pick is in flight until the body of its response is read or left. An error of the network, a timeout
    and a status from 500 on are failures of the server; 429 says that it is overloaded; what else goes wrong,
    such as a cancelled task, counts neither way.

    `key` returns what ``balancer.pick`` is given of a ClientRequest. The Host header names the server, or
    with ``preserve_host=True`` what the URL names. There being no server raises ClientConnectionError. All
    options are described in docs/adapters.md.

    Raises TypeError or ValueError if an argument has the wrong type or is out of range.

    >>> from headgate import RoundRobin
    >>> servers = RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])
    >>> orders = BalancedMiddleware(servers, "orders", attempts=2)
    >>> async def order(number):
    ...     async with aiohttp.ClientSession(middlewares=[orders]) as session:
    ...         async with session.get(f"http://orders/{number}") as response:
    ...             return await response.json()
    """

    def __init__(self, balancer: Balancer, host: str, **options: Unpack[Options]) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host must be a str, got {host!r}")
        self._host = host.lower()
        self._failover = Failover(balancer, **options)
        self._challenged: WeakKeyDictionary[ClientRequest, Any] = WeakKeyDictionary()

    def counters(self) -> dict[Any, ServerCounters]:
        """Counts for each server of the balancer, over all its adapters: see `ServerCounters`."""
        return self._failover.counters()

    def _attempts(self, request: ClientRequest) -> Attempts:
        replayable = isinstance(request.body, (bytes, BytesPayload))
        try:
            return Attempts(self._failover, request, request.method, replayable,
                            prefer=self._challenged.pop(request, None))
        except NoServerError as error:
            raise aiohttp.ClientConnectionError(str(error)) from error

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if request.url.host != self._host:
            return await handler(request)
        with self._attempts(request) as attempts:
            return await self._answered(request, handler, attempts)

    def _address(self, request: ClientRequest, server: Any) -> None:
        """Leads the request to `server`."""
        base, url = origin(server), request.url
        request.url = URL(f"{base.scheme}://{base.netloc}{base.path}{url.raw_path_qs}", encoded=True)
        if not self._failover.preserve_host:
            request.headers["Host"] = base.netloc
        if base.authorization is not None:
            request.headers.setdefault("Authorization", base.authorization)

    @staticmethod
    def _restore(request: ClientRequest, url: URL, headers: list[tuple[str, str | None]]) -> None:
        request.url = url
        for name, value in headers:
            if value is None:
                request.headers.pop(name, None)
            else:
                request.headers[name] = value

    async def _answered(self, request: ClientRequest, handler: ClientHandlerType,
                        attempts: Attempts) -> ClientResponse:
        while True:
            try:
                response = await self._sent(request, handler, attempts)
            except _FAILURES as error:
                if not await attempts.retried_soon(error, not isinstance(error, _UNSENT), asyncio.sleep):
                    attempts.explain(error)
                    raise
                continue
            except TimeoutError as error:  # that of the whole request
                attempts.ended_by(error)
                raise
            status = response.status
            if not (attempts.gives_up(status) and await attempts.retried_soon(status, True, asyncio.sleep)):
                if status == 401:
                    self._challenged[request] = attempts.pick.server
                self._follow(response, attempts.stands(response, status))
                return response
            response.release()

    async def _sent(self, request: ClientRequest, handler: ClientHandlerType,
                    attempts: Attempts) -> ClientResponse:
        """The response to one attempt, within the time that it has.

        The request is then as it was, since what an outer middleware sends again is for the balancer, too.
        """
        url, headers = request.url, [(name, request.headers.get(name)) for name in _REPLACED]
        self._address(request, attempts.pick.server)
        limit = asyncio.timeout(attempts.left())
        try:
            async with limit:
                return await handler(request)
        except TimeoutError as error:
            if limit.expired():
                raise aiohttp.ServerTimeoutError(f"no response from {request.url.origin()}") from error
            raise
        finally:
            self._restore(request, url, headers)

    def _follow(self, response: ClientResponse, flight: Flight) -> None:
        """Ends the flight with the body of its response, which may be there already."""
        end = partial(_over, flight, response.content)
        if response.connection is None:
            end()
        else:
            response.connection.add_callback(end)
