"""What the near caches of threads and of event loops have in common."""

from __future__ import annotations

import weakref
from functools import partial

from headgate._base.checks import checked_iterable
from headgate.adapters.redis._calls import Command, Send
from headgate.adapters.redis._near_wire import Session, run_id_of
from headgate.adapters.redis._replies import ReplyError, packed
from headgate.adapters.redis._stores import AsyncStore, Servers, Store
from headgate.cache._flights import Flights
from headgate.errors import StoreError
from headgate.near import NearSource, NearTable
from headgate.near._settings import checked_seconds, key_name, key_on_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping
    from typing import Any

    from headgate.adapters.redis._settings import Server
    from headgate.near import NearEntry, NearEpoch

    Entries = dict[str | bytes, tuple[NearEntry, bytes]]

ABSENT: Any = object()
MISSED: Any = object()
_ASKING = packed(b"ASKING")
_IDENTITY = packed(b"INFO", b"server")


class _Signed(bytes):
    """A command whose reply is wanted with the identity of the server."""

    __slots__ = ()


class Get(Command):
    """A GET whose reply, unless it was asked for in the middle of a migration, is a `Found`."""

    __slots__ = ()

    def __init__(self, key: bytes) -> None:
        super().__init__(key, b"GET", key)

    def packed(self) -> bytes:
        return _Signed(super().packed())


class Found:
    """A value, or None, and the server from which it is."""

    __slots__ = ("run_id", "value")

    def __init__(self, value: bytes | None, run_id: str | None) -> None:
        self.value = value
        self.run_id = run_id


class _Signing(Servers):
    """A store that says from which server a value is."""

    __slots__ = ()

    def _prepared(self, step: Send) -> Send:
        if not any(isinstance(command, _Signed) for command in step.commands):
            return step
        return Send(step.server, [*step.commands, _IDENTITY], step.count + 1, step.share)

    def _finished(self, step: Send, replies: list[Any]) -> list[Any]:
        if len(replies) == step.count:
            return replies
        run_id, at = run_id_of(replies.pop()), 0
        for command in step.commands:
            if isinstance(command, _Signed) and not isinstance(replies[at], ReplyError):
                replies[at] = Found(replies[at], run_id)
            at += 2 if command.startswith(_ASKING) else 1
        return replies


class SigningStore(_Signing, Store):
    """That for threads."""

    __slots__ = ()


class AsyncSigningStore(_Signing, AsyncStore):
    """That for event loops."""

    __slots__ = ()


class Tracker:
    """One server whose announcements are read in the background, as long as misses ask for it."""

    __slots__ = ("is_wanted", "server", "session", "source", "table")

    def __init__(self, table: Front, server: Server) -> None:
        self.table: Front = weakref.proxy(table)
        self.source = NearSource(self.table)
        self.session = partial(Session, self.source, table.wire_prefixes, table.heartbeat, table.patience)
        self.server = server
        self.is_wanted = True

    @property
    def epoch(self) -> NearEpoch | None:
        return self.source.epoch

    def doubt(self) -> None:
        """Have the master looked for anew: the server is none."""
        self.table.store_of_calls.routes.doubt(self.server)

    def is_running(self) -> bool:
        """Whether someone reads the connection, or tries to open it."""
        raise NotImplementedError

    def flush(self) -> None:
        """Drop all that came from the server."""
        self.source.invalidated(None)


def same(value: Any) -> bytes:
    """A value as it is sent without ``dumps``: bytes."""
    if not isinstance(value, bytes):
        raise TypeError(f"value must be bytes, or dumps and loads must be given, got {value!r}")
    return bytes(value)


def checked_serializer(dumps: Any, loads: Any) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Both functions, or those for bytes."""
    if dumps is None and loads is None:
        return same, bytes
    for name, function in (("dumps", dumps), ("loads", loads)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, as the other one is, got {function!r}")
    return dumps, loads


class Front(NearTable):
    """What is neither of threads nor of event loops."""

    _trackers: dict[Server, Any]
    store_of_calls: Any

    def __init__(self, client: Any, store: Any, cache: MutableMapping[str, NearEntry] | None, *,
                 prefixes: Iterable[str | bytes], ttl: float, max_stale: float, heartbeat: float,
                 negative_ttl: float, dumps: Callable[[Any], bytes] | None,
                 loads: Callable[[bytes], Any] | None, timeout: float, on_error: str) -> None:
        if on_error not in ("bypass", "raise"):
            raise ValueError(f'on_error must be "bypass" or "raise", got {on_error!r}')
        beat = checked_seconds("heartbeat", heartbeat)
        if 2 * beat >= checked_seconds("max_stale", max_stale):
            raise ValueError(f"heartbeat must be less than half of max_stale, got {heartbeat!r}")
        self._dumps, self._loads = checked_serializer(dumps, loads)
        names = list(checked_iterable("prefixes", prefixes))
        self.store_of_calls, self._raises = store(client, timeout), on_error == "raise"
        self.heartbeat, self.timeout = beat, float(timeout)
        self._trackers, self._is_closed = {}, False
        self._loading = Flights()
        self._under_way: dict[str, object] = {}  # the loads whose results may be written
        super().__init__(cache, prefixes=names, ttl=ttl, max_stale=max_stale, negative_ttl=negative_ttl)
        self.wire_prefixes = [prefix.encode("utf-8", "surrogateescape") for prefix in self.prefixes]
        self.patience = max(self.max_stale_ns // 2, round(self.timeout * 1e9))
        self._topology = self._seen()

    def _renew(self) -> None:
        """In the child of a fork nobody reads the connections, which are the parent's."""
        super()._renew()
        self._trackers, self._under_way = {}, {}

    def drop(self, key: str | bytes) -> None:
        super().drop(key)
        name = key_name(key)
        if self._under_way.pop(name, None) is not None:
            self._loading.drop(name)

    # ---- which server announces a key -------------------------------------------------------

    def _seen(self) -> object:
        """What was last learnt of the servers: another object, or unequal, once something else is."""
        routes = self.store_of_calls.routes
        return getattr(routes, "_slots", routes.server)

    def _watch_topology(self) -> None:
        """Drop everything if keys are at other servers than before."""
        seen = self._seen()
        if seen is not self._topology:
            changed, self._topology = seen != self._topology, seen
            if changed:
                for tracker in list(self._trackers.values()):
                    tracker.flush()

    def _begin(self, wire: bytes) -> NearEntry:
        """The entry for a fetch of a key, in the epoch of its server if that one is listened to."""
        self._watch_topology()
        if self._is_closed or not self.covers(wire):
            return self.begin(wire)
        server = self.store_of_calls.routes.known(wire)
        return self.begin(wire, None if server is None else self._listened(server).epoch)

    def _listened(self, server: Server) -> Any:
        """The tracker of a server, which runs unless the cache is closed."""
        tracker = self._trackers.get(server)
        if tracker is None or not tracker.is_running():
            tracker = self._tracked(server)
        tracker.is_wanted = True
        return tracker

    def _tracked(self, server: Server) -> Any:
        """A tracker that is started now."""
        raise NotImplementedError

    # ---- replies ----------------------------------------------------------------------------

    @staticmethod
    def _reads(wire: bytes) -> list[Command]:
        """A value and what is left of its life."""
        return [Get(wire), Command(wire, b"PTTL", wire)]

    def _kept(self, entry: NearEntry, found: Any, left: Any) -> Any:
        """The value in these replies, which is kept if it may be."""
        for reply in (found, left):
            if isinstance(reply, StoreError):
                raise reply
        self._watch_topology()
        run_id = found.run_id if isinstance(found, Found) else None
        raw = found.value if isinstance(found, Found) else found
        if raw is None:
            if run_id is not None:
                self.store_absence(entry, run_id)
            return ABSENT
        value = self._loads(raw)
        if run_id is not None and left != -2:
            self.store(entry, value, run_id, None if left == -1 else left)
        return value

    def _at_hand(self, keys: Iterable[str | bytes]) -> tuple[dict[str | bytes, Any], Entries]:
        """What is here of these keys, and the entries of the others, each key once."""
        named = {key_name(key): key for key in checked_iterable("keys", keys)}
        values: dict[str | bytes, Any] = {}
        entries: Entries = {}
        for key in named.values():
            values[key] = self.peek(key, MISSED, ABSENT)
        missed = [(key, key_on_wire(key)) for key, value in values.items() if value is MISSED]
        for key, wire in missed:
            values[key] = ABSENT
            entries[key] = self._begin(wire), wire
        return values, entries

    def _reads_of(self, entries: Entries) -> list[Command]:
        return [call for _, wire in entries.values() for call in self._reads(wire)]

    def _kept_of(self, entries: Entries, replies: list[Any], values: dict[str | bytes, Any]) -> None:
        """Puts into `values` what the replies say."""
        failure = None
        for number, (key, (entry, _)) in enumerate(entries.items()):
            try:
                values[key] = self._kept(entry, *replies[2 * number : 2 * number + 2])
            except StoreError as error:
                failure = error
        if failure is not None:
            raise failure

    @staticmethod
    def _life(ttl: float | None) -> list[bytes]:
        """The words of a SET for a life of so many seconds."""
        return [] if ttl is None else [b"PX", b"%d" % max(1, checked_seconds("ttl", ttl) // 1_000_000)]

    def _write(self, key: str | bytes, value: Any, options: list[bytes]) -> Command:
        """A SET of a value."""
        wire = key_on_wire(key)
        return Command(wire, b"SET", wire, self._dumped(value), *options)

    def _dumped(self, value: Any) -> bytes:
        made = self._dumps(value)
        if not isinstance(made, bytes):
            raise TypeError(f"dumps must return bytes, got {made!r}")
        return bytes(made)

    def _is_loading(self, name: str, load: object) -> bool:
        """Whether the key has not been dropped since this load began."""
        return self._under_way.get(name) is load

    def _failed(self, error: StoreError) -> None:
        """Counts an error, and raises it if that was chosen."""
        self.count_error()
        if self._raises:
            raise error


class Nowhere:
    """The store of flights whose results are kept elsewhere."""

    __slots__ = ()

    def peek(self, key: object, default: Any = None) -> Any:
        return default

    def put(self, key: object, value: object) -> None:
        """Keep nothing."""

    def pop(self, key: object, default: Any = None) -> Any:
        return default


NOWHERE = Nowhere()
