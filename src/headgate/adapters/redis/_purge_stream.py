"""The log of purges that caches on all hosts follow, as a stream in Redis: `AsyncPurgeStream`.

    {prefix}:purges:head   a hash: epoch, the last number, and the token of that record
    {prefix}:purges        a stream: number-1 -> purge, at, token, before

The epoch is another one after all data were lost. A replica that takes over may lack only the last records,
and give their numbers to others; so each record has a random token and, as `before`, that of the record that
precedes it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from math import ceil
from time import monotonic

from headgate._base.checks import checked_number
from headgate._base.forks import renew
from headgate.adapters.redis._calls import Call, Unanswered, Unsent
from headgate.adapters.redis._keys import Prefix
from headgate.adapters.redis._replies import ReplyError, packed
from headgate.adapters.redis._scripts import Script
from headgate.adapters.redis._stores import AsyncStore
from headgate.adapters.redis._streams import opened
from headgate.httpcache._purge_log import checked_maxlen, purge_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self, SupportsFloat, TypeAlias

    from headgate.adapters.redis._counters import StoreCounts
    from headgate.adapters.redis._settings import Server
    from headgate.adapters.redis._streams import Pipeline
    from headgate.httpcache._purge_log import Batch, Position, Record

    _Row: TypeAlias = tuple[int, bytes, bytes, dict[str, Any]]

LONGEST = 8192
BATCH = 100
_LONGEST_WAIT = 3600
_MOST_KNOWN = 64
_MOVING = frozenset((
    "ASK", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MOVED", "READONLY", "TRYAGAIN", "UNBLOCKED",
))

# A head that is lost, by eviction for example, means that the numbers begin anew. What others have added
# behind the last number is not read, and goes if it is in the way.
_APPEND = Script("""
local head = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'token')
local now = redis.call('TIME')
local at = now[1] .. '.' .. string.format('%06d', now[2])
local epoch, last = head[1], tonumber(head[2] or 0)
if not epoch then
  redis.call('DEL', KEYS[2])
  epoch, last = ARGV[2], 0
end
local number = string.format('%.0f', last + 1)
local function add()
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], number .. '-1', 'purge', ARGV[1], 'at', at,
                     'token', ARGV[2], 'before', head[3] or '')
end
local added = add()
if type(added) == 'table' and string.find(added.err, 'equal or smaller', 1, true) then
  redis.call('DEL', KEYS[2])
  added = add()
end
if type(added) == 'table' then
  return added
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'last', number, 'token', ARGV[2])
return {number, at}
""")
_READ = Script("""
local head = redis.call('HMGET', KEYS[1], 'epoch', 'last', 'token')
if not head[1] then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'last', 0)
  head = {ARGV[3], '0', ''}
end
local first = string.format('%.0f', ARGV[1] + 1) .. '-0'
local last = head[2] or '0'
local rows = redis.call('XRANGE', KEYS[2], first, last .. '-1', 'COUNT', ARGV[2])
return {head[1], last, head[3] or '', rows}
""")


class _Waiters:
    """Connections that may be blocked by a server: an idle one a loop."""

    __slots__ = ("__weakref__", "_idle")

    def __init__(self) -> None:
        self._idle: dict[asyncio.AbstractEventLoop, tuple[Server, Pipeline]] = {}
        renew(self)

    def _renew(self) -> None:
        """In the child of a fork: the connections are the parent's."""
        self._idle = {}

    async def taken(self, server: Server, deadline: float) -> Pipeline:
        """A connection to a server. Raises what ``opened`` raises."""
        owner, pipeline = self._idle.pop(asyncio.get_running_loop(), (None, None))
        if pipeline is not None:
            if owner == server and pipeline.is_usable():
                return pipeline
            pipeline.close()
        return await opened(server, deadline)

    def leave(self, server: Server, pipeline: Pipeline) -> None:
        """Keep a connection for the next one who waits in this loop, unless there is one."""
        for ended in [loop for loop in list(self._idle) if loop.is_closed()]:
            self._idle.pop(ended, None)
        if self._idle.setdefault(asyncio.get_running_loop(), (server, pipeline))[1] is not pipeline:
            pipeline.close()

    def close(self) -> None:
        """Close that of the running loop."""
        _, pipeline = self._idle.pop(asyncio.get_running_loop(), (None, None))
        if pipeline is not None:
            pipeline.close()


class _Chain:
    """What is known of the records of the stream, so that others with their numbers are noticed."""

    __slots__ = ("_epoch", "_forks", "_tokens")

    def __init__(self) -> None:
        self._epoch, self._forks = "", 0
        self._tokens: dict[int, bytes] = {}

    def epoch(self, epoch: str, last: int, token: bytes, rows: Sequence[_Row]) -> str:
        """The epoch after a reply: another one if it contradicts what was known."""
        known = self._tokens
        if epoch != self._epoch:  # also one that comes back: its numbers may be given to others meanwhile
            self._epoch = epoch
            self._forks += 1
            known.clear()
        said = [(last, token)]
        for number, own, before, _ in rows:
            said += (number, own), (number - 1, before)
        if last < max(known, default=0) or any(known.get(number, own) != own for number, own in said):
            self._forks += 1
            known.clear()
        known[last] = token
        if rows:
            known[rows[-1][0]] = rows[-1][1]
        while len(known) > _MOST_KNOWN:
            del known[next(iter(known))]
        return f"{epoch}.{self._forks}"


class AsyncPurgeStream:
    """A log of purges in Redis or Valkey, as a stream, which `AsyncPurges` follows on each host.

    `client` is one of the package redis or valkey, of a server, a master of sentinels, or a cluster; its
    settings are taken. One `prefix` is one log. The latest `maxlen` records are kept, or somewhat more. Times
    of purges are those of the server. A call ends within `timeout` seconds, unless it is to wait for news.
    Followers of one process may share it.

    Raises TypeError or ValueError if an argument is of a wrong type or out of range.

    >>> import asyncio
    >>> from redis.asyncio import Redis
    >>> from headgate.errors import StoreError
    >>> async def main():
    ...     async with AsyncPurgeStream(Redis(port=1), "pages") as log:
    ...         try:
    ...             await log.append(tag="news")
    ...         except StoreError as error:
    ...             return type(error.__cause__).__name__
    >>> asyncio.run(main())
    'ConnectionError'
    """

    __slots__ = ("__weakref__", "_chain", "_keys", "_maxlen", "_store", "_timeout", "_waiters")

    def __init__(self, client: Any, prefix: str = "headgate", *, timeout: SupportsFloat = 0.25,
                 maxlen: int = 10_000) -> None:
        self._store = AsyncStore(client, timeout)
        name = Prefix(prefix)
        stream = f"{name.text}:purges" if name.has_tag else f"{{{name.text}}}:purges"
        self._keys = [f"{stream}:head".encode(), stream.encode()]
        self._maxlen = b"%d" % checked_maxlen(maxlen)
        self._timeout = float(timeout)
        self._chain = _Chain()
        self._waiters = _Waiters()

    async def append(self, url: str | None = None, *, tag: str | None = None, prefix: str | None = None,
                     stale: bool = False) -> Record:
        """Adds a purge, by the arguments of ``HTTPCache.purge``: its number, and what is to be applied.

        Raises what ``HTTPCache.purge`` raises, ValueError for a purge of more than 8,192 bytes as JSON, and
        StoreError; then it may have been added, and can be added again. Complexity: one round trip.
        """
        record = purge_record(url, tag, prefix, stale)
        text = json.dumps(record).encode()
        if len(text) > LONGEST:
            raise ValueError(f"a purge must have at most {LONGEST} bytes as JSON, got {len(text)}")
        token = secrets.token_hex(8).encode()
        number, at = await self._store.call(Call(_APPEND, self._keys, [text, token, self._maxlen]))
        return int(number), {**record, "at": float(at)}

    async def read(self, position: Position | None, wait: SupportsFloat = 0.0) -> Batch:
        """What came after a position, at most 100 records: the epoch, the number of the last one, and the
        records, as ``PurgeFollower.receive`` takes them.

        With `wait` it returns as soon as there are any, or after so many seconds, at most 3,600; for that it
        has a connection of its own. Raises StoreError, at the latest after `wait` and three times `timeout`;
        ValueError or TypeError if `wait` is out of range. Complexity: one round trip, or three.
        """
        seconds = checked_number("wait", wait)
        if not 0 <= seconds <= _LONGEST_WAIT:
            raise ValueError(f"wait must be from 0 to {_LONGEST_WAIT} seconds, got {wait!r}")
        after = 0 if position is None else position[1]
        batch = await self._batch(after)
        if not seconds or batch[2] or batch[:2] != position:
            return batch
        await self._wait(after, seconds)
        return await self._batch(after)

    def counters(self) -> StoreCounts:
        """How many calls were made, failed, and so on."""
        return self._store.counts.read()

    async def close(self) -> None:
        """Close the connections of the running loop; others are opened if they are needed."""
        self._waiters.close()
        await self._store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.close()

    # ---- records ----------------------------------------------------------------------------

    async def _batch(self, after: int) -> Batch:
        fresh = secrets.token_hex(8).encode()
        arguments = [b"%d" % after, b"%d" % BATCH, fresh]
        name, end, token, rows = await self._store.call(Call(_READ, self._keys, arguments))
        found, last = [_row(row) for row in rows if row[0].endswith(b"-1")], int(end)
        epoch = self._chain.epoch(name.decode(), last, token, found)
        if len(rows) == BATCH and found:
            last = found[-1][0]
        return epoch, last, [(number, record) for number, _, _, record in found]

    # ---- waiting ----------------------------------------------------------------------------

    async def _wait(self, after: int, seconds: float) -> None:
        """Wait for a record. Whatever ends that, the log is read next, which shows how things are."""
        server = self._store.routes.known(self._keys[0])
        if server is None:
            return
        pipeline: Pipeline | None = None
        try:
            pipeline = await self._waiters.taken(server, self._store.deadline())
            command = packed(b"XREAD", b"COUNT", b"1", b"BLOCK", b"%d" % ceil(seconds * 1000), b"STREAMS",
                             self._keys[1], b"%d-1" % after)
            (reply,) = await pipeline.send(command, 1, monotonic() + seconds + self._timeout)
            if isinstance(reply, ReplyError):
                raise reply
        except BaseException as error:
            if pipeline is not None:
                pipeline.close()  # its next reply would be a late one
            if isinstance(error, ReplyError) and error.kind not in _MOVING:
                raise self._store.error(error) from self._store.cause(error)
            if not isinstance(error, (OSError, ReplyError, UnicodeError, Unanswered, Unsent)):
                raise
        else:
            self._waiters.leave(server, pipeline)


def _row(row: Any) -> _Row:
    """A record of the stream: its number, its token, that of the one before, and what is to be applied, which
    is nothing if it is no purge.
    """
    name, words = row
    fields = dict(zip(words[::2], words[1::2], strict=True))
    try:
        record = {**json.loads(fields[b"purge"]), "at": float(fields[b"at"])}
    except (KeyError, RecursionError, TypeError, ValueError):
        record = {}
    return int(name.partition(b"-")[0]), fields.get(b"token", b""), fields.get(b"before", b""), record
