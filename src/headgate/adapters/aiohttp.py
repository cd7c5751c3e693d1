"""aiohttp's client over balanced servers: a middleware with failover, and active health checks."""

from __future__ import annotations

import asyncio
from functools import partial
from weakref import WeakKeyDictionary

from headgate.adapters._aiohttp_checks import HealthChecks, HealthRecord
from headgate.adapters._extras import extra
from headgate.adapters._http import Attempts, Failover, origin
from headgate.errors import NoServerError

with extra("aiohttp"):
    import aiohttp
    from aiohttp.payload import BytesPayload
    from yarl import URL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Unpack

    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from headgate.adapters._http import Balancer, InFlight, Options, ServerCounters

__all__ = ["BalancedMiddleware", "HealthChecks", "HealthRecord"]

_FAILURES = aiohttp.ClientConnectionError, aiohttp.ClientResponseError
_UNSENT = aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError
_REPLACED = "Host", "Authorization"


def _is_of_body(error: Exception) -> bool:
    """Whether the body of the request raised it while it was sent, such as a generator; not an OSError."""
    cause = error.__cause__
    return type(error) is aiohttp.ClientConnectionError and cause is not None and not isinstance(
        cause, (OSError, aiohttp.ClientError))


def _was_closed(error: Exception) -> bool:
    """Whether the error of a body says that its reader has closed it before its end."""
    return type(error) is aiohttp.ClientConnectionError and error.__cause__ is None


def _released(in_flight: InFlight, content: aiohttp.StreamReader) -> None:
    """The connection is released, as the body was read, closed or cut off."""
    error = content.exception()
    if isinstance(error, Exception) and not _was_closed(error):
        in_flight.failed(error)
    else:
        in_flight.finished()


class BalancedMiddleware:
    """Sends each request for `host` to a server of `balancer`, and to another one if that fails.

    It handles all URLs of that host, ``ClientSession(middlewares=[BalancedMiddleware(balancer, "orders")])``;
    other requests pass unchanged. Servers are origins, ``"http://10.0.0.1:8080"``; a path is prepended to
    that of the request, and credentials become its Authorization.

    A request is sent to at most `attempts` servers. If it could not be sent, for lack of a connection, the
    next server is tried; if its connection broke or timed out, or the response has one of `statuses`, the
    next server is tried if the method is idempotent, the body is not a stream, and the deadline and the retry
    budget allow it. The last error or response is the result; ``headgate.adapters.server_of`` returns its
    server. aiohttp itself repeats an idempotent request once if its last connection broke.

    A pick is in flight until the body of its response is read or closed. Network errors, timeouts and
    statuses from 500 on are failures of the server; 429 means that it is overloaded; other errors, such as a
    cancelled task, or one that a body's generator raises, do not count.

    `key` is a function of the ClientRequest that returns the key for ``balancer.pick``. The Host header names
    the server or, with ``preserve_host=True``, the host of the URL. Raises ClientConnectionError if there is
    no server. All options are described in docs/adapters.md.

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
            return await self._respond(request, handler, attempts)

    def _redirect(self, request: ClientRequest, server: Any) -> None:
        """Point the request at `server`."""
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

    async def _respond(self, request: ClientRequest, handler: ClientHandlerType,
                        attempts: Attempts) -> ClientResponse:
        while True:
            try:
                response = await self._send(request, handler, attempts)
            except _FAILURES as error:
                if _is_of_body(error):
                    raise
                if not await attempts.retry_async(error, not isinstance(error, _UNSENT), asyncio.sleep):
                    attempts.add_note(error)
                    raise
                continue
            except TimeoutError as error:  # of the whole request
                attempts.abort(error)
                raise
            status = response.status
            retry = attempts.should_retry(status)
            if not (retry and await attempts.retry_async(status, True, asyncio.sleep)):
                if status == 401:
                    self._challenged[request] = attempts.pick.server
                self._track(response, attempts.finish(response, status))
                return response
            response.release()

    async def _send(self, request: ClientRequest, handler: ClientHandlerType,
                    attempts: Attempts) -> ClientResponse:
        """The response to one attempt, within its time limit.

        The request is restored afterwards, so that a repetition by an outer middleware is balanced too.
        """
        url, headers = request.url, [(name, request.headers.get(name)) for name in _REPLACED]
        self._redirect(request, attempts.pick.server)
        limit = asyncio.timeout(attempts.remaining())
        try:
            async with limit:
                return await handler(request)
        except TimeoutError as error:
            if limit.expired():
                raise aiohttp.ServerTimeoutError(f"no response from {request.url.origin()}") from error
            raise
        finally:
            self._restore(request, url, headers)

    def _track(self, response: ClientResponse, in_flight: InFlight) -> None:
        """End the pick with the body of its response, which may be complete already."""
        end = partial(_released, in_flight, response.content)
        if response.connection is None:
            end()
        else:
            response.connection.add_callback(end)
