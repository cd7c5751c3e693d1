"""Limits of single routes and routers of FastAPI, as dependencies."""

# Annotations are not postponed: FastAPI cannot resolve the text of those of a method.
from typing import Any

from headgate.adapters._extras import extra
from headgate.adapters._limiting import Charge, CountsDenied
from headgate.adapters._routes import route_limiting
from headgate.adapters.asgi._refusal import HANDSHAKE, TRY_AGAIN_LATER
from headgate.adapters.asgi._request import ASGIRequest
from headgate.adapters.keys import Extractor
from headgate.limit._rules import LevelCounts

with extra("fastapi"):
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException, WebSocketException
    from starlette.requests import HTTPConnection
    from starlette.requests import Request as HTTPRequest
    from starlette.responses import Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.adapters._exempt import Exempt
    from headgate.adapters._limiting import Cost, Style

__all__ = ["Charge", "RateLimit", "RateLimited", "install"]


class RateLimited(HTTPException):
    """The denial of a request by a `RateLimit`: 429 with Retry-After.

    FastAPI responds with a body of its own unless there is a handler of this class, such as that of
    ``install``; `charge` is what was decided.

    >>> error = RateLimited(Charge(), {"retry-after": "7"})
    >>> error.status_code, error.headers
    (429, {'retry-after': '7'})
    """

    def __init__(self, charge: Charge, headers: dict[str, str]) -> None:
        super().__init__(429, "Too Many Requests", headers)
        self.charge = charge


class RateLimit(CountsDenied):
    """A dependency that limits the routes that it is given to, each method of each for itself.

    `limits` is a rate or a limiter by key; with a `RateLimiter` that has a `path`, all workers have one
    limit. `key` is an extractor (see `headgate.adapters.keys`), by default ``client()``; a request whose key
    is None is not limited. With `shared` all routes count as one, under that name, and so do several
    dependencies of the same limiter and name. The other arguments are those of `RateLimitMiddleware`.

    A denied request ends with `RateLimited`, and a denied WebSocket handshake too where the server can
    respond to it; elsewhere it is closed. What a middleware or another dependency has charged is cancelled
    then. For the same limiter and key a request is charged once. Without a middleware, only those responses
    have header fields that FastAPI makes of what a route returns. The value of the dependency is the `Charge`
    of the request, to be settled.

    Raises TypeError or ValueError as `RateLimitMiddleware` does, TypeError if `limits` has levels.

    >>> from fastapi import Depends, FastAPI
    >>> app = FastAPI()
    >>> install(app)
    >>> @app.get("/reports/{number}", dependencies=[Depends(RateLimit("10/min"))])
    ... def report(number: int):
    ...     return number
    """

    __slots__ = ("_limiting",)

    def __init__(self, limits: Any, *, key: Extractor | None = None, shared: str | None = None,
                 cost: "Cost" = 1, exempt: "Exempt" = (), headers: "Style" = "draft",
                 dry_run: bool = False) -> None:
        self._limiting = route_limiting(limits, key=key, shared=shared, cost=cost, exempt=exempt,
                                        headers=headers, dry_run=dry_run, asynchronous=True)

    async def __call__(self, connection: HTTPConnection, response: Response) -> Charge:
        scope = connection.scope
        started = self._limiting.start(ASGIRequest(scope), scope.get("headgate"))
        charge = started if isinstance(started, Charge) else await started
        scope["headgate"] = charge
        scope.setdefault("state", {})["headgate"] = charge
        fields = [] if charge.written else charge.fields(self._limiting.style)
        if charge:
            _set(response.raw_headers, fields)
            return charge
        if scope["type"] == "websocket" and HANDSHAKE not in (scope.get("extensions") or {}):
            raise WebSocketException(TRY_AGAIN_LATER)
        raise RateLimited(charge, _texts(fields + charge.retry_after()))

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests were allowed and denied, and how often by each policy, at the one level
        ``"default"``. One that is denied by another limit afterwards counts as allowed.

        >>> RateLimit("10/min").stats()
        {'default': LevelCounts(allowed=0, denied=0, policies={})}
        """
        return self._limiting.stats()


def _set(headers: list[tuple[bytes, bytes]], fields: list[tuple[bytes, bytes]]) -> None:
    """Add header fields, in place of those that another limit has added."""
    names = {name for name, _ in fields}
    headers[:] = [field for field in headers if field[0] not in names] + fields


def _texts(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields}


def install(app: FastAPI) -> None:
    """Respond to requests that a `RateLimit` denies with application/problem+json (RFC 9457).

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> install(app)
    >>> RateLimited in app.exception_handlers
    True
    """
    app.add_exception_handler(RateLimited, _problem)


async def _problem(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, RateLimited)
    status, fields, body = error.charge.denial()
    headers = {**(error.headers or {}), **_texts(fields)}
    return Response(b"" if request.scope.get("method") == "HEAD" else body, status, headers)
