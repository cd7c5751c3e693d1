"""The servers of a limiter as one store, for threads: `Store`."""

from __future__ import annotations

import asyncio
from time import monotonic, sleep

from headgate._base.checks import checked_number
from headgate.adapters.redis._breakers import Breaker
from headgate.adapters.redis._calls import (
    ROUTES,
    Send,
    Together,
    Unanswered,
    Unsent,
    attempt,
    proves_nothing_ran,
    serves,
)
from headgate.adapters.redis._connections import Pool, readable
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
    from headgate.adapters.redis._connections import Connection
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

    def _breaker_of(self, server: Server) -> Breaker:
        breaker = self._breakers.get(server)
        if breaker is None:
            if len(self._breakers) >= _MOST_SERVERS:
                self._breakers.clear()
            breaker = self._breakers.setdefault(server, Breaker())
        return breaker

    def _permitted(self, server: Server) -> None:
        """Raises Refused unless a call may be tried now."""
        if not self._breaker_of(server).permits():
            raise Refused(f"{server}: not tried, as it failed before")

    def open_breakers(self) -> int:
        """How many servers are left alone now, as they failed."""
        return sum(not breaker.is_closed for breaker in list(self._breakers.values()))

    def error(self, error: Exception) -> StoreError:
        """The error for a call that failed, which is counted."""
        self.counts.failed()
        if isinstance(error, Refused):
            self.counts.refused()
        return StoreError(str(error))

    def _with_errors(self, replies: list[Any]) -> list[Any]:
        """The replies to what is counted as one call, with a StoreError for each error. Raises one if there
        is nothing else.
        """
        errors = {id(reply): reply for reply in replies if isinstance(reply, Exception)}
        if not errors:
            return replies
        self.counts.failed()
        if any(isinstance(error, Refused) for error in errors.values()):
            self.counts.refused()
        told = {key: self._told(error) for key, error in errors.items()}
        replies = [told.get(id(reply), reply) for reply in replies]
        if all(isinstance(reply, StoreError) for reply in replies):
            raise replies[0]
        return replies

    def _told(self, error: Exception) -> StoreError:
        made = StoreError(str(error))
        made.__cause__ = self.cause(error)
        return made

    def _prepared(self, step: Send) -> Send:
        """What is sent for a step."""
        return step

    def _finished(self, step: Send, replies: list[Any]) -> list[Any]:
        """The replies to a step, of those to what was sent for it."""
        return replies

    def _succeeded(self, step: Send, replies: list[Any]) -> list[Any]:
        """The replies to a step, which its server has sent."""
        if serves(replies):
            self._breaker_of(step.server).succeeded()
        return self._finished(step, replies)

    @staticmethod
    def _until(step: Send, deadline: float) -> float:
        """The time by which a step must have ended."""
        return deadline if step.share == 1 else deadline - (deadline - monotonic()) * (1 - step.share)

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
            self._breaker_of(server).failed()
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
        if isinstance(reply, Exception):
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
        """The replies to calls, a StoreError in the place of each that failed. Raises StoreError if all have.

        The deadline is by itself that of one call.
        """
        self.counts.called()
        return self._with_errors(self._run(calls, self.deadline() if deadline is None else deadline))

    def _run(self, calls: Sequence[AnyCall], deadline: float) -> list[Any]:
        """The replies to calls, errors among them."""
        steps = attempt(self.routes, calls, self.counts)
        outcome: Any = None
        failure: Exception | None = None
        try:
            while True:
                step = steps.throw(failure) if failure is not None else steps.send(outcome)
                outcome, failure = None, None
                if isinstance(step, Together):
                    outcome = self._sent_together(step.sends, deadline)
                elif isinstance(step, Send):
                    outcome = self._outcome(step, deadline)
                    if isinstance(outcome, Exception):
                        failure = outcome
                else:
                    sleep(max(0.0, min(step.seconds, deadline - monotonic())))
                    if monotonic() >= deadline:
                        failure = self._late(step.servers)
        except StopIteration as end:
            return list(end.value)

    def _sent_together(self, sends: Sequence[Send], deadline: float) -> list[Any]:
        """The outcomes of steps: those for which there are connections are on their way at once."""
        if len(sends) == 1:
            return [self._outcome(sends[0], deadline)]
        outcomes: dict[Send, Any] = {}
        under_way: dict[Connection, Send] = {}
        cold = []
        for step in sends:
            begun = self._begun(step, deadline)
            if begun is None:
                cold.append(step)
            elif isinstance(begun, Exception):
                outcomes[step] = begun
            else:
                under_way[begun] = step
        for number, step in enumerate(cold):
            share = max(0.0, deadline - monotonic()) / (len(cold) - number)
            outcomes[step] = self._outcome(step, monotonic() + share)
        while under_way:
            found = readable(list(under_way), deadline)
            for connection in found or list(under_way):
                step = under_way.pop(connection)
                outcomes[step] = self._received(step, connection, deadline, is_late=not found)
        return [outcomes[step] for step in sends]

    def _begun(self, step: Send, deadline: float) -> Connection | Exception | None:
        """The connection on which a step was sent, None if there is no idle one, or an error."""
        breaker = self._breakers.get(step.server)
        connection = self._pool.taken(step.server) if breaker is not None and breaker.is_closed else None
        if connection is None:
            return None
        try:
            self._pool.send_on(connection, step.server, self._prepared(step).commands, deadline)
        except Unanswered as error:
            return self._has_failed(step.server, error)
        return connection

    def _received(self, step: Send, connection: Connection, deadline: float, is_late: bool) -> Any:
        """The replies to a step that was sent, or an error."""
        count = self._prepared(step).count
        try:
            found = self._pool.receive_on(connection, step.server, count, deadline, is_late)
        except Unanswered as error:
            return self._has_failed(step.server, error)
        return self._succeeded(step, found)

    def _outcome(self, step: Send, deadline: float) -> Any:
        """The replies to a step, or an error."""
        if deadline <= monotonic():
            return self._late()
        sent = self._prepared(step)
        try:
            self._permitted(step.server)
            found = self._pool.exchange(step.server, sent.commands, sent.count, self._until(step, deadline))
        except Refused as error:
            return error
        except (Unsent, Unanswered) as error:
            return self._has_failed(step.server, error)
        return self._succeeded(step, found)

    def _has_failed(self, server: Server, error: Exception) -> Exception:
        self._breaker_of(server).failed()
        self._pool.drop(server)
        return error


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
        if isinstance(reply, Exception):
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
        """The replies to calls, a StoreError in the place of each that failed. Raises StoreError if all have.

        The deadline is by itself that of one call.
        """
        self.counts.called()
        return self._with_errors(await self._run(calls, self.deadline() if deadline is None else deadline))

    async def _run(self, calls: Sequence[AnyCall], deadline: float) -> list[Any]:
        """The replies to calls, errors among them."""
        steps = attempt(self.routes, calls, self.counts)
        outcome: Any = None
        failure: Exception | None = None
        try:
            while True:
                step = steps.throw(failure) if failure is not None else steps.send(outcome)
                outcome, failure = None, None
                if isinstance(step, Together):
                    outcome = await self._sent_together(step.sends, deadline)
                elif isinstance(step, Send):
                    outcome = await self._outcome(step, deadline)
                    if isinstance(outcome, Exception):
                        failure = outcome
                else:
                    await asyncio.sleep(max(0.0, min(step.seconds, deadline - monotonic())))
                    if monotonic() >= deadline:
                        failure = self._late(step.servers)
        except StopIteration as end:
            return list(end.value)

    async def _sent_together(self, sends: Sequence[Send], deadline: float) -> list[Any]:
        """The outcomes of steps."""
        if len(sends) == 1:
            return [await self._outcome(sends[0], deadline)]
        return await asyncio.gather(*[self._outcome(step, deadline) for step in sends])

    async def _outcome(self, step: Send, deadline: float) -> Any:
        """The replies to a step, or an error."""
        if deadline <= monotonic():
            return self._late()
        sent = self._prepared(step)
        try:
            self._permitted(step.server)
            found = await self._pipelines.exchange(
                step.server, sent.commands, sent.count, self._until(step, deadline))
        except Refused as error:
            return error
        except (Unsent, Unanswered) as error:
            self._breaker_of(step.server).failed()
            return error
        return self._succeeded(step, found)
