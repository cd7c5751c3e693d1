"""Calls of scripts, and the way of a call to the server that can run it, without any I/O.

A charge that may have run is never sent again: only one whose reply proves that nothing ran is, or one of
which no byte was sent. `attempt` is a generator that yields what is to be sent where and is resumed with the
replies; the synchronous and the asynchronous store both run it, within one deadline.
"""

from __future__ import annotations

from binascii import crc_hqx
from time import monotonic

from headgate.adapters.redis._replies import ReplyError, packed
from headgate.adapters.redis._settings import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any

    from headgate.adapters.redis._scripts import Script
    from headgate.adapters.redis._settings import Settings

    Steps = Generator["Send | Together | Pause", Any, Any]

_SLOTS = 16384
_ASKING = packed(b"ASKING")
_SHARE = 0.4
_REFRESH_PAUSE = 0.05
_PAUSE = 0.01
_TURN = 0.002
_LONGEST_TURN = 0.25
_WAITING = frozenset(("CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN"))
_NOTHING_RAN = _WAITING | {"ASK", "MOVED", "NOSCRIPT"}


class Unsent(Exception):
    """Nothing was sent: the server cannot be reached, or is left alone."""


class Lost(Unsent):
    """Nothing was sent, as it is not known where the servers are."""


class Unanswered(Exception):
    """Something was sent, and whether it ran is not known."""


class Send:
    """These commands go to that server, for `count` replies. `share` is the part of the time left for it."""

    __slots__ = ("commands", "count", "server", "share")

    def __init__(self, server: Server, commands: Sequence[bytes], count: int, share: float = 1.0) -> None:
        self.server = server
        self.commands = commands
        self.count = count
        self.share = share


class Together:
    """These go to different servers at once; the outcome of each are its replies, or Unsent or Unanswered."""

    __slots__ = ("sends",)

    def __init__(self, sends: Sequence[Send]) -> None:
        self.sends = sends


class Pause:
    """Nothing is done for a moment, as these servers cannot do anything yet."""

    __slots__ = ("seconds", "servers")

    def __init__(self, seconds: float, *servers: Server) -> None:
        self.seconds = seconds
        self.servers = servers


class Call:
    """A script with its keys, which all have one slot, and its arguments, one more than keys."""

    __slots__ = ("arguments", "in_full", "keys", "script")

    def __init__(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> None:
        self.script = script
        self.keys = keys
        self.arguments = arguments
        self.in_full = False

    def packed(self) -> bytes:
        words = [*self.keys, *self.arguments]
        return self.script.head(len(self.keys), self.in_full) + b"".join([
            b"$%d\r\n%b\r\n" % (len(word), word) for word in words
        ])


class Command:
    """A command that goes to the server of a key."""

    __slots__ = ("_words", "in_full", "keys")

    def __init__(self, key: bytes, *words: bytes) -> None:
        self.keys = [key]
        self.in_full = False
        self._words = words

    def packed(self) -> bytes:
        return packed(*self._words)


AnyCall = Call | Command


def slot_of(key: bytes) -> int:
    """The slot of a key in a cluster: that of its hash tag, if it has one."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return crc_hqx(key[start + 1 : end] if end > start + 1 else key, 0) % _SLOTS


class Single:
    """One server, always the same."""

    def __init__(self, settings: Settings) -> None:
        (self.server,) = settings.servers

    def find(self, key: bytes) -> Steps:
        """The server for a key."""
        return self.server
        yield  # others have to ask

    def known(self, key: bytes) -> Server | None:
        """The server for a key, if nothing has to be asked for that."""
        return self.server

    def moved(self, key: bytes, address: tuple[str, int]) -> Server:
        """The server to which a key has moved."""
        raise Unsent(f"{self.server} is part of a cluster: the client must be one of a cluster")

    def at(self, address: tuple[str, int]) -> Server:
        """The server at an address."""
        return self.server.at(address)

    def doubt(self, server: Server) -> bool:
        """Take note that a server failed or is no master; whether the key may be at another one."""
        return False


class Elected(Single):
    """The master that the sentinels name."""

    def __init__(self, settings: Settings) -> None:
        self._sentinels = list(settings.servers)
        self._name = settings.name.encode()
        assert settings.master is not None
        self.server = settings.master
        self._known = False
        self._asked = -1.0
        self._busy_until = 0.0

    def known(self, key: bytes) -> Server | None:
        return self.server if self._known else None

    def find(self, key: bytes) -> Steps:
        """One call asks, and others wait for what it learns."""
        while not self._known and monotonic() < self._busy_until:
            yield Pause(_TURN)
        if self._known:
            return self.server
        self._busy_until = monotonic() + _LONGEST_TURN
        try:
            return (yield from self._ask())
        finally:
            self._busy_until = 0.0

    def _ask(self) -> Steps:
        for sentinel in self._sentinels:
            try:
                command = packed(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._name)
                (reply,) = yield Send(sentinel, [command], 1, _SHARE)
            except (Unsent, Unanswered):
                continue
            if isinstance(reply, list) and len(reply) == 2:
                self.server = self.server.at((reply[0].decode(), int(reply[1])))
                self._known = True
                others = [each for each in self._sentinels if each is not sentinel]
                self._sentinels = [sentinel, *others]  # the one that responds is asked first
                return self.server
        raise Lost(f"no sentinel knows a master called {self._name.decode()!r}")

    def doubt(self, server: Server) -> bool:
        now, before = monotonic(), self._asked
        self._known = False
        self._asked = now
        return now - before > _REFRESH_PAUSE


class Cluster(Single):
    """The masters of a cluster, each with its slots."""

    def __init__(self, settings: Settings) -> None:
        self._first = list(settings.servers)
        self._remap = settings.remap
        self._last: list[Server] = []
        self.server = self._first[0]
        self._slots: list[Server | None] = []
        self._doubted: Server | None = None
        self._asked = -1.0
        self._busy_until = 0.0

    def known(self, key: bytes) -> Server | None:
        return self._owner(slot_of(key))

    def find(self, key: bytes) -> Steps:
        """One call asks, and others wait for what it learns."""
        slot = slot_of(key)
        while (server := self._owner(slot)) is None and monotonic() < self._busy_until:
            yield Pause(_TURN)
        if server is None and (not self._slots or self._is_due()):
            self._busy_until = monotonic() + _LONGEST_TURN
            try:
                server = (yield from self._refresh())[slot]
            finally:
                self._busy_until = 0.0
        if server is None:
            raise Unsent(f"no server of the cluster has slot {slot}")
        return server

    def _owner(self, slot: int) -> Server | None:
        slots = self._slots
        return slots[slot] if slots else None

    def _is_due(self) -> bool:
        """Whether the servers may be asked again which has which slots."""
        now, before = monotonic(), self._asked
        if now - before <= _REFRESH_PAUSE:
            return False
        self._asked = now
        return True

    def _refresh(self) -> Steps:
        """Ask any server which has which slots, one in doubt last."""
        known = dict.fromkeys([*self._last, *self._first])
        for server in sorted(known, key=self._doubted.__eq__ if self._doubted else lambda _: False):
            try:
                (reply,) = yield Send(server, [packed(b"CLUSTER", b"SLOTS")], 1, _SHARE)
            except (Unsent, Unanswered):
                continue
            if isinstance(reply, list) and reply:
                return self._learn(server, reply)
        raise Lost("no server of the cluster says which has which slots")

    def _learn(self, asked: Server, ranges: list[Any]) -> list[Server | None]:
        slots: list[Server | None] = [None] * _SLOTS
        for first, last, master, *_ in ranges:
            host = master[0].decode() if master[0] else asked.address[0]
            server = self.at((host, int(master[1])))
            slots[first : last + 1] = [server] * (last + 1 - first)
        self._slots = slots
        self._last = [server for server in dict.fromkeys(slots) if server is not None]
        self._doubted = None
        return slots

    def at(self, address: tuple[str, int]) -> Server:
        return self.server.at(self._remap(address))

    def moved(self, key: bytes, address: tuple[str, int]) -> Server:
        server = self.at(address)
        slots = self._slots.copy()
        if slots:
            slots[slot_of(key)] = server
            self._slots = slots
        return server

    def doubt(self, server: Server) -> bool:
        self._doubted = server
        is_due = self._is_due()
        if is_due:
            self._slots = []
        return is_due


ROUTES = {"single": Single, "sentinel": Elected, "cluster": Cluster}


class Attempt:
    """One call on its way: the server, and whether it is asked for a slot that is being moved to it."""

    __slots__ = ("asking", "call", "index", "server", "tries")

    def __init__(self, index: int, call: AnyCall) -> None:
        self.index = index
        self.call = call
        self.server: Server | None = None
        self.asking = False
        self.tries = 0


def attempt(routes: Single, calls: Sequence[AnyCall], counts: Any) -> Steps:
    """The replies to all calls; among them errors of servers, and Unsent or Unanswered where there is none.

    Calls for one server keep their order and go out at once, and those for all servers together.
    """
    replies: list[Any] = [None] * len(calls)
    todo = [Attempt(index, call) for index, call in enumerate(calls)]
    while todo:
        batches = yield from _batches(routes, todo, replies)
        outcomes = yield Together([
            Send(server, list(map(_command, batch)), len(batch) + sum([each.asking for each in batch]))
            for server, batch in batches.items()
        ])
        todo, waiting = [], []
        for (server, batch), outcome in zip(batches.items(), outcomes, strict=True):
            if isinstance(outcome, Exception):
                again, waits = _unsent(routes, server, batch, outcome, replies), False
            else:
                again, waits = _sort(routes, batch, outcome, replies, counts)
            todo += again
            if waits:
                waiting.append(server)
        counts.resent(len(todo))
        if waiting:
            try:
                yield Pause(_PAUSE, *waiting)
            except Unsent as error:
                return _failed(todo, error, replies)
    return replies


def _batches(routes: Single, todo: list[Attempt], replies: list[Any]) -> Steps:
    """What goes to which server; a call for which none is found fails."""
    batches: dict[Server, list[Attempt]] = {}
    lost: Lost | None = None
    for each in todo:
        if each.server is None and lost is None:
            try:
                each.server = yield from routes.find(each.call.keys[0])
            except Lost as error:
                lost = error
            except Unsent as error:
                replies[each.index] = error
                continue
        if each.server is None:
            replies[each.index] = lost
        else:
            batches.setdefault(each.server, []).append(each)
    return batches


def _unsent(
    routes: Single, server: Server, batch: list[Attempt], error: Exception, replies: list[Any]
) -> list[Attempt]:
    """What has to be sent again: all of which nothing was sent, if another server may be the right one."""
    if not routes.doubt(server) or not isinstance(error, Unsent):
        _failed(batch, error, replies)
        return []
    for each in batch:
        each.server = None
    return batch


def _failed(batch: Sequence[Attempt], error: Exception, replies: list[Any]) -> list[Any]:
    """The replies, with this error for each of these calls."""
    for each in batch:
        replies[each.index] = error
    return replies


def _command(each: Attempt) -> bytes:
    return _ASKING + each.call.packed() if each.asking else each.call.packed()


def _sort(
    routes: Single, batch: list[Attempt], found: list[Any], replies: list[Any], counts: Any
) -> tuple[list[Attempt], bool]:
    """What has to be sent again, and whether not at once; the rest goes to `replies`."""
    again, waits, position = [], False, 0
    for each in batch:
        position += each.asking
        reply = found[position]
        position += 1
        if not proves_nothing_ran(reply):
            replies[each.index] = reply
            continue
        try:
            _redirect(routes, each, reply, counts)
        except Unsent as error:
            replies[each.index] = error
            continue
        again.append(each)
        each.tries += 1
        waits |= reply.kind in _WAITING or each.tries > 3
    return again, waits


def serves(replies: Sequence[Any]) -> bool:
    """Whether the server that replied so does what it is there for."""
    return not any(isinstance(reply, ReplyError) and reply.kind in _WAITING for reply in replies)


def proves_nothing_ran(reply: Any) -> bool:
    """Whether a reply means that its command may be sent again."""
    return isinstance(reply, ReplyError) and reply.kind in _NOTHING_RAN


def _redirect(routes: Single, each: Attempt, reply: ReplyError, counts: Any) -> None:
    """Set where and how a call is sent again."""
    each.asking = False
    kind = reply.kind
    if kind == "NOSCRIPT":
        each.call.in_full = True
        counts.reloaded()
    elif kind == "MOVED":
        each.server = routes.moved(each.call.keys[0], _address(reply, each.server))
    elif kind == "ASK":
        each.server = routes.at(_address(reply, each.server))
        each.asking = True
    elif kind == "TRYAGAIN":
        each.asking = True
    elif kind != "LOADING":
        if each.server is not None:
            routes.doubt(each.server)
        each.server = None


def _address(reply: ReplyError, asked: Server | None) -> tuple[str, int]:
    """The address in ``MOVED slot host:port``; without a host it is that of the server that was asked."""
    host, _, port = str(reply).split(" ")[2].rpartition(":")
    if not host and asked is not None:
        host = asked.address[0]
    return host, int(port)
