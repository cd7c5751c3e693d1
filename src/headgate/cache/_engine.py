"""The steps of which the methods of a cache consist."""

from operator import index

from headgate._base.checks import checked_callable, checked_int
from headgate._base.clock import checked_clock
from headgate._base.pickling import initialized
from headgate.cache._entries import _Entries
from headgate.cache._lifetimes import NEVER, checked_fraction, checked_lifetime, checked_seed
from headgate.cache._table import _PLAIN, _Entry, _is_plain
from headgate.cache._views import _ABSENT

_MOST_ENTRIES = 2**31


def _checked_maxsize(maxsize, weighted):
    maxsize = checked_int("maxsize", maxsize)
    if maxsize < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    most = 2**63 - 1 if weighted else _MOST_ENTRIES
    if maxsize > most:
        raise ValueError(f"maxsize must be at most {most}, got {maxsize!r}")
    return maxsize


class _Engine(_Entries):
    """The steps of which the methods of a cache consist."""

    __slots__ = ()

    _QUEUE = False

    def __init__(self, maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        maximum = _checked_maxsize(maxsize, getsizeof is not None)
        checked_callable("getsizeof", getsizeof)
        lifetime, idle = checked_lifetime("ttl", ttl), checked_lifetime("tti", tti)
        share, ticker, draws = checked_fraction("jitter", jitter), checked_clock(clock), checked_seed(seed)
        checked_callable("on_evict", on_evict)
        self._configure(maximum, getsizeof, lifetime, idle, share, ticker, on_evict, draws)

    def _configure(self, maximum, sizer, lifetime, idle, jitter, clock, listener, seed):
        with self._lock:
            if self._initialized:
                raise initialized(self)
            self._initialized = True
            self._sizer, self._listener = sizer, listener
            self._lifetime, self._idle, self._jitter, self._clock = lifetime, idle, jitter, clock
            self._set_timed(lifetime is not None or idle is not None)
            self._seed = self._draws = seed
            self._maximum = maximum
            self._plain = self._QUEUE and sizer is None and listener is None
            self._fit()

    def _touch(self, entry, now):
        """Count a read of a live entry for the policy and for its idle time."""
        if self._idle is not None:
            self._schedule(entry, now)
        self._hit(entry)

    def _read(self, key):
        """The value of `key`, or _ABSENT; counts a hit or a miss."""
        now = self._now()
        while True:
            additions, entry = self._additions, self._seek(key)
            with self._lock:
                if not self._is_current(entry, additions):
                    continue
                if entry is not None and entry.next is not None and entry.due > now:
                    self._hits += 1
                    value = entry.value
                    self._touch(entry, now)
                    return value
                self._misses += 1
            if entry is not None:
                self._end_lifetime(entry, now)
            return _ABSENT

    def _look(self, key):
        """The value of `key`, or _ABSENT; nothing is counted or moved."""
        now = self._now()
        while True:
            additions, entry = self._additions, self._seek(key)
            if entry is None:
                return _ABSENT
            with self._lock:
                if self._is_current(entry, additions):
                    return entry.value if entry.next is not None and entry.due > now else _ABSENT

    def _measure(self, value):
        """The size of `value`; runs getsizeof."""
        size = self._sizer(value)
        try:
            size = index(size)
        except TypeError:
            raise TypeError(f"getsizeof must return an int, got {size!r}") from None
        if size < 0:
            raise ValueError(f"value size must be non-negative, got {size!r}")
        return size

    def _refuse_too_large(self, size):
        if size > self._maximum:
            raise ValueError(f"value too large: size {size} exceeds maxsize {self._maximum}")

    def _store(self, key, value, keep=False, lifetime=None, tags=()):
        """Put an entry; with `keep`, an entry that is there stays and its value is returned."""
        size = 1 if self._sizer is None else self._measure(value)
        bucket = None if type(key) in _PLAIN or _is_plain(key) else hash(key)
        digest = hash(key) if self._HASHES else 0
        if lifetime is not None:
            self._set_timed(True)
        now = self._now()
        ttl_due = self._deadline(now, self._lifetime if lifetime is None else lifetime)
        first = self._heap[:1]  # another thread may take it meanwhile
        if first and first[0][0] <= now:
            self._purge_at(now)
        new = _Entry(key, bucket)
        replaced: list = []
        dropped: list = []
        counted = not self._HASHES
        while True:
            additions, found = self._additions, self._seek(key)
            with self._lock:
                if not self._is_current(found, additions):
                    continue
                if not counted:
                    counted = True
                    self._count_request(digest)
                live = found is not None and found.next is not None
                if keep and live:
                    self._touch(found, now)
                    return found.value
                self._refuse_too_large(size)
                entry = new if found is None else found
                if live and self._filled - entry.size > self._maximum - size:
                    self._unlink_grown(entry, replaced)
                    live = False
                if live:
                    replaced += (entry.key, self._exchange(entry, value, size, ttl_due))
                elif not self._insert(entry, found is None, value, size, digest, ttl_due, dropped):
                    continue
                self._finish_store(entry, live, now, tags)
                self._counts["replaced"] += bool(replaced)
            break
        self._notify(replaced, "replaced")
        self._notify(dropped, "size")
        return value

    def _store_plain(self, key, value):
        """What `_store` does in a queue while no entry has a size, a lifetime, a tag or a listener."""
        if type(key) not in _PLAIN and not _is_plain(key):
            self._store(key, value)
            return
        new = _Entry(key)
        dropped: list = []
        with self._lock:
            while not (self._timed or self._tagged or self._foreign):
                version, data = self._version, self._data
                entry, end = data.get(key), self._ends[0]
                if version != self._version:
                    continue
                if entry is not None:
                    if entry.next is None:
                        break
                    new.value, entry.value = entry.value, value
                    self._version += 1
                    self._counts["replaced"] += 1
                    self._rewrite(entry)
                    return
                if self._count >= self._maximum:
                    self._refuse_too_large(1)
                    self._evict_oldest(dropped)
                    continue
                last = end.prev
                new.value, new.size = value, 1
                new.due = new.ttl_due = NEVER
                new.prev, new.next, new.end = last, end, end
                last.next = new
                end.prev = new
                end.size += 1
                data[key] = new
                self._filled += 1
                self._count += 1
                self._additions += 1
                self._version += 1
                return
        self._store(key, value)

    def _evict_oldest(self, dropped):
        """Evict the first entry of a queue without sizes whose keys are plain, and append it to `dropped`."""
        end, data = self._ends[0], self._data
        victim = end.next
        next, key = victim.next, victim.key
        if victim is end:
            return
        end.next = next
        next.prev = end
        end.size -= 1
        self._filled -= 1
        self._count -= 1
        self._evictions += 1
        self._version += 1
        victim.prev = victim.next = None
        if key in data and data[key] is victim:
            del data[key]
        dropped.append(victim)

    def _take(self, key):
        """Remove the entry of `key` and return its key and value; None where there is none."""
        now = self._now()
        dropped: list = []
        while not dropped:
            additions, entry = self._additions, self._seek(key)
            if entry is None:
                return None
            with self._lock:
                if not self._is_current(entry, additions):
                    continue
                if entry.next is None:
                    return None
                reason = "expired" if entry.due <= now else "removed"
                self._counts[reason] += self._drop(entry, dropped)
        self._notify(dropped, reason)
        return dropped if reason == "removed" else None

    def _remove_entries(self, pairs):
        """Remove the entries that still have the value beside them, or have _ABSENT; how many there were."""
        dropped: list = []
        with self._lock:
            for entry, value in pairs:
                if (value is _ABSENT or entry.value is value) and self._drop(entry, dropped):
                    self._counts["removed"] += 1
        self._notify(dropped, "removed")
        return len(dropped) // 2
