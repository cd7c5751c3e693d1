"""A near cache for tasks: `AsyncNearCache`."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from inspect import isawaitable
from time import monotonic_ns

from headgate._base.forks import new_lock
from headgate.adapters.redis._calls import Command
from headgate.adapters.redis._near_store import (
    ABSENT,
    MISSED,
    NOWHERE,
    AsyncSigningStore,
    Front,
    Tracker,
)
from headgate.adapters.redis._near_wire import Demoted, Messages
from headgate.adapters.redis._replies import ReplyError
from headgate.cache._flights import Flights
from headgate.errors import StoreError
from headgate.near import NearTable
from headgate.near._settings import key_name, key_on_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping
    from typing import Any, Literal, Self

    from headgate.adapters.redis._settings import Server
    from headgate.near import NearEntry

_READ = 65536


async def _connected(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that is logged in."""
    if server.path is not None:
        reader, writer = await asyncio.open_unix_connection(server.path)
    else:
        host, port = server.address
        tls = server.login.tls
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, server_hostname=host if tls is not None else None)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for command in await server.login.commands_async():
            writer.write(command)
            await _logged_in(reader)
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _logged_in(reader: asyncio.StreamReader) -> None:
    """Read one reply; raises it if it is an error."""
    messages = Messages()
    found: list[Any] = []
    while not found:
        data = await reader.read(_READ)
        if not data:
            raise ConnectionResetError("connection closed by the server")
        found = messages.feed(data)
    if isinstance(found[0], ReplyError):
        raise found[0]


async def _read(reader: asyncio.StreamReader, seconds: float) -> bytes | None:
    """What came, empty at the end, None if nothing came in so many seconds."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await reader.read(_READ)
    except TimeoutError:
        if limit.expired():
            return None
        raise


class _Task(Tracker):
    """A tracker that is a task of the running loop."""

    __slots__ = ("_is_abandoned", "_lock", "_loop", "_pause", "_task", "_timeout")

    def __init__(self, table: AsyncNearCache, server: Server) -> None:
        super().__init__(table, server)
        self._timeout, self._pause = table.timeout, table.heartbeat / 1e9
        self._lock, self._is_abandoned = new_lock(), False
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name=f"headgate near {server}")

    def is_running(self) -> bool:
        if self._loop is not asyncio.get_running_loop():
            self._abandon()
            return False
        return not self._task.done()

    def _abandon(self) -> None:
        """Let the task end by itself, and all that it has kept fresh now: its loop may never run again."""
        with self._lock:
            self._is_abandoned = True
            self.source.lost()

    def flush(self) -> None:
        with self._lock:
            super().flush()

    async def end(self) -> None:
        """Stop reading."""
        if self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.wait([self._task])
        else:
            self._abandon()

    async def _run(self) -> None:
        """Read the connection, and open it again as long as misses want it; end with the cache."""
        try:
            while self.is_wanted and not self._is_abandoned:
                self.is_wanted = False
                try:
                    await self._listen()
                except Demoted:
                    self.doubt()
                    await asyncio.sleep(self._pause)
                except (OSError, ReplyError, UnicodeError):
                    await asyncio.sleep(self._pause)
        except ReferenceError:  # the cache is gone
            pass

    async def _listen(self) -> None:
        async with asyncio.timeout(self._timeout):
            reader, writer = await _connected(self.server)
        try:
            session = self.session()
            writer.write(session.start(monotonic_ns()))
            while True:
                data = await _read(reader, min(session.wait(monotonic_ns()), self._pause))
                with self._lock:
                    if self._is_abandoned:
                        break
                    if data is not None:
                        session.received(data, monotonic_ns())
                    out = session.due(monotonic_ns())
                writer.write(out)
        finally:
            writer.transport.abort()
            with self._lock:
                self.source.lost()


class AsyncNearCache(Front):
    """`NearCache` for tasks: its methods are coroutines, and a task of the running loop listens.

    Arguments, guarantees and errors are those of ``NearCache``; `client` may be an asynchronous one. The
    cache is for one event loop at a time: in another one it starts to listen anew.

    >>> import asyncio
    >>> from redis.asyncio import Redis
    >>> async def main():
    ...     async with AsyncNearCache(Redis(port=1), prefixes=["user:"]) as cache:
    ...         return await cache.get("user:1", "nothing")
    >>> asyncio.run(main())
    'nothing'
    """

    def __init__(self, client: Any, cache: MutableMapping[str, NearEntry] | None = None, *,
                 prefixes: Iterable[str | bytes], ttl: float = 60, max_stale: float = 2.0,
                 heartbeat: float = 0.25, negative_ttl: float = 0,
                 dumps: Callable[[Any], bytes] | None = None, loads: Callable[[bytes], Any] | None = None,
                 timeout: float = 0.25, on_error: Literal["bypass", "raise"] = "bypass") -> None:
        self._fetches = Flights()
        super().__init__(
            client, AsyncSigningStore, cache, prefixes=prefixes, ttl=ttl, max_stale=max_stale,
            heartbeat=heartbeat, negative_ttl=negative_ttl, dumps=dumps, loads=loads, timeout=timeout,
            on_error=on_error)

    def _tracked(self, server: Server) -> _Task:
        tracker = self._trackers[server] = _Task(self, server)
        return tracker

    get = NearTable._aget

    async def _afetch(self, key: str | bytes, default: Any) -> Any:
        value = await self._found(key)
        return default if value is ABSENT or value is MISSED else value

    async def _found(self, key: str | bytes) -> Any:
        """The value at the server; ABSENT if it has none, MISSED if it failed."""
        wire = key_on_wire(key)
        entry = self._begin(wire)
        try:
            if self.is_fresh(entry.epoch):  # what was read before a change that is known is not shared
                fetch = partial(self._fetched, entry, wire)
                return await self._fetches.load_async(NOWHERE, entry, fetch)
            return await self._fetched(entry, wire)
        except StoreError as error:
            self._failed(error)
            return MISSED
        finally:
            self.end(entry)

    async def _fetched(self, entry: NearEntry, wire: bytes) -> Any:
        return self._kept(entry, *await self.store_of_calls.call_all(self._reads(wire)))

    async def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, Any]:
        """Returns the values of the keys that have one; those not here cost one round trip to all servers.

        >>> import asyncio
        >>> from redis.asyncio import Redis
        >>> async def main():
        ...     async with AsyncNearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...         return await cache.get_many(["user:1", "user:2"])
        >>> asyncio.run(main())
        {}
        """
        values, entries = self._at_hand(keys)
        try:
            if entries:
                replies = await self.store_of_calls.call_all(self._reads_of(entries))
                self._kept_of(entries, replies, values)
        except StoreError as error:
            self._failed(error)
        finally:
            for entry, _ in entries.values():
                self.end(entry)
        return {key: value for key, value in values.items() if value is not ABSENT}

    async def get_or_load(self, key: str | bytes, loader: Callable[[str | bytes], Any], *,
                          ttl: float | None = None) -> Any:
        """Returns the value of `key`, or what ``loader(key)`` returns, which is written for `ttl` seconds.

        The loader may be a coroutine function. Tasks that miss the same key wait for one loader. The result
        is not written if the key was written or deleted meanwhile, or if the server did not respond. Raises
        what the loader raises.

        >>> import asyncio
        >>> from redis.asyncio import Redis
        >>> async def main():
        ...     async with AsyncNearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...         return await cache.get_or_load("user:1", lambda key: b"loaded")
        >>> asyncio.run(main())
        b'loaded'
        """
        value = self.peek(key, MISSED, ABSENT)
        if value is MISSED or value is ABSENT:
            name = key_name(key)
            load = partial(self._loaded, name, key, loader, ttl)
            return await self._loading.load_async(NOWHERE, name, load)
        return value

    async def _loaded(self, name: str, key: str | bytes, loader: Callable[[str | bytes], Any],
                      ttl: float | None) -> Any:
        life = self._life(ttl)
        load = self._under_way[name] = object()
        try:
            found = await self._found(key)
            if found is not ABSENT and found is not MISSED:
                return found
            value = loader(key)
            if isawaitable(value):
                value = await value
            if found is ABSENT and self._is_loading(name, load):
                await self._written(key, self._write(key, value, [*life, b"NX"]))
            return value
        finally:
            if self._is_loading(name, load):
                self._under_way.pop(name, None)

    async def set(self, key: str | bytes, value: Any, *, ttl: float | None = None) -> bool:
        """Writes a value to the server, for `ttl` seconds if given; returns whether it is known to be there.

        It is not kept here: the next ``get`` fetches it. After a timeout it may have been written.

        >>> import asyncio
        >>> from redis.asyncio import Redis
        >>> async def main():
        ...     async with AsyncNearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...         return await cache.set("user:1", b"Ann")
        >>> asyncio.run(main())
        False
        """
        return await self._written(key, self._write(key, value, self._life(ttl))) is not None

    async def delete(self, key: str | bytes) -> bool:
        """Deletes `key` at the server; returns whether it is known to have been there.

        >>> import asyncio
        >>> from redis.asyncio import Redis
        >>> async def main():
        ...     async with AsyncNearCache(Redis(port=1), prefixes=["user:"]) as cache:
        ...         return await cache.delete("user:1")
        >>> asyncio.run(main())
        False
        """
        wire = key_on_wire(key)
        return bool(await self._written(key, Command(wire, b"DEL", wire)))

    async def _written(self, key: str | bytes, command: Command) -> Any:
        """The reply to a write, None if there is none."""
        self.drop(key)
        try:
            return await self.store_of_calls.call(command)
        except StoreError as error:
            self._failed(error)
            return None
        finally:
            self.drop(key)

    async def close(self) -> None:
        """Ends the tasks and closes the connections; later calls go to the server, and nothing is kept.

        >>> import asyncio
        >>> from redis.asyncio import Redis
        >>> async def main():
        ...     await AsyncNearCache(Redis(), prefixes=["user:"]).close()
        >>> asyncio.run(main())
        """
        self._is_closed = True
        trackers, self._trackers = self._trackers, {}
        for tracker in trackers.values():
            await tracker.end()
        await self.store_of_calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()
