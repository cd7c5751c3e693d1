"""Transports for httpx2 that balance over servers, with failover and health, and that cache."""

from __future__ import annotations

from headgate.adapters._extras import extra
from headgate.adapters._httpx import AsyncCountedBody, AsyncTransport, CountedBody, Transport
from headgate.adapters._httpx_caching import AsyncCaching, AsyncRecordedBody, Caching, RecordedBody

with extra("httpx2"):
    import httpx2

__all__ = ["AsyncBalancedTransport", "AsyncCachingTransport", "BalancedTransport", "CachingTransport"]


class _Body(CountedBody, httpx2.SyncByteStream):
    pass


class _AsyncBody(AsyncCountedBody, httpx2.AsyncByteStream):
    pass


class BalancedTransport(Transport, httpx2.BaseTransport):
    """``headgate.adapters.httpx.BalancedTransport`` for httpx2."""

    _library = httpx2
    _body = _Body


class AsyncBalancedTransport(AsyncTransport, httpx2.AsyncBaseTransport):
    """`BalancedTransport` for AsyncClient; `transport` is by default a new AsyncHTTPTransport."""

    _library = httpx2
    _body = _AsyncBody


class _RecordedBody(RecordedBody, httpx2.SyncByteStream):
    pass


class _AsyncRecordedBody(AsyncRecordedBody, httpx2.AsyncByteStream):
    pass


class CachingTransport(Caching, httpx2.BaseTransport):
    """``headgate.adapters.httpx.CachingTransport`` for httpx2."""

    _library = httpx2
    _body = _RecordedBody


class AsyncCachingTransport(AsyncCaching, httpx2.AsyncBaseTransport):
    """`CachingTransport` for AsyncClient; `transport` is by default a new AsyncHTTPTransport."""

    _library = httpx2
    _body = _AsyncRecordedBody
