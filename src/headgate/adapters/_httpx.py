"""The transports of httpx and httpx2, whose interfaces differ only in their names."""

from __future__ import annotations

from functools import lru_cache
from weakref import WeakKeyDictionary

from anyio import sleep

from headgate.adapters._http import Attempts, Failover, origin
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType
    from typing import Any, Unpack

    from headgate.adapters._http import Balancer, InFlight, Options, ServerCounters

__all__ = ["AsyncCountedBody", "AsyncTransport", "CountedBody", "Transport"]

_TIMEOUTS = "connect", "read", "write", "pool"


class _Body:
    """The body of a response, in flight until it is closed."""

    def __init__(self, stream: Any, in_flight: InFlight) -> None:
        self._stream = stream
        self._in_flight = in_flight


class CountedBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            self._in_flight.failed(error)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._in_flight.finished()


class AsyncCountedBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception as error:
            self._in_flight.failed(error)
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._in_flight.finished()


@lru_cache(maxsize=1024)
def _base(library: ModuleType, scheme: str, netloc: str) -> Any:
    """The library's URL of a server, cached as parsing it costs more than the rest of a request."""
    return library.URL(f"{scheme}://{netloc}")


def _total_timeout(timeouts: dict[str, float | None]) -> float | None:
    """The caller's timeout for one response in seconds, or None if it is unbounded."""
    if timeouts.get("connect") is None or timeouts.get("read") is None:
        return None
    return max(seconds for seconds in timeouts.values() if seconds is not None)


class _Balanced:
    _library: ModuleType
    _transport: Any
    _body: type[_Body]

    def _configure(self, balancer: Balancer, options: Options) -> None:
        library = self._library
        self._failover = Failover(balancer, **options)
        self._challenged: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._unsent = library.ConnectError, library.ConnectTimeout, library.ProxyError
        self._failures = (library.NetworkError, library.ProxyError, library.RemoteProtocolError,
                          library.ConnectTimeout, library.ReadTimeout, library.WriteTimeout)

    def counters(self) -> dict[Any, ServerCounters]:
        """Counts for each server of the balancer, over all its adapters: see `ServerCounters`."""
        return self._failover.counters()

    def _attempts(self, request: Any) -> Attempts:
        replayable = isinstance(request.stream, self._library.ByteStream)
        try:
            return Attempts(self._failover, request, request.method, replayable,
                            timeout=_total_timeout(request.extensions.get("timeout", {})),
                            prefer=self._challenged.pop(request, None))
        except NoServerError as error:
            raise self._library.ConnectError(str(error), request=request) from error

    def _addressed(self, request: Any, attempts: Attempts) -> Any:
        """The request as sent to the server of the current attempt."""
        library = self._library
        server = origin(attempts.pick.server)
        base = _base(library, server.scheme, server.netloc)
        url = base.copy_with(raw_path=server.path.encode() + request.url.raw_path)
        timeouts = request.extensions.get("timeout", {})
        timeouts = {wait: attempts.remaining(timeouts.get(wait)) for wait in _TIMEOUTS}
        sent = library.Request(request.method, url, headers=request.headers, stream=request.stream,
                               extensions={**request.extensions, "timeout": timeouts})
        if not self._failover.preserve_host:
            sent.headers["Host"] = server.netloc
        if server.authorization is not None and "Authorization" not in sent.headers:
            sent.headers["Authorization"] = server.authorization
        return sent

    def _was_sent(self, error: Exception) -> bool:
        """Whether the request may have reached the server."""
        return not isinstance(error, self._unsent)

    def _finish(self, request: Any, response: Any, attempts: Attempts) -> None:
        """End the request with a response. After a challenge, the authenticated request prefers the same
        server.

        A body that the inner transport has already read, as in mocks and caches, is not closed again.
        """
        if response.status_code == 401:
            self._challenged[request] = attempts.pick.server
        in_flight = attempts.finish(response, response.status_code)
        if response.is_closed:
            in_flight.finished()
        else:
            response.stream = self._body(response.stream, in_flight)


class Transport(_Balanced):
    def __init__(self, balancer: Balancer, transport: Any = None, **options: Unpack[Options]) -> None:
        self._configure(balancer, options)
        self._transport = self._library.HTTPTransport() if transport is None else transport

    def handle_request(self, request: Any) -> Any:
        with self._attempts(request) as attempts:
            while True:
                try:
                    response = self._transport.handle_request(self._addressed(request, attempts))
                except self._failures as error:
                    if not attempts.retry(error, self._was_sent(error)):
                        attempts.add_note(error)
                        raise
                    continue
                status = response.status_code
                if not (attempts.should_retry(status) and attempts.retry(status, True)):
                    self._finish(request, response, attempts)
                    return response
                response.close()

    def close(self) -> None:
        self._transport.close()


class AsyncTransport(_Balanced):
    def __init__(self, balancer: Balancer, transport: Any = None, **options: Unpack[Options]) -> None:
        self._configure(balancer, options)
        self._transport = self._library.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: Any) -> Any:
        with self._attempts(request) as attempts:
            while True:
                try:
                    response = await self._transport.handle_async_request(self._addressed(request, attempts))
                except self._failures as error:
                    if not await attempts.retry_async(error, self._was_sent(error), sleep):
                        attempts.add_note(error)
                        raise
                    continue
                status = response.status_code
                if not (attempts.should_retry(status) and await attempts.retry_async(status, True, sleep)):
                    self._finish(request, response, attempts)
                    return response
                await response.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()
