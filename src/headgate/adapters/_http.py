"""Failover for the adapters of HTTP clients: which server a request is sent to, and when it is retried.

    request -> Attempts -> pick -> send -> response         the outcome of a pick is reported to the balancer
                             ^       |
                             |       v
                     backoff |    failed, or one of `statuses`: are there attempts left, may it be repeated,
                             +---- is there time, does the budget allow it?

The budget, the counters and the known ejections belong to the balancer and are shared by its adapters.
"""

from __future__ import annotations

from base64 import b64encode
from collections import namedtuple
from collections.abc import Collection
from functools import lru_cache
from inspect import iscoroutinefunction
from random import random
from time import monotonic, sleep
from urllib.parse import quote, unquote_to_bytes, urlsplit
from weakref import WeakKeyDictionary

from headgate._base.checks import checked_callable, checked_int, checked_number
from headgate._base.forks import new_lock
from headgate.balance import AddressHash, KeyHash
from headgate.balance._budget import RetryBudget
from headgate.cache._listeners import report
from headgate.errors import NoServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from typing import Any, NamedTuple, Protocol, Self, TypedDict

    class Pick(Protocol):
        @property
        def server(self) -> Any: ...
        def done(self, ok: bool = True, *, overloaded: bool = False) -> None: ...

    class Balancer(Protocol):
        @property
        def servers(self) -> Sequence[Any]: ...
        def pick(self, key: Any = None, *, exclude: Collection[Any] = ()) -> Pick: ...

    class Options(TypedDict, total=False):
        """The keyword arguments of every adapter; see docs/adapters.md."""

        attempts: int
        statuses: Collection[int]
        key: Callable[[Any], Any] | None
        preserve_host: bool
        budget: RetryBudget | None
        backoff: float
        deadline: float | None
        attempt_timeout: float | None
        on_event: Callable[[BalancerEvent], object] | None

    class _EventFields(NamedTuple):
        kind: str
        server: Any
        attempt: int
        reason: Any

    class _CounterFields(NamedTuple):
        requests: int
        failed: int
        retried: int
        ejected: int
        returned: int

    class _OriginFields(NamedTuple):
        scheme: str
        netloc: str
        path: str
        authorization: str | None
else:
    _EventFields = namedtuple("_EventFields", "kind server attempt reason")
    _CounterFields = namedtuple("_CounterFields", "requests failed retried ejected returned")
    _OriginFields = namedtuple("_OriginFields", "scheme netloc path authorization")

__all__ = ["STATUSES", "Attempts", "BalancerEvent", "Failover", "ServerCounters", "origin", "server_of"]

STATUSES = (502, 503, 504)
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_TOO_MANY = 429
_LONGEST_WAIT = 1.0
_SHARED: Any = object()
_SPARE_ROWS = 64
_PATH = "/%:@!$&'()*+,;="


class BalancerEvent(_EventFields):
    """The argument of `on_event`.

    `kind` is ``"failed"`` if an attempt at `server` has failed, ``"retried"`` if the request is sent to
    `server` next, ``"abandoned"`` if it is not retried because of `reason`, ``"budget"`` or ``"deadline"``;
    ``"ejected"`` and ``"returned"`` if the balancer has ejected `server` or uses it again; ``"down"`` and
    ``"up"`` if health checks have marked `server`, at the probe `attempt` in a row with the same result.
    `attempt` counts from 1. For the other kinds `reason` is the exception or the status of the failed
    attempt, or of the last probe.
    """

    __slots__ = ()


class ServerCounters(_CounterFields):
    """Counts for a server over all adapters of its balancer: `requests` sent, `failed` ones, `retried` ones
    that had failed at another server, and how often it was `ejected` and `returned`."""

    __slots__ = ()


class Origin(_OriginFields):
    """The parts of a server's URL: `netloc` is without credentials, `path` without a trailing slash, and
    `authorization` is the header for the credentials."""

    __slots__ = ()


def _parsed(server: str) -> Origin | None:
    """The origin of a server, or None if it is not valid."""
    try:
        url = urlsplit(server)
        host, port = (url.hostname or "").encode("idna").decode(), url.port
    except ValueError:
        return None
    if server.split() != [server] or url.scheme not in ("http", "https"):
        return None
    if not host or url.query or url.fragment:
        return None
    if ":" in host:
        host = f"[{host}]"
    authorization = None
    if url.username is not None:
        user, password = unquote_to_bytes(url.username), unquote_to_bytes(url.password or "")
        authorization = "Basic " + b64encode(user + b":" + password).decode()
    netloc = host if port is None else f"{host}:{port}"
    return Origin(url.scheme, netloc, quote(url.path.rstrip("/"), safe=_PATH), authorization)


@lru_cache(maxsize=1024)
def _origin_of_str(server: str) -> Origin:
    found = _parsed(server)
    if found is None:
        remedy = f"http://{server}"
        hint = f"; write {remedy!r}" if "://" not in server and _parsed(remedy) is not None else ""
        raise ValueError(f"server must be an origin such as 'http://10.0.0.1:8080', got {server!r}{hint}")
    return found


def origin(server: Any) -> Origin:
    """The origin of a server of a balancer. Raises ValueError if it is not valid."""
    if not isinstance(server, str):
        raise ValueError(f"server must be an origin such as 'http://10.0.0.1:8080', got {server!r}")
    return _origin_of_str(server)


def _redacted(server: Any) -> str:
    """The URL of a server without its credentials."""
    parts = origin(server)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def server_of(outcome: Any) -> Any:
    """The server that returned a response or caused an exception; None if no adapter has set one."""
    return getattr(outcome, "headgate_server", None)


def mark(outcome: Any, server: Any) -> None:
    """Set the server that `server_of` returns for a response or an exception."""
    outcome.headgate_server = server


def _seconds(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    seconds = float(checked_number(name, value))
    if not seconds > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return seconds


def _checked_statuses(statuses: Any) -> frozenset[int]:
    if not isinstance(statuses, Collection) or not all(isinstance(status, int) for status in statuses):
        raise TypeError(f"statuses must be a collection of ints, got {statuses!r}")
    return frozenset(statuses)


def _checked_balancer(balancer: Any) -> Any:
    if not callable(getattr(balancer, "pick", None)):
        raise TypeError(f"balancer must be a balancer, got {balancer!r}")
    if not hasattr(balancer, "servers"):
        raise TypeError(f"balancer must be a balancer of headgate.balance, got {balancer!r}; "
                        "KeyHash balances by a key")
    for server in balancer.servers:
        origin(server)
    return balancer


def _checked_callback(name: str, value: Any) -> Any:
    if iscoroutinefunction(checked_callable(name, value)):
        raise TypeError(f"{name} must not be a coroutine function, as nothing awaits it, got {value!r}")
    return value


class _SharedState:
    """State shared by the adapters of one balancer: a budget, counters, and the servers known to be ejected.

    It lives as long as the balancer and holds no reference to it.
    """

    __slots__ = ("_lock", "_rows", "budget", "ejected")

    def __init__(self) -> None:
        self.budget = RetryBudget()
        self.ejected: dict[Any, object] = {}
        self._rows: dict[Any, list[int]] = {}
        self._lock = new_lock()

    def count(self, server: Any, field: str) -> None:
        row = self._rows.get(server)
        if row is None:
            row = self._rows.setdefault(server, [0] * len(ServerCounters._fields))
        at = ServerCounters._fields.index(field)
        with self._lock:
            row[at] += 1

    def counters(self, servers: Iterable[Any]) -> dict[Any, ServerCounters]:
        rows = self._rows.copy()
        return {server: ServerCounters(*rows.get(server, [0] * len(ServerCounters._fields)))
                for server in servers}

    def prune(self, servers: Collection[Any]) -> None:
        """Drop the counters of removed servers once there are too many."""
        if len(self._rows) > 2 * len(servers) + _SPARE_ROWS:
            members = set(servers)
            for server in list(self._rows):
                if server not in members:
                    self._rows.pop(server, None)
                    self.ejected.pop(server, None)


_states: WeakKeyDictionary[Any, _SharedState] = WeakKeyDictionary()
_states_lock = new_lock()


def _state_of(balancer: Any) -> _SharedState:
    with _states_lock:
        return _states.setdefault(balancer, _SharedState())


def counters_of(balancer: Any) -> dict[Any, ServerCounters]:
    """Counts for each server of a balancer over all its adapters; nothing if it has none."""
    with _states_lock:
        state = _states.get(balancer)
    return {} if state is None else state.counters(balancer.servers)


class Failover:
    """The settings of an adapter."""

    __slots__ = ("_on_event", "_state", "attempt_timeout", "attempts", "backoff", "balancer", "budget",
                 "deadline", "key", "preserve_host", "statuses")

    def __init__(self, balancer: Balancer, *, attempts: int = 3, statuses: Collection[int] = STATUSES,
                 key: Callable[[Any], Any] | None = None, preserve_host: bool = False,
                 budget: RetryBudget | None = _SHARED, backoff: float = 0.025, deadline: float | None = None,
                 attempt_timeout: float | None = None,
                 on_event: Callable[[BalancerEvent], object] | None = None) -> None:
        self.balancer: Balancer = _checked_balancer(balancer)
        if checked_int("attempts", attempts) < 1:
            raise ValueError(f"attempts must be positive, got {attempts!r}")
        self.attempts = attempts
        self.statuses = _checked_statuses(statuses)
        self.key = _checked_callback("key", key)
        if key is None and isinstance(balancer, (AddressHash, KeyHash)):
            raise TypeError(f"key must be a function of the request for {balancer!r}, got None")
        self.preserve_host = preserve_host
        if budget is not _SHARED and budget is not None and not isinstance(budget, RetryBudget):
            raise TypeError(f"budget must be a RetryBudget or None, got {budget!r}")
        self.backoff = float(checked_number("backoff", backoff))
        if not self.backoff >= 0:
            raise ValueError(f"backoff must not be negative, got {backoff!r}")
        self.deadline = _seconds("deadline", deadline)
        self.attempt_timeout = _seconds("attempt_timeout", attempt_timeout)
        self._on_event = _checked_callback("on_event", on_event)
        self._state = _state_of(balancer)
        self.budget = self._state.budget if budget is _SHARED else budget

    def counters(self) -> dict[Any, ServerCounters]:
        return self._state.counters(self.balancer.servers)

    def emit(self, kind: str, server: Any, attempt: int, reason: Any) -> None:
        """Call `on_event`; its errors are reported, not raised."""
        if self._on_event is not None:
            try:
                self._on_event(BalancerEvent(kind, server, attempt, reason))
            except Exception as error:
                report(error)

    def _health(self, server: Any) -> str | None:
        records = getattr(self.balancer, "records", ())  # a balancer written by the user may have none
        return next((record.health for record in records if record.server == server), None)

    def picked(self, server: Any, attempt: int, reason: Any) -> None:
        """Count a pick, which is a retry because of `reason` if that is not None."""
        state = self._state
        state.count(server, "requests")
        if (server in state.ejected and self._health(server) == "healthy"
                and state.ejected.pop(server, None) is not None):  # true in one thread only
            state.count(server, "returned")
            self.emit("returned", server, attempt, None)
        if reason is not None:
            state.count(server, "retried")
            self.emit("retried", server, attempt, reason)

    def failed(self, server: Any, attempt: int, reason: Any) -> None:
        """Count a failed attempt, whose pick has ended."""
        state = self._state
        state.count(server, "failed")
        self.emit("failed", server, attempt, reason)
        token = object()
        if (server not in state.ejected and self._health(server) == "ejected"
                and state.ejected.setdefault(server, token) is token):
            state.count(server, "ejected")
            self.emit("ejected", server, attempt, reason)
        state.prune(self.balancer.servers)


def end_pick(pick: Pick, ok: bool, reason: Any) -> None:
    """End a pick. A status of 429 means that the server is overloaded, which is not a reason to eject it."""
    if reason == _TOO_MANY:
        pick.done(overloaded=True)
    else:
        pick.done(ok)


class Attempts:
    """The attempts at one request, each at a server that it has not been sent to before.

    `pick` is the current one. Leaving the ``with`` block drops it, which counts neither as a success nor as a
    failure, unless another object holds it. `timeout` is the caller's timeout in seconds, `prefer` the server
    to try first.
    """

    __slots__ = ("_end", "_failover", "_key", "_outcomes", "_reason", "_repeatable", "_sent", "_tried",
                 "pick")

    def __init__(self, failover: Failover, request: Any, method: str, replayable: bool, *,
                 timeout: float | None = None, prefer: Any = None) -> None:
        self._failover = failover
        self._key = None if failover.key is None else failover.key(request)
        self._repeatable = replayable and method.upper() in _IDEMPOTENT
        self._tried: list[Any] = []
        self._outcomes: list[str] = []
        self._reason: Any = None
        self._sent = False
        limits = [limit for limit in (failover.deadline, timeout) if limit is not None]
        self._end = monotonic() + min(limits) if limits else None
        self.pick = self._first(prefer)
        if failover.budget is not None:
            failover.budget.deposit()
        failover.picked(self.pick.server, 1, None)

    def _first(self, prefer: Any) -> Pick:
        balancer: Balancer = self._failover.balancer
        servers = balancer.servers if prefer is not None else ()
        if prefer in servers:
            try:
                return balancer.pick(self._key, exclude=[server for server in servers if server != prefer])
            except NoServerError:
                pass
        return balancer.pick(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        del self.pick

    def remaining(self, limit: float | None = None) -> float | None:
        """The seconds that this attempt may take: the time until the deadline, at most `limit` and
        `attempt_timeout`; None if it is unbounded."""
        limits = [limit, self._failover.attempt_timeout]
        if self._end is not None:
            limits.append(max(self._end - monotonic(), 0.001))
        return min((seconds for seconds in limits if seconds is not None), default=None)

    def _abandoned(self, server: Any, why: str) -> None:
        self._failover.emit("abandoned", server, len(self._tried), why)

    def failed(self, reason: Any, sent: bool) -> float | None:
        """End the failed pick, and return the seconds to wait before `next_pick`, or None to stop.

        A request that was not `sent` may always be sent to another server, otherwise only if it can be
        repeated.
        """
        failover, server = self._failover, self.pick.server
        end_pick(self.pick, False, reason)
        self._tried.append(server)
        self._reason, self._sent = reason, sent
        outcome = f"status {reason}" if isinstance(reason, int) else type(reason).__name__
        self._outcomes.append(f"{_redacted(server)} ({outcome})")
        if isinstance(reason, Exception):
            mark(reason, server)
        failover.failed(server, len(self._tried), reason)
        if len(self._tried) == failover.attempts or (sent and not self._repeatable):
            return None
        wait = self._wait() if sent else 0.0
        if self._end is not None and monotonic() + wait >= self._end:
            self._abandoned(server, "deadline")
            return None
        return wait

    def abort(self, error: Exception) -> None:
        """End the request with an error, which counts as a failure of the current server."""
        self.pick.done(False)
        mark(error, self.pick.server)
        self._failover.failed(self.pick.server, len(self._tried) + 1, error)

    def _wait(self) -> float:
        """Full jitter: a random time, up to a bound that doubles with each attempt and is at most one
        second."""
        return random() * min(_LONGEST_WAIT, self._failover.backoff * 2.0 ** (len(self._tried) - 1))

    def next_pick(self) -> bool:
        """Pick another server. Returns False if there is none, or if the budget does not allow a retry."""
        failover = self._failover
        try:
            pick = failover.balancer.pick(self._key, exclude=self._tried)
        except NoServerError:
            return False
        if self._sent and failover.budget is not None and not failover.budget.withdraw():
            self._abandoned(self._tried[-1], "budget")
            return False
        self.pick = pick
        failover.picked(pick.server, len(self._tried) + 1, self._reason)
        return True

    def retry(self, reason: Any, sent: bool) -> bool:
        """End the failed pick and, after a backoff, pick another server; return whether there is one."""
        wait = self.failed(reason, sent)
        if wait:
            sleep(wait)
        return wait is not None and self.next_pick()

    async def retry_async(self, reason: Any, sent: bool,
                           pause: Callable[[float], Awaitable[object]]) -> bool:
        """`retry` for a task, which sleeps by `pause`."""
        wait = self.failed(reason, sent)
        if wait:
            await pause(wait)
        return wait is not None and self.next_pick()

    def should_retry(self, status: int) -> bool:
        """Whether a response with this status is discarded for a retry, if one is possible."""
        return status in self._failover.statuses and self._repeatable

    def add_note(self, error: Exception) -> None:
        """Add a note with the servers that were tried to the exception that ends the request."""
        error.add_note(f"servers tried by headgate: {', '.join(self._outcomes)}")

    def finish(self, response: Any, status: int) -> InFlight:
        """End the request with a response, whose body may still be in flight."""
        server, attempt = self.pick.server, len(self._tried)
        over = attempt > 0 and self._tried[-1] is server
        mark(response, server)
        return InFlight(self._failover, None if over else self.pick, attempt + (not over), status)


class InFlight:
    """A response whose body is in flight: the first call of `finished` or `failed` ends its pick."""

    __slots__ = ("_attempt", "_failover", "_pick", "_status")

    def __init__(self, failover: Failover, pick: Pick | None, attempt: int, status: int) -> None:
        self._failover = failover
        self._pick = pick
        self._attempt = attempt
        self._status = status

    def _end(self, ok: bool, reason: Any) -> None:
        pick, self._pick = self._pick, None
        if pick is not None:
            end_pick(pick, ok, reason)
            if not ok:
                self._failover.failed(pick.server, self._attempt, reason)

    def finished(self) -> None:
        """The body was read or closed."""
        self._end(self._status < 500 and self._status != _TOO_MANY, self._status)

    def failed(self, error: Exception) -> None:
        """Reading the body failed."""
        if self._pick is not None:
            mark(error, self._pick.server)
        self._end(False, error)
