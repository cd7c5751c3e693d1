"""Shedding load in front of a WSGI application."""

from __future__ import annotations

from inspect import iscoroutinefunction

from headgate.adapters._exempt import is_exempt, unawaited
from headgate.adapters._shedding import (
    HEALTH_CHECKS,
    OVERLOADED,
    PROBLEM,
    STATUS,
    Shedding,
    outcome_of_error,
)
from headgate.adapters.wsgi._refusal import refuse
from headgate.adapters.wsgi._request import WSGIRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal, Self
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._shedding import ShedStats
    from headgate.adapters.keys import Extractor
    from headgate.limit import ConcurrencyLimiter, Permit

    Outcome = Literal["success", "dropped", "ignored"]

_OVERLOADED = tuple(map(str, OVERLOADED))


class _Exchange:
    """A request that was admitted: its ``start_response`` and ``write``, until the permit is released."""

    __slots__ = ("_open", "_outcome", "_permit", "_start", "_write")

    def __init__(self, permit: Permit, start: StartResponse) -> None:
        self._permit, self._start = permit, start
        self._open = True
        self._outcome: Outcome = "ignored"
        self._write: Any = None

    def start(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        """``start_response``, which may be called again until a part of the body is sent."""
        try:
            self._write = self._start(status, headers, exc_info)
        finally:
            exc_info = None  # no circle of traceback and frame
        self._outcome = "dropped" if status.startswith(_OVERLOADED) else "success"
        return self.write

    def write(self, part: bytes) -> None:
        self.sending(part)
        self._write(part)

    def sending(self, part: bytes) -> None:
        """The response starts with the first part that is not empty."""
        if part:
            self._permit.observe(self._outcome)

    def complete(self) -> None:
        self.end(self._outcome)

    def end(self, outcome: Outcome = "ignored") -> None:
        """Release the permit; `outcome` is that of a request without a response."""
        if self._open:
            self._open = False
            self._permit.release(outcome)


class _Body:
    """The body of a response, in flight until it ends or is closed."""

    __slots__ = ("_body", "_exchange", "_parts")

    def __init__(self, body: Any, exchange: _Exchange) -> None:
        self._body, self._parts = body, iter(body)
        self._exchange = exchange

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            part: bytes = next(self._parts)
        except StopIteration:
            self._exchange.complete()
            raise
        except BaseException as error:
            self._exchange.end(outcome_of_error(error))
            raise
        self._exchange.sending(part)
        return part

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._exchange.end()


class _SizedBody(_Body):
    """A body whose number of parts is known: servers derive Content-Length from a single one."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)


class ShedMiddleware:
    """WSGI middleware that passes on as many requests at a time as `limiter` admits, and responds to the
    others at once: 503 Service Unavailable, with Retry-After and problem+json.

    A request is in flight until its body ends or is closed, or until the application fails. One whose body is
    a ``wsgi.file_wrapper`` is so until that is returned: the server sends the file itself. The latency that
    the limiter adapts to ends with the first part of the body. Responses with 503 or 504, and TimeoutErrors
    of the application, count as dropped; its other errors, and bodies that are closed before their first
    part, are ignored.

    `priority` is called with each request, as the extractors of `headgate.adapters.keys` are, and returns one
    of the limiter's priorities; None and names that the limiter does not have are the lowest. `exempt` are
    paths, patterns such as ``"/static/*"``, or a callable, of requests that pass without a permit;
    ``/health``, ``/healthz``, ``/livez``, ``/ping`` and ``/readyz`` always do. `retry_after` is in seconds.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type, or if `limiter` has
    priorities and there is no `priority`, or the reverse. Errors of `priority` and `exempt` are passed on.
    Complexity: O(1); with a limiter with a ``path``, that of its ``acquire``. No call waits for another.

    >>> from headgate import ConcurrencyLimiter
    >>> def hello(environ, start_response):
    ...     start_response("200 OK", [])
    ...     return [b"hello"]
    >>> app = ShedMiddleware(hello, ConcurrencyLimiter(20))
    >>> body = app({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda status, headers, exc_info=None: None)
    >>> app.stats().inflight, b"".join(body), app.stats().inflight
    (1, b'hello', 0)
    """

    def __init__(self, app: WSGIApplication, limiter: ConcurrencyLimiter, *,
                 priority: Extractor | None = None, exempt: Exempt = (), retry_after: int = 1) -> None:
        for name, value in (("priority", priority), ("exempt", exempt)):
            if iscoroutinefunction(value):
                raise TypeError(f"{name} must not be a coroutine function under WSGI, got {value!r}")
        self._app = app
        self._shedding = Shedding(limiter, priority, exempt, retry_after)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        shedding, request = self._shedding, WSGIRequest(environ)
        if _is_health_check(request) or (shedding.exempt is not None and is_exempt(shedding.exempt, request)):
            return self._app(environ, start_response)
        name = None
        if shedding.priority is not None:
            name = shedding.priority(request)
            if name.__class__ is not str:
                name = unawaited("priority", name)
        permit = shedding.admit(name)
        if not permit:
            return refuse(environ, start_response, STATUS, shedding.fields(), PROBLEM)
        exchange = _Exchange(permit, start_response)
        try:
            body = self._app(environ, exchange.start)
            if _is_file(body, environ):
                exchange.complete()
                return body
            return _SizedBody(body, exchange) if hasattr(body, "__len__") else _Body(body, exchange)
        except BaseException as error:
            exchange.end(outcome_of_error(error))
            raise

    def stats(self) -> ShedStats:
        """The requests of this process that were admitted and shed, by priority, and the limiter's state.

        >>> from headgate import ConcurrencyLimiter
        >>> ShedMiddleware(None, ConcurrencyLimiter(20)).stats().limit
        20
        """
        return self._shedding.stats()


def _is_health_check(request: WSGIRequest) -> bool:
    """Whether the path is one of a health check, wherever the application is mounted."""
    return request.raw.get("PATH_INFO") in HEALTH_CHECKS or request.path in HEALTH_CHECKS


def _is_file(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether the server sends the body by itself if it is returned as it is."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
