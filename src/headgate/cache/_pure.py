"""The cache engine and its policies in pure Python.

    _data: plain key -> entry     lists: entries between the two sides of an end, the oldest first
    "a" -> entry a                end <-> entry b <-> entry a <-> end   one list for LRU, two for S3-FIFO, ...
    _odd: hash -> entries         _heap: (due, stamp, entry) of the entries that have a lifetime
    h(b) -> (entry b,)

A policy decides where a new entry goes, what a hit changes and which entry is the victim; all else is the
engine's.

Foreign code - ``__hash__`` and ``__eq__`` of keys, getsizeof, the clock, listeners, finalizers of what was
dropped - runs with no lock held. `_data` has the keys that a dict compares without running code of theirs;
any other key is found by `_seek_odd` in the bucket of its hash. `_seek` looks an entry up without the lock,
and `_is_current` says under the lock whether what it found still holds; if not, the lookup starts over.
What is left are finalizers that the collector runs at an allocation and signal handlers: the lock is
re-entrant, and `_version` counts edits, so that a call that was interrupted notices. An edit of a list is a
straight line of attributes: nothing is called from the last look to its end, nor made for the collector to
count, as a tuple of four would be. So where there is a GIL, what has no lifetime is read without the lock.

An entry that stands in no list is dead and not seen. An item of the heap counts while its stamp is the
entry's. Evicted entries are dropped last.
"""

import sys
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from heapq import heapify, heappop, heappush
from operator import attrgetter, index
from reprlib import recursive_repr
from time import monotonic_ns, perf_counter_ns
from types import GenericAlias

from headgate._base.checks import checked_callable, checked_int
from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock
from headgate._base.pickling import carried, carry, checked_state, initialized, name_class, restore
from headgate.cache._dumps import dump_rows, leases, load_rows
from headgate.cache._flights import Flights
from headgate.cache._lifetimes import (
    NEVER,
    checked_fraction,
    checked_lifetime,
    checked_seed,
    checked_tags,
    shortened,
)
from headgate.cache._listeners import notify
from headgate.cache._loaders import checked_loader, checked_result, is_awaitable, refuse_coroutine_function
from headgate.cache._stats import CacheStats
from headgate.cache._views import _ABSENT, CacheItems, CacheKeys, CacheValues
from headgate.hashing._pure import splitmix64

_MOST_ENTRIES = 2**31
_WORD = 2**64
_MOST_USES = 2**32 - 1
_COUNTED = ("expired", "replaced", "removed", "loads", "failures", "nanoseconds")
_HALVED = bytes(i >> 1 for i in range(256))
_PLAIN = frozenset({bool, bytes, float, int, str, type, type(None)})
_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
_pair = attrgetter("key", "value")
_whole = attrgetter("key", "value", "due", "hard", "tags")


def _checked_maxsize(maxsize, weighted):
    maxsize = checked_int("maxsize", maxsize)
    if maxsize < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    most = 2**63 - 1 if weighted else _MOST_ENTRIES
    if maxsize > most:
        raise ValueError(f"maxsize must be at most {most}, got {maxsize!r}")
    return maxsize


def _is_plain(key, depth=2):
    """Whether a dict hashes and compares `key` without running code of its own."""
    kind = type(key)
    return kind in _PLAIN or (kind is tuple and depth > 0 and (
        _PLAIN.issuperset(map(type, key)) or all(_is_plain(part, depth - 1) for part in key)))


def _itself(entry):
    return entry


class _Entry:
    """A key, its value and its place; `bucket` is the hash under which `_odd` has it, None in `_data`."""

    __slots__ = (
        "bucket", "due", "end", "hard", "hash", "key", "mark", "next", "prev", "size", "stamp", "tags",
        "value",
    )

    def __init__(self, key=None, bucket=None):
        self.key, self.bucket = key, bucket
        self.prev = self.next = self.value = None
        self.stamp = 0
        self.tags = ()


class _End(_Entry):
    """The end of a list: the oldest entry follows it, the newest precedes it, `size` is that of all."""

    __slots__ = ()

    def __init__(self):
        super().__init__()
        self.prev = self.next = self
        self.end = None
        self.size = 0


class _Cache(MutableMapping):
    """What the policies share: see the picture of the module."""

    __slots__ = (
        "__weakref__",
        "_births",
        "_clock",
        "_count",
        "_counts",
        "_data",
        "_draws",
        "_ends",
        "_evictions",
        "_filled",
        "_flights",
        "_generation",
        "_heap",
        "_hits",
        "_idle",
        "_jitter",
        "_lifetime",
        "_listener",
        "_lock",
        "_made",
        "_misses",
        "_odd",
        "_plain",
        "_room",
        "_seed",
        "_sizer",
        "_slow",
        "_stamps",
        "_tagged",
        "_timed",
        "_version",
    )

    _LISTS = 1
    _HASHES = False
    _QUEUE = False

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        self._hits = self._misses = self._evictions = self._version = self._births = self._generation = 0
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._room = self._draws = self._seed = self._stamps = 0
        self._sizer = self._listener = self._clock = self._lifetime = self._idle = self._flights = None
        self._jitter, self._plain, self._made = 0.0, False, False
        self._data = self._odd = self._heap = self._tagged = self._ends = None
        self._set_timed(False)
        self._empty()
        return self

    def __init__(self, maxsize, getsizeof=None, *, ttl=None, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        room = _checked_maxsize(maxsize, getsizeof is not None)
        checked_callable("getsizeof", getsizeof)
        lifetime, idle = checked_lifetime("ttl", ttl), checked_lifetime("tti", tti)
        share, tick, draws = checked_fraction("jitter", jitter), checked_clock(clock), checked_seed(seed)
        checked_callable("on_evict", on_evict)
        self._configure(room, getsizeof, lifetime, idle, share, tick, on_evict, draws)

    def _configure(self, room, sizer, lifetime, idle, jitter, clock, listener, seed):
        with self._lock:
            if self._made:
                raise initialized(self)
            self._made = True
            self._sizer, self._listener = sizer, listener
            self._lifetime, self._idle, self._jitter, self._clock = lifetime, idle, jitter, clock
            self._set_timed(lifetime is not None or idle is not None)
            self._seed = self._draws = seed
            self._room = room
            self._plain = self._QUEUE and sizer is None and listener is None
            self._fit()

    def _set_timed(self, timed):
        """Say whether entries may have a lifetime; readers take the lock then, or where there is no GIL."""
        self._timed, self._slow = timed, timed or not _GIL

    def _empty(self):
        """Start anew without entries, and return what was there for the caller to drop."""
        data, odd, heap, tagged = {}, {}, [], {}
        ends = tuple([self._new_end() for _ in range(self._LISTS)])
        data, self._data = self._data, data
        odd, self._odd = self._odd, odd
        heap, self._heap = self._heap, heap
        tagged, self._tagged = self._tagged, tagged
        ends, self._ends = self._ends, ends
        self._filled = self._count = 0
        self._version += 1
        self._births += 1
        return data, odd, heap, tagged, ends

    @staticmethod
    def _new_end():
        return _End()

    # ---- the policy: what a subclass decides ------------------------------------------------

    def _fit(self):
        """Adopt another maxsize."""

    def _asked(self, digest):
        """A key with this hash is about to be stored."""

    def _place(self, size, digest):
        """The end of the list that a new entry joins."""
        return self._ends[0]

    def _placed(self, entry):
        """A new entry has been linked."""

    def _hit(self, entry):
        """An entry was read."""

    def _rewrite(self, entry):
        """An entry has another value."""
        self._hit(entry)

    def _victim(self, size):
        """The live entry that gives way to `size` more, None if a finalizer was faster."""
        return self._first(self._ends[0])

    def _first(self, end):
        """The oldest entry of a list, None if it is empty or has been cleared."""
        entry = end.next
        return None if entry is end else entry

    def _evict_some(self, size, dropped):
        """Evict one entry, or as many as one step of the policy evicts."""
        self._evict_one(self._victim(size), dropped)

    def _left(self, entry, end, next):
        """An entry has been unlinked from the list of `end`, where `next` followed it."""

    # ---- keys -------------------------------------------------------------------------------

    def _seek(self, key):
        """The entry of `key` as it is found now, or None; runs code of keys, so no lock may be held."""
        data, odd = self._data, self._odd
        entry = data.get(key) if data or not odd else None
        return self._seek_odd(key) if entry is None and odd else entry

    def _seek_odd(self, key):
        """The entry of `key` in the bucket of its hash, or None."""
        for entry in self._odd.get(hash(key), ()):
            if entry.key is key or entry.key == key:
                return entry
        return None

    def _is_current(self, entry, births):
        """Whether what `_seek` found still holds, where `births` was counted before; the lock is held."""
        if entry is None:
            return births == self._births
        return entry.next is not None or self._is_filed(entry)

    def _is_filed(self, entry):
        """Whether `_seek` finds `entry`; a dead one only while it is given another place."""
        if entry.bucket is not None:
            return any(other is entry for other in self._odd.get(entry.bucket, ()))
        data, key = self._data, entry.key
        return key in data and data[key] is entry

    def _forget_key(self, entry):
        """Let `entry` be found no more."""
        if entry.bucket is None:
            data, key = self._data, entry.key
            if key in data and data[key] is entry:
                del data[key]
            return
        odd, home = self._odd, entry.bucket
        while True:
            group = odd.get(home, ())
            rest = tuple([other for other in group if other is not entry])
            if len(rest) == len(group):
                return
            if home in odd and odd[home] is group:
                if rest:
                    odd[home] = rest
                else:
                    del odd[home]
                return

    # ---- entries and their lists ------------------------------------------------------------

    def _move(self, entry, end):
        """Make a live entry the newest of the list of `end`."""
        next, last = entry.next, end.prev
        if next is None or last is None or last is entry:
            return
        prev, size = entry.prev, entry.size
        prev.next = next
        next.prev = prev
        entry.end.size -= size
        entry.prev, entry.next, entry.end = last, end, end
        last.next = entry
        end.prev = entry
        end.size += size
        self._version += 1

    def _unlink(self, entry):
        """Take a live entry out of its list and return its value; _ABSENT if a finalizer was faster."""
        prev, next, value = entry.prev, entry.next, entry.value
        if next is None:
            return _ABSENT
        end, size = entry.end, entry.size
        prev.next = next
        next.prev = prev
        end.size -= size
        self._filled -= size
        self._count -= 1
        self._version += 1
        entry.prev = entry.next = entry.end = entry.value = None
        self._left(entry, end, next)
        return value

    def _drop(self, entry, dropped):
        """Make an entry dead, and append its key and value to `dropped`; False if it was dead already."""
        if entry.next is None:
            return False
        self._forget_key(entry)
        value = self._unlink(entry)
        if value is _ABSENT:
            return False
        dropped += (entry.key, value)
        if entry.tags:
            self._retag(entry, ())
        return True

    def _snapshot(self, row=_itself, ends=None):
        """``row(entry)`` of the live entries, or of the lists of `ends`, list by list, the oldest first.

        All are of one moment. Readers take the lock meanwhile, so that none moves an entry.
        """
        with self._lock:
            try:
                while True:
                    self._slow = True
                    version = self._version
                    rows = self._chained(row, ends or self._ends)
                    if version == self._version:
                        return rows
            finally:
                self._slow = self._timed or not _GIL  # nothing comes between the look and the setting

    def _chained(self, row, ends):
        """Rows of the lists of `ends`; at an entry that has left its list the walk ends, to be made anew."""
        rows = []
        for end in self._all_ends(ends):
            entry = end.next
            while entry is not None and entry.end is end:
                rows.append(row(entry))
                entry = entry.next
        return rows

    def _all_ends(self, ends):
        return ends

    # ---- lifetimes --------------------------------------------------------------------------

    def _now(self):
        """The time where entries may have a lifetime; runs the clock."""
        if not self._timed:
            return 0
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _due(self, now, lifetime):
        """When an entry that is written now ends by its ttl."""
        if lifetime is None or lifetime == NEVER:
            return NEVER
        if self._jitter:
            lifetime = shortened(lifetime, self._jitter, self._draw())
        return now + lifetime

    def _draw(self):
        """The next 64 bits of splitmix64's sequence."""
        drawn = splitmix64(self._draws)
        self._draws = (self._draws + 1) % _WORD
        return drawn

    def _lease(self, entry, now):
        """Let a live entry be found when its lifetime ends."""
        due = entry.hard if self._idle is None else min(entry.hard, now + self._idle)
        self._stamps = stamp = self._stamps + 1
        entry.due, entry.stamp = due, stamp
        if due == NEVER or entry.next is None:
            return
        heappush(self._heap, (due, stamp, entry))
        if len(self._heap) > 2 * self._count + 64:
            heap = [item for item in self._heap if item[2].stamp == item[1] and item[2].next is not None]
            heapify(heap)
            if stamp == self._stamps:
                self._heap = heap

    def _purge(self, now, dropped):
        """Drop every entry whose lifetime has ended."""
        while self._heap and self._heap[0][0] <= now:
            _, stamp, entry = heappop(self._heap)
            if entry.stamp == stamp and self._drop(entry, dropped):
                self._counts["expired"] += 1

    def _purge_now(self):
        """What `_purge_at` dropped now."""
        return self._purge_at(self._now()) if self._timed else []

    def _purge_at(self, now):
        """What `_purge` dropped, told to the listener."""
        dropped = []
        with self._lock:
            self._purge(now, dropped)
        self._tell(dropped, "expired")
        return dropped

    def _end_lifetime(self, entry, now):
        """Drop an entry that was found expired."""
        dropped = []
        with self._lock:
            if entry.due <= now and self._drop(entry, dropped):
                self._counts["expired"] += 1
        self._tell(dropped, "expired")

    # ---- tags -------------------------------------------------------------------------------

    def _retag(self, entry, tags):
        old, entry.tags = entry.tags, tags
        for tag in old + tags:
            self._label(entry, tag)

    def _label(self, entry, tag):
        """Let the group of a tag hold an entry if the entry has the tag, and not otherwise."""
        fresh, groups = {}, self._tagged
        if tag in entry.tags:
            if tag not in groups:
                groups[tag] = fresh
            groups[tag][entry] = None
        elif tag in groups and entry in groups[tag]:
            del groups[tag][entry]
            if not groups[tag]:
                del groups[tag]

    # ---- what the methods are made of -------------------------------------------------------

    def _touch(self, entry, now):
        """Count a read of a live entry for the policy and for its idle time."""
        if self._idle is not None:
            self._lease(entry, now)
        self._hit(entry)

    def _read(self, key):
        """The value of `key`, or _ABSENT; counts a hit or a miss."""
        now = self._now()
        while True:
            births, entry = self._births, self._seek(key)
            with self._lock:
                if not self._is_current(entry, births):
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
            births, entry = self._births, self._seek(key)
            if entry is None:
                return _ABSENT
            with self._lock:
                if self._is_current(entry, births):
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
        if size > self._room:
            raise ValueError(f"value too large: size {size} exceeds maxsize {self._room}")

    def _tell(self, dropped, reason):
        """Tell the listener of the keys and values that `dropped` alternates."""
        if dropped and self._listener is not None:
            notify(self._listener, dropped, reason)

    def _evict_one(self, victim, dropped):
        if victim is not None and self._drop(victim, dropped):
            self._evictions += 1

    def _evict(self, size, dropped):
        """Evict until `size` more fits."""
        while self._count and self._filled > self._room - size:
            self._evict_some(size, dropped)

    def _store(self, key, value, keep=False, lifetime=None, tags=()):
        """Put an entry; with `keep`, an entry that is there stays and its value is returned."""
        size = 1 if self._sizer is None else self._measure(value)
        bucket = None if type(key) in _PLAIN or _is_plain(key) else hash(key)
        digest = hash(key) if self._HASHES else 0
        if lifetime is not None:
            self._set_timed(True)
        now = self._now()
        hard = self._due(now, self._lifetime if lifetime is None else lifetime)
        first = self._heap[:1]  # another thread may take it meanwhile
        if first and first[0][0] <= now:
            self._purge_at(now)
        new, replaced, dropped = _Entry(key, bucket), [], []
        asked = not self._HASHES
        while True:
            births, found = self._births, self._seek(key)
            with self._lock:
                if not self._is_current(found, births):
                    continue
                if not asked:
                    asked = True
                    self._asked(digest)
                live = found is not None and found.next is not None
                if keep and live:
                    self._touch(found, now)
                    return found.value
                self._refuse_too_large(size)
                entry = new if found is None else found
                if live and self._filled - entry.size > self._room - size:
                    self._lift(entry, replaced)
                    live = False
                if live:
                    replaced += (entry.key, self._exchange(entry, value, size, hard))
                elif not self._enter(entry, found is None, value, size, digest, hard, dropped):
                    continue
                self._settle(entry, live, now, tags)
                self._counts["replaced"] += bool(replaced)
            break
        self._tell(replaced, "replaced")
        self._tell(dropped, "size")
        return value

    def _lift(self, entry, replaced):
        """Take a live entry that grows beyond the bound out of its list; it stays where it is found."""
        old = self._unlink(entry)
        if old is not _ABSENT:
            replaced += (entry.key, old)

    def _exchange(self, entry, value, size, hard):
        """Give a live entry another value, size and end of its ttl, and return the old value."""
        old, growth = entry.value, size - entry.size
        entry.value, entry.size, entry.due = value, size, hard
        entry.hard = hard
        entry.end.size += growth
        self._filled += growth
        self._version += 1
        return old

    def _enter(self, entry, is_new, value, size, digest, hard, dropped):
        """Evict until a dead entry fits, and give it its place; False if a finalizer was faster."""
        births, bucket, group = self._births, entry.bucket, None
        self._evict(size, dropped)
        end = self._place(size, digest)
        version = self._version
        if bucket is not None:
            group = (*self._odd.get(bucket, ()), entry)
        if version != self._version or births != self._births or entry.next is not None:
            return False
        if self._filled > self._room - size:
            return False
        last = end.prev
        entry.value, entry.size, entry.hash = value, size, digest
        entry.due, entry.hard, entry.mark = hard, hard, 0
        entry.prev, entry.next, entry.end = last, end, end
        last.next = entry
        end.prev = entry
        end.size += size
        self._filled += size
        self._count += 1
        self._version += 1
        if is_new:
            self._births += 1
            if bucket is None:
                self._data[entry.key] = entry
            else:
                self._odd[bucket] = group
        return True

    def _store_plain(self, key, value):
        """What `_store` does in a queue while no entry has a size, a lifetime, a tag or a listener."""
        if type(key) not in _PLAIN and not _is_plain(key):
            self._store(key, value)
            return
        new, dropped = _Entry(key), []
        with self._lock:
            while not (self._timed or self._tagged or self._odd):
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
                if self._count >= self._room:
                    self._refuse_too_large(1)
                    self._evict_oldest(dropped)
                    continue
                last = end.prev
                new.value, new.size = value, 1
                new.due = new.hard = NEVER
                new.prev, new.next, new.end = last, end, end
                last.next = new
                end.prev = new
                end.size += 1
                data[key] = new
                self._filled += 1
                self._count += 1
                self._births += 1
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

    def _settle(self, entry, was_live, now, tags):
        """Tell the policy of a stored entry, and give it its lifetime and its tags."""
        if was_live:
            self._rewrite(entry)
        elif entry.next is not None:
            self._placed(entry)
        if self._timed:
            self._lease(entry, now)
        if tags or entry.tags:
            self._retag(entry, tags)

    def _take(self, key):
        """Remove the entry of `key` and return its key and value; None where there is none."""
        now, dropped = self._now(), []
        while not dropped:
            births, entry = self._births, self._seek(key)
            if entry is None:
                return None
            with self._lock:
                if not self._is_current(entry, births):
                    continue
                if entry.next is None:
                    return None
                reason = "expired" if entry.due <= now else "removed"
                self._counts[reason] += self._drop(entry, dropped)
        self._tell(dropped, reason)
        return dropped if reason == "removed" else None

    def _remove_entries(self, pairs):
        """Remove the entries that still have the value beside them, or have _ABSENT; how many there were."""
        dropped = []
        with self._lock:
            for entry, value in pairs:
                if (value is _ABSENT or entry.value is value) and self._drop(entry, dropped):
                    self._counts["removed"] += 1
        self._tell(dropped, "removed")
        return len(dropped) // 2

    # ---- the mapping ------------------------------------------------------------------------

    def __del__(self, is_finalizing=sys.is_finalizing):
        """Break the cycles of links, so that the entries go at once; at the end of an interpreter the names
        of this module may be gone."""
        if is_finalizing():
            return
        old = self._empty()
        self._unchain(self._snapshot(ends=old[-1]), old[-1])

    def _unchain(self, entries, ends):
        """Make all entries of lists dead."""
        for entry in entries:
            entry.prev = entry.next = entry.end = None
        for end in list(self._all_ends(ends)):
            end.prev = end.next = None

    def __getitem__(self, key):
        entry = self._data.get(key)
        if entry is None and self._odd:
            entry = self._seek_odd(key)
        if self._slow or entry is None or entry.next is None:
            found = self._read(key)
            if found is _ABSENT:
                raise KeyError(key)
            return found
        self._hits += 1
        value = entry.value
        self._hit(entry)
        return value

    def __setitem__(self, key, value):
        if self._plain:
            self._store_plain(key, value)
        else:
            self._store(key, value)

    def __delitem__(self, key):
        if self._take(key) is None:
            raise KeyError(key)

    def __contains__(self, key):
        return self._look(key) is not _ABSENT

    def __len__(self):
        self._purge_now()
        return self._count

    def __iter__(self):
        self._purge_now()
        return iter([entry.key for entry in self._snapshot()])

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    @recursive_repr()
    def __repr__(self):
        self._purge_now()
        with self._lock:
            pairs, room, filled = self._snapshot(_pair), self._room, self._filled
        return f"{type(self).__name__}({dict(pairs)!r}, maxsize={room}, currsize={filled})"

    def __sizeof__(self):
        """The bytes of the cache and its slab, without keys and values."""
        entries = sum(map(sys.getsizeof, self._snapshot()))
        tables = sum(map(sys.getsizeof, (self._data, self._odd, self._heap, *self._odd.values())))
        return object.__sizeof__(self) + tables + entries

    def _entries(self):
        self._purge_now()
        return self._snapshot(_pair)

    def get(self, key, default=None):
        """The value of `key`, read as the policy counts reads; `default` where there is none.

        Counts a hit or a miss. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.get("a", "nothing")
        'nothing'
        """
        entry = self._data.get(key)
        if entry is None and self._odd:
            entry = self._seek_odd(key)
        if self._slow or entry is None or entry.next is None:
            found = self._read(key)
            return default if found is _ABSENT else found
        self._hits += 1
        value = entry.value
        self._hit(entry)
        return value

    def peek(self, key, default=None):
        """The value of `key`, or `default`; neither the order nor a counter changes.

        Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.peek("a"), cache.hits
        (1, 0)
        """
        entry = self._data.get(key)
        if entry is not None and not self._slow:
            value, next = entry.value, entry.next
            if next is not None:
                return value
        found = self._look(key)
        return default if found is _ABSENT else found

    def put(self, key, value, *, ttl=None, tags=()):
        """Store `value` under `key` and evict what no longer fits.

        The same as ``cache[key] = value``, for an entry of its own lifetime `ttl`, in seconds:
        None takes that of the cache, ``math.inf`` none at all. An entry can be dropped by each
        of its `tags`, see ``invalidate``.

        Raises ValueError if the value's size is negative or above `maxsize` or `ttl` is not
        positive, TypeError if `ttl` is no number or a tag no str; the cache is then as it was.
        Complexity: O(1), amortised over the entries evicted where sizes differ.

        >>> cache = LRUCache(3, getsizeof=len)
        >>> cache.put("a", "xy")
        >>> cache.put("b", "xyz", ttl=60)
        >>> list(cache)
        ['b']
        """
        if ttl is None and type(tags) is tuple and not tags:
            _Cache.__setitem__(self, key, value)
        else:
            self._store(key, value, False, checked_lifetime("ttl", ttl), checked_tags(tags))

    def pop(self, key, default=_ABSENT):
        """Remove `key` and return its value; `default` where there is none.

        Raises KeyError if there is no such key and no default was given. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.pop("a"), cache.pop("a", None)
        (1, None)
        """
        entry = self._take(key)
        if entry is not None:
            return entry[1]
        if default is _ABSENT:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove the entry that would be evicted next and return its key and value.

        Raises KeyError if the cache is empty. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"], cache["b"] = 1, 2
        >>> cache.popitem()
        ('a', 1)
        """
        self._purge_now()
        dropped = []
        with self._lock:
            while not dropped:
                if not self._count:
                    raise KeyError(f"{type(self).__name__} is empty")
                victim = self._victim(0)
                if victim is not None:
                    self._drop(victim, dropped)
            self._counts["removed"] += 1
        self._tell(dropped, "removed")
        return dropped[0], dropped[1]

    def setdefault(self, key, default=None):
        """The value of `key`; where there is none, `default`, stored under `key`.

        Counts a hit or a miss. Raises what ``put`` raises. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.setdefault("a", 1), cache.setdefault("a", 2)
        (1, 1)
        """
        found = self._read(key)
        return self._store(key, default, True) if found is _ABSENT else found

    def get_or_load(self, key, loader):
        """The value of `key`; where there is none, what ``loader(key)`` returns, stored under `key`.

        Of all threads that ask for one missing key at one time, one calls its loader and the others
        wait for the outcome, an error included; an error is never stored. A loader may ask for keys
        itself, even for its own. What was loaded is not stored if the cache was cleared meanwhile, or
        if it is too large. Counts a hit or a miss, and the load and its time.

        Raises what the loader raises, and TypeError if it is no callable, is a coroutine function or
        returns an awaitable: ``aget_or_load`` takes these. Complexity: O(1), the loader aside.

        >>> cache = LRUCache(2)
        >>> cache.get_or_load("a", str.upper), cache.get_or_load("a", str.lower)
        ('A', 'A')
        >>> cache.stats().loads
        1
        """
        checked_loader(loader)
        found = self._read(key)
        if found is not _ABSENT:
            return found
        refuse_coroutine_function(loader)
        return self._shared_flights().load(self, key, lambda: self._load(key, loader))

    async def aget_or_load(self, key, loader):
        """The value of `key`; where there is none, what ``await loader(key)`` returns, stored under `key`.

        ``get_or_load`` for coroutines of asyncio: of all tasks of an event loop that ask for one missing
        key at one time, one calls its loader and the others wait for the outcome. If its task is cancelled,
        the next that waits takes over. Other event loops, and threads in ``get_or_load``, load for
        themselves. `loader` may be any callable; what it returns is awaited if it is awaitable.

        Raises what the loader raises, and TypeError if it is no callable. Complexity: O(1), the loader
        aside.

        >>> import asyncio
        >>> async def load(key):
        ...     return key.upper()
        >>> cache = LRUCache(2)
        >>> asyncio.run(cache.aget_or_load("a", load)), cache["a"]
        ('A', 'A')
        """
        checked_loader(loader)
        found = self._read(key)
        if found is not _ABSENT:
            return found
        return await self._shared_flights().load_async(self, key, lambda: self._load_async(key, loader))

    def _shared_flights(self):
        """The flights by which all threads and event loops load; made by whoever loads first."""
        if self._flights is None:
            flights = Flights()
            with self._lock:
                if self._flights is None:
                    self._flights = flights
        return self._flights

    def _load(self, key, loader):
        failed, started = True, perf_counter_ns()
        try:
            value = checked_result(loader(key))
            failed = False
        finally:
            self._count_load(failed, started)
        return value

    async def _load_async(self, key, loader):
        failed, started = True, perf_counter_ns()
        try:
            value = loader(key)
            if is_awaitable(value):
                value = await value
            failed = False
        finally:
            self._count_load(failed, started)
        return value

    def _count_load(self, failed, started):
        """Count a load that began when the clock of loads was at `started`."""
        with self._lock:
            self._counts["loads"] += 1
            self._counts["failures"] += failed
            self._counts["nanoseconds"] += perf_counter_ns() - started

    def update(self, other=(), /, **kwargs):
        """Put every entry of a mapping, of an iterable of pairs, and of the keyword arguments.

        Complexity: O(1) an entry.

        >>> cache = LRUCache(2)
        >>> cache.update({"a": 1}, b=2)
        >>> list(cache.items())
        [('a', 1), ('b', 2)]
        """
        MutableMapping.update(self, other, **kwargs)

    def clear(self):
        """Remove every entry and give the memory back; counters stay, `generation` goes up.

        Complexity: O(n).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.clear()
        >>> len(cache), cache.generation
        (0, 1)
        """
        self._clear()

    def _clear(self):
        """Remove every entry, and return how many there were."""
        with self._lock:
            old = self._empty()
            entries = self._snapshot(ends=old[-1])
            self._counts["removed"] += len(entries)
            self._generation += 1
            if self._flights is not None:
                self._flights.ground()
            dropped = [part for entry in entries for part in (entry.key, entry.value)]
            self._unchain(entries, old[-1])
        del old, entries
        self._tell(dropped, "removed")
        return len(dropped) // 2

    def keys(self):
        """A view of the keys, the next victim first; iterating it goes over a snapshot.

        >>> cache = LRUCache(2)
        >>> cache.update(a=1, b=2)
        >>> list(cache.keys())
        ['a', 'b']
        """
        return CacheKeys(self)

    def values(self):
        """A view of the values in the order of the keys; reading it touches nothing.

        >>> cache = LRUCache(2)
        >>> cache.update(a=1, b=2)
        >>> list(cache.values())
        [1, 2]
        """
        return CacheValues(self)

    def items(self):
        """A view of the pairs of key and value; reading it touches nothing.

        >>> cache = LRUCache(2)
        >>> cache.update(a=1, b=2)
        >>> list(cache.items())
        [('a', 1), ('b', 2)]
        """
        return CacheItems(self)

    # ---- beyond the mapping -----------------------------------------------------------------

    @property
    def maxsize(self):
        """The bound on `currsize`.

        >>> LRUCache(2).maxsize
        2
        """
        return self._room

    @property
    def currsize(self):
        """The number of entries, or the sum of their sizes where the cache has a getsizeof.

        >>> cache = LRUCache(10, getsizeof=len)
        >>> cache["a"] = "xyz"
        >>> cache.currsize
        3
        """
        self._purge_now()
        return self._filled

    @property
    def getsizeof(self):
        """The callable that sizes a value, or None.

        >>> LRUCache(10, getsizeof=len).getsizeof("xyz")
        3
        """
        return self._sizer

    @property
    def on_evict(self):
        """The listener that is told of every entry that has left, or None.

        >>> cache = LRUCache(1, on_evict=print)
        >>> cache["a"] = 1
        >>> cache["b"] = 2
        a 1 size
        """
        return self._listener

    @property
    def ttl(self):
        """The lifetime of an entry in seconds, or None.

        >>> LRUCache(2, ttl=60).ttl
        60.0
        """
        return None if self._lifetime is None else self._lifetime / 1e9

    @property
    def tti(self):
        """The time in seconds after which an entry that is not used ends, or None.

        >>> LRUCache(2, tti=0.5).tti
        0.5
        """
        return None if self._idle is None else self._idle / 1e9

    @property
    def clock(self):
        """The callable that answers integer nanoseconds, or None for the monotonic clock.

        >>> LRUCache(2).clock is None
        True
        """
        return self._clock

    @property
    def generation(self):
        """How often the whole cache was emptied, by ``clear`` or by ``invalidate()``.

        >>> LRUCache(2).generation
        0
        """
        return self._generation

    @property
    def hits(self):
        """How many lookups found their key.

        >>> cache = LRUCache(1)
        >>> cache["a"] = 1
        >>> cache.get("a"), cache.hits
        (1, 1)
        """
        return self._hits

    @property
    def misses(self):
        """How many lookups did not find their key.

        >>> cache = LRUCache(1)
        >>> cache.get("a"), cache.misses
        (None, 1)
        """
        return self._misses

    @property
    def evictions(self):
        """How many entries were dropped to keep within `maxsize`.

        >>> cache = LRUCache(1)
        >>> cache.update(a=1, b=2)
        >>> cache.evictions
        1
        """
        return self._evictions

    @property
    def expirations(self):
        """How many entries were dropped at the end of their lifetime.

        >>> LRUCache(1).expirations
        0
        """
        return self._counts["expired"]

    def stats(self, *, reset=False):
        """A snapshot of the counters and of the size; with `reset` the counters start anew.

        >>> cache = LRUCache(2)
        >>> cache.get("a")
        >>> cache.stats(reset=True).misses, cache.stats().misses
        (1, 0)
        """
        self._purge_now()
        with self._lock:
            counts = self._counts
            stats = CacheStats(
                self._hits, self._misses, self._evictions, counts["expired"], counts["replaced"],
                counts["removed"], counts["loads"], counts["failures"], counts["nanoseconds"] / 1e9,
                self._filled, self._room)
            if reset:
                self._hits = self._misses = self._evictions = 0
                self._counts = dict.fromkeys(counts, 0)
        return stats

    def expire(self):
        """Drop every entry whose lifetime has ended, and return their keys and values.

        It is never needed: whatever writes or counts does it too. Complexity: O(1) amortised an
        entry.

        >>> now = [0]
        >>> cache = LRUCache(2, ttl=1, clock=lambda: now[0])
        >>> cache["a"] = 1
        >>> now[0] = 10**9
        >>> cache.expire()
        [('a', 1)]
        """
        flat = iter(self._purge_now())
        return list(zip(flat, flat, strict=True))

    def invalidate(self, *, tag=None, predicate=None):
        """Remove the entries of a tag, or those for which ``predicate(key, value)`` is true, or all.

        Returns how many they were. Raises TypeError if both are given, or are no str and no
        callable. Complexity: O(entries of the tag); O(n) for a predicate and for all.

        >>> cache = LRUCache(9)
        >>> cache.put("a", 1, tags=("user:7",))
        >>> cache.put("b", 2)
        >>> cache.invalidate(tag="user:7"), list(cache)
        (1, ['b'])
        >>> cache.invalidate(predicate=lambda key, value: value > 1)
        1
        """
        if tag is not None and predicate is not None:
            raise TypeError(f"either tag or predicate must be None, got {tag!r} and {predicate!r}")
        if tag is not None:
            checked_tags((tag,))
            with self._lock:
                group = [(entry, _ABSENT) for entry in self._tagged.get(tag, ())]
            return self._remove_entries(group)
        checked_callable("predicate", predicate)
        self._purge_now()
        if predicate is not None:
            found = self._snapshot(lambda entry: (entry, entry.value))
            return self._remove_entries([pair for pair in found if predicate(pair[0].key, pair[1])])
        return self._clear()

    def resize(self, maxsize):
        """Set another `maxsize`, evict what no longer fits and give spare memory back.

        Raises what the constructor raises. Complexity: O(entries evicted), and O(n) where
        memory is given back.

        >>> cache = LRUCache(3)
        >>> cache.update(a=1, b=2, c=3)
        >>> cache.resize(1)
        >>> list(cache)
        ['c']
        """
        room = _checked_maxsize(maxsize, self._sizer is not None)
        self._purge_now()
        dropped = []
        with self._lock:
            self._room = room
            self._version += 1
            self._fit()
            self._evict(0, dropped)
            if len(dropped) > 2 * self._count:
                self._shrink()
        self._tell(dropped, "size")

    def _shrink(self):
        """Make the table anew, as small as it may be."""
        version, data = self._version, dict(self._data)
        if version == self._version:
            data, self._data = self._data, data

    def dump(self, file, *, serializer=None):
        """Write all entries, their lifetimes and tags to a path or a binary file.

        `serializer` has ``dumps`` and ``loads``, as modules like pickle have; by default it is json. A
        path is replaced as a whole, by a file of the same mode: a reader finds the old dump or the new.
        Raises what the serializer raises, and TypeError if a key or a value does not come back from it
        the same, as tuples do not from json, which makes lists of them; the file is then as it was.
        Complexity: O(n).

        >>> import io
        >>> cache, file = LRUCache(2), io.BytesIO()
        >>> cache["a"] = [1, 2]
        >>> cache.dump(file)
        >>> file.getvalue().startswith(b"headgate cache 1")
        True
        """
        _, rows = self._moment()
        dump_rows(rows, file, serializer)

    def load(self, file, *, serializer=None):
        """Put all entries of a path or a binary file that ``dump`` wrote, and return how many they were.

        Lifetimes go on from where they stood at the dump. `serializer` must be the one that wrote the
        file: reading it runs that serializer on what the file holds, so pickle is for trusted files
        only. Raises ValueError if the file is no dump, was truncated or altered or names another
        serializer, or if a value is too large; the cache is then as it was. Complexity: O(entries of the
        file).

        >>> import io
        >>> cache, file = LRUCache(2), io.BytesIO()
        >>> cache["a"] = [1, 2]
        >>> cache.dump(file)
        >>> other = LRUCache(2)
        >>> other.load(io.BytesIO(file.getvalue())), other["a"]
        (1, [1, 2])
        """
        rows = load_rows(file, serializer)
        for _, value, *_ in rows:
            self._refuse_too_large(1 if self._sizer is None else self._measure(value))
        for key, value, *_ in rows:
            self[key] = value
        self.__setstate__(({}, leases(rows)))
        return len(rows)

    # ---- copies, pickles, checks ------------------------------------------------------------

    def __copy__(self):
        room, rows = self._moment()
        copy = type(self)._from_state(self._state(room))
        listener, copy._listener = copy._listener, None
        for key, value, *_ in rows:
            copy._store(key, value)
        copy.__setstate__((carried(self), leases(rows)))
        copy._listener = listener
        return copy

    def __reduce__(self):
        room, rows = self._moment()
        own, lasting = carried(self), leases(rows)
        more = (own, lasting) if own or lasting else None
        return restore, (name_class(self), self._state(room)), more, None, iter([row[:2] for row in rows])

    def _state(self, room):
        return (2, room, self._sizer, self._lifetime, self._idle, self._jitter, self._clock,
                self._listener, self._seed)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 2:
            raise ValueError(f"state must be of version 2, got {state[0]!r}")
        cache = cls.__new__(cls)
        cache._configure(*state[1:])
        return cache

    def _moment(self):
        """The bound, and of every entry key, value, nanoseconds left in all and by ttl, and tags."""
        while True:
            timed, now = self._timed, self._now()
            self._purge_at(now)
            with self._lock:
                version = self._version
                room, entries = self._room, self._snapshot(_whole)
                if version == self._version and timed == self._timed:  # or `now` is no time
                    break
        return room, [(key, value, due if due == NEVER else due - now, hard if hard == NEVER else hard - now,
                       tags) for key, value, due, hard, tags in entries]

    def __setstate__(self, state):
        """Adopt the attributes of a subclass, and lifetimes and tags: what ``__reduce__`` wrote."""
        own, lasting = checked_state(state)
        carry(self, own)
        for key, left, hard_left, tags in lasting:
            self._resume(key, left, hard_left, tags)

    def _resume(self, key, left, hard_left, tags):
        """Let the entry of `key` live for `left` nanoseconds more, and give it its tags."""
        if left != NEVER:
            self._set_timed(True)
        now = self._now()
        while True:
            births, entry = self._births, self._seek(key)
            with self._lock:
                if not self._is_current(entry, births):
                    continue
                if entry is not None and entry.next is not None:
                    entry.hard = hard_left if hard_left == NEVER else now + hard_left
                    idle, self._idle = self._idle, None if left == hard_left else max(1, left)
                    self._lease(entry, now)
                    self._idle = idle
                    self._retag(entry, tags)
            return

    def _check(self):
        entries = self._snapshot()
        odd = [entry for group in self._odd.values() for entry in group]
        found = set(map(id, [*self._data.values(), *odd]))
        assert found == set(map(id, entries)), "exactly the live entries can be found"
        assert len(self._data) + len(odd) == len(entries), "each can be found once"
        assert all(entry.bucket is None and _is_plain(entry.key) for entry in self._data.values())
        assert all(entry.bucket == bucket for bucket, group in self._odd.items() for entry in group)
        assert len(entries) == self._count, "the lists hold every live entry"
        assert sum(entry.size for entry in entries) == self._filled <= self._room, "currsize is the sum"
        for end in self._all_ends(self._ends):
            entry, size = end.next, 0
            while entry is not end:
                assert entry.prev.next is entry and entry.end is end, "the lists are doubly linked"
                size += entry.size
                entry = entry.next
            assert size == end.size, "an end counts the size of its list"
        leased = {item[2] for item in self._heap if item[2].stamp == item[1]}
        assert all(entry.due == NEVER or entry in leased for entry in entries), "lifetimes stand in the heap"
        tagged = {(tag, entry) for tag, group in self._tagged.items() for entry in group}
        assert tagged == {(tag, entry) for entry in entries for tag in entry.tags}, "tags find their entries"


class LRUCache(_Cache):
    """A mapping of at most `maxsize` entries that drops the least recently used one first.

    With `getsizeof`, a callable from a value to a non-negative int, `maxsize` bounds the sum of
    the sizes instead of the number of entries. ``on_evict(key, value, reason)`` is called after
    an entry has left, with the reason ``"size"``, ``"expired"``, ``"replaced"`` or ``"removed"``;
    what it raises goes to ``sys.unraisablehook``.

    An entry ends `ttl` seconds after it was written, or `tti` seconds after it was last used,
    whatever comes first; each ttl is shortened at random by up to the share `jitter`. `clock` is a
    callable that answers integer nanoseconds, by default the monotonic clock. An entry that has
    ended is never returned nor counted, and leaves with the next write or count. All draws follow
    from `seed`.

    ``cache[key]``, ``get``, ``setdefault`` and ``put`` make an entry the most recently used;
    ``peek``, ``in`` and iteration touch nothing. Iteration goes over a snapshot, least recently
    used first. Every method is atomic among threads.

    Raises ValueError if `maxsize` is negative or above 2**31 entries (2**63 - 1 with
    `getsizeof`), `ttl` or `tti` is not positive or `jitter` outside [0, 1), TypeError if an
    argument has the wrong type.

    Complexity: O(1) for every operation on one key; memory grows with use, never beyond maxsize.

    >>> cache = LRUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """

    __slots__ = ()

    _QUEUE = True

    def _hit(self, entry):
        self._move(entry, self._ends[0])

    def __getitem__(self, key):
        entry = self._data.get(key)
        if entry is None and self._odd:
            entry = self._seek_odd(key)
        if self._slow or entry is None:
            return super().__getitem__(key)
        end, prev, next = self._ends[0], entry.prev, entry.next
        if next is None:
            return super().__getitem__(key)
        if next is not end:
            prev.next = next
            next.prev = prev
            last = end.prev
            entry.prev, entry.next = last, end
            last.next = entry
            end.prev = entry
            self._version += 1
        self._hits += 1
        return entry.value

    def get(self, key, default=None):
        entry = self._data.get(key)
        if entry is None and self._odd:
            entry = self._seek_odd(key)
        if self._slow or entry is None:
            return super().get(key, default)
        end, prev, next = self._ends[0], entry.prev, entry.next
        if next is None:
            return super().get(key, default)
        if next is not end:
            prev.next = next
            next.prev = prev
            last = end.prev
            entry.prev, entry.next = last, end
            last.next = entry
            end.prev = entry
            self._version += 1
        self._hits += 1
        return entry.value

    get.__doc__ = _Cache.get.__doc__


class TTLCache(LRUCache):
    """An LRUCache whose entries end `ttl` seconds after they were written.

    Arguments, errors and complexity are those of ``LRUCache``; ``put`` may give an entry another
    lifetime.

    >>> now = [0]
    >>> cache = TTLCache(2, ttl=1, clock=lambda: now[0])
    >>> cache["a"] = 1
    >>> now[0] = 999_999_999
    >>> cache["a"]
    1
    >>> now[0] = 1_000_000_000
    >>> "a" in cache, len(cache), cache.expirations
    (False, 0, 1)
    """

    __slots__ = ()

    def __init__(self, maxsize, ttl, getsizeof=None, *, tti=None, jitter=0.0, clock=None, on_evict=None,
                 seed=0):
        if ttl is None:
            raise TypeError(f"ttl must be a number of seconds, got {ttl!r}")
        super().__init__(maxsize, getsizeof, ttl=ttl, tti=tti, jitter=jitter, clock=clock, on_evict=on_evict,
                         seed=seed)


class FIFOCache(_Cache):
    """A mapping of at most `maxsize` entries that drops the one written longest ago first.

    Reading an entry does not save it, writing it again puts it last in the queue. Arguments,
    errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot, the next
    victim first.

    >>> cache = FIFOCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['b', 'c']
    """

    __slots__ = ()

    _QUEUE = True

    def _rewrite(self, entry):
        self._move(entry, self._ends[0])


class LFUCache(_Cache):
    """A mapping of at most `maxsize` entries that drops the least frequently used one first.

    Writing an entry and each read count as one use; among equals the one that has had its count
    for longest goes first. Counts end at 2**32 - 1. Arguments, errors and complexity are those of
    ``LRUCache``. Iteration goes over a snapshot, the next victim first.

    Source: Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU cache eviction
    scheme", 2010.

    >>> cache = LFUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['c', 'a']
    """

    __slots__ = ()

    @staticmethod
    def _new_end():
        return _Group(1)

    def _all_ends(self, ends):
        group = ends[0]
        while group is not None:
            yield group
            group = group.above

    def _hit(self, entry):
        fresh = _Group(0)
        prev, next, group = entry.prev, entry.next, entry.end
        if next is None:
            return
        above, below = group.above, group.below
        count = group.mark + (group.mark < _MOST_USES)
        if count == group.mark:
            above = group
        elif above is None or above.mark != count:
            fresh.mark, fresh.below, fresh.above = count, group, above
            if above is not None:
                above.below = fresh
            group.above = above = fresh
        prev.next = next
        next.prev = prev
        group.size -= entry.size
        last = above.prev
        entry.prev, entry.next, entry.end = last, above, above
        last.next = entry
        above.prev = entry
        above.size += entry.size
        if group.next is group and below is not None:
            below.above = above
            above.below = below
        self._version += 1

    def _left(self, entry, end, next):
        below, above = end.below, end.above
        if end.next is end and below is not None and below.above is end:
            below.above = above
            if above is not None:
                above.below = below

    def _victim(self, size):
        group = self._ends[0]
        while group is not None and group.next is group:
            group = group.above
        return None if group is None else group.next


class _Group(_End):
    """The end of the list of the entries used equally often; `mark` is that count."""

    __slots__ = ("above", "below")

    def __init__(self, count):
        super().__init__()
        self.mark = count
        self.below = self.above = None


class SieveCache(_Cache):
    """A mapping of at most `maxsize` entries that drops one not read since the hand last passed it.

    New entries join the newest end of a queue and never move. A read marks its entry; the hand goes
    from old to new, takes marks off and evicts the first entry without one. Arguments, errors and
    complexity are those of ``LRUCache``; an eviction is O(1) amortised over the reads. Iteration goes
    over a snapshot, oldest first.

    Source: Zhang, Yang, Yue, Vigfusson, Rashmi, "SIEVE is simpler than LRU", NSDI 2024.

    >>> cache = SieveCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> list(cache)
    ['a', 'c']
    """

    __slots__ = ()

    @staticmethod
    def _new_end():
        return _Dial()

    def _hit(self, entry):
        entry.mark = 1

    def _left(self, entry, end, next):
        if end.hand is entry:
            end.hand = None if next is end else next

    def _victim(self, size):
        end = self._ends[0]
        entry = end.hand
        if entry is None or entry.next is None:
            entry = end.next
        while entry is not None:
            if entry is end:
                entry = end.next
            if entry is end:
                return None
            if not entry.mark:
                end.hand = entry
                return entry
            entry.mark = 0
            entry = entry.next
        return None


class _Dial(_End):
    """The end of a list, and the entry at which the hand stands."""

    __slots__ = ("hand",)

    def __init__(self):
        super().__init__()
        self.hand = None


class S3FIFOCache(_Cache):
    """A mapping of at most `maxsize` entries in a small queue, a main queue and a queue of ghosts.

    A new entry joins the small queue, a tenth of the cache; who was read twice there by its turn is
    moved to the main queue, and who was not leaves a ghost: its hash, of which as many are kept as
    the main queue has room for (an entry of size 0 counts there as 1). A key that still has a ghost
    comes back into the main queue, whose entries get as many further turns as they were read, at
    most three. Arguments, errors and complexity are those of ``LRUCache``; an eviction is O(1)
    amortised over the reads. Iteration goes over a snapshot: the small queue, then the main one,
    oldest first.

    Source: Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction",
    SOSP 2023.

    >>> cache = S3FIFOCache(10)
    >>> cache.update((i, i) for i in range(10))
    >>> cache[0], cache[0], cache[1]
    (0, 0, 1)
    >>> cache[10] = 10
    >>> 0 in cache, 1 in cache
    (True, False)
    """

    __slots__ = ("_ghost_size", "_ghosts")

    _LISTS = 2
    _HASHES = True

    def _empty(self):
        self._ghosts = OrderedDict()
        self._ghost_size = 0
        return super()._empty()

    def _fit(self):
        self._haunt()

    def _place(self, size, digest):
        small, main = self._ends
        return main if digest in self._ghosts else small

    def _placed(self, entry):
        self._ghost_size -= self._ghosts.pop(entry.hash, 0)

    def _hit(self, entry):
        entry.mark = min(3, entry.mark + 1)

    def _haunt(self):
        """Forget the oldest ghosts until the others fit."""
        while self._ghosts and 10 * self._ghost_size > 9 * self._room:
            self._ghost_size -= self._ghosts.popitem(last=False)[1]

    def _is_small_turn(self):
        small, main = self._ends
        return small.next is not small and (10 * small.size >= self._room or main.next is main)

    def _main_victim(self):
        main = self._ends[1]
        entry = self._first(main)
        while entry is not None and entry.mark:
            entry.mark -= 1
            self._move(entry, main)
            entry = self._first(main)
        return entry

    def _victim(self, size):
        small, main = self._ends
        while self._is_small_turn():
            entry = self._first(small)
            if entry is None or entry.mark < 2:
                return entry
            entry.mark = 0
            self._move(entry, main)
        return self._main_victim()

    def _evict_some(self, size, dropped):
        small, main = self._ends
        if not self._is_small_turn():
            self._evict_one(self._main_victim(), dropped)
            return
        entry = self._first(small)
        while entry is not None and entry.mark > 1:
            entry.mark = 0
            self._move(entry, main)
            if 10 * main.size > 9 * self._room:
                self._evict_one(self._main_victim(), dropped)
            entry = self._first(small)
        if entry is not None:
            digest, weight = entry.hash, max(1, entry.size)
            self._evict_one(entry, dropped)
            self._ghost_size += weight - self._ghosts.pop(digest, 0)
            self._ghosts[digest] = weight
            self._haunt()


class TinyLFUCache(_Cache):
    """A mapping of at most `maxsize` entries that admits by frequency: W-TinyLFU.

    A new entry joins an LRU window. An entry that falls out of the window is on probation in the main
    part, and when the cache is full its frequency, estimated by a Count-Min sketch of 4-bit counters
    that are halved from time to time, is compared with that of the least recently used entry on
    probation: the rarer of the two leaves. A read on probation protects, up to four fifths of the
    main part.

    The window starts with 1% of the cache. From the first rejection on it is widened when a key comes
    back that a window wider by a sixteenth of the cache would have kept, and narrowed by the hits that a
    main part smaller by as much would have lost, so that both halves of the cache end with equal use of
    their last entries. Arguments, errors and complexity are those of ``LRUCache``, the ageing of the
    sketch O(1) amortised. Iteration goes over a snapshot: window, probation, protected, each least
    recently used first.

    Source: Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS
    2017; the adaptive window is headgate's own and replaces the hill climbing of Einziger, Eytan,
    Friedman, Manes, "Adaptive software cache management", Middleware 2018.

    >>> cache = TinyLFUCache(100)
    >>> for key in range(100):
    ...     cache[key] = cache.get(key)
    >>> all(cache.get(key, key) is None for key in range(100))
    True
    >>> cache.update((key, key) for key in range(100, 200))
    >>> sum(key in cache for key in range(100))
    99
    """

    __slots__ = ("_aim", "_echoes", "_promotions", "_protected_room", "_sketch", "_span", "_window_room")

    _LISTS = 3
    _HASHES = True

    def _empty(self):
        self._sketch, self._echoes, self._promotions = _Sketch(), _Echoes(), 0
        return super()._empty()

    def _fit(self):
        room = self._room
        self._window_room = room // 100 or min(1, room)
        self._protected_room = (room - self._window_room) * 4 // 5
        self._span = max(1, room // 16)
        self._promotions = 0
        self._aim = float(self._window_room)

    def _asked(self, digest):
        self._sketch.ensure(self._count)
        self._sketch.add(digest)

    def _place(self, size, digest):
        self._shrink_window(size)
        return self._ends[0]

    def _placed(self, entry):
        self._adapt(entry)

    def _hit(self, entry):
        self._sketch.add(entry.hash)
        self._rewrite(entry)

    def _rewrite(self, entry):
        window, probation, protected = self._ends
        if entry.end is not probation:
            self._move(entry, entry.end or window)
            return
        self._promotions += 1
        self._move(entry, protected)
        self._shrink_protected()

    def _shrink_protected(self):
        _, probation, protected = self._ends
        while protected.size > self._protected_room and (entry := self._first(protected)) is not None:
            self._move(entry, probation)

    def _shrink_window(self, size):
        """Let entries fall out of the window until `size` more fits, and return the last of them."""
        window, probation, _ = self._ends
        candidate = None
        while window.size > self._window_room - size and (entry := self._first(window)) is not None:
            candidate = entry
            self._move(candidate, probation)
        return candidate

    def _victim(self, size):
        candidate = self._shrink_window(size)
        victim = self._rarer(candidate)
        if victim is not None and victim is candidate and size > 0:
            self._echoes.add(victim.hash, victim.size, self._count)
        return victim

    def _rarer(self, candidate):
        """The rarer of the candidate, which may be none, and the least recently used of the main part."""
        window, probation, protected = self._ends
        victim = self._first(probation) or self._first(protected) or self._first(window)
        if victim is None:
            return None
        if candidate is None or candidate is victim:
            return victim
        frequency = self._sketch.frequency
        return victim if frequency(candidate.hash) > frequency(victim.hash) else candidate

    def _adapt(self, entry):
        """Move the border between window and main part by what was asked for since the last entry joined.

        A main part smaller by `_span` would have lost some of the promotions, the reads on probation: half
        the share of `_span` in the probation, as its old end is read less than its new one. A wider window
        has to be worth a 64th of the cache, for each step costs an entry of the main part.
        """
        room = self._room
        least, size = min(1, room), float(entry.size)
        most, lost = room - least, size * self._promotions
        self._promotions = 0
        if self._echoes.sum == 0:
            return
        lost /= max(2.0, 2.0 * self._ends[1].size / self._span)
        aim = max(self._aim - lost, float(least))
        if self._echoes.has(entry.hash, self._span):
            aim += size
        self._aim = aim = min(aim, float(most))
        window = most if aim == most else int(aim)
        if window > self._window_room and window != most and aim - self._window_room < room / 64:
            return
        if window != self._window_room:
            self._window_room = window
            self._protected_room = (room - window) * 4 // 5
            self._shrink_protected()


class _Sketch:
    """Count-Min of 4-bit counters: four rows of 32 in a block of 128, and a hash chooses its block.

    It has eight words of 16 counters or more, a power of two and as many as the cache has had
    entries. After ten times as many additions all counters are halved.
    """

    __slots__ = ("additions", "counters", "sample")

    def __init__(self):
        self.counters = bytearray(8 * 16)
        self.sample = 80
        self.additions = 0

    def ensure(self, entries):
        """Have a word an entry; what was counted is seen from the new words too."""
        while len(self.counters) < 16 * entries:
            self.counters = self.counters * 2
            self.sample *= 2

    def add(self, digest):
        counters, added = self.counters, 0
        for place in _places(counters, digest):
            if counters[place] < 15:
                counters[place] += 1
                added = 1
        self.additions += added
        if self.additions >= self.sample:
            self.additions //= 2
            self.counters = self.counters.translate(_HALVED)

    def frequency(self, digest):
        """How often a hash was added, at most 15 and rather too often than too seldom."""
        counters = self.counters
        return min([counters[place] for place in _places(counters, digest)])


def _places(counters, digest):
    """Where the four counters of a hash stand."""
    drawn = splitmix64(digest % _WORD)
    block = (drawn & 0xFFFF_FFFF) % (len(counters) // 128) * 128
    return [block + 32 * row + (drawn >> 32 + 5 * row & 31) for row in range(4)]


class _Echoes:
    """Which hashes were rejected lately, each with the weight of all that was rejected until then.

    A mixed hash chooses its cell, of which there are a power of two, and replaces what is there.
    """

    __slots__ = ("cells", "sum")

    def __init__(self):
        self.cells = []
        self.sum = 0

    def add(self, digest, weight, entries):
        """A hash is rejected, in a cache of so many entries."""
        size = len(self.cells) or 8
        while size < entries // 8:
            size *= 2
        if size != len(self.cells):
            self.cells = [(0, 0)] * size
        mixed = splitmix64(digest % _WORD)
        self.sum = (self.sum + weight) % _WORD
        self.cells[mixed % size] = mixed, self.sum

    def has(self, digest, span):
        """Whether a hash was rejected, and since then less than the weight of `span`."""
        if not self.cells:
            return False
        mixed = splitmix64(digest % _WORD)
        noted, at = self.cells[mixed % len(self.cells)]
        return noted == mixed and (self.sum - at) % _WORD < span


class RRCache(_Cache):
    """A mapping of at most `maxsize` entries that drops one chosen at random.

    Arguments, errors and complexity are those of ``LRUCache``. Iteration goes over a snapshot,
    the entry written first at the front.

    >>> cache = RRCache(2, seed=7)
    >>> cache.update(a=1, b=2, c=3)
    >>> len(cache), "c" in cache
    (2, True)
    """

    __slots__ = ()

    @staticmethod
    def _new_end():
        return _Urn()

    def _placed(self, entry):
        end, place = entry.end, entry.mark
        if entry.next is None or (place in end.drawn and end.drawn[place] is entry):
            return
        entry.mark = count = end.count
        end.drawn[count] = entry
        end.count = count + 1

    def _left(self, entry, end, next):
        if entry.next is None:
            self._forget(end, entry.mark, entry)

    def _forget(self, end, place, entry):
        """Let the last entry of an urn take the place of another."""
        drawn = end.drawn
        if place in drawn and drawn[place] is entry:
            end.count = count = end.count - 1
            drawn[place] = last = drawn[count]
            last.mark = place
            del drawn[count]

    def _victim(self, size):
        end = self._ends[0]
        while end.count:
            place = self._draw() * end.count >> 64
            entry = end.drawn.get(place)
            if entry is not None and entry.next is not None:
                return entry
            self._forget(end, place, entry)
        return None


class _Urn(_End):
    """The end of a list, and its entries by places without gaps; an entry's `mark` is its place."""

    __slots__ = ("count", "drawn")

    def __init__(self):
        super().__init__()
        self.count, self.drawn = 0, {}
