"""RateLimitMiddleware for Django."""

from __future__ import annotations

from inspect import isawaitable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from headgate.adapters._limiting import CountsDenied, Limiting
from headgate.adapters.django._request import (
    AsyncDjangoRequest,
    DjangoRequest,
    begin,
    charge_of,
    denied,
    synchronous,
    written,
)
from headgate.limit import RateLimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar

    from headgate.limit._rules import LevelCounts

_SETTING = "HEADGATE_RATE_LIMITS"
_OPTIONS = frozenset(("cost", "dry_run", "exempt", "headers", "keys", "limits", "on_denied"))


def _limiting(options: Any, asynchronous: bool) -> Limiting:
    """The limits of the options, which name the arguments of `Limiting`."""
    if not hasattr(options, "keys") or not {"keys", "limits"} <= options.keys() <= _OPTIONS:
        raise ImproperlyConfigured(
            f"{_SETTING} must have limits and keys, and be of {', '.join(sorted(_OPTIONS))}, got {options!r}")
    arguments = dict(options)
    try:
        if hasattr(arguments["limits"], "keys"):
            arguments["limits"] = RateLimits(arguments["limits"])
        on_denied = arguments.get("on_denied")
        if isinstance(on_denied, str):
            on_denied = import_string(on_denied)
        arguments["on_denied"] = on_denied if asynchronous else synchronous(on_denied)
        return Limiting(**arguments, asynchronous=asynchronous)
    except (ImportError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{_SETTING}: {error}") from error


class RateLimitMiddleware(CountsDenied):
    """Limits the requests of a site: ``"headgate.adapters.django.RateLimitMiddleware"`` in MIDDLEWARE, under
    WSGI and ASGI.

    Its options are the setting HEADGATE_RATE_LIMITS, or the attribute `options` of a subclass: a dict of

    - limits: a `RateLimits`, a `RateLimiter`, another limiter with their methods, a rate, or a dict of levels
      as for `RateLimits`;
    - keys: an extractor for each level (see `headgate.adapters.keys`), or a single one; for ``user()`` the
      middleware stands below AuthenticationMiddleware;
    - cost, exempt, headers and dry_run, as for ``headgate.adapters.wsgi.RateLimitMiddleware``;
    - on_denied: a view, or its dotted path, that responds to denied requests instead of 429 with Retry-After
      and problem+json.

    In an event loop extractors, cost and exempt may return awaitables, and ``user`` of the request view is
    one unless the user is known already.

    The charge of a request is ``request.headgate``, a `Charge`, to be settled. `ratelimit`, `Throttle`, and
    middlewares around Django join it: the request is charged by all or none, and for the same limits and keys
    only once.

    Raises ImproperlyConfigured if an option is missing, unknown or wrong, or if the limiter would block the
    event loop. Complexity: that of ``limits.reserve``.

    >>> from headgate.adapters.keys import const
    >>> from types import SimpleNamespace
    >>> from django.http import HttpResponse
    >>> class Limits(RateLimitMiddleware):
    ...     options = {"limits": "1/min", "keys": const("all")}
    >>> middleware = Limits(lambda request: HttpResponse(b"hello", charset="utf-8"))
    >>> [middleware(SimpleNamespace(META={})).status_code for _ in range(3)]
    [200, 429, 429]
    """

    sync_capable = True
    async_capable = True
    options: ClassVar[Mapping[str, Any] | None] = None

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        options = getattr(settings, _SETTING, None) if self.options is None else self.options
        self._limiting = _limiting(options, self._is_async)

    def __call__(self, request: Any) -> Any:
        if self._is_async:
            return self._respond_async(request)
        limiting = self._limiting
        charge = limiting.charge(DjangoRequest(request), charge_of(request))
        style = begin(request, charge, limiting)
        respond = self.get_response if charge else limiting.on_denied
        response = denied(charge) if respond is None else respond(request)
        return written(response, charge, style)

    async def _respond_async(self, request: Any) -> Any:
        limiting = self._limiting
        charge = await limiting.charge_async(AsyncDjangoRequest(request), charge_of(request))
        style = begin(request, charge, limiting)
        respond = self.get_response if charge else limiting.on_denied
        response = denied(charge) if respond is None else respond(request)
        if isawaitable(response):
            response = await response
        return written(response, charge, style)

    def stats(self) -> dict[str, LevelCounts]:
        """How many requests each level allowed and denied, and how often each of its policies denied; the
        level of a limiter without any is ``"default"``. What a view's own limit denies counts as allowed
        here.
        """
        return self._limiting.stats()
