"""The tracking connection of a near cache, without I/O: what to send on it, and what follows from replies.

It speaks RESP3, in which a server pushes announcements between replies.
"""

from __future__ import annotations

from collections import deque

from headgate.adapters.redis._replies import ReplyError, packed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from headgate.adapters.redis._replies import Buffer
    from headgate.near import NearSource

_MOST_BUFFERED = 64 << 20
_SECOND = 10**9
_PART = object()


class Push(list["Any"]):
    """What a server sent unasked."""

    __slots__ = ()


class Messages:
    """Replies and pushes of RESP3, parsed as their bytes come: each byte is looked at once.

    >>> messages = Messages()
    >>> messages.feed(b">2\\r\\n+message\\r\\n")
    []
    >>> messages.feed(b"_\\r\\n:1\\r\\n")
    [[b'message', None], 1]
    """

    __slots__ = ("_data", "_open", "_size")

    def __init__(self) -> None:
        self._data = bytearray()
        self._open: list[tuple[list[Any], int]] = []  # arrays that are not whole, with their lengths
        self._size = 0

    def feed(self, data: Buffer) -> list[Any]:
        """The messages that are whole now. Raises ConnectionError if there is something else."""
        found: list[Any] = []
        self._data += data
        self._size += len(data)
        at = 0
        while (item := _item(self._data, at)) is not None:
            value, length, at = item
            if length:
                self._open.append((value, length))
            elif (message := self._placed(value)) is not _PART:
                found.append(message)
                self._size = len(self._data) - at
        del self._data[:at]
        if self._size > _MOST_BUFFERED:
            raise ConnectionError(f"more than {_MOST_BUFFERED} bytes without a whole reply")
        return found

    def _placed(self, value: Any) -> Any:
        """The message that is whole with this value, which goes into the innermost array; or _PART."""
        while self._open:
            values, length = self._open[-1]
            values.append(value)
            if len(values) < length:
                return _PART
            value = values
            self._open.pop()
        return value


def _item(data: Buffer, at: int) -> tuple[Any, int, int] | None:
    """The value that starts at `at`, an empty list and the length for an array, and where it ends; None if it
    is not complete.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, head, after = data[at : at + 1], bytes(data[at + 1 : end]), end + 2
    if kind in (b"+", b",", b"(", b"#"):
        return head, 0, after
    if kind == b"-":
        return ReplyError(head.decode("utf-8", "replace")), 0, after
    if kind == b"_":
        return None, 0, after
    if kind not in (b":", b"$", b"=", b"!", b"*", b"~", b">", b"%"):
        raise ConnectionError(f"no reply: {bytes(data[at:end])[:100]!r}")
    try:
        number = int(head)
    except ValueError:
        raise ConnectionError(f"no number in a reply: {head[:100]!r}") from None
    if kind == b":":
        return number, 0, after
    if number < 0:
        return None, 0, after
    if kind in (b"$", b"=", b"!"):
        return _text(data, after, number, kind)
    return Push() if kind == b">" else [], 2 * number if kind == b"%" else number, after


def _text(data: Buffer, at: int, length: int, kind: Buffer) -> tuple[Any, int, int] | None:
    if len(data) < at + length + 2:
        return None
    text, after = bytes(data[at : at + length]), at + length + 2
    if kind == b"!":
        return ReplyError(text.decode("utf-8", "replace")), 0, after
    return text[4:] if kind == b"=" else text, 0, after


def run_id_of(information: object) -> str | None:
    """The identity of a server's process in its reply to INFO.

    >>> run_id_of(b"redis_version:7.0.15\\r\\nrun_id:5f\\r\\n")
    '5f'
    """
    if isinstance(information, bytes):
        for line in information.splitlines():
            if line.startswith(b"run_id:"):
                return line[7:].decode("utf-8", "replace")
    return None


class Demoted(ConnectionError):
    """The server is not a master."""


def _check_master(reply: Any) -> None:
    role = reply[0] if isinstance(reply, list) and reply else reply
    if role != b"master":
        name = role.decode("utf-8", "replace") if isinstance(role, bytes) else repr(role)
        raise Demoted(f"the server is a {name}")


def _announced_keys(rest: list[Any]) -> list[bytes] | None:
    """The keys of an announcement, None for all, of what follows its first word."""
    match rest:
        case [None]:
            return None
        case [list() as keys] if all(isinstance(key, bytes) for key in keys):
            return keys
    raise ConnectionError(f"no keys in an announcement: {repr(rest)[:100]}")


class Session:
    """What happens on one connection after its login: tracking begins, and heartbeats are exchanged.

    `heartbeat` is the time between two of them, in nanoseconds. A heartbeat is the command ROLE, which also
    says if the server is no longer a master.
    """

    __slots__ = ("_due", "_heartbeat", "_late", "_messages", "_patience", "_prefixes", "_run_id", "_source",
                 "_waiting")

    def __init__(self, source: NearSource, prefixes: Iterable[bytes], heartbeat: int, patience: int) -> None:
        self._source = source
        self._prefixes = list(prefixes)
        self._heartbeat, self._patience = heartbeat, patience
        self._messages = Messages()
        self._run_id: str | None = None
        self._waiting: deque[str] = deque()
        self._due: int | None = None
        self._late: int | None = None

    def start(self, now: int) -> bytes:
        """What is sent first."""
        self._waiting.extend(("hello", "identity", "role", "tracking"))
        self._late = now + self._patience
        words = [word for prefix in self._prefixes for word in (b"PREFIX", prefix)]
        return b"".join([
            packed(b"HELLO", b"3"), packed(b"INFO", b"server"), packed(b"ROLE"),
            packed(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *words),
        ])

    def wait(self, now: int) -> float:
        """The seconds for which nothing has to be sent."""
        moments = [moment for moment in (self._due, self._late) if moment is not None]
        return max(0, min(moments) - now) / _SECOND if moments else 0.0

    def due(self, now: int) -> bytes:
        """What has to be sent now. Raises ConnectionError if a reply is overdue."""
        if self._late is not None and now >= self._late:
            raise ConnectionError("no reply to a heartbeat")
        if self._due is None or now < self._due:
            return b""
        self._source.heartbeat_sent()
        self._waiting.append("heartbeat")
        self._due, self._late = None, now + self._patience
        return packed(b"ROLE")

    def received(self, data: bytes, now: int) -> None:
        """Takes what was read. Raises ConnectionError if the connection must not be trusted."""
        if not data:
            raise ConnectionError("connection closed by the server")
        for message in self._messages.feed(data):
            if isinstance(message, Push):
                self._announced(message)
            else:
                self._replied(message, now)

    def _announced(self, push: Push) -> None:
        kind, *rest = push or [None]
        if kind == b"invalidate":
            self._source.invalidated(_announced_keys(rest))

    def _replied(self, reply: Any, now: int) -> None:
        if not self._waiting:
            raise ConnectionError("more replies than commands")
        if isinstance(reply, ReplyError):
            raise ConnectionError(str(reply))
        kind = self._waiting.popleft()
        if kind in ("role", "heartbeat"):
            _check_master(reply)
        if kind == "identity":
            self._run_id = run_id_of(reply)
        elif kind == "tracking":
            if self._run_id is None:
                raise ConnectionError("the server does not tell its run_id")
            self._source.connected(self._run_id)
            self._due, self._late = now, None
        elif kind == "heartbeat":
            self._source.heartbeat_answered()
            self._due, self._late = now + (self._heartbeat if self._is_fresh() else 0), None

    def _is_fresh(self) -> bool:
        """Whether two heartbeats were answered: the second is not waited for."""
        epoch = self._source.epoch
        return epoch is not None and epoch.fresh_until > -(2**63)
