# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The near cache's protocol.

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

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.fields cimport hg_get_time, hg_set_time

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import renew
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

cdef object ABSENT = _ABSENT

cdef enum:
    DEFAULT_SIZE = 10_000

cdef int64_t PENDING = INT64_MIN
cdef int64_t DEAD = INT64_MIN + 1


cdef class NearEpoch:
    """NearEpoch(run_id)\n--\n
    A time in which a server announces every change on one connection that has not been interrupted.

    `run_id` is the server's identity, new at each of its starts. `NearTable.open_epoch` makes epochs.

    >>> NearEpoch("run id").is_open
    True
    """

    cdef object identity
    cdef int64_t until
    cdef int64_t live

    def __cinit__(self, run_id):
        self.identity = run_id
        self.until = INT64_MIN
        self.live = True

    def __init__(self, run_id):
        pass

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it belongs to one connection")

    @property
    def run_id(self):
        """The identity of the server's process.

        >>> NearEpoch("run id").run_id
        'run id'
        """
        return self.identity

    @property
    def is_open(self):
        """Whether the connection has not ended.

        >>> NearEpoch("run id").is_open
        True
        """
        return self._is_live()

    @property
    def fresh_until(self):
        """The nanoseconds of the table's clock up to which entries of this epoch may be served.

        >>> NearEpoch("run id").fresh_until == -2**63
        True
        """
        return hg_get_time(&self.until)

    def extend(self, until):
        """Let entries of this epoch be served before the time `until`, if that is later than now set.

        >>> epoch = NearEpoch("run id")
        >>> epoch.extend(5)
        >>> epoch.extend(3)
        >>> epoch.fresh_until
        5
        """
        cdef int64_t later = until
        with cython.critical_section(self):
            hg_set_time(&self.until, max(self.until, later))

    def close(self):
        """End the epoch: no entry of it is served or stored any more.

        >>> epoch = NearEpoch("run id")
        >>> epoch.close()
        >>> epoch.is_open
        False
        """
        hg_set_time(&self.live, False)

    @cython.final
    cdef bint _is_live(self) noexcept:
        return hg_get_time(&self.live) != 0

    @cython.final
    cdef bint _is_fresh(self, int64_t now) noexcept:
        return self._is_live() and hg_get_time(&self.until) > now


cdef class NearEntry:
    """NearEntry(key, epoch=None, since=0)\n--\n
    A key that is being fetched, and later the value that was found for it.

    Tables make entries: see `NearTable.begin`. A user's cache has entries as its values, so its ``getsizeof``
    and ``on_evict`` are called with them.

    >>> entry = NearEntry("user:1")
    >>> entry.key, entry.value, entry.is_alive
    ('user:1', None, True)
    """

    cdef str name
    cdef NearEpoch source
    cdef int64_t since
    cdef int64_t until
    cdef Py_ssize_t users
    cdef bint has_content
    cdef object content  # set once: lookups and `value` read it without a lock

    def __cinit__(self, key, epoch=None, since=0):
        self.name = key
        self.source = epoch
        self.since = since
        self.until = PENDING
        self.content = ABSENT

    def __init__(self, key, epoch=None, since=0):
        pass

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it belongs to one connection")

    @property
    def key(self):
        """The key, as text.

        >>> NearEntry("user:1").key
        'user:1'
        """
        return self.name

    @property
    def value(self):
        """The value, None for a key that is absent or still being fetched.

        >>> NearEntry("user:1").value

        """
        return None if self.content is ABSENT else self.content

    @property
    def epoch(self):
        """The epoch in which the fetch began, None if nothing was announced then.

        >>> NearEntry("user:1").epoch

        """
        return self.source

    @property
    def is_alive(self):
        """Whether the key has not been dropped since the entry was made.

        >>> NearEntry("user:1").is_alive
        True
        """
        return hg_get_time(&self.until) != DEAD and (self.source is None or self.source._is_live())

    @cython.final
    cdef bint _is_fresh(self, int64_t now) noexcept:
        return hg_get_time(&self.until) > now and self.source._is_fresh(now)

    @cython.final
    cdef void _kill(self) noexcept:
        hg_set_time(&self.until, DEAD)


cdef class NearTable:
    """NearTable(cache=None, *, prefixes, ttl=60, max_stale=2.0, negative_ttl=0, clock=None)\n--\n
    The entries of a near cache, and the rules by which they are served; without any I/O.

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

    cdef object __weakref__
    cdef object cache
    cdef object find
    cdef object clock
    cdef tuple names
    cdef dict pending
    cdef dict epochs
    cdef int64_t ttl
    cdef int64_t negative_ttl
    cdef int64_t max_stale
    cdef int64_t hits, misses, negative_hits, stored, overtaken, invalidations, flushes, errors

    def __init__(self, cache=None, *, prefixes, ttl=60, max_stale=2.0, negative_ttl=0, clock=None):
        names = checked_prefixes(prefixes)
        lifetime, negative = checked_seconds("ttl", ttl), checked_seconds("negative_ttl", negative_ttl, 0)
        stale, tick = checked_seconds("max_stale", max_stale), checked_clock(clock)
        store = LRUCache(DEFAULT_SIZE) if cache is None else checked_cache(cache)
        with cython.critical_section(self):
            if self.names is not None:
                raise initialized(self)
            self.names = names
        self.ttl, self.negative_ttl, self.max_stale = lifetime, negative, stale
        self.clock, self.cache, self.find = tick, store, store.get
        self.pending, self.epochs = {}, {}
        renew(self)

    # ---- lookups ----------------------------------------------------------------------------

    def get(self, key, default=None):
        """Returns the value of `key` if it is here and fresh, `default` if it is known that there is none,
        otherwise what ``_fetch(key, default)`` returns.

        That is `default` for a table, which has nothing to fetch from; subclasses have.

        >>> NearTable(prefixes=["user:"]).get("user:1", "nothing")
        'nothing'
        """
        value = self._peek(key, ABSENT, default)
        return self._fetch(key, default) if value is ABSENT else value

    def peek(self, key, default=None, absent=None):
        """Returns the value of `key` if it is here and fresh, otherwise `default`; `absent` if it is known
        that there is none.

        >>> NearTable(prefixes=["user:"]).peek("user:1", "not known")
        'not known'
        """
        return self._peek(key, default, absent)

    def _aget(self, key, default=None):
        """Returns a coroutine of the value of `key`, or of `default` if there is none."""
        return _lookup(self, key, default)

    @cython.final
    cdef object _peek(self, key, default, absent):
        cdef str name = key if type(key) is str else key_name(key)
        cdef NearEntry entry = self.find(name)
        cdef int64_t now
        if entry is not None:
            now = self._now()
            if entry._is_fresh(now):
                value = entry.content
                with cython.critical_section(self):
                    self.hits += 1
                    if value is ABSENT:
                        self.negative_hits += 1
                return absent if value is ABSENT else value
            if hg_get_time(&entry.until) <= now or not entry.source._is_live():
                self.cache.pop(name, None)  # at worst it is a newer one, which is fetched again
        with cython.critical_section(self):
            self.misses += 1
        return default

    def _fetch(self, key, default):
        return default

    async def _afetch(self, key, default):
        return default

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
        cdef NearEntry entry, known
        cdef str name = key_name(key)
        entry = NearEntry(name, epoch if name.startswith(self.names) else None, self._now())
        with cython.critical_section(self):
            known = self.pending.get(name)
            if known is not None and hg_get_time(&known.until) == PENDING and known.source is entry.source:
                entry = known
            else:
                if known is not None:
                    known._kill()
                self.pending[name] = entry
            entry.users += 1
        return entry

    def store(self, NearEntry entry not None, value, run_id, lifetime=None):
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
        life = self.ttl if lifetime is None else min(self.ttl, lifetime * 1_000_000)
        return self._keep(entry, value, run_id, life)

    def store_absence(self, NearEntry entry not None, run_id):
        """Keeps, for `negative_ttl` seconds, that `entry` has no value; returns whether it was kept.

        >>> table = NearTable(prefixes=["user:"], negative_ttl=1)
        >>> entry = table.begin("user:1", table.open_epoch("run id"))
        >>> table.store_absence(entry, "run id")
        True
        """
        return self._keep(entry, ABSENT, run_id, min(self.ttl, self.negative_ttl))

    @cython.final
    cdef bint _keep(self, NearEntry entry, object value, object run_id, int64_t life) except -1:
        cdef NearEpoch epoch = entry.source
        cdef bint alive, is_first = False
        if epoch is None or life <= 0 or run_id != epoch.identity:
            return False
        with cython.critical_section(self):
            alive = self._is_wanted(entry)
            if not alive:
                self.overtaken += 1
            elif entry.has_content:
                self.stored += 1
            else:
                entry.content, entry.has_content, is_first = value, True, True
        if not is_first:
            return alive
        try:
            self.cache[entry.name] = entry
        except ValueError:  # it is larger than the whole cache
            return False
        with cython.critical_section(self):
            alive = self._is_wanted(entry)
            if alive:
                hg_set_time(&entry.until, min(entry.since, INT64_MAX - life) + life)
                self.stored += 1
            else:
                self.overtaken += 1
        if not alive:
            self.cache.pop(entry.name, None)
        return alive

    @cython.final
    cdef bint _is_wanted(self, NearEntry entry) except -1:
        """Whether it has not been dropped since `begin`."""
        return (hg_get_time(&entry.until) != DEAD and entry.source._is_live()
                and self.pending.get(entry.name) is entry)

    def end(self, NearEntry entry not None):
        """Ends a call of `begin`, whether or not a value was stored.

        >>> table = NearTable(prefixes=["user:"])
        >>> table.end(table.begin("user:1"))
        >>> table.stats().pending
        0
        """
        with cython.critical_section(self):
            entry.users -= 1
            if not entry.users and self.pending.get(entry.name) is entry:
                del self.pending[entry.name]

    # ---- changes ----------------------------------------------------------------------------

    def drop(self, key):
        """Drops `key`, and keeps what is being fetched of it from being stored.

        A writer calls it before the write is sent and again after the reply: the announcement may be late.

        >>> NearTable(prefixes=["user:"]).drop("user:1")
        """
        cdef NearEntry entry
        cdef str name = key_name(key)
        with cython.critical_section(self):
            entry = self.pending.pop(name, None)
            if entry is not None:
                entry._kill()
        entry = self.cache.pop(name, None)
        if entry is not None:
            entry._kill()

    def invalidate(self, keys):
        """Drops every key of an announcement.

        Complexity: O(keys).

        >>> NearTable(prefixes=["user:"]).invalidate([b"user:1", b"user:2"])
        """
        cdef int64_t count = 0
        for key in keys:
            self.drop(key)
            count += 1
        with cython.critical_section(self):
            self.invalidations += count

    def open_epoch(self, run_id):
        """Returns a new epoch, in which the server of this identity announces every change.

        >>> NearTable(prefixes=["user:"]).open_epoch("run id").is_open
        True
        """
        epoch = NearEpoch(run_id)
        with cython.critical_section(self):
            self.epochs[epoch] = None
        return epoch

    def close_epoch(self, NearEpoch epoch not None):
        """Ends an epoch: all its entries are dropped, and none of its fetches is stored.

        Complexity: O(1), but O(n) for the last one that is open, after which nothing is kept.

        >>> table = NearTable(prefixes=["user:"])
        >>> epoch = table.open_epoch("run id")
        >>> table.close_epoch(epoch)
        >>> epoch.is_open
        False
        """
        epoch.close()
        with cython.critical_section(self):
            self.epochs.pop(epoch, None)
            self.flushes += 1
            was_last = not self.epochs
        if was_last:
            self.cache.clear()

    def count_error(self):
        """Counts a call to the store that failed.

        >>> table = NearTable(prefixes=["user:"])
        >>> table.count_error()
        >>> table.stats().errors
        1
        """
        with cython.critical_section(self):
            self.errors += 1

    def _renew(self):
        """Start empty in the child of a fork."""
        for epoch in list(self.epochs):
            epoch.close()
        self.epochs.clear()
        self.pending.clear()
        self.cache.clear()

    # ---- what is known ----------------------------------------------------------------------

    def now(self):
        """Returns the time of the clock in nanoseconds.

        >>> NearTable(prefixes=["user:"], clock=lambda: 5).now()
        5
        """
        return self._now()

    @cython.final
    cdef int64_t _now(self) except? -1:
        return hg_monotonic_ns() if self.clock is None else checked_now(self.clock())

    def is_fresh(self, epoch):
        """Returns whether entries of an epoch, or None, may be served now.

        >>> NearTable(prefixes=["user:"]).is_fresh(None)
        False
        """
        return epoch is not None and (<NearEpoch?>epoch)._is_fresh(self._now())

    def covers(self, key):
        """Returns whether `key` is below one of the prefixes.

        >>> table = NearTable(prefixes=["user:"])
        >>> table.covers("user:1"), table.covers(b"page:1")
        (True, False)
        """
        return key_name(key).startswith(self.names)

    @property
    def prefixes(self):
        """The prefixes of the keys that are kept, sorted.

        >>> NearTable(prefixes=[b"user:", "page:"]).prefixes
        ('page:', 'user:')
        """
        return self.names

    @property
    def max_stale_ns(self):
        """The bound on staleness, in nanoseconds.

        >>> NearTable(prefixes=["user:"]).max_stale_ns
        2000000000
        """
        return self.max_stale

    def stats(self):
        """A snapshot of the counters, and of the entries that can be served now.

        Complexity: O(n).

        >>> NearTable(prefixes=["user:"]).stats().hit_ratio
        0.0
        """
        cdef NearEntry entry
        cdef NearEpoch epoch
        cdef int64_t now = self._now()
        ages = []
        for entry in list(self.cache.values()):
            if entry._is_fresh(now):
                ages.append(now - entry.since)
        with cython.critical_section(self):
            fresh = 0
            for epoch in self.epochs:
                fresh += epoch._is_fresh(now)
            return NearStats(
                self.hits, self.misses, self.negative_hits, self.stored, self.overtaken, self.invalidations,
                self.flushes, self.errors, len(ages), len(self.pending), fresh, max(ages, default=0) / 1e9)

    def __repr__(self):
        return f"{type(self).__name__}(prefixes={self.names!r})"

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled: it belongs to one connection")

    def _check(self):
        cdef NearEntry entry
        cdef NearEpoch epoch
        with cython.critical_section(self):
            for name, entry in self.pending.items():
                assert entry.name == name and entry.users > 0 and entry.until != DEAD
            for epoch in self.epochs:
                assert epoch._is_live()


include "_awaited.pxi"
