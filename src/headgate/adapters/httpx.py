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
    """Sends each request to a server of `balancer`, and to another one where that fails.

    Mounted at a name, it serves all URLs under it: ``Client(mounts={"http://orders": transport})``.
    Servers are origins, ``"http://10.0.0.1:8080"``; a path stands before that of the request, and
    credentials become its Authorization. `transport` connects, by default a new HTTPTransport, and is closed
    with this one.

    A request goes to at most `attempts` servers. One that was not sent, for want of a connection, may go
    to the next; one whose connection broke or timed out, or that got one of `statuses`, may do so if its
    method is idempotent, its body is no stream, and time and the budget for retries allow it. Then the last
    error or response stands; ``headgate.adapters.server_of`` says which server it came from.

    A pick is in flight until the body of its response is closed. An error of the network, a timeout other
    than that of the pool and a status from 500 on are failures of the server; 429 says that it is
    overloaded; what else goes wrong, such as a cancelled task, counts neither way.

    `key` returns what ``balancer.pick`` is given of a request. The Host header names the server, or with
    ``preserve_host=True`` what the URL names. There being no server raises ConnectError. All options are
    described in docs/adapters.md.

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
