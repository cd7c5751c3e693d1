"""An adapter for requests that balances over servers, with failover and health."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from requests.adapters import BaseAdapter, HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout, ReadTimeout
from urllib3.exceptions import NewConnectionError

from headgate.adapters._http import STATUSES, Attempts, Failover, no_origin
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from requests import PreparedRequest, Response

    from headgate.adapters._http import Balancer

__all__ = ["BalancedAdapter"]

_FAILURES = ConnectionError, ReadTimeout, ChunkedEncodingError


def _was_sent(error: Exception) -> bool:
    """Whether the request may have reached the server."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return not isinstance(error, ConnectTimeout) and not isinstance(reason, NewConnectionError)


class BalancedAdapter(BaseAdapter):
    """Sends each request to a server of `balancer`, and to another one where that fails.

    Mounted at a name, it serves all URLs under it: ``session.mount("http://orders/", adapter)``. Servers
    are origins, ``"http://10.0.0.1:8080"``; a path stands before that of the request. `adapter` connects,
    by default a new HTTPAdapter, and is closed with this one.

    A request goes to at most `attempts` servers. One that was not sent, for want of a connection, may go
    to the next; one whose connection broke or timed out, or that was answered with one of `statuses`, may
    do so if its method is idempotent and its body is no stream. Then the last error or response stands.

    A pick is in flight until the body of its response is read, or with ``stream=True`` until its headers
    are. An error of the network, a timeout and a status from 500 on are failures of the server; what else
    goes wrong counts neither way.

    `key` answers what ``balancer.pick`` is given of a PreparedRequest. The Host header names the server,
    or with `preserve_host` what the URL names. There being no server raises requests' ConnectionError.

    >>> from headgate import RoundRobin
    >>> adapter = BalancedAdapter(RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"]), attempts=2)
    >>> import requests
    >>> with requests.Session() as session:
    ...     session.mount("http://orders/", adapter)
    """

    def __init__(self, balancer: Balancer, adapter: BaseAdapter | None = None, *, attempts: int = 3,
                 statuses: Collection[int] = STATUSES, key: Callable[[PreparedRequest], Any] | None = None,
                 preserve_host: bool = False) -> None:
        super().__init__()
        self._failover = Failover(balancer, attempts, statuses, key, preserve_host)
        self._adapter = HTTPAdapter() if adapter is None else adapter

    def _attempts(self, request: PreparedRequest) -> Attempts:
        replayable = request.body is None or isinstance(request.body, (str, bytes))
        try:
            return Attempts(self._failover, request, str(request.method), replayable)
        except NoServerError as error:
            raise ConnectionError(error, request=request) from error

    def _addressed(self, request: PreparedRequest, server: Any) -> PreparedRequest:
        """The request as it is sent to `server`."""
        base, url = urlsplit(server), urlsplit(str(request.url))
        if not base.netloc:
            raise no_origin(server)
        sent = request.copy()
        sent.url = urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + url.path, url.query, ""))
        sent.headers["Host"] = url.netloc if self._failover.preserve_host else base.netloc
        return sent

    def send(self, request: PreparedRequest, stream: bool = False, timeout: Any = None, verify: Any = True,
             cert: Any = None, proxies: Any = None) -> Response:
        with self._attempts(request) as attempts:
            while True:
                try:
                    response = self._adapter.send(self._addressed(request, attempts.pick.server), stream,
                                                  timeout, verify, cert, proxies)
                    _ = stream or response.content
                except _FAILURES as error:
                    if not attempts.failed(_was_sent(error)):
                        raise
                    continue
                if not attempts.refused(response.status_code):
                    attempts.pick.done(response.status_code < 500)
                    response.request, response.url = request, str(request.url)
                    return response
                response.close()

    def close(self) -> None:
        self._adapter.close()
