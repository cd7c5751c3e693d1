"""Transports for httpx that balance over servers, with failover and health."""

from __future__ import annotations

import httpx

from headgate.adapters._httpx import AsyncCountedBody, AsyncTransport, CountedBody, Transport

__all__ = ["AsyncBalancedTransport", "BalancedTransport"]


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
