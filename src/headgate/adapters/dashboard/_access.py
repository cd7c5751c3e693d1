"""Who may look at the dashboard."""

from __future__ import annotations

from inspect import iscoroutinefunction

from headgate._base.checks import checked_iterable
from headgate.adapters.keys import client
from headgate.limit._networks import UNIX, network_of
from headgate.limit._rules import Networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from headgate.adapters.keys import Request

    Allow: TypeAlias = "str | Iterable[object] | Callable[[Request], Any] | None"

_FORWARDED = (
    "forwarded", "x-forwarded-for", "x-real-ip", "via", "x-forwarded-host", "x-forwarded-proto",
    "x-forwarded-server", "cf-connecting-ip", "true-client-ip", "x-client-ip",
)
"""The fields by which proxies show themselves."""


def checked_allow(
    allow: Allow, trusted: Iterable[object] | int, asynchronous: bool
) -> Callable[[Request], Any]:
    """A predicate over request views; its result may be awaitable where the host is `asynchronous`.

    Networks are compared with the address of the client, behind the proxies that are `trusted`. Without any,
    a request that a proxy has forwarded is in no network: its peer says nothing about the client.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> near, far = (ASGIRequest({"client": (address, 5)}) for address in ("127.0.0.1", "192.0.2.1"))
    >>> allow = checked_allow("127.0.0.0/8", (), False)
    >>> allow(near), allow(far), checked_allow(None, (), False)(near)
    (True, False, False)
    """
    if allow is None:
        return lambda request: False
    if callable(allow):
        if iscoroutinefunction(allow) and not asynchronous:
            raise TypeError(f"allow must not be a coroutine function, as nothing awaits it, got {allow!r}")
        return allow
    names = [allow] if isinstance(allow, str) else list(map(str, checked_iterable("allow", allow)))
    networks = _networks(name for name in names if name != UNIX)
    unix, address_of = UNIX in names, client(trusted, v6=128)

    def is_within(request: Request) -> bool:
        if not trusted and any(request.lines(name) is not None for name in _FORWARDED):
            return False
        address = address_of(request)
        return unix if address == UNIX else networks.get(address, False) is True

    return is_within


def _networks(names: Iterable[str]) -> Networks:
    networks = Networks()
    for name in names:
        network = network_of(name)
        if network is None:
            raise ValueError(f"allow must be networks, as '127.0.0.1/8', 'unix' or a callable, got {name!r}")
        networks.update([network], True)
    return networks
