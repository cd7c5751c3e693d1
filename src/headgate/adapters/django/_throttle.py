"""A throttle for Django REST framework, which is not imported: a throttle is any class of this shape."""

from __future__ import annotations

from math import inf

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from headgate.adapters._limiting import Limiting
from headgate.adapters._routes import named_key
from headgate.adapters.django._request import DjangoRequest, charge_of
from headgate.adapters.keys import client
from headgate.limit import RateLimiter
from headgate.memoize import cached, lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from headgate.adapters._limiting import Charge, Cost
    from headgate.adapters.keys import Extractor

_MOST = 1024


@cached(maxsize=_MOST)
def _limiter(name: str, rate: str) -> RateLimiter:
    """The limiter of a scope and a rate: one, whichever threads ask for it first."""
    return RateLimiter(rate)


def _key_of(request: Any) -> Any:
    return request.key


@cached(maxsize=_MOST)
def _limiting(limits: Any, cost: Any, dry_run: bool) -> Limiting:
    return Limiting(limits, keys=_key_of, cost=cost, dry_run=dry_run)


def _forget(*, setting: str, **_: Any) -> None:
    """Tests that override REST_FRAMEWORK begin with full bursts."""
    if setting == "REST_FRAMEWORK":
        _limiter.cache_clear()


setting_changed.connect(_forget)


@lru_cache(maxsize=16)
def _client_behind(proxies: int) -> Extractor:
    return client(trusted=proxies)


def _retry_after(charge: Charge) -> float | None:
    """The seconds until a request of this cost may be allowed; None if it never is, or without a decision."""
    seconds = inf if charge.decision is None else charge.decision.retry_after
    return None if seconds == inf else seconds


class _Throttled(DjangoRequest):
    """A request with the key of a throttle."""

    __slots__ = ("key",)

    def __init__(self, request: Any, key: str | None) -> None:
        super().__init__(request)
        self.key = key


class Throttle:
    """A throttle of REST framework: for DEFAULT_THROTTLE_CLASSES or `throttle_classes`, itself or a subclass.

    - `scope` names its rate in DEFAULT_THROTTLE_RATES, and what counts as one. A view's `throttle_scope`
      is used if there is none; a view without that is not throttled.
    - `rate`, such as ``"60/min"`` or ``"60/min; 1000/day"``, needs no scope.
    - `limits`, instead of a rate, is a limiter by key: a `RateLimiter` with a `path`, for example, whose
      limit is that of all workers.
    - `cost` is a number or a function of the request view, `dry_run` lets every request pass.
    - ``get_cache_key(request, view)``, of REST framework's request, returns the key of the limit, None for
      a request without one. By default that is the authenticated user, or else the address of the client,
      behind NUM_PROXIES proxies.

    A request is charged by all its throttles or none, together with `RateLimitMiddleware` and `ratelimit`;
    its charge is ``request.headgate``, a `Charge`, to be settled.

    Raises ImproperlyConfigured if the scope has no rate or the rate cannot be read.

    >>> class Burst(Throttle):
    ...     rate = "60/min"
    >>> Burst().get_rate()
    '60/min'
    """

    scope: str | None = None
    rate: ClassVar[str | None] = None
    limits: ClassVar[Any] = None
    cost: ClassVar[Cost] = 1
    dry_run: ClassVar[bool] = False

    _seconds: float | None = None

    def get_rate(self) -> str | None:
        """`rate`, or that of the scope; None if requests are not limited."""
        if self.rate is not None or self.scope is None:
            return self.rate
        from rest_framework.settings import api_settings

        try:
            return api_settings.DEFAULT_THROTTLE_RATES[self.scope]  # type: ignore[no-any-return]
        except KeyError:
            raise ImproperlyConfigured(f"DEFAULT_THROTTLE_RATES must have the scope {self.scope!r}") from None

    def get_ident(self, request: Any) -> str:
        """The address of the client, or its network of IPv6, behind NUM_PROXIES proxies."""
        from rest_framework.settings import api_settings

        return str(_client_behind(api_settings.NUM_PROXIES or 0)(DjangoRequest(request)))

    def get_cache_key(self, request: Any, view: Any) -> str | None:
        """The key that is charged for the request; None if the throttle does not apply."""
        user = DjangoRequest(request).user
        return f"client {self.get_ident(request)}" if user is None else f"user {user}"

    def allow_request(self, request: Any, view: Any) -> bool:
        """Charge a request; whether it is allowed."""
        if not self.scope:
            self.scope = getattr(view, "throttle_scope", None)
        name = self.scope or f"{type(self).__module__}.{type(self).__qualname__}"
        limits = self._limits(name)
        key = None if limits is None else self.get_cache_key(request, view)
        if key is None:
            return True
        request = getattr(request, "_request", request)
        cost: Any = type(self).cost  # a function of the class, not a method
        limiting = _limiting(limits, cost, self.dry_run)
        throttled = _Throttled(request, named_key(name, key))
        request.headgate = charge = limiting.charge(throttled, charge_of(request))
        self._seconds = _retry_after(charge)
        return bool(charge)

    def _limits(self, name: str) -> Any:
        if self.limits is not None:
            return self.limits
        rate = self.get_rate()
        if rate is None:
            return None
        try:
            return _limiter(name, rate)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"throttle {name!r}: {error}") from error

    def wait(self) -> float | None:
        """After how many seconds the request may be sent again; None if never."""
        return self._seconds
