"""A reverse proxy as an ASGI application, and the rules for fields of messages that proxies pass on.

`Hop`, `StrictMiddleware` and the functions work on fields alone and need no other package; `ReverseProxy` and
`ConnectionPool` need aiohttp, which is imported with the first of them.
"""

from headgate.adapters.proxy._fields import (
    Refusal,
    end_to_end,
    forwarded_once,
    forwards_of,
    host_of,
    is_plain_path,
    is_unambiguous,
    refusal_of,
    without_connection_options,
)
from headgate.adapters.proxy._hop import Hop
from headgate.adapters.proxy._strict import StrictMiddleware, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.adapters.proxy._pool import ConnectionPool
    from headgate.adapters.proxy._reverse import ReverseProxy

__all__ = [
    "ConnectionPool", "Hop", "Refusal", "ReverseProxy", "StrictMiddleware", "end_to_end", "forwarded_once",
    "forwards_of", "host_of", "is_plain_path", "is_unambiguous", "refusal_of", "refuse",
    "without_connection_options"
]


def __getattr__(name: str) -> object:
    if name == "ConnectionPool":
        from headgate.adapters.proxy._pool import ConnectionPool

        return ConnectionPool
    if name == "ReverseProxy":
        from headgate.adapters.proxy._reverse import ReverseProxy

        return ReverseProxy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
