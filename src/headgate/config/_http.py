"""The section http with what it names: the arguments of the middlewares of an application."""

from __future__ import annotations

from headgate.adapters import keys
from headgate.limit import AddressLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from headgate.adapters.keys import Extractor
    from headgate.config._snapshot import Made
    from headgate.httpcache import HTTPCache
    from headgate.limit import ConcurrencyLimiter


class Http:
    """What `from_gate` wraps an application in: the arguments of `RateLimitMiddleware` (`limit` for threads,
    or `async_limit`, with `keys`, `cost`, `exempt`, `headers` and `dry_run`), of `ShedMiddleware` (`shed`,
    `priority`, `shed_exempt`, `retry_after`, `websockets`) and of `CacheMiddleware` (`cache`,
    `cache_exempt`); and the proxies that are `trusted`. A limit, limiter or cache that the document does not
    have is None, and so is its name.
    """

    __slots__ = (
        "async_limit", "cache", "cache_exempt", "cost", "dry_run", "exempt", "headers", "keys", "limit",
        "limit_name", "priority", "retry_after", "shed", "shed_exempt", "shed_name", "trusted",
        "websockets",
    )

    def __init__(self, fields: Mapping[str, Any], limit: Made | None, shed: ConcurrencyLimiter | None,
                 cache: HTTPCache | None) -> None:
        self.limit = None if limit is None else limit.plain
        self.async_limit = None if limit is None else limit.asynchronous
        self.limit_name: str | None = fields["limit"]
        self.keys = None if limit is None else _keys(fields, self.limit)
        self.cost: float = fields["cost"]
        self.exempt: tuple[str, ...] = fields["exempt"]
        self.headers = fields["headers"]
        self.dry_run: bool = fields["dry_run"]
        self.trusted: int | tuple[str, ...] = fields["trusted"]
        self.shed = shed
        self.shed_name: str | None = fields["shed"]
        self.priority = None if fields["priority"] is None else _extractor(fields["priority"], fields, 64)
        self.shed_exempt: tuple[str, ...] = fields["shed_exempt"]
        self.retry_after: int = fields["retry_after"]
        self.websockets: bool = fields["websockets"]
        self.cache = cache
        self.cache_exempt: tuple[str, ...] = fields["cache_exempt"]


def _keys(fields: Mapping[str, Any], limit: Any) -> Any:
    """An extractor, or one for each level."""
    wanted = fields["keys"]
    if not hasattr(wanted, "items"):
        return _extractor(wanted, fields, _bits(limit, fields))
    levels = getattr(limit, "_levels", {})
    return {
        level: _extractor(each, fields, _bits(levels.get(level), fields)) for level, each in wanted.items()
    }


def _bits(limit: Any, fields: Mapping[str, Any]) -> int:
    """An `AddressLimiter` takes the networks of whole addresses itself."""
    return 128 if isinstance(limit, AddressLimiter) else int(fields["v6"])


def _extractor(wanted: tuple[str, str | None], fields: Mapping[str, Any], v6: int) -> Extractor:
    function, argument = wanted
    if function == "client":
        return keys.client(fields["trusted"], fields["v4"], v6, header=fields["client_header"])
    make = getattr(keys, function)
    extractor: Extractor = make() if argument is None else make(argument)
    return extractor
