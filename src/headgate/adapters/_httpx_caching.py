"""The caching transports of httpx and httpx2, whose interfaces differ only in their names."""

from __future__ import annotations

from headgate.adapters._caching import Passing
from headgate.httpcache import HTTPCache, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType
    from typing import Any

    from headgate.httpcache import Lookup
    from headgate.httpcache._cache import Body

__all__ = ["AsyncCaching", "AsyncRecordedBody", "Caching", "RecordedBody"]


class _Body:
    """The body of a response, which is stored if it is read to its end."""

    def __init__(self, stream: Any, passing: Passing) -> None:
        self._stream = stream
        self._passing = passing


class RecordedBody(_Body):
    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            self._passing.add(part, True)
            yield part
        self._passing.add(b"", False)

    def close(self) -> None:
        self._passing.drop()
        self._stream.close()


class AsyncRecordedBody(_Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._passing.add(part, True)
            yield part
        self._passing.add(b"", False)

    async def aclose(self) -> None:
        self._passing.drop()
        await self._stream.aclose()


class _Caching:
    _library: ModuleType
    _body: type[_Body]
    cache: HTTPCache
    _transport: Any

    def _configure(self, cache: HTTPCache) -> None:
        if not isinstance(cache, HTTPCache):
            raise TypeError(f"cache must be an HTTPCache, got {cache!r}")
        self.cache = cache

    def _lookup(self, request: Any) -> Lookup:
        url = request.url
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        return self.cache.lookup(Request(request.method, url.scheme, url.raw_path, headers))

    def _stored(self, lookup: Lookup) -> Any:
        """The response, if none is requested; a stale one is validated first."""
        if lookup.kind == "hit":
            return self._response(*self.cache.serve(lookup.request, lookup))
        if lookup.kind == "refuse":
            return self._response(*self.cache.refusal(lookup))
        return None

    def _response(self, status: int, headers: Any, body: Body) -> Any:
        content = b"".join(body) if isinstance(body, list) else bytes(body)
        stream = self._library.ByteStream(content)
        return self._library.Response(status, headers=headers, stream=stream)

    def _validating(self, request: Any, lookup: Lookup) -> Any:
        """The request to send: with validators, if there is a response to validate."""
        if lookup.kind not in ("stale", "revalidate"):
            return request
        return self._library.Request(
            request.method, request.url, headers=lookup.forward_headers, stream=request.stream,
            extensions=request.extensions)

    def _after_error(self, lookup: Lookup, passing: Passing) -> Any:
        """The stale response in place of an error of the transport, None if there is none to use."""
        stored = passing.instead_of(None)
        if stored is None:
            return None
        return self._response(*self.cache.serve(lookup.request, lookup, stored, outcome="error"))

    def _replacement(self, lookup: Lookup, passing: Passing, requested_at: int, response: Any) -> Any:
        """The stored response in place of a 304 that validates it, or of an error; None if there is none."""
        status, cache, headers = response.status_code, self.cache, _lowered(response)
        if lookup.stored is not None and status == 304 and lookup.kind in ("stale", "revalidate"):
            stored = cache.validated(lookup, lookup.request, headers, requested_at)
            return self._response(*cache.serve(lookup.request, lookup, stored, outcome="validated"))
        stale = passing.instead_of(status)
        if stale is None:
            return None
        return self._response(*cache.serve(lookup.request, lookup, stale, outcome="error"))

    def _record(self, passing: Passing, response: Any) -> None:
        """Add Cache-Status, and store the body once it has been read."""
        fields = passing.start(response.status_code, _lowered(response))
        response.headers = self._library.Headers([*response.headers.raw, fields[-1]])
        if not passing.records:
            return
        if not response.is_closed:
            response.stream = self._body(response.stream, passing)
        elif isinstance(response.stream, self._library.ByteStream):  # of a mock
            for part in response.stream:
                passing.add(part, True)
            passing.add(b"", False)
        else:
            passing.drop()


class Caching(_Caching):
    def __init__(self, cache: HTTPCache, transport: Any = None) -> None:
        self._configure(cache)
        self._transport = self._library.HTTPTransport() if transport is None else transport

    def handle_request(self, request: Any) -> Any:
        lookup = self._lookup(request)
        response = self._stored(lookup)
        if response is not None:
            return response
        passing, requested_at = Passing(self.cache, lookup), self.cache.now()
        try:
            response = self._transport.handle_request(self._validating(request, lookup))
        except self._library.TransportError:
            response = self._after_error(lookup, passing)
            if response is None:
                raise
            return response
        replacement = self._replacement(lookup, passing, requested_at, response)
        if replacement is not None:
            response.close()
            return replacement
        self._record(passing, response)
        return response

    def close(self) -> None:
        self._transport.close()


class AsyncCaching(_Caching):
    def __init__(self, cache: HTTPCache, transport: Any = None) -> None:
        self._configure(cache)
        self._transport = self._library.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: Any) -> Any:
        lookup = self._lookup(request)
        response = self._stored(lookup)
        if response is not None:
            return response
        passing, requested_at = Passing(self.cache, lookup), self.cache.now()
        try:
            response = await self._transport.handle_async_request(self._validating(request, lookup))
        except self._library.TransportError:
            response = self._after_error(lookup, passing)
            if response is None:
                raise
            return response
        replacement = self._replacement(lookup, passing, requested_at, response)
        if replacement is not None:
            await response.aclose()
            return replacement
        self._record(passing, response)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()


def _lowered(response: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in response.headers.raw]
