"""A near cache for threads: `NearCache`."""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress
from functools import partial
from time import monotonic, monotonic_ns

from headgate._base.forks import new_lock
from headgate.adapters.redis._calls import Command
from headgate.adapters.redis._connections import Connection
from headgate.adapters.redis._near_store import (
    ABSENT,
    MISSED,
    NOWHERE,
    Front,
    SigningStore,
    Tracker,
)
from headgate.adapters.redis._near_wire import Demoted
from headgate.adapters.redis._replies import ReplyError
from headgate.cache._flights import Flights
from headgate.errors import StoreError
from headgate.near._settings import key_name, key_on_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping
    from typing import Any, Literal, Self

    from headgate.adapters.redis._settings import Server
    from headgate.near import NearEntry

_READ = 65536


class _Tracked(Connection):
    """A connection whose messages are read as they come."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self, seconds: float) -> bytes | None:
        """What came, empty at the end, None if nothing came in so many seconds."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            return self._socket.recv(_READ)
        except TimeoutError:
            return None

    def interrupt(self) -> None:
        """End what another thread waits for."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class _Thread(Tracker):
    """A tracker that is a daemon thread."""

    __slots__ = ("_connection", "_lock", "_pause", "_stop", "_thread", "_timeout")

    def __init__(self, table: NearCache, server: Server) -> None:
        super().__init__(table, server)
        self._lock = new_lock()
        self._stop = threading.Event()
        self._connection: _Tracked | None = None
        self._timeout, self._pause = table.timeout, table.heartbeat / 1e9
        self._thread = threading.Thread(target=self._run, name=f"headgate near {server}", daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        return self._thread.is_alive() and not self._stop.is_set()

    def flush(self) -> None:
        with self._lock:
            super().flush()

    def end(self) -> None:
        """Stop reading."""
        self._stop.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()
        if self._thread is not threading.current_thread():
            self._thread.join(self._timeout + self._pause)

    def _run(self) -> None:
        """Read the connection, and open it again as long as misses want it; end with the cache."""
        try:
            while self.is_wanted and not self._stop.is_set():
                self.is_wanted = False
                try:
                    self._listen()
                except Demoted:
                    self.doubt()
                    self._stop.wait(self._pause)
                except (OSError, ReplyError, UnicodeError):
                    self._stop.wait(self._pause)
        except ReferenceError:  # the cache is gone
            pass

    def _listen(self) -> None:
        connection = self._connection = _Tracked(self.server, monotonic() + self._timeout)
        try:
            session = self.session()
            connection.write(session.start(monotonic_ns()))
            while not self._stop.is_set():
                data = connection.read(min(session.wait(monotonic_ns()), self._pause))
                with self._lock:
                    if data is not None:
                        session.received(data, monotonic_ns())
                    out = session.due(monotonic_ns())
                if out:
                    connection.write(out)
        finally:
            self._connection = None
            connection.close()
            with self._lock:
                self.source.lost()


class NearCache(Front):
    """Values of Redis or Valkey in this process: a hit costs no round trip, and its age is bounded.

    A background thread listens to each master for what changes below the `prefixes`; other keys are passed
    through. A hit is served only if its value was fetched less than `ttl` seconds ago, its key has not been
    announced since, and its server was heard of within `max_stale` seconds, by a heartbeat every `heartbeat`
    seconds. So it is at most min(ttl, max_stale) seconds behind the server that owns the key, and at most
    `ttl` if that server was isolated or no longer the owner. Keys found absent are remembered for
    `negative_ttl` seconds.

    Values are bytes, or whatever `dumps` makes bytes of and `loads` makes of them; a hit returns the same
    object each time. `cache` is an empty cache that is safe among threads, by default an ``LRUCache`` of
    10,000 entries. `client` is a synchronous client of redis-py or valkey-py for one server, Sentinel or a
    cluster, of which only the settings are used. A call takes at most `timeout` seconds; if it fails, ``get``
    returns its default, ``get_or_load`` calls the loader and writes return False. With ``on_error="raise"``
    all of them raise `StoreError`. A child of a fork starts empty.

    Raises ValueError if `prefixes` is empty or not disjoint, `heartbeat` is not less than half of `max_stale`
    or another argument is out of its range; TypeError if one has the wrong type.

    >>> from redis import Redis
    >>> cache = NearCache(Redis(), prefixes=["user:"])
    >>> cache.prefixes
    ('user:',)
    >>> cache.close()
    """

    def __init__(self, client: Any, cache: MutableMapping[str, NearEntry] | None = None, *,
                 prefixes: Iterable[str | bytes], ttl: float = 60, max_stale: float = 2.0,
                 heartbeat: float = 0.25, negative_ttl: float = 0,
                 dumps: Callable[[Any], bytes] | None = None, loads: Callable[[bytes], Any] | None = None,
                 timeout: float = 0.25, on_error: Literal["bypass", "raise"] = "bypass") -> None:
        self._fetches, self._starting = Flights(), new_lock()
        super().__init__(
            client, SigningStore, cache, prefixes=prefixes, ttl=ttl, max_stale=max_stale, heartbeat=heartbeat,
            negative_ttl=negative_ttl, dumps=dumps, loads=loads, timeout=timeout, on_error=on_error)
        weakref.finalize(self, self.store_of_calls.close).atexit = False

    def _tracked(self, server: Server) -> _Thread:
        with self._starting:
            tracker = self._trackers.get(server)
            if tracker is None or not tracker.is_running():
                tracker = _Thread(self, server)
                if self._is_closed:
                    tracker.end()
                else:
                    self._trackers[server] = tracker
            return tracker

    def _fetch(self, key: str | bytes, default: Any) -> Any:
        value = self._found(key)
        return default if value is ABSENT or value is MISSED else value

    def _found(self, key: str | bytes) -> Any:
        """The value at the server; ABSENT if it has none, MISSED if it failed."""
        wire = key_on_wire(key)
        entry = self._begin(wire)
        try:
            if self.is_fresh(entry.epoch):  # what was read before a change that is known is not shared
                return self._fetches.load(NOWHERE, entry, partial(self._fetched, entry, wire))
            return self._fetched(entry, wire)
        except StoreError as error:
            self._failed(error)
            return MISSED
        finally:
            self.end(entry)

    def _fetched(self, entry: NearEntry, wire: bytes) -> Any:
        return self._kept(entry, *self.store_of_calls.call_all(self._reads(wire)))

    def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, Any]:
        """Returns the values of the keys that have one; those not here cost one round trip to all servers.

        >>> from redis import Redis
        >>> with NearCache(Redis(), prefixes=["user:"]) as cache:
        ...     cache.get_many([])
        {}
        """
        values, entries = self._at_hand(keys)
        try:
            if entries:
                replies = self.store_of_calls.call_all(self._reads_of(entries))
                self._kept_of(entries, replies, values)
        except StoreError as error:
            self._failed(error)
        finally:
            for entry, _ in entries.values():
                self.end(entry)
        return {key: value for key, value in values.items() if value is not ABSENT}

    def get_or_load(self, key: str | bytes, loader: Callable[[str | bytes], Any], *,
                    ttl: float | None = None) -> Any:
        """Returns the value of `key`, or what ``loader(key)`` returns, which is written for `ttl` seconds.

        Threads that miss the same key wait for one loader. The result is not written if the key was written
        or deleted meanwhile, or if the server did not respond. Raises what the loader raises.

        >>> from redis import Redis
        >>> with NearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...     cache.get_or_load("user:1", lambda key: b"loaded")
        b'loaded'
        """
        value = self.peek(key, MISSED, ABSENT)
        if value is MISSED or value is ABSENT:
            name = key_name(key)
            return self._loading.load(NOWHERE, name, partial(self._loaded, name, key, loader, ttl))
        return value

    def _loaded(self, name: str, key: str | bytes, loader: Callable[[str | bytes], Any],
                ttl: float | None) -> Any:
        life = self._life(ttl)
        load = self._under_way[name] = object()
        try:
            found = self._found(key)
            if found is not ABSENT and found is not MISSED:
                return found
            value = loader(key)
            if found is ABSENT and self._is_loading(name, load):
                self._written(key, self._write(key, value, [*life, b"NX"]))
            return value
        finally:
            if self._is_loading(name, load):
                self._under_way.pop(name, None)

    def set(self, key: str | bytes, value: Any, *, ttl: float | None = None) -> bool:
        """Writes a value to the server, for `ttl` seconds if given; returns whether it is known to be there.

        It is not kept here: the next ``get`` fetches it. After a timeout it may have been written.

        >>> from redis import Redis
        >>> with NearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...     cache.set("user:1", b"Ann")
        False
        """
        return self._written(key, self._write(key, value, self._life(ttl))) is not None

    def delete(self, key: str | bytes) -> bool:
        """Deletes `key` at the server; returns whether it is known to have been there.

        >>> from redis import Redis
        >>> with NearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...     cache.delete("user:1")
        False
        """
        wire = key_on_wire(key)
        return bool(self._written(key, Command(wire, b"DEL", wire)))

    def _written(self, key: str | bytes, command: Command) -> Any:
        """The reply to a write, None if there is none."""
        self.drop(key)
        try:
            return self.store_of_calls.call(command)
        except StoreError as error:
            self._failed(error)
            return None
        finally:
            self.drop(key)

    def close(self) -> None:
        """Ends the threads and closes the connections; later calls go to the server, and nothing is kept.

        >>> from redis import Redis
        >>> NearCache(Redis(), prefixes=["user:"]).close()
        """
        with self._starting:
            self._is_closed = True
            trackers, self._trackers = self._trackers, {}
        for tracker in trackers.values():
            tracker.end()
        self.store_of_calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()
