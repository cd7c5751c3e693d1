"""The servers of a limiter as one store, for threads: `Store`."""

from __future__ import annotations

import asyncio
from time import monotonic, sleep

from headgate._base.checks import checked_number
from headgate.adapters.redis._breakers import Breaker
from headgate.adapters.redis._calls import (
    ROUTES,
    Send,
    Unanswered,
    Unsent,
    attempt,
    proves_nothing_ran,
    serves,
)
from headgate.adapters.redis._connections import Pool
from headgate.adapters.redis._counters import Counts
from headgate.adapters.redis._replies import ReplyError
from headgate.adapters.redis._settings import Settings
from headgate.adapters.redis._streams import Pipelines
from headgate.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, SupportsFloat

    from headgate.adapters.redis._calls import AnyCall
    from headgate.adapters.redis._settings import Server

_LONGEST_TIMEOUT = 3600
_MOST_SERVERS = 1024


class Refused(Unsent):
    """The breaker of a server is open."""


def checked_timeout(timeout: SupportsFloat) -> float:
    """Seconds that a call may take."""
    seconds = checked_number("timeout", timeout)
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise ValueError(f"timeout must be positive and at most {_LONGEST_TIMEOUT}, got {timeout!r}")
    return float(seconds)


class Servers:
    """What stores for threads and for event loops have in common: routes, breakers, counters and errors."""

    __slots__ = ("_breakers", "_exceptions", "_timeout", "counts", "is_one", "routes")

    def __init__(self, client: Any, timeout: SupportsFloat) -> None:
        self._timeout = checked_timeout(timeout)
        settings = Settings(client)
        self._exceptions = settings.exceptions
        self.routes = ROUTES[settings.kind](settings)
        self.is_one = settings.kind != "cluster"
        self.counts = Counts()
        self._breakers: dict[Server, Breaker] = {}

    def deadline(self) -> float:
        """The monotonic time by which a call that begins now must have ended."""
        return monotonic() + self._timeout

    def _breaker(self, server: Server) -> Breaker:
        """The breaker of a server, if a call may be tried now."""
        breaker = self._breakers.get(server)
        if breaker is None:
            if len(self._breakers) >= _MOST_SERVERS:
                self._breakers.clear()
            breaker = self._breakers.setdefault(server, Breaker())
        if not breaker.permits():
            raise Refused(f"{server}: not tried, as it failed before")
        return breaker

    def error(self, error: Exception) -> StoreError:
        """The error for a call that failed, which is counted."""
        self.counts.failed()
        if isinstance(error, Refused):
            self.counts.refused()
        return StoreError(str(error))

    def cause(self, error: Exception) -> Exception:
        """The client's own exception for what happened."""
        if isinstance(error, ReplyError):
            kind = self._exceptions.ResponseError
        elif isinstance(error.__cause__, TimeoutError):
            kind = self._exceptions.TimeoutError
        else:
            kind = self._exceptions.ConnectionError
        cause: Exception = kind(str(error))
        cause.__cause__ = error.__cause__
        return cause

    def _unanswered(self, error: Unanswered, server: Server, breaker: Breaker) -> StoreError:
        """The error for a call without a reply, which is taken note of."""
        breaker.failed()
        self.routes.doubt(server)
        return self.error(error)

    def _late(self, servers: Sequence[Server] = ()) -> Unsent:
        """The error for a call that has no time left to be sent, as these servers could not do it."""
        for server in servers:
            self._breakers[server].failed()
        error = Unsent(f"nothing ran within {self._timeout:g} s")
        error.__cause__ = TimeoutError("timed out")
        return error


class Store(Servers):
    """The servers of a client, called by threads."""

    __slots__ = ("_pool",)

    def __init__(self, client: Any, timeout: SupportsFloat) -> None:
        super().__init__(client, timeout)
        self._pool = Pool()

    def close(self) -> None:
        """Close the idle connections; others are opened if they are needed."""
        self._pool.close()

    def call(self, call: AnyCall) -> Any:
        """The reply to a call. Raises StoreError."""
        self.counts.called()
        deadline = monotonic() + self._timeout
        reply = self._at_once(call, deadline)
        if reply is None:
            (reply,) = self._run([call], deadline)
        if isinstance(reply, ReplyError):
            raise self.error(reply) from self.cause(reply)
        return reply

    def _at_once(self, call: AnyCall, deadline: float) -> Any:
        """The reply to a call, if there is an idle connection to its server and it has not to be sent again;
        else None. This is the short way of ``attempt``.
        """
        server = self.routes.known(call.keys[0])
        breaker = None if server is None else self._breakers.get(server)
        if server is None or breaker is None or not breaker.is_closed:
            return None
        connection = self._pool.taken(server)
        if connection is None:
            return None
        try:
            (reply,) = self._pool.exchange_on(connection, server, [call.packed()], 1, deadline)
        except Unanswered as error:
            self._pool.drop(server)
            raise self._unanswered(error, server, breaker) from self.cause(error)
        if proves_nothing_ran(reply):
            return None
        breaker.succeeded()
        return reply

    def call_all(self, calls: Sequence[AnyCall], deadline: float | None = None) -> list[Any]:
        """The replies to calls, errors among them. Raises StoreError if one has no reply
        by the deadline, which is by itself that of one call.
        """
        self.counts.called()
        return self._run(calls, self.deadline() if deadline is None else deadline)

    def _run(self, calls: Sequence[AnyCall], deadline: float) -> list[Any]:
        steps = attempt(self.routes, calls, self.counts)
        outcome: Any = None
        failure: Exception | None = None
        try:
            while True:
                step = steps.throw(failure) if failure is not None else steps.send(outcome)
                outcome, failure = None, None
                if isinstance(step, Send):
                    try:
                        outcome = self._sent(step, deadline)
                    except (Unsent, Unanswered) as error:
                        failure = error
                else:
                    sleep(max(0.0, min(step.seconds, deadline - monotonic())))
                    if monotonic() >= deadline:
                        failure = self._late(step.servers)
        except StopIteration as end:
            return list(end.value)
        except (Unsent, Unanswered) as error:
            raise self.error(error) from self.cause(error)

    def _sent(self, step: Send, deadline: float) -> list[Any]:
        left = deadline - monotonic()
        if left <= 0:
            raise self._late()
        breaker = self._breaker(step.server)
        until = deadline if step.share == 1 else deadline - left * (1 - step.share)
        try:
            replies = self._pool.exchange(step.server, step.commands, step.count, until)
        except (Unsent, Unanswered):
            breaker.failed()
            self._pool.drop(step.server)
            raise
        if serves(replies):
            breaker.succeeded()
        return replies


class AsyncStore(Servers):
    """The servers of a client, called by tasks."""

    __slots__ = ("_pipelines",)

    def __init__(self, client: Any, timeout: SupportsFloat) -> None:
        super().__init__(client, timeout)
        self._pipelines = Pipelines(self._timeout)

    async def close(self) -> None:
        """Close the connections of the running loop; others are opened if they are needed."""
        await self._pipelines.close()

    async def call(self, call: AnyCall) -> Any:
        """The reply to a call. Raises StoreError."""
        self.counts.called()
        deadline = monotonic() + self._timeout
        reply = await self._at_once(call, deadline)
        if reply is None:
            (reply,) = await self._run([call], deadline)
        if isinstance(reply, ReplyError):
            raise self.error(reply) from self.cause(reply)
        return reply

    async def _at_once(self, call: AnyCall, deadline: float) -> Any:
        """The reply to a call, if there is a connection to its server and it has not to be sent again; else
        None. This is the short way of ``attempt``.
        """
        server = self.routes.known(call.keys[0])
        breaker = None if server is None else self._breakers.get(server)
        if server is None or breaker is None or not breaker.is_closed:
            return None
        pipeline = self._pipelines.open_one(server)
        if pipeline is None:
            return None
        try:
            (reply,) = await pipeline.send(call.packed(), 1, deadline)
        except Unsent:
            return None
        except Unanswered as error:
            raise self._unanswered(error, server, breaker) from self.cause(error)
        if proves_nothing_ran(reply):
            return None
        breaker.succeeded()
        return reply

    async def call_all(self, calls: Sequence[AnyCall], deadline: float | None = None) -> list[Any]:
        """The replies to calls, errors among them. Raises StoreError if one has no reply
        by the deadline, which is by itself that of one call.
        """
        self.counts.called()
        return await self._run(calls, self.deadline() if deadline is None else deadline)

    async def _run(self, calls: Sequence[AnyCall], deadline: float) -> list[Any]:
        steps = attempt(self.routes, calls, self.counts)
        outcome: Any = None
        failure: Exception | None = None
        try:
            while True:
                step = steps.throw(failure) if failure is not None else steps.send(outcome)
                outcome, failure = None, None
                if isinstance(step, Send):
                    try:
                        outcome = await self._sent(step, deadline)
                    except (Unsent, Unanswered) as error:
                        failure = error
                else:
                    await asyncio.sleep(max(0.0, min(step.seconds, deadline - monotonic())))
                    if monotonic() >= deadline:
                        failure = self._late(step.servers)
        except StopIteration as end:
            return list(end.value)
        except (Unsent, Unanswered) as error:
            raise self.error(error) from self.cause(error)

    async def _sent(self, step: Send, deadline: float) -> list[Any]:
        left = deadline - monotonic()
        if left <= 0:
            raise self._late()
        breaker = self._breaker(step.server)
        until = deadline if step.share == 1 else deadline - left * (1 - step.share)
        try:
            replies = await self._pipelines.exchange(step.server, step.commands, step.count, until)
        except (Unsent, Unanswered):
            breaker.failed()
            raise
        if serves(replies):
            breaker.succeeded()
        return replies
