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


class Push(list["Any"]):
    """What a server sent unasked."""

    __slots__ = ()


def parse3(data: Buffer, at: int) -> tuple[Any, int] | None:
    """The reply or push of RESP3 that starts at `at`, and where it ends; None if it is not complete.

    Raises ConnectionError if there is none.

    >>> parse3(b">2\\r\\n+message\\r\\n_\\r\\n", 0)
    ([b'message', None], 17)
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, head, after = data[at : at + 1], bytes(data[at + 1 : end]), end + 2
    if kind in (b"+", b",", b"(", b"#"):
        return head, after
    if kind == b"-":
        return ReplyError(head.decode("utf-8", "replace")), after
    if kind == b"_":
        return None, after
    if kind not in (b":", b"$", b"=", b"!", b"*", b"~", b">", b"%"):
        raise ConnectionError(f"no reply: {bytes(data[at:end])[:100]!r}")
    try:
        number = int(head)
    except ValueError:
        raise ConnectionError(f"no number in a reply: {head[:100]!r}") from None
    if kind == b":":
        return number, after
    if number < 0:
        return None, after
    if kind in (b"$", b"=", b"!"):
        return _text(data, after, number, kind)
    return _many(data, after, 2 * number if kind == b"%" else number, Push() if kind == b">" else [])


def _text(data: Buffer, at: int, length: int, kind: Buffer) -> tuple[Any, int] | None:
    if len(data) < at + length + 2:
        return None
    text = bytes(data[at : at + length])
    if kind == b"!":
        return ReplyError(text.decode("utf-8", "replace")), at + length + 2
    return text[4:] if kind == b"=" else text, at + length + 2


def _many(data: Buffer, at: int, count: int, values: list[Any]) -> tuple[Any, int] | None:
    for _ in range(count):
        found = parse3(data, at)
        if found is None:
            return None
        value, at = found
        values.append(value)
    return values, at


def run_id_of(information: object) -> str | None:
    """The identity of a server's process in its reply to INFO.

    >>> run_id_of(b"redis_version:7.0.15\\r\\nrun_id:5f\\r\\n")
    '5f'
    """
    if isinstance(information, bytes):
        for line in information.splitlines():
            if line.startswith(b"run_id:"):
                return line[7:].decode()
    return None


class Demoted(ConnectionError):
    """The server is not a master."""


class Session:
    """What happens on one connection after its login: tracking begins, and heartbeats are exchanged.

    `heartbeat` is the time between two of them, in nanoseconds. A heartbeat is the command ROLE, which also
    tells if the server is no longer a master.
    """

    __slots__ = ("_data", "_due", "_heartbeat", "_late", "_patience", "_prefixes", "_run_id", "_source",
                 "_waiting")

    def __init__(self, source: NearSource, prefixes: Iterable[bytes], heartbeat: int, patience: int) -> None:
        self._source = source
        self._prefixes = list(prefixes)
        self._heartbeat, self._patience = heartbeat, patience
        self._data = bytearray()
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
        self._data += data
        if len(self._data) > _MOST_BUFFERED:
            raise ConnectionError(f"more than {_MOST_BUFFERED} bytes without a whole reply")
        at = 0
        while (found := parse3(self._data, at)) is not None:
            message, at = found
            if isinstance(message, Push):
                self._announced(message)
            else:
                self._replied(message, now)
            if at == len(self._data):
                break
        del self._data[:at]

    def _announced(self, push: Push) -> None:
        if push and push[0] == b"invalidate":
            self._source.invalidated(push[1])

    def _replied(self, reply: Any, now: int) -> None:
        if not self._waiting:
            raise ConnectionError("more replies than commands")
        if isinstance(reply, ReplyError):
            raise ConnectionError(str(reply))
        kind = self._waiting.popleft()
        if kind in ("role", "heartbeat") and reply[0] != b"master":
            raise Demoted(f"the server is a {reply[0].decode()}")
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
