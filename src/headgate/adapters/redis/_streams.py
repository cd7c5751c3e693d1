"""Connections of event loops: one a server and loop, on which all calls of that loop share a pipeline.

What tasks send in one turn of the loop goes out at once, and replies come in the order of the commands. A
call that is cancelled leaves its place in the pipeline, and its reply is dropped. After a late reply no other
call is sent on a connection; it is closed when those on it have ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from time import monotonic
from weakref import WeakKeyDictionary

from headgate._base.forks import renew
from headgate.adapters._polling import watched
from headgate.adapters.redis._calls import Unanswered, Unsent
from headgate.adapters.redis._replies import ReplyError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from headgate.adapters.redis._settings import Server

_MOST_PENDING = 16384


class _Entry:
    """Some commands on their way, and the replies that came."""

    __slots__ = ("count", "deadline", "future", "replies", "was_sent")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, deadline: float) -> None:
        self.future = future
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []
        self.was_sent = False


class Pipeline(asyncio.Protocol):
    """A connection that is shared."""

    __slots__ = ("_data", "_due", "_is_readable", "_loop", "_name", "_out", "_pending", "_timer",
                 "_transport", "is_open")

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._pending: deque[_Entry] = deque()
        self._out: list[bytes] = []
        self._data = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # the time for which the timer is set
        self._transport: Any = None
        self.is_open = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.is_open = True
        sock = transport.get_extra_info("socket")
        self._is_readable = watched(sock)
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def send(self, data: bytes, count: int, deadline: float) -> asyncio.Future[list[Any]]:
        """Send commands: a future of their `count` replies, which fails with Unsent or Unanswered."""
        if len(self._pending) >= _MOST_PENDING:
            raise Unsent(f"{self._name}: {_MOST_PENDING} calls wait for it")
        if self._transport.is_closing():  # it may have been lost as soon as it was there
            raise Unsent(f"{self._name}: connection closed by the server")
        future = self._loop.create_future()
        self._pending.append(_Entry(future, count, deadline))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        if self._timer is None or deadline < self._due:  # a call that had to be sent again is due earlier
            self._arm(deadline)
        return future

    def is_usable(self) -> bool:
        """Whether it is open. Of an idle one the loop may not have seen yet that the server closed it."""
        return self.is_open and (self.has_calls() or not self._is_readable())

    def has_calls(self) -> bool:
        """Whether replies are to come."""
        return bool(self._pending)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self._transport.is_closing():
            for entry in reversed(self._pending):
                if entry.was_sent:
                    break
                entry.was_sent = True
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - monotonic()), self._expire)

    def _expire(self) -> None:
        """Fail the calls that are overdue; the next one is due when the timer fires again."""
        now = monotonic()
        self._timer = None
        late = [entry for entry in self._pending if entry.deadline <= now]
        if late:  # even if all who sent them were cancelled
            self.is_open = False
        for entry in late:
            if not entry.future.done():
                entry.future.set_exception(_timed_out(self._name))
        due = [entry.deadline for entry in self._pending if entry.deadline > now]
        if due:
            self._arm(min(due))
        elif late:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        buffered = self._data
        if buffered:
            buffered += data
        read = buffered or data
        at = 0
        try:
            while (found := parse(read, at)) is not None:
                reply, at = found
                self._take(reply)
                if at == len(read):
                    break
        except ConnectionError:
            self._transport.abort()
        if read is buffered:
            del buffered[:at]
        elif at < len(data):
            self._data = bytearray(data[at:])
        if not self._pending:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self.is_open:
                self._transport.close()

    def _take(self, reply: Any) -> None:
        if not self._pending:
            raise ConnectionError("more replies than commands")
        entry = self._pending[0]
        entry.replies.append(reply)
        if len(entry.replies) == entry.count:
            self._pending.popleft()
            if not entry.future.done():
                entry.future.set_result(entry.replies)

    def eof_received(self) -> None:
        self.is_open = False

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, deque()
        for entry in pending:
            if not entry.future.done():
                kind = Unanswered if entry.was_sent else Unsent
                reason = error or "connection closed by the server"
                entry.future.set_exception(kind(f"{self._name}: {reason}"))

    def retire(self) -> None:
        """Send nothing more; close when all calls on it have ended."""
        self.is_open = False
        if not self._pending:
            self.close()

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


def _timed_out(name: str) -> Unanswered:
    error = Unanswered(f"{name}: timed out")
    error.__cause__ = TimeoutError("timed out")
    return error


async def opened(server: Server, deadline: float) -> Pipeline:
    """A connection that is logged in."""
    loop = asyncio.get_running_loop()
    made = Pipeline(loop, str(server))
    try:
        async with asyncio.timeout(max(0.0, deadline - monotonic())):
            tls = server.login.tls
            if server.path is not None:
                await loop.create_unix_connection(lambda: made, server.path)
            else:
                host, port = server.address
                await loop.create_connection(
                    lambda: made, host, port, ssl=tls, server_hostname=host if tls is not None else None
                )
            commands = await server.login.commands_async()
            replies = await made.send(b"".join(commands), len(commands), deadline) if commands else ()
            for reply in replies:
                if isinstance(reply, ReplyError):
                    raise reply
    except BaseException:
        made.close()
        raise
    return made


class _Opening:
    """A connection that is being opened, for all who wait for it."""

    __slots__ = ("error", "pipeline", "task")

    def __init__(self, server: Server, deadline: float) -> None:
        self.pipeline: Pipeline | None = None
        self.error: Exception | None = None
        self.task = asyncio.ensure_future(self._open(server, deadline))

    async def _open(self, server: Server, deadline: float) -> None:
        try:
            self.pipeline = await opened(server, deadline)
        except (OSError, ReplyError, UnicodeError, Unsent, Unanswered) as error:
            self.error = error


class _Here(dict["Server", "Pipeline | _Opening"]):
    """The connections of a loop, by server; `leaving` are those that were replaced and still have calls."""

    __slots__ = ("leaving",)

    def __init__(self) -> None:
        super().__init__()
        self.leaving: list[Pipeline] = []

    def leave(self, replaced: Pipeline) -> None:
        self.leaving = [each for each in (*self.leaving, replaced) if each.has_calls()]


class Pipelines:
    """The connections of event loops, by loop and server."""

    __slots__ = ("__weakref__", "_loops", "_timeout")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loops: WeakKeyDictionary[Any, _Here] = WeakKeyDictionary()
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        self._loops = WeakKeyDictionary()

    def _here(self) -> _Here:
        """The connections of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None:
            known = [ref() for ref in self._loops.keyrefs()]  # other threads may add theirs meanwhile
            for ended in [each for each in known if each is not None and each.is_closed()]:
                self._loops.pop(ended, None)  # a connection keeps its loop
            found = self._loops.setdefault(loop, _Here())
        return found

    def open_one(self, server: Server) -> Pipeline | None:
        """The connection to a server, if there is one."""
        found = self._here().get(server)
        return found if isinstance(found, Pipeline) and found.is_usable() else None

    async def exchange(
        self, server: Server, commands: Sequence[bytes], count: int, deadline: float
    ) -> list[Any]:
        """The replies of a server; raises Unsent or Unanswered."""
        pipeline = self.open_one(server)
        if pipeline is None:
            pipeline = await self._connected(server, deadline)
        replies = await pipeline.send(b"".join(commands), count, deadline)
        if any(isinstance(reply, ReplyError) and reply.kind == "READONLY" for reply in replies):
            pipeline.retire()  # its name may be that of another server by now
        return replies

    async def _connected(self, server: Server, deadline: float) -> Pipeline:
        here = self._here()
        opening = here.get(server)
        if not isinstance(opening, _Opening):
            if opening is not None:
                here.leave(opening)
            opening = here[server] = _Opening(server, monotonic() + self._timeout)
        await asyncio.wait([opening.task], timeout=max(0.0, deadline - monotonic()))
        if here.get(server) is opening and opening.task.done():
            if opening.pipeline is not None:
                here[server] = opening.pipeline
            else:
                del here[server]
        if opening.pipeline is not None:
            return opening.pipeline
        error = opening.error or TimeoutError("timed out")
        raise Unsent(f"{server}: {error or 'timed out'}") from error

    async def close(self) -> None:
        """Close the connections of the running loop."""
        here = self._here()
        for found in [*here.values(), *here.leaving]:
            pipeline: Pipeline | None
            if isinstance(found, _Opening):
                found.task.cancel()
                await asyncio.wait([found.task])
                pipeline = found.pipeline
            else:
                pipeline = found
            if pipeline is not None:
                pipeline.close()
        here.clear()
        here.leaving.clear()
        await asyncio.sleep(0)  # transports close in the next turn of the loop
