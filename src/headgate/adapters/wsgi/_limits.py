"""RateLimitMiddleware for WSGI."""

from __future__ import annotations

from headgate.adapters._limiting import Charge, CountsDenied, Limiting
from headgate.adapters.wsgi._refusal import refuse, texts
from headgate.adapters.wsgi._request import WSGIRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._limiting import Cost, Keys, Style
    from headgate.limit._rules import LevelCounts

CHARGE = "headgate.charge"


class RateLimitMiddleware(CountsDenied):
    """Limits the requests of a WSGI application.

    `limits` is a `RateLimits`, a `RateLimiter`, another limiter with their methods, or a rate; `keys` maps
    each of its levels to an extractor (see `headgate.adapters.keys`), or is a single one. A level whose key
    is None has no say. `cost` is a number or a callable from the request view, `exempt` patterns of paths
    (``*`` is any text) or such a callable.

    A denied request gets 429 with Retry-After and an application/problem+json body, or the response of the
    application `on_denied`. `headers` are the fields of all responses: ``"draft"`` for RateLimit and
    RateLimit-Policy, ``"legacy"`` for X-RateLimit-Limit, -Remaining and -Reset, ``"both"`` or None. With
    `dry_run` every request passes, and denials are only counted, and marked as ``would_deny``. What the
    application returns reaches the server as it is, a ``wsgi.file_wrapper`` too.

    The charge of a request is ``environ["headgate.charge"]``, a `Charge`. A middleware further in, and a
    route's own limit, join it: the request is charged by all or none, and for the same limits and keys only
    once.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range, TypeError if the limiter
    is asynchronous. Complexity: that of ``limits.reserve``.

    >>> from headgate.adapters.keys import client
    >>> def hello(environ, start_response):
    ...     start_response("200 OK", [])
    ...     return [b"hello"]
    >>> app = RateLimitMiddleware(hello, "1/min", keys=client())
    >>> environ = {"REMOTE_ADDR": "192.0.2.1"}
    >>> app(dict(environ), lambda status, headers: print(status))
    200 OK
    [b'hello']
    >>> app(dict(environ), lambda status, headers: print(status))  # doctest: +ELLIPSIS
    429 Too Many Requests
    [b'{"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", ...
    """

    __slots__ = ("_limiting", "app")

    def __init__(self, app: WSGIApplication, limits: Any, *, keys: Keys, cost: Cost = 1,
                 exempt: Exempt = (), headers: Style = "draft", dry_run: bool = False,
                 on_denied: WSGIApplication | None = None) -> None:
        self.app = app
        self._limiting = Limiting(limits, keys=keys, cost=cost, exempt=exempt, headers=headers,
                                  dry_run=dry_run, on_denied=on_denied)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        limiting = self._limiting
        charge = limiting.charge(WSGIRequest(environ), environ.get(CHARGE))
        environ[CHARGE] = charge
        if limiting.style is not None and not charge.written:
            charge.written = True
            start_response = _writing(start_response, charge, limiting.style)
        if charge:
            return self.app(environ, start_response)
        if limiting.on_denied is not None:
            return limiting.on_denied(environ, start_response)  # type: ignore[no-any-return]
        return refuse(environ, start_response, *charge.denial())

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests each level allowed and denied, and how often each of its policies denied; the
        level of a limiter without any is ``"default"``. What a route's own limit denies counts as allowed
        here.

        >>> from headgate.adapters.keys import const
        >>> RateLimitMiddleware(None, "1/min", keys=const("all")).stats()
        {'default': LevelCounts(allowed=0, denied=0, policies={})}
        """
        return self._limiting.stats()


def _writing(start_response: StartResponse, charge: Charge, style: Style) -> StartResponse:
    """`start_response`, with the fields of the charge, as it is then, whenever it is called."""

    def starting(
        status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        own = dict(texts(charge.fields(style)))
        fields = [field for field in headers if field[0].lower() not in own] + [*own.items()]
        if exc_info is None:
            return start_response(status, fields)
        try:
            return start_response(status, fields, exc_info)
        finally:
            exc_info = None  # no circle of traceback and frame

    return starting
