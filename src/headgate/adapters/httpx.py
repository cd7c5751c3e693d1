"""Transports for httpx that balance over servers, with failover and health, and that cache."""

from __future__ import annotations

from headgate.adapters._extras import extra
from headgate.adapters._httpx import AsyncCountedBody, AsyncTransport, CountedBody, Transport
from headgate.adapters._httpx_caching import AsyncCaching, AsyncRecordedBody, Caching, RecordedBody

with extra("httpx"):
    import httpx

__all__ = ["AsyncBalancedTransport", "AsyncCachingTransport", "BalancedTransport", "CachingTransport"]


class _Body(CountedBody, httpx.SyncByteStream):
    pass


class _AsyncBody(AsyncCountedBody, httpx.AsyncByteStream):
    pass


class BalancedTransport(Transport, httpx.BaseTransport):
    """Sends each request to a server of `balancer`, and to another one if that fails.

    Mounted at a name, it handles all URLs under it: ``Client(mounts={"http://orders": transport})``. Servers
    are origins, ``"http://10.0.0.1:8080"``; a path is prepended to that of the request, and credentials
    become its Authorization. `transport`, by default a new HTTPTransport, sends the requests and is closed
    with this one.

    A request is sent to at most `attempts` servers. If it could not be sent, for lack of a connection, the
    next server is tried; if its connection broke or timed out, or the response has one of `statuses`, the
    next server is tried if the method is idempotent, the body is not a stream, and the deadline and the retry
    budget allow it. The last error or response is the result; ``headgate.adapters.server_of`` returns its
    server.

    A pick is in flight until the body of its response is closed. Network errors, timeouts other than of the
    pool and statuses from 500 on are failures of the server; 429 means that it is overloaded; other errors,
    such as a cancelled task, do not count.

    `key` is a function of the request that returns the key for ``balancer.pick``. The Host header names the
    server or, with ``preserve_host=True``, the host of the URL. Raises ConnectError if there is no server.
    All options are described in docs/adapters.md.

    >>> from headgate import RoundRobin
    >>> servers = RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"], seed=0)
    >>> echo = httpx.MockTransport(lambda request: httpx.Response(200, text=request.url.host))
    >>> with httpx.Client(mounts={"http://orders": BalancedTransport(servers, echo)}) as client:
    ...     client.get("http://orders/7").text, client.get("http://orders/8").text
    ('10.0.0.1', '10.0.0.2')
    """

    _library = httpx
    _body = _Body


class AsyncBalancedTransport(AsyncTransport, httpx.AsyncBaseTransport):
    """`BalancedTransport` for AsyncClient; `transport` is by default a new AsyncHTTPTransport."""

    _library = httpx
    _body = _AsyncBody


class _RecordedBody(RecordedBody, httpx.SyncByteStream):
    pass


class _AsyncRecordedBody(AsyncRecordedBody, httpx.AsyncByteStream):
    pass


class CachingTransport(Caching, httpx.BaseTransport):
    """Keeps responses in `cache`, an `HTTPCache`, by the rules of RFC 9111.

    A client wants a private one, ``HTTPCache(shared=False)``, which keeps what is meant for this client
    alone; clients of one user may share it. `transport`, by default a new HTTPTransport, sends the other
    requests, and is closed with this one. It may be another transport, such as a `BalancedTransport`.

    A body is passed on as it is read, and stored when it has been read to its end. Stale responses are
    validated before they are used; where they allow ``stale-if-error``, they are used in place of a status
    of 500, 502, 503 or 504, or of an error of the transport. Each response has a Cache-Status field.

    >>> from headgate.httpcache import HTTPCache
    >>> fresh = {"Cache-Control": "max-age=60"}
    >>> origin = httpx.MockTransport(lambda request: httpx.Response(200, headers=fresh, text="Hello"))
    >>> with httpx.Client(transport=CachingTransport(HTTPCache(shared=False), origin)) as client:
    ...     for _ in range(2):
    ...         response = client.get("http://example.com/")
    ...         print(response.text, response.headers["Cache-Status"][:13])
    Hello headgate; fwd
    Hello headgate; hit
    """

    _library = httpx
    _body = _RecordedBody


class AsyncCachingTransport(AsyncCaching, httpx.AsyncBaseTransport):
    """`CachingTransport` for AsyncClient; `transport` is by default a new AsyncHTTPTransport."""

    _library = httpx
    _body = _AsyncRecordedBody
