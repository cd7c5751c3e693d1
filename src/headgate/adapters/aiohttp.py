"""A middleware for aiohttp's client that balances over servers, with failover and health."""

from __future__ import annotations

from functools import partial

import aiohttp
from aiohttp.payload import BytesPayload
from yarl import URL

from headgate.adapters._http import STATUSES, Attempts, Failover, no_origin
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from headgate.adapters._http import Balancer, Pick

__all__ = ["BalancedMiddleware"]

_FAILURES = aiohttp.ClientConnectionError, aiohttp.ClientResponseError
_UNSENT = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError


def _ended(pick: Pick, content: aiohttp.StreamReader, ok: bool) -> None:
    """The connection is given back, the body having been read, left or cut."""
    pick.done(ok and content.exception() is None)


class BalancedMiddleware:
    """Sends each request for `host` to a server of `balancer`, and to another one where that fails.

    It serves all URLs of that host, ``ClientSession(middlewares=[BalancedMiddleware(balancer, "orders")])``,
    and lets the others pass. Servers are origins, ``"http://10.0.0.1:8080"``; a path stands before that of
    the request.

    A request goes to at most `attempts` servers. One that was not sent, for want of a connection, may go
    to the next; one whose connection broke or timed out, or that was answered with one of `statuses`, may
    do so if its method is idempotent and its body no stream. Then the last error or response stands;
    aiohttp itself repeats an idempotent request once more where the last connection broke.

    A pick is in flight until the body of its response is read or left. An error of the network, a timeout
    and a status from 500 on are failures of the server; what else goes wrong, such as a cancelled task,
    counts neither way.

    `key` answers what ``balancer.pick`` is given of a ClientRequest. The Host header names the server, or
    with `preserve_host` what the URL names. There being no server raises ClientConnectionError.

    Raises TypeError or ValueError if an argument has the wrong type or is out of range.

    >>> from headgate import RoundRobin
    >>> servers = RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])
    >>> orders = BalancedMiddleware(servers, "orders", attempts=2)
    >>> async def order(number):
    ...     async with aiohttp.ClientSession(middlewares=[orders]) as session:
    ...         async with session.get(f"http://orders/{number}") as response:
    ...             return await response.json()
    """

    def __init__(self, balancer: Balancer, host: str, *, attempts: int = 3,
                 statuses: Collection[int] = STATUSES, key: Callable[[Any], Any] | None = None,
                 preserve_host: bool = False) -> None:
        if not isinstance(host, str):
            raise TypeError(f"host must be a str, got {host!r}")
        self._host = host.lower()
        self._failover = Failover(balancer, attempts, statuses, key, preserve_host)

    def _attempts(self, request: ClientRequest) -> Attempts:
        replayable = isinstance(request.body, (bytes, BytesPayload))
        try:
            return Attempts(self._failover, request, request.method, replayable)
        except NoServerError as error:
            raise aiohttp.ClientConnectionError(str(error)) from error

    def _address(self, request: ClientRequest, url: URL, server: Any) -> None:
        """Lead the request, which was for `url`, to `server`."""
        base = URL(server)
        if not base.host:
            raise no_origin(server)
        path = base.raw_path.rstrip("/") + url.raw_path_qs
        request.url = URL(f"{base.origin()}{path}", encoded=True)
        if not self._failover.preserve_host:
            request.headers["Host"] = base.host_port_subcomponent or ""

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        url = request.url
        if url.host != self._host:
            return await handler(request)
        with self._attempts(request) as attempts:
            while True:
                self._address(request, url, attempts.pick.server)
                try:
                    response = await handler(request)
                except _FAILURES as error:
                    if not attempts.failed(sent=not isinstance(error, _UNSENT)):
                        raise
                    continue
                except TimeoutError:
                    attempts.pick.done(False)
                    raise
                if not attempts.refused(response.status):
                    self._follow(response, attempts.pick)
                    return response
                response.release()

    def _follow(self, response: ClientResponse, pick: Pick) -> None:
        """End the pick with the body of its response, which may be there already."""
        end = partial(_ended, pick, response.content, response.status < 500)
        if response.connection is None:
            end()
        else:
            response.connection.add_callback(end)
