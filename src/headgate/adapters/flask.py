"""Limits of single views of Flask, as decorators."""

from __future__ import annotations

from functools import partial, wraps
from inspect import iscoroutinefunction

from headgate.adapters._extras import extra
from headgate.adapters._limiting import Charge, CountsDenied
from headgate.adapters._routes import route_limiting
from headgate.adapters.keys import identity
from headgate.adapters.wsgi._limits import CHARGE
from headgate.adapters.wsgi._refusal import texts
from headgate.adapters.wsgi._request import WSGIRequest

with extra("flask"):
    from flask import Response, after_this_request, current_app, g, request
    from werkzeug.exceptions import TooManyRequests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar
    from wsgiref.types import WSGIEnvironment

    from flask import Request

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._limiting import Cost, Style
    from headgate.adapters.keys import Extractor
    from headgate.limit._rules import LevelCounts

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Charge", "FlaskRequest", "RateLimited", "limit"]


class FlaskRequest(WSGIRequest):
    """A `headgate.adapters.keys.Request` over the current request of Flask; `raw` is its environ.

    `route` is the rule that it has matched, with the prefix of its blueprint and the path that the
    application is mounted at. `user` is ``g.user``, as far as it is authenticated, or REMOTE_USER.

    >>> from flask import Flask
    >>> with Flask("shop").test_request_context("/orders/7"):
    ...     FlaskRequest(request).path
    '/orders/7'
    """

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        super().__init__(request.environ)
        self._request = request

    @property
    def route(self) -> str | None:
        rule = self._request.url_rule
        return None if rule is None else f"{self._request.root_path}{rule.rule}"

    @property
    def user(self) -> str | None:
        return identity(g.get("user")) or super().user


class RateLimited(TooManyRequests):
    """The denial of a request by a `limit`: 429 with Retry-After and problem+json.

    ``app.register_error_handler(RateLimited, ...)``, or a handler of 429, may respond instead; `charge` is
    what was decided, and `retry_after` the seconds to wait, None if the request can never pass.

    >>> RateLimited(Charge()).code
    429
    """

    def __init__(self, charge: Charge) -> None:
        super().__init__(retry_after=next((int(value) for _, value in charge.retry_after()), None))
        self.charge = charge

    def get_response(self, environ: WSGIEnvironment | None = None, scope: Any = None) -> Response:  # type: ignore[override]
        status, fields, body = self.charge.denial()
        return Response(body, status, texts(fields))


class limit(CountsDenied):
    """A decorator that limits views, each method of each route for itself.

    `limits` is a rate or a limiter by key; with a `RateLimiter` that has a `path`, all workers have one
    limit. `key` is an extractor (see `headgate.adapters.keys`), by default ``client()``; a request whose key
    is None is not limited. With `shared` all views count as one, under that name, and so do several
    decorators of the same limiter and name. The other arguments are those of `RateLimitMiddleware`.

    It belongs under ``@app.route``, and runs after all functions of ``before_request``. A class-based view
    has it in its ``decorators``, a blueprint or an application as ``before_request(limit(...).check)``.

    A denied request ends with `RateLimited`; what a middleware or another decorator has charged is cancelled
    then. The charge of a request is ``g.headgate``, a `Charge`, to be settled. Header fields are written by
    `RateLimitMiddleware`, if there is one around the application, or else by the first decorator.

    Raises TypeError or ValueError as `RateLimitMiddleware` does, TypeError if `limits` has levels.

    >>> from flask import Flask
    >>> app = Flask("shop")
    >>> @app.get("/reports/<int:number>")
    ... @limit("1/min")
    ... def report(number):
    ...     return str(number)
    >>> client = app.test_client()
    >>> [client.get(f"/reports/{number}").status_code for number in (1, 2)]
    [200, 429]
    """

    __slots__ = ("_limiting",)

    def __init__(self, limits: Any, *, key: Extractor | None = None, shared: str | None = None,
                 cost: Cost = 1, exempt: Exempt = (), headers: Style = "draft",
                 dry_run: bool = False) -> None:
        self._limiting = route_limiting(limits, key=key, shared=shared, cost=cost, exempt=exempt,
                                        headers=headers, dry_run=dry_run)

    def __call__(self, view: F) -> F:
        if isinstance(view, type) or not callable(view):
            raise TypeError(f"view must be a function, got {view!r}; a class has decorators = [limit(...)]")
        is_async = iscoroutinefunction(view)

        @wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.check()
            return (current_app.ensure_sync(view) if is_async else view)(*args, **kwargs)

        return limited  # type: ignore[return-value]

    def check(self) -> None:
        """Charge the current request; raises `RateLimited` if it is denied.

        >>> from flask import Flask
        >>> with Flask("shop").test_request_context("/orders/7"):
        ...     limit("1/min").check()
        ...     g.headgate.decision.remaining
        0.0
        """
        limiting, view = self._limiting, FlaskRequest(request._get_current_object())  # type: ignore[attr-defined]
        charge = limiting.charge(view, view.raw.get(CHARGE))
        view.raw[CHARGE] = g.headgate = charge
        if limiting.style is not None and not charge.written:
            charge.written = True
            after_this_request(partial(_write, charge, limiting.style))
        if not charge:
            after_this_request(partial(_write_retry_after, charge))
            raise RateLimited(charge)

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests were allowed and denied, and how often by each policy, at the one level
        ``"default"``. One that is denied by another limit afterwards counts as allowed.

        >>> limit("10/min").stats()
        {'default': LevelCounts(allowed=0, denied=0, policies={})}
        """
        return self._limiting.stats()


def _write(charge: Charge, style: Style, response: Response) -> Response:
    response.headers.update(texts(charge.fields(style)))
    return response


def _write_retry_after(charge: Charge, response: Response) -> Response:
    """Add Retry-After to the response of a denial, unless its handler has set one."""
    for name, value in texts(charge.retry_after()):
        response.headers.setdefault(name, value)
    return response
