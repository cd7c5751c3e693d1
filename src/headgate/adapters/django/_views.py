"""The decorator `ratelimit` for views of Django."""

from __future__ import annotations

from functools import wraps
from inspect import isawaitable, iscoroutinefunction

from asgiref.sync import iscoroutinefunction as is_coroutine_function

from headgate._base.checks import checked_callable
from headgate.adapters._limiting import CountsDenied, checked_waiting
from headgate.adapters._routes import route_limiting
from headgate.adapters.django._request import (
    AsyncDjangoRequest,
    DjangoRequest,
    begin,
    charge_of,
    denied,
    synchronous,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from headgate.adapters._exempt import Exempt
    from headgate.adapters._limiting import Cost, Style
    from headgate.adapters.keys import Extractor
    from headgate.limit._rules import LevelCounts


def _is_async(view: Any) -> bool:
    """Whether a view returns what is awaited; it may be a method of a class, bound by method_decorator."""
    owner = getattr(getattr(view, "func", None), "__self__", None)
    return is_coroutine_function(view) or bool(getattr(owner, "view_is_async", False))


def _denied(request: Any) -> Any:
    return denied(request.headgate)


class ratelimit(CountsDenied):
    """A decorator that limits views, each method of each route for itself; of functions, synchronous and
    asynchronous, and by ``method_decorator(ratelimit(...), name="dispatch")`` of classes.

    `limits` is a rate or a limiter by key; with a `RateLimiter` that has a `path`, all workers have one
    limit. `key` is an extractor (see `headgate.adapters.keys`), by default ``client()``; a request whose key
    is None is not limited. With `shared` all views count as one, under that name, and so do several
    decorators of the same limiter and name. A denied request gets 429 with Retry-After and problem+json, or
    what the view `on_denied` returns for it. The other arguments are those of `RateLimitMiddleware`.

    What a middleware or another decorator has charged is cancelled by a denial. The charge of a request is
    ``request.headgate``, a `Charge`, to be settled.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range, TypeError if `limits`
    has levels, or if it would block the event loop of an asynchronous view.

    >>> @ratelimit("10/min")
    ... def report(request, number):
    ...     return HttpResponse(number)
    """

    __slots__ = ("_limiting", "_on_denied")

    def __init__(self, limits: Any, *, key: Extractor | None = None, shared: str | None = None,
                 cost: Cost = 1, exempt: Exempt = (), headers: Style = "draft", dry_run: bool = False,
                 on_denied: Callable[[Any], Any] | None = None) -> None:
        self._on_denied = checked_callable("on_denied", on_denied) or _denied
        self._limiting = route_limiting(limits, key=key, shared=shared, cost=cost, exempt=exempt,
                                        headers=headers, dry_run=dry_run,
                                        asynchronous=iscoroutinefunction(getattr(limits, "reserve", None)))

    def __call__(self, view: Callable[..., Any]) -> Any:
        if isinstance(view, type) or not callable(view):
            raise TypeError(f"view must be a function, got {view!r}; decorate a class by method_decorator")
        is_async = _is_async(view)
        checked_waiting(self._limiting.limits, is_async)
        return wraps(view)(self._asynchronous(view) if is_async else self._synchronous(view))

    def _synchronous(self, view: Callable[..., Any]) -> Callable[..., Any]:
        on_denied = synchronous(self._on_denied)

        def limited(request: Any, *args: Any, **kwargs: Any) -> Any:
            charge = self._limiting.charge(DjangoRequest(request), charge_of(request))
            style = begin(request, charge, self._limiting)
            response = view(request, *args, **kwargs) if charge else on_denied(request)
            return written(response, charge, style)

        return limited

    def _asynchronous(self, view: Callable[..., Any]) -> Callable[..., Any]:
        async def limited(request: Any, *args: Any, **kwargs: Any) -> Any:
            charge = await self._limiting.charge_async(AsyncDjangoRequest(request), charge_of(request))
            style = begin(request, charge, self._limiting)
            response = view(request, *args, **kwargs) if charge else self._on_denied(request)
            return written(await response if isawaitable(response) else response, charge, style)

        return limited

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests were allowed and denied, and how often by each policy, at the one level
        ``"default"``. One that is denied by another limit afterwards counts as allowed.

        >>> ratelimit("10/min").stats()
        {'default': LevelCounts(allowed=0, denied=0, policies={})}
        """
        return self._limiting.stats()
