"""The transports of httpx and httpx2, which differ in their name only."""

from __future__ import annotations

from headgate.adapters._http import STATUSES, Attempts, Failover, no_origin
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator
    from types import ModuleType
    from typing import Any

    from headgate.adapters._http import Balancer, Pick

__all__ = ["AsyncCountedBody", "AsyncTransport", "CountedBody", "Transport"]


class _Body:
    """The body of a response, in flight until it is closed."""

    def __init__(self, stream: Any, pick: Pick, ok: bool) -> None:
        self._stream = stream
        self._pick = pick
        self._ok = ok


class CountedBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception:
            self._pick.done(False)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._pick.done(self._ok)


class AsyncCountedBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception:
            self._pick.done(False)
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._pick.done(self._ok)


class _Balanced:
    _library: ModuleType
    _transport: Any

    def _configure(self, balancer: Balancer, attempts: int, statuses: Collection[int],
                   key: Callable[[Any], Any] | None, preserve_host: bool) -> None:
        library = self._library
        self._failover = Failover(balancer, attempts, statuses, key, preserve_host)
        self._unsent = library.ConnectError, library.ConnectTimeout
        self._failures = (library.NetworkError, library.ProxyError, library.RemoteProtocolError,
                          library.ConnectTimeout, library.ReadTimeout, library.WriteTimeout)

    def _attempts(self, request: Any) -> Attempts:
        replayable = isinstance(request.stream, self._library.ByteStream)
        try:
            return Attempts(self._failover, request, request.method, replayable)
        except NoServerError as error:
            raise self._library.ConnectError(str(error), request=request) from error

    def _addressed(self, request: Any, server: Any) -> Any:
        """The request as it is sent to `server`, an origin with or without a path."""
        library = self._library
        base = library.URL(server)
        if not base.host:
            raise no_origin(server)
        path = base.raw_path.rstrip(b"/") + request.url.raw_path
        url = request.url.copy_with(scheme=base.scheme, netloc=base.netloc, raw_path=path)
        sent = library.Request(request.method, url, headers=request.headers, stream=request.stream,
                               extensions=request.extensions)
        if not self._failover.preserve_host:
            sent.headers["Host"] = base.netloc.decode("ascii")
        return sent


class Transport(_Balanced):
    _body: type[CountedBody]

    def __init__(self, balancer: Balancer, transport: Any = None, *, attempts: int = 3,
                 statuses: Collection[int] = STATUSES, key: Callable[[Any], Any] | None = None,
                 preserve_host: bool = False) -> None:
        self._configure(balancer, attempts, statuses, key, preserve_host)
        self._transport = self._library.HTTPTransport() if transport is None else transport

    def handle_request(self, request: Any) -> Any:
        with self._attempts(request) as attempts:
            while True:
                try:
                    response = self._transport.handle_request(self._addressed(request, attempts.pick.server))
                except self._failures as error:
                    if not attempts.failed(sent=not isinstance(error, self._unsent)):
                        raise
                    continue
                if not attempts.refused(response.status_code):
                    response.stream = self._body(response.stream, attempts.pick, response.status_code < 500)
                    return response
                response.close()

    def close(self) -> None:
        self._transport.close()


class AsyncTransport(_Balanced):
    _body: type[AsyncCountedBody]

    def __init__(self, balancer: Balancer, transport: Any = None, *, attempts: int = 3,
                 statuses: Collection[int] = STATUSES, key: Callable[[Any], Any] | None = None,
                 preserve_host: bool = False) -> None:
        self._configure(balancer, attempts, statuses, key, preserve_host)
        self._transport = self._library.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: Any) -> Any:
        with self._attempts(request) as attempts:
            while True:
                try:
                    response = await self._transport.handle_async_request(
                        self._addressed(request, attempts.pick.server))
                except self._failures as error:
                    if not attempts.failed(sent=not isinstance(error, self._unsent)):
                        raise
                    continue
                if not attempts.refused(response.status_code):
                    response.stream = self._body(response.stream, attempts.pick, response.status_code < 500)
                    return response
                await response.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()
