"""A page that shows what headgate's objects do, live, to mount in an application.

    from headgate.adapters import dashboard

    app.mount("/headgate", dashboard.asgi(gate, allow="127.0.0.0/8"))                 # FastAPI, Starlette
    DispatcherMiddleware(app, {"/headgate": dashboard.wsgi(gate, allow=is_operator)})  # Flask

Beside the page, ``data.json`` is the same as JSON (docs/dashboard.md describes it), and ``events`` a stream
of it. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

from headgate.adapters.dashboard._asgi import ASGIDashboard
from headgate.adapters.dashboard._wsgi import WSGIDashboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from headgate.adapters.dashboard._access import Allow
    from headgate.adapters.dashboard._masking import Mask

__all__ = ["asgi", "wsgi"]


def asgi(source: Any, *, allow: Allow = None, trusted: Iterable[object] | int = (), mask: Mask = True,
         every: float = 1.0, viewers: int = 32) -> ASGIDashboard:
    """The dashboard of a `Gate`, or of a mapping of names to headgate's objects, as an ASGI application.

    `allow` says who may look: networks (``"127.0.0.1/8"``, ``["10.0.0.0/8", "unix"]``), or a callable that is
    called with the request view of `headgate.adapters.keys` and may return an awaitable. All others, without
    it everyone, get 403. Networks are those of the client behind the proxies that are `trusted`, as for
    ``keys.client``; if none are, a request that a proxy has forwarded is refused.

    Keys of users, those that are denied and the hottest, are shown as two characters and a tag. With a `mask`
    of False they are shown as they are, and with a callable as the text that it returns for a key.

    A reading is taken every `every` seconds while anyone looks, in one thread for all viewers. Of these,
    `viewers` get a stream at a time; the pages of others poll.

    The denied keys of each `RateLimits` and rate limiting middleware in `source` that has no counter of them
    are counted by a `HotKeys` from now on.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range.

    >>> from headgate import LRUCache
    >>> app = asgi({"sessions": LRUCache(1000)}, allow="127.0.0.1/8")
    """
    return ASGIDashboard(source, allow=allow, trusted=trusted, mask=mask, every=every, viewers=viewers)


def wsgi(source: Any, *, allow: Allow = None, trusted: Iterable[object] | int = (), mask: Mask = True,
         every: float = 1.0, viewers: int = 2) -> WSGIDashboard:
    """The same as ``asgi``, as a WSGI application.

    A stream takes a thread of the server for as long as someone looks, hence the lower number of `viewers`;
    on a server without threads all pages poll.

    >>> from headgate import LRUCache
    >>> app = wsgi({"sessions": LRUCache(1000)}, allow="127.0.0.1/8")
    """
    return WSGIDashboard(source, allow=allow, trusted=trusted, mask=mask, every=every, viewers=viewers)
