"""What the adapters of HTTP clients share: which server is asked, and when another one is."""

from __future__ import annotations

from collections.abc import Collection

from headgate._membership import integer
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, Self

    class Pick(Protocol):
        @property
        def server(self) -> Any: ...
        def done(self, ok: bool = True) -> None: ...

    class Balancer(Protocol):
        def pick(self, key: Any = None, *, exclude: Collection[Any] = ()) -> Pick: ...


__all__ = ["STATUSES", "Attempts", "Failover", "no_origin"]

STATUSES = (502, 503, 504)
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


def _checked_statuses(statuses: Any) -> frozenset[int]:
    if not isinstance(statuses, Collection) or not all(isinstance(status, int) for status in statuses):
        raise TypeError(f"statuses must be a collection of ints, got {statuses!r}")
    return frozenset(statuses)


class Failover:
    """The settings of an adapter."""

    __slots__ = ("attempts", "balancer", "key", "preserve_host", "statuses")

    def __init__(self, balancer: Balancer, attempts: int, statuses: Collection[int],
                 key: Callable[[Any], Any] | None, preserve_host: bool) -> None:
        if not callable(getattr(balancer, "pick", None)):
            raise TypeError(f"balancer must be a balancer, got {balancer!r}")
        if integer("attempts", attempts) < 1:
            raise ValueError(f"attempts must be positive, got {attempts!r}")
        if key is not None and not callable(key):
            raise TypeError(f"key must be callable or None, got {key!r}")
        self.balancer = balancer
        self.attempts = attempts
        self.statuses = _checked_statuses(statuses)
        self.key = key
        self.preserve_host = preserve_host


class Attempts:
    """The attempts at one request, each at a server that it has not been sent to before.

    `pick` is the present one. Leaving the ``with`` block drops it, which counts neither for nor against
    the server, unless it is held elsewhere.
    """

    __slots__ = ("_failover", "_key", "_repeatable", "_tried", "pick")

    def __init__(self, failover: Failover, request: Any, method: str, replayable: bool) -> None:
        self._failover = failover
        self._key = None if failover.key is None else failover.key(request)
        self._repeatable = replayable and method.upper() in _IDEMPOTENT
        self._tried: list[Any] = []
        self.pick = failover.balancer.pick(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        del self.pick

    def failed(self, sent: bool) -> bool:
        """The pick has failed: ends it, and answers whether there is another one now.

        What was not `sent` may go to another server always, else only if it can be repeated.
        """
        pick = self.pick
        pick.done(False)
        self._tried.append(pick.server)
        if len(self._tried) == self._failover.attempts or (sent and not self._repeatable):
            return False
        try:
            self.pick = self._failover.balancer.pick(self._key, exclude=self._tried)
        except NoServerError:
            return False
        return True

    def refused(self, status: int) -> bool:
        """Whether a response of this status is given up for another pick."""
        return status in self._failover.statuses and self._repeatable and self.failed(sent=True)


def no_origin(server: Any) -> ValueError:
    return ValueError(f"server must be an origin such as 'http://10.0.0.1:8080', got {server!r}")
