"""The near cache's protocol in pure Python.

    pending: key -> entry        cache: key -> entry         an entry's epoch
    "user:1" -> entry a          "user:2" -> entry b         entry b -> epoch 7: fresh until t, open

An entry is made when a key is missed, before the store is asked for it, and is *pending*: whatever drops the
key finds it and kills it, and a killed entry is never served. It is put into the cache with the value that
was fetched, and then *armed*, which gives it a deadline, only if it is still alive. It stays pending until
it is armed, so at no time can an invalidation miss it.

A hit reads three fields and takes no lock: the entry's deadline, the time until which its epoch is fresh, and
whether that epoch is still open. Nothing is unlinked when a connection ends: its epoch is closed, and all
entries of it are dead.

Foreign code - the clock, the methods of a user's cache, its listeners - runs without the lock, which is held
only for steps on dicts of exact str and for the deadlines of entries.
"""

from __future__ import annotations

import sys
from time import monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, renew
from headgate._base.pickling import initialized
from headgate.cache import LRUCache
from headgate.near._settings import (
    _ABSENT,
    checked_cache,
    checked_prefixes,
    checked_seconds,
    key_name,
)
from headgate.near._stats import NearStats

__all__ = ["NearEntry", "NearEpoch", "NearTable"]

_PENDING = -(2**63)
_DEAD = _PENDING + 1
_NEVER = 2**63 - 1
_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
_DEFAULT_SIZE = 10_000


class NearEpoch:
    """A time in which a server announces every change on one connection that has not been interrupted.

    `run_id` is the server's identity, new at each of its starts. `NearTable.open_epoch` makes epochs.

    >>> NearEpoch("run id").is_open
    True
    """

    __slots__ = ("_open", "_run_id", "_until")

    def __init__(self, run_id):
        self._run_id = run_id
        self._until = _PENDING
        self._open = True

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it belongs to one connection")

    @property
    def run_id(self):
        """The identity of the server's process.

        >>> NearEpoch("run id").run_id
        'run id'
        """
        return self._run_id

    @property
    def is_open(self):
        """Whether the connection has not ended.

        >>> NearEpoch("run id").is_open
        True
        """
        return self._open

    @property
    def fresh_until(self):
        """The nanoseconds of the table's clock up to which entries of this epoch may be served.

        >>> NearEpoch("run id").fresh_until == -2**63
        True
        """
        return self._until

    def extend(self, until):
        """Let entries of this epoch be served before the time `until`, if that is later than now set.

        >>> epoch = NearEpoch("run id")
        >>> epoch.extend(5)
        >>> epoch.extend(3)
        >>> epoch.fresh_until
        5
        """
        self._until = max(self._until, until)

    def close(self):
        """End the epoch: no entry of it is served or stored any more.

        >>> epoch = NearEpoch("run id")
        >>> epoch.close()
        >>> epoch.is_open
        False
        """
        self._open = False


class NearEntry:
    """A key that is being fetched, and later the value that was found for it.

    Tables make entries: see `NearTable.begin`. A user's cache has entries as its values, so its ``getsizeof``
    and ``on_evict`` are called with them.

    >>> entry = NearEntry("user:1")
    >>> entry.key, entry.value, entry.is_alive
    ('user:1', None, True)
    """

    __slots__ = ("_epoch", "_has_value", "_key", "_since", "_until", "_users", "_value")

    def __init__(self, key, epoch=None, since=0):
        self._key = key
        self._epoch = epoch
        self._since = since
        self._until = _PENDING
        self._users = 0
        self._value = _ABSENT
        self._has_value = False

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it belongs to one connection")

    @property
    def key(self):
        """The key, as text.

        >>> NearEntry("user:1").key
        'user:1'
        """
        return self._key

    @property
    def value(self):
        """The value, None for a key that is absent or still being fetched.

        >>> NearEntry("user:1").value

        """
        return None if self._value is _ABSENT else self._value

    @property
    def epoch(self):
        """The epoch in which the fetch began, None if nothing was announced then.

        >>> NearEntry("user:1").epoch

        """
        return self._epoch

    @property
    def is_alive(self):
        """Whether the key has not been dropped since the entry was made.

        >>> NearEntry("user:1").is_alive
        True
        """
        return self._until != _DEAD and (self._epoch is None or self._epoch._open)


class NearTable:
    """The entries of a near cache, and the rules by which they are served; without any I/O.

    A remote store announces what changes below the `prefixes`, on a connection that `NearSource` follows. A
    lookup finds a value that was fetched less than `ttl` seconds ago, not dropped since, from a server heard
    of so lately that no change older than `max_stale` seconds can have been missed. A key known to be absent
    is remembered for `negative_ttl` seconds. A key as ``str`` and as its UTF-8 ``bytes`` is one key.

    `cache` holds the entries: a mapping with a ``maxsize`` that is empty, safe among threads and used by
    nothing else; by default an ``LRUCache`` of 10,000. `clock` returns integer nanoseconds and never steps
    back; it defaults to the monotonic clock. A child of a fork starts empty.

    Raises ValueError if `prefixes` is empty, has an empty prefix or one that another starts with, a time is
    not positive (`negative_ttl` may be 0) or `cache` is not empty; TypeError if an argument has a wrong type.

    Complexity: O(1) an operation on one key. Memory is bounded by the cache, and by the fetches under way.

    >>> from headgate.near import NearSource
    >>> table = NearTable(prefixes=["user:"])
    >>> source = NearSource(table)
    >>> source.connected("run id")
    >>> for _ in range(2):
    ...     source.heartbeat_sent()
    ...     source.heartbeat_answered()
    >>> entry = table.begin("user:1", source.epoch)
    >>> table.store(entry, b"Ann", "run id"), table.end(entry)
    (True, None)
    >>> table.get("user:1")
    b'Ann'
    >>> source.invalidated([b"user:1"])
    >>> table.get("user:1")
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_clock",
        "_epochs",
        "_errors",
        "_find",
        "_flushes",
        "_hits",
        "_invalidations",
        "_lock",
        "_max_stale",
        "_misses",
        "_negative_hits",
        "_negative_ttl",
        "_overtaken",
        "_pending",
        "_prefixes",
        "_stored",
        "_ttl",
    )

    def __init__(self, cache=None, *, prefixes, ttl=60, max_stale=2.0, negative_ttl=0, clock=None):
        names = checked_prefixes(prefixes)
        lifetime, negative = checked_seconds("ttl", ttl), checked_seconds("negative_ttl", negative_ttl, 0)
        stale, tick = checked_seconds("max_stale", max_stale), checked_clock(clock)
        store = LRUCache(_DEFAULT_SIZE) if cache is None else checked_cache(cache)
        if hasattr(self, "_lock"):
            raise initialized(self)
        self._lock = new_lock()
        self._prefixes, self._ttl, self._negative_ttl, self._max_stale = names, lifetime, negative, stale
        self._clock, self._cache, self._find = tick, store, store.get
        self._pending, self._epochs = {}, {}
        self._hits = self._misses = self._negative_hits = self._stored = self._overtaken = 0
        self._invalidations = self._flushes = self._errors = 0
        renew(self)

    # ---- lookups ----------------------------------------------------------------------------

    def get(self, key, default=None):
        """Returns the value of `key` if it is here and fresh, `default` if it is known that there is none,
        otherwise what ``_fetch(key, default)`` returns.

        That is `default` for a table, which has nothing to fetch from; subclasses have.

        >>> NearTable(prefixes=["user:"]).get("user:1", "nothing")
        'nothing'
        """
        value = self.peek(key, _ABSENT, default)
        return self._fetch(key, default) if value is _ABSENT else value

    def peek(self, key, default=None, absent=None):
        """Returns the value of `key` if it is here and fresh, otherwise `default`; `absent` if it is known
        that there is none.

        >>> NearTable(prefixes=["user:"]).peek("user:1", "not known")
        'not known'
        """
        name = key if type(key) is str else key_name(key)
        entry = self._find(name)
        if entry is not None:
            now = monotonic_ns() if self._clock is None else checked_now(self._clock())
            epoch = entry._epoch
            if entry._until > now and epoch._until > now and epoch._open:
                if _GIL:
                    self._hits += 1
                else:
                    with self._lock:
                        self._hits += 1
                return entry._value if entry._value is not _ABSENT else self._found_absent(absent)
            if entry._until <= now or not epoch._open:
                self._cache.pop(name, None)  # at worst it is a newer one, which is fetched again
        with self._lock:
            self._misses += 1
        return default

    async def _aget(self, key, default=None):
        """Returns a coroutine of the value of `key`, or of `default` if there is none."""
        value = self.peek(key, _ABSENT, default)
        return await self._afetch(key, default) if value is _ABSENT else value

    def _fetch(self, key, default):
        return default

    async def _afetch(self, key, default):
        return default

    def _found_absent(self, absent):
        with self._lock:
            self._negative_hits += 1
        return absent

    # ---- misses -----------------------------------------------------------------------------

    def begin(self, key, epoch=None):
        """Returns the entry for a fetch of `key`, which is about to be sent to the server of `epoch`.

        Callers that miss the same key share one entry until it is dropped or stored. Each must call `end`.
        With the epoch None, or for a key outside the prefixes, nothing will be stored.

        >>> table = NearTable(prefixes=["user:"])
        >>> first, second = table.begin("user:1"), table.begin(b"user:1")
        >>> first is second
        True
        """
        name = key_name(key)
        if not name.startswith(self._prefixes):
            epoch = None
        entry = NearEntry(name, epoch, self.now())
        with self._lock:
            known = self._pending.get(name)
            if known is not None and known._until == _PENDING and known._epoch is epoch:
                entry = known
            else:
                if known is not None:
                    known._until = _DEAD
                self._pending[name] = entry
            entry._users += 1
        return entry

    def store(self, entry, value, run_id, lifetime=None):
        """Keeps the value that was fetched for `entry`, and returns whether it was kept.

        It is not if the key was dropped or the connection lost since `begin`, or if `run_id`, the identity of
        the server that sent the value, is not that of the entry's epoch. Of callers that share the entry, the
        first one's value is kept for all. `lifetime` is what the value had left at the server, in
        milliseconds, None if it has no end. Both that and `ttl` count from `begin`.

        >>> table = NearTable(prefixes=["user:"])
        >>> entry = table.begin("user:1", table.open_epoch("run id"))
        >>> table.drop("user:1")
        >>> table.store(entry, b"Ann", "run id")
        False
        """
        life = self._ttl if lifetime is None else min(self._ttl, lifetime * 1_000_000)
        return self._keep(entry, value, run_id, life)

    def store_absence(self, entry, run_id):
        """Keeps, for `negative_ttl` seconds, that `entry` has no value; returns whether it was kept.

        >>> table = NearTable(prefixes=["user:"], negative_ttl=1)
        >>> entry = table.begin("user:1", table.open_epoch("run id"))
        >>> table.store_absence(entry, "run id")
        True
        """
        return self._keep(entry, _ABSENT, run_id, min(self._ttl, self._negative_ttl))

    def _keep(self, entry, value, run_id, life):
        epoch = entry._epoch
        if epoch is None or life <= 0 or run_id != epoch._run_id:
            return False
        with self._lock:
            if not self._is_wanted(entry):
                self._overtaken += 1
                return False
            if entry._has_value:
                self._stored += 1
                return True
            entry._value, entry._has_value = value, True
        try:
            self._cache[entry._key] = entry
        except ValueError:  # it is larger than the whole cache
            return False
        with self._lock:
            alive = self._is_wanted(entry)
            if alive:
                entry._until = min(entry._since + life, _NEVER)
                self._stored += 1
            else:
                self._overtaken += 1
        if not alive:
            self._cache.pop(entry._key, None)
        return alive

    def _is_wanted(self, entry):
        """Whether it has not been dropped since `begin`."""
        return (entry._until != _DEAD and entry._epoch._open
                and self._pending.get(entry._key) is entry)

    def end(self, entry):
        """Ends a call of `begin`, whether or not a value was stored.

        >>> table = NearTable(prefixes=["user:"])
        >>> table.end(table.begin("user:1"))
        >>> table.stats().pending
        0
        """
        name = entry._key
        with self._lock:
            entry._users -= 1
            if not entry._users and self._pending.get(name) is entry:
                del self._pending[name]

    # ---- changes ----------------------------------------------------------------------------

    def drop(self, key):
        """Drops `key`, and keeps what is being fetched of it from being stored.

        A writer calls it before the write is sent and again after the reply: the announcement may be late.

        >>> NearTable(prefixes=["user:"]).drop("user:1")
        """
        name = key_name(key)
        with self._lock:
            entry = self._pending.pop(name, None)
            if entry is not None:
                entry._until = _DEAD
        found = self._cache.pop(name, None)
        if found is not None:
            found._until = _DEAD

    def invalidate(self, keys):
        """Drops every key of an announcement.

        Complexity: O(keys).

        >>> NearTable(prefixes=["user:"]).invalidate([b"user:1", b"user:2"])
        """
        count = 0
        for key in keys:
            self.drop(key)
            count += 1
        with self._lock:
            self._invalidations += count

    def open_epoch(self, run_id):
        """Returns a new epoch, in which the server of this identity announces every change.

        >>> NearTable(prefixes=["user:"]).open_epoch("run id").is_open
        True
        """
        epoch = NearEpoch(run_id)
        with self._lock:
            self._epochs[epoch] = None
        return epoch

    def close_epoch(self, epoch):
        """Ends an epoch: all its entries are dropped, and none of its fetches is stored.

        Complexity: O(1), but O(n) for the last one that is open, after which nothing is kept.

        >>> table = NearTable(prefixes=["user:"])
        >>> epoch = table.open_epoch("run id")
        >>> table.close_epoch(epoch)
        >>> epoch.is_open
        False
        """
        epoch.close()
        with self._lock:
            self._epochs.pop(epoch, None)
            self._flushes += 1
            was_last = not self._epochs
        if was_last:
            self._cache.clear()

    def count_error(self):
        """Counts a call to the store that failed.

        >>> table = NearTable(prefixes=["user:"])
        >>> table.count_error()
        >>> table.stats().errors
        1
        """
        with self._lock:
            self._errors += 1

    def _renew(self):
        """Start empty in the child of a fork."""
        for epoch in list(self._epochs):
            epoch.close()
        self._epochs.clear()
        self._pending.clear()
        self._cache.clear()

    # ---- what is known ----------------------------------------------------------------------

    def now(self):
        """Returns the time of the clock in nanoseconds.

        >>> NearTable(prefixes=["user:"], clock=lambda: 5).now()
        5
        """
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def is_fresh(self, epoch):
        """Returns whether entries of an epoch, or None, may be served now.

        >>> NearTable(prefixes=["user:"]).is_fresh(None)
        False
        """
        return epoch is not None and epoch._open and epoch._until > self.now()

    def covers(self, key):
        """Returns whether `key` is below one of the prefixes.

        >>> table = NearTable(prefixes=["user:"])
        >>> table.covers("user:1"), table.covers(b"page:1")
        (True, False)
        """
        return key_name(key).startswith(self._prefixes)

    @property
    def prefixes(self):
        """The prefixes of the keys that are kept, sorted.

        >>> NearTable(prefixes=[b"user:", "page:"]).prefixes
        ('page:', 'user:')
        """
        return self._prefixes

    @property
    def max_stale_ns(self):
        """The bound on staleness, in nanoseconds.

        >>> NearTable(prefixes=["user:"]).max_stale_ns
        2000000000
        """
        return self._max_stale

    def stats(self):
        """A snapshot of the counters, and of the entries that can be served now.

        Complexity: O(n).

        >>> NearTable(prefixes=["user:"]).stats().hit_ratio
        0.0
        """
        now = self.now()
        ages = [now - entry._since for entry in list(self._cache.values())
                if entry._until > now and entry._epoch._until > now and entry._epoch._open]
        with self._lock:
            fresh = sum(epoch._until > now for epoch in self._epochs)
            return NearStats(
                self._hits, self._misses, self._negative_hits, self._stored, self._overtaken,
                self._invalidations, self._flushes, self._errors, len(ages), len(self._pending), fresh,
                max(ages, default=0) / 1e9)

    def __repr__(self):
        return f"{type(self).__name__}(prefixes={self._prefixes!r})"

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it belongs to one connection")

    def _check(self):
        with self._lock:
            for name, entry in self._pending.items():
                assert entry._key == name and entry._users > 0 and entry._until != _DEAD
            assert all(epoch._open for epoch in self._epochs)
