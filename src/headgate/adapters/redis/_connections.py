"""Connections of threads: each call has one for itself, with a deadline for all that it does on it."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from math import ceil
from time import monotonic

from headgate._base.forks import new_lock, renew
from headgate.adapters._polling import watched
from headgate.adapters.redis._calls import Unanswered, Unsent
from headgate.adapters.redis._replies import ReplyError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Never

    from headgate.adapters.redis._settings import Server

_READ = 8192
_READ_MORE = 1 << 18
_MOST_IDLE = 64
_SMALL = 16384
_MOST_LATE = 0.01


def _left(deadline: float) -> float:
    """The seconds until the deadline."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _opened(server: Server, deadline: float) -> socket.socket:
    """A socket that is connected. The resolution of its name has no deadline."""
    if server.path is not None:
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), server.path, deadline)
    found = socket.getaddrinfo(*server.address, 0, socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(found, 1):
        share = monotonic() + _left(deadline) / (len(found) + 1 - number)
        try:
            return _connected(socket.socket(family, kind, protocol), address, share)
        except OSError:
            if number == len(found):
                raise
    raise OSError(f"{server} has no address")


def _connected(made: socket.socket, address: Any, deadline: float) -> socket.socket:
    try:
        if isinstance(address, tuple):  # of TCP, not of a Unix socket
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.settimeout(_left(deadline))
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def readable(connections: Sequence[Connection], deadline: float) -> list[Connection]:
    """Those on which there is something to read: waits for the first by the deadline, for none after it."""
    seconds = max(0.0, deadline - monotonic())
    if not hasattr(select, "poll"):
        return select.select(connections, [], [], seconds)[0]
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    found = {number for number, _ in poll.poll(ceil(seconds * 1000))}
    return [connection for connection in connections if connection.fileno() in found]


class Connection:
    """A connection that is logged in. It is closed after any failure: its next reply would be a late one."""

    __slots__ = ("_is_readable", "_socket", "_timeout")

    def __init__(self, server: Server, deadline: float) -> None:
        self._timeout = 0.0  # the socket has another one, for the rest of what is done here
        made = _opened(server, deadline)
        try:
            if server.login.tls is not None:
                made.settimeout(_left(deadline))
                made = server.login.tls.wrap_socket(made, server_hostname=server.address[0])
            self._socket = made
            commands = server.login.commands()
            for reply in self.exchange(commands, len(commands), deadline) if commands else ():
                if isinstance(reply, ReplyError):
                    raise reply
            self._is_readable = watched(made)
        except BaseException:
            made.close()
            raise

    def exchange(self, commands: Sequence[bytes], count: int, deadline: float) -> list[Any]:
        """Send commands and return their `count` replies."""
        sent = self.send(commands, deadline)
        return self.receive(count, deadline, sent > _SMALL)

    def send(self, commands: Sequence[bytes], deadline: float) -> int:
        """Send commands: how many bytes they are."""
        data = commands[0] if len(commands) == 1 else b"".join(commands)
        self._wait_at_most(_left(deadline))
        self._socket.sendall(data)
        return len(data)

    def _wait_at_most(self, seconds: float) -> None:
        """Set the timeout of the socket, unless it is about that already: a setting costs a system call."""
        if not 0 <= self._timeout - seconds < min(seconds / 64, _MOST_LATE):
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def receive(self, count: int, deadline: float, is_late: bool) -> list[Any]:
        """The replies to commands that were sent. If it `is_late`, time may have passed since."""
        data: bytes | bytearray = b""
        replies: list[Any] = []
        at = 0
        while True:
            if is_late:
                self._wait_at_most(_left(deadline))
            is_late = True
            received = self._socket.recv(_READ_MORE if data else _READ)
            if not received:
                raise ConnectionResetError("connection closed by the server")
            if data:
                data = data if isinstance(data, bytearray) else bytearray(data)
                data += received
            else:
                data = received
            while (found := parse(data, at)) is not None:
                reply, at = found
                replies.append(reply)
                if len(replies) == count:
                    if at != len(data):
                        raise ConnectionError("more replies than commands")
                    return replies
                if at == len(data):
                    break

    def is_usable(self) -> bool:
        """Whether the server has sent nothing, not even that it closed the connection."""
        return not self._is_readable()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:  # of a limiter that was dropped unclosed, silently as the client does
        if hasattr(self, "_socket"):
            self.close()


class Pool:
    """The idle connections of a process, by server. Each thread that calls takes one or opens one."""

    __slots__ = ("__weakref__", "_idle", "_lock")

    def __init__(self) -> None:
        self._lock = new_lock()
        self._idle: dict[Server, list[Connection]] = {}
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        for server in list(self._idle):
            self.drop(server)

    def drop(self, server: Server) -> None:
        """Close the idle connections to a server, which has failed."""
        with self._lock:
            idle = self._idle.pop(server, [])
        with suppress(IndexError):  # another thread has taken the last one
            while idle:
                idle.pop().close()

    def exchange(self, server: Server, commands: Sequence[bytes], count: int, deadline: float) -> list[Any]:
        """The replies of a server; raises Unsent or Unanswered."""
        connection = self.taken(server)
        if connection is None:
            try:
                connection = Connection(server, deadline)
            except (OSError, ReplyError, UnicodeError) as error:  # the last for a host that is no name
                raise Unsent(f"{server}: {error}") from error
        return self.exchange_on(connection, server, commands, count, deadline)

    def exchange_on(
        self, connection: Connection, server: Server, commands: Sequence[bytes], count: int, deadline: float
    ) -> list[Any]:
        """The replies on a connection that was taken; raises Unanswered."""
        try:
            replies = connection.exchange(commands, count, deadline)
        except BaseException as error:
            self._fail(connection, server, error)
        return self._done(connection, server, replies)

    def send_on(
        self, connection: Connection, server: Server, commands: Sequence[bytes], deadline: float
    ) -> None:
        """Send on a connection that was taken; raises Unanswered."""
        try:
            connection.send(commands, deadline)
        except BaseException as error:
            self._fail(connection, server, error)

    def receive_on(
        self, connection: Connection, server: Server, count: int, deadline: float, is_late: bool
    ) -> list[Any]:
        """The replies to what was sent on a connection; raises Unanswered."""
        try:
            replies = connection.receive(count, deadline, is_late)
        except BaseException as error:
            self._fail(connection, server, error)
        return self._done(connection, server, replies)

    @staticmethod
    def _fail(connection: Connection, server: Server, error: BaseException) -> Never:
        connection.close()
        if isinstance(error, OSError):
            raise Unanswered(f"{server}: {error}") from error
        raise error

    def _done(self, connection: Connection, server: Server, replies: list[Any]) -> list[Any]:
        """The replies; the connection is given back."""
        if any(isinstance(reply, ReplyError) and reply.kind == "READONLY" for reply in replies):
            connection.close()  # its name may be that of another server by now
        else:
            self._give_back(server, connection)
        return replies

    def taken(self, server: Server) -> Connection | None:
        """An idle connection to a server, which is then the caller's."""
        while True:
            try:
                connection = self._idle[server].pop()
            except (KeyError, IndexError):
                return None
            if connection.is_usable():
                return connection
            connection.close()

    def _give_back(self, server: Server, connection: Connection) -> None:
        idle = self._idle.get(server)
        if idle is None:
            with self._lock:
                idle = self._idle.setdefault(server, [])
        if len(idle) < _MOST_IDLE:
            idle.append(connection)
        else:
            connection.close()
