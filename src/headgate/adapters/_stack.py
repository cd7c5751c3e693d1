"""The middlewares of the section http of a gate, around an application."""

from __future__ import annotations

from typing import NamedTuple

from headgate.adapters._shedding import ShedStats
from headgate.httpcache import HTTPCacheStats
from headgate.limit._rules import LevelCounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    class Gate(Protocol):
        """A gate, as far as an application needs it."""

        def follow(self, build: Any, /) -> Any: ...


class GateStats(NamedTuple):
    """What the middlewares of an application have counted; None for one that the document does not have.

    The counts of limits and of shedding begin anew when the section http changes.
    """

    limit: dict[str, LevelCounts] | None
    cache: HTTPCacheStats | None
    shed: ShedStats | None


class Stack:
    """An application within its middlewares: the limiter outside the cache, the cache outside shedding.

    `middlewares` are the classes of a host, `limits` is the limiter in the form for it, `more` are arguments
    of shedding that only this host has.
    """

    __slots__ = ("app", "http", "limit", "limits", "shed")

    def __init__(self, app: Any, http: Any, limits: Any, middlewares: tuple[Any, Any, Any],
                 more: Mapping[str, Any]) -> None:
        limiting, caching, shedding = middlewares
        self.http, self.limits = http, limits
        self.limit = self.shed = None
        if http.shed is not None:
            app = self.shed = shedding(app, http.shed, priority=http.priority, exempt=http.shed_exempt,
                                        retry_after=http.retry_after, **more)
        if http.cache is not None:
            app = caching(app, http.cache, exempt=http.cache_exempt)
        if limits is not None:
            app = self.limit = limiting(app, limits, keys=http.keys, cost=http.cost, exempt=http.exempt,
                                         headers=http.headers, dry_run=http.dry_run)
        self.app = app

    def stats(self) -> GateStats:
        return GateStats(*(None if each is None else each.stats()
                           for each in (self.limit, self.http.cache, self.shed)))


def followed(gate: Any, build: Callable[[Any], Stack]) -> Any:
    """What has the `Stack` of the section http of a gate as its ``current``.

    Raises TypeError if `gate` is no Gate, ConfigError if the stack cannot be made.
    """
    if not callable(getattr(gate, "follow", None)):
        kind = type(gate).__name__  # a document may have passwords
        raise TypeError(f"gate must be a Gate, as headgate.config.load returns one, got a {kind}")
    return gate.follow(build)
