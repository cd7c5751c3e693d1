"""An adapter for requests that balances over servers, with failover and health."""

from __future__ import annotations

import sys
from typing import cast
from urllib.parse import urlsplit

from headgate.adapters._extras import extra
from headgate.adapters._http import Attempts, Failover, origin
from headgate.errors import NoServerError

with extra("requests"):
    from requests.adapters import BaseAdapter, HTTPAdapter
    from requests.exceptions import (
        ChunkedEncodingError,
        ConnectionError,
        ConnectTimeout,
        ReadTimeout,
        RetryError,
    )
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.util import Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Unpack

    from requests import PreparedRequest, Response

    from headgate.adapters._http import Balancer, Options, ServerCounters

__all__ = ["BalancedAdapter"]

_FAILURES = ConnectionError, ReadTimeout, ChunkedEncodingError, RetryError
_CONNECTING = HTTPConnection.connect.__code__, HTTPSConnection.connect.__code__


def _was_sent(error: BaseException | None, handled: BaseException | None) -> bool:
    """Whether the request may have reached the server: not if urllib3 was still connecting, TLS included.

    `handled` is the exception that the caller was handling, which is unrelated to this request.
    """
    if isinstance(error, ConnectTimeout):
        return False
    while error is not None and error is not handled:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in _CONNECTING:
                return False
            trace = trace.tb_next
        error = error.__context__
    return True


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _timeouts(timeout: Any) -> tuple[float | None, float | None]:
    """The connect and read timeouts in seconds of requests' `timeout`."""
    if isinstance(timeout, Timeout):
        if timeout.total is None:
            return _number(timeout.connect_timeout), _number(timeout.read_timeout)
        return _number(timeout.connect_timeout), _number(timeout.total)
    return timeout if isinstance(timeout, tuple) else (timeout, timeout)


class _SameServer(BaseAdapter):
    """The adapter through which authentication sends a request again: to the challenging server if
    possible."""

    def __init__(self, balanced: BalancedAdapter, server: Any) -> None:
        super().__init__()
        self._balanced = balanced
        self._server = server

    def send(self, request: PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> Response:
        return self._balanced.send_first_to(self._server, request, stream, timeout, verify, cert, proxies)

    def close(self) -> None:
        """Do nothing: the balanced adapter owns the connections."""


class BalancedAdapter(BaseAdapter):
    """Sends each request to a server of `balancer`, and to another one if that fails.

    Mounted at a name, it handles all URLs under it: ``session.mount("http://orders/", adapter)``. A mount
    without a trailing slash matches longer names as well, such as ``http://orders-v2/``: with `host` the
    adapter balances only the URLs of that host, and other requests pass unchanged. Servers are origins,
    ``"http://10.0.0.1:8080"``; a path is prepended to that of the request, and credentials become its
    Authorization. `adapter`, by default a new HTTPAdapter, sends the requests and is closed with this one.

    A request is sent to at most `attempts` servers. If it could not be sent, for lack of a connection, the
    next server is tried; if its connection broke or timed out, or the response has one of `statuses`, the
    next server is tried if the method is idempotent, the body is not a stream, and the deadline and the retry
    budget allow it. The last error or response is the result; ``headgate.adapters.server_of`` returns its
    server.

    A pick is in flight until the body of its response is read, or with ``stream=True`` until its headers are.
    Network errors, timeouts and statuses from 500 on are failures of the server; 429 means that it is
    overloaded; other errors do not count.

    `key` is a function of the PreparedRequest that returns the key for ``balancer.pick``. The Host header
    names the server or, with ``preserve_host=True``, the host of the URL. Raises requests' ConnectionError if
    there is no server. All options are described in docs/adapters.md.

    >>> from headgate import RoundRobin
    >>> adapter = BalancedAdapter(RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"]), attempts=2)
    >>> import requests
    >>> with requests.Session() as session:
    ...     session.mount("http://orders/", adapter)
    """

    def __init__(self, balancer: Balancer, adapter: BaseAdapter | None = None, *, host: str | None = None,
                 **options: Unpack[Options]) -> None:
        super().__init__()
        if host is not None and not isinstance(host, str):
            raise TypeError(f"host must be a str or None, got {host!r}")
        self._failover = Failover(balancer, **options)
        self._host = None if host is None else host.lower()
        self._adapter = HTTPAdapter() if adapter is None else adapter

    def counters(self) -> dict[Any, ServerCounters]:
        """Counts for each server of the balancer, over all its adapters: see `ServerCounters`."""
        return self._failover.counters()

    def _attempts(self, request: PreparedRequest, timeout: Any, server: Any) -> Attempts:
        replayable = request.body is None or isinstance(request.body, (str, bytes))
        connect, read = _timeouts(timeout)
        whole = None if connect is None or read is None else max(connect, read)
        try:
            return Attempts(self._failover, request, str(request.method), replayable,
                            timeout=whole, prefer=server)
        except NoServerError as error:
            raise ConnectionError(error, request=request) from error

    def _addressed(self, request: PreparedRequest, server: Any) -> PreparedRequest:
        """The request as sent to `server`."""
        base, url = origin(server), urlsplit(str(request.url))
        sent = request.copy()
        query = f"?{url.query}" if url.query else ""
        sent.url = f"{base.scheme}://{base.netloc}{base.path}{url.path}{query}"
        sent.headers["Host"] = url.netloc.rpartition("@")[2] if self._failover.preserve_host else base.netloc
        if base.authorization is not None:
            sent.headers.setdefault("Authorization", base.authorization)
        return sent

    def send(self, request: PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> Response:
        if self._host is not None and urlsplit(str(request.url)).hostname != self._host:
            return self._adapter.send(request, stream, timeout, verify, cert, proxies)
        return self.send_first_to(None, request, stream, timeout, verify, cert, proxies)

    def send_first_to(self, server: Any, request: PreparedRequest, stream: bool, timeout: Any, verify: Any,
                      cert: Any, proxies: Any) -> Response:
        """`send`, with a server to try first unless it is None."""
        handled = sys.exception()
        timeouts = _timeouts(timeout)
        with self._attempts(request, timeout, server) as attempts:
            while True:
                server = attempts.pick.server
                limits = attempts.remaining(timeouts[0]), attempts.remaining(timeouts[1])
                try:
                    response = self._adapter.send(self._addressed(request, server), stream, limits, verify,
                                                  cert, proxies)
                    _ = stream or response.content
                except _FAILURES as error:
                    if not attempts.retry(error, _was_sent(error, handled)):
                        attempts.add_note(error)
                        raise
                    continue
                status = response.status_code
                if not (attempts.should_retry(status) and attempts.retry(status, True)):
                    attempts.finish(response, status).finished()
                    response.request, response.url = request, str(request.url)
                    response.connection = cast("HTTPAdapter", _SameServer(self, server))
                    return response
                response.close()

    def close(self) -> None:
        self._adapter.close()
