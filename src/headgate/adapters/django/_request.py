"""The view of a request that extractors are called with in Django, and the charge that a request carries."""

from __future__ import annotations

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.functional import SimpleLazyObject

from headgate.adapters._limiting import Charge
from headgate.adapters.keys import identity
from headgate.adapters.wsgi._limits import CHARGE
from headgate.adapters.wsgi._refusal import texts
from headgate.adapters.wsgi._request import variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from headgate.adapters._limiting import Limiting, Style


class DjangoRequest:
    """A `headgate.adapters.keys.Request` over an HttpRequest; nothing is read before it is asked for.

    `route` is the template of the URL pattern, resolved here if Django has not done so yet, behind the path
    that the site is mounted at; None if no pattern matches. `user` is the key of ``request.user``, None if it
    is anonymous or if no middleware further out has authenticated it.

    >>> from types import SimpleNamespace
    >>> meta = {"REMOTE_ADDR": "192.0.2.1", "HTTP_X_TEAM": "blue"}
    >>> request = DjangoRequest(SimpleNamespace(method="GET", path="/orders/7", META=meta))
    >>> request.method, request.path, request.client, request.header("X-Team"), request.user
    ('GET', '/orders/7', '192.0.2.1', 'blue', None)
    """

    __slots__ = ("raw",)

    def __init__(self, request: Any) -> None:
        self.raw: Any = request

    @property
    def method(self) -> str:
        return str(self.raw.method)

    @property
    def path(self) -> str:
        return str(self.raw.path)

    @property
    def query(self) -> str:
        return str(self.raw.META.get("QUERY_STRING", ""))

    @property
    def client(self) -> str | None:
        return self.raw.META.get("REMOTE_ADDR") or None

    @property
    def scheme(self) -> str:
        return str(self.raw.scheme)

    @property
    def host(self) -> str:
        return str(self.raw.META.get("HTTP_HOST", ""))

    @property
    def route(self) -> str | None:
        match = self.raw.resolver_match
        if match is None:
            try:
                match = resolve(self.raw.path_info, getattr(self.raw, "urlconf", None))
            except Resolver404:
                return None
        return f"{self.raw.META.get('SCRIPT_NAME', '')}/{match.route}"

    @property
    def user(self) -> Any:
        return identity(getattr(self.raw, "user", None))

    def header(self, name: str) -> str | None:
        """The value of a header, several lines as the server has joined them; None if there is none."""
        return self.raw.META.get(variable(name))  # type: ignore[no-any-return]

    def lines(self, name: str) -> str | None:
        """The same as ``header``."""
        return self.header(name)

    def cookie(self, name: str) -> str | None:
        """The value of a cookie; None if there is none."""
        return self.raw.COOKIES.get(name)  # type: ignore[no-any-return]


class AsyncDjangoRequest(DjangoRequest):
    """A `DjangoRequest` in an event loop, where `user` has to be awaited unless it is known already.

    It is if another middleware than Django's has set ``request.user``, which ``auser`` knows nothing of.
    """

    __slots__ = ()

    @property
    def user(self) -> Any:
        request = self.raw
        is_lazy = type(getattr(request, "user", None)) is SimpleLazyObject
        if is_lazy and hasattr(request, "auser") and not hasattr(request, "_cached_user"):
            return self._authenticated()
        return super().user

    async def _authenticated(self) -> str | None:
        return identity(await self.raw.auser())


def charge_of(request: Any) -> Charge | None:
    """What a request was charged further out: in Django, or by a middleware around it."""
    found = getattr(request, "headgate", None)
    if found is None:
        found = request.META.get(CHARGE)  # of WSGI
    if found is None:
        found = getattr(request, "scope", {}).get("headgate")  # of ASGI
    return found


def begin(request: Any, charge: Charge, limiting: Limiting) -> Style:
    """Keep the charge in the request; returns the style of the header fields that are to be written here.

    It is None if a middleware further out writes them.
    """
    request.headgate = charge
    if charge.written or limiting.style is None:
        return None
    charge.written = True
    return limiting.style


def synchronous(view: Any) -> Any:
    """A view as a function that waits for its response, where there is no event loop."""
    return async_to_sync(view) if iscoroutinefunction(view) else view


def denied(charge: Charge) -> Any:
    """The response to a request that was denied."""
    status, fields, body = charge.denial()
    return HttpResponse(body, status=status, headers=dict(texts(fields)))


def written(response: Any, charge: Charge, style: Style) -> Any:
    """A response with the header fields of a charge; what is no response is Django's to complain about."""
    if not isinstance(response, HttpResponseBase):
        return response
    for name, value in texts(charge.fields(style)):
        response[name] = value
    return response


