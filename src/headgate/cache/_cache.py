"""What caches have beyond mappings: settings, counters, invalidation, dumps, copies and pickles."""

from operator import attrgetter

from headgate._base.checks import checked_callable
from headgate._base.pickling import carried, carry, checked_state, name_class, restore
from headgate.cache._engine import _checked_maxsize
from headgate.cache._lifetimes import NEVER, checked_tags, lifetimes
from headgate.cache._mapping import _Mapping
from headgate.cache._stats import CacheStats
from headgate.cache._table import _is_plain
from headgate.cache._views import _ABSENT

_whole = attrgetter("key", "value", "due", "ttl_due", "tags")


class _Cache(_Mapping):
    """What the policies share; the docstring of the module ``_pure`` draws its structure."""

    __slots__ = ()

    @property
    def maxsize(self):
        """The bound on `currsize`.

        >>> LRUCache(2).maxsize
        2
        """
        return self._maximum

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
        """The listener that is called for every entry that has left, or None.

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
        """The callable that returns integer nanoseconds, or None for the monotonic clock.

        >>> LRUCache(2).clock is None
        True
        """
        return self._clock

    @property
    def generation(self):
        """How often the whole cache was cleared, by ``clear`` or by ``invalidate()``.

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
        """A snapshot of the counters and of the size; with `reset` the counters start again from 0.

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
                self._filled, self._maximum)
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
        maximum = _checked_maxsize(maxsize, self._sizer is not None)
        self._purge_now()
        dropped: list = []
        with self._lock:
            self._maximum = maximum
            self._version += 1
            self._fit()
            self._evict(0, dropped)
            if len(dropped) > 2 * self._count:
                self._shrink()
        self._notify(dropped, "size")

    def _shrink(self):
        """Replace the table by one as small as possible."""
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
        from headgate.cache._dumps import dump_rows

        _, rows = self._rows()
        dump_rows(rows, file, serializer)

    def load(self, file, *, serializer=None):
        """Put all entries of a path or a binary file that ``dump`` wrote, and return how many they were.

        Lifetimes continue with the time left at the dump. `serializer` must be the one that wrote the
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
        from headgate.cache._dumps import load_rows

        rows = load_rows(file, serializer)
        for _, value, *_ in rows:
            self._refuse_too_large(1 if self._sizer is None else self._measure(value))
        for key, value, *_ in rows:
            self[key] = value
        self.__setstate__(({}, lifetimes(rows)))
        return len(rows)

    # ---- copies, pickles, checks ------------------------------------------------------------

    def __copy__(self):
        maximum, rows = self._rows()
        copy = type(self)._from_state(self._state(maximum))
        listener, copy._listener = copy._listener, None
        for key, value, *_ in rows:
            copy._store(key, value)
        copy.__setstate__((carried(self), lifetimes(rows)))
        copy._listener = listener
        return copy

    def __reduce__(self):
        maximum, rows = self._rows()
        own, lasting = carried(self), lifetimes(rows)
        more = (own, lasting) if own or lasting else None
        return restore, (name_class(self), self._state(maximum)), more, None, iter([row[:2] for row in rows])

    def _state(self, maximum):
        return (2, maximum, self._sizer, self._lifetime, self._idle, self._jitter, self._clock,
                self._listener, self._seed)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 2:
            raise ValueError(f"state must be of version 2, got {state[0]!r}")
        cache = cls.__new__(cls)
        cache._configure(*state[1:])
        return cache

    def _rows(self):
        """The maximum, and for every entry its key, value, nanoseconds left in all and by ttl, and tags."""
        while True:
            timed, now = self._timed, self._now()
            self._purge_at(now)
            with self._lock:
                version = self._version
                maximum, entries = self._maximum, self._snapshot(_whole)
                if version == self._version and timed == self._timed:  # or `now` is no time
                    break
        return maximum, [
            (key, value, due if due == NEVER else due - now, ttl_due if ttl_due == NEVER else ttl_due - now,
             tags) for key, value, due, ttl_due, tags in entries]

    def __setstate__(self, state):
        """Adopt the attributes of a subclass, and lifetimes and tags: what ``__reduce__`` wrote."""
        own, lasting = checked_state(state)
        carry(self, own)
        for key, left, ttl_left, tags in lasting:
            self._resume(key, left, ttl_left, tags)

    def _resume(self, key, left, ttl_left, tags):
        """Let the lifetime of the entry of `key` end in `left` nanoseconds, and set its tags."""
        if left != NEVER:
            self._set_timed(True)
        now = self._now()
        while True:
            additions, entry = self._additions, self._seek(key)
            with self._lock:
                if not self._is_current(entry, additions):
                    continue
                if entry is not None and entry.next is not None:
                    entry.ttl_due = ttl_left if ttl_left == NEVER else now + ttl_left
                    idle, self._idle = self._idle, None if left == ttl_left else max(1, left)
                    self._schedule(entry, now)
                    self._idle = idle
                    self._retag(entry, tags)
            return

    def _check(self):
        entries = self._snapshot()
        foreign = [entry for group in self._foreign.values() for entry in group]
        found = set(map(id, [*self._data.values(), *foreign]))
        assert found == set(map(id, entries)), "exactly the live entries can be found"
        assert len(self._data) + len(foreign) == len(entries), "each can be found once"
        assert all(entry.bucket is None and _is_plain(entry.key) for entry in self._data.values())
        assert all(entry.bucket == bucket for bucket, group in self._foreign.items() for entry in group)
        assert len(entries) == self._count, "the lists hold every live entry"
        assert sum(entry.size for entry in entries) == self._filled <= self._maximum, "currsize is the sum"
        for end in self._all_ends(self._ends):
            entry, size = end.next, 0
            while entry is not end:
                assert entry.prev.next is entry and entry.end is end, "the lists are doubly linked"
                size += entry.size
                entry = entry.next
            assert size == end.size, "an end counts the size of its list"
        scheduled = {item[2] for item in self._heap if item[2].stamp == item[1]}
        timed = {entry for entry in entries if entry.due != NEVER}
        assert timed <= scheduled, "the heap has every entry with a lifetime"
        tagged = {(tag, entry) for tag, group in self._tagged.items() for entry in group}
        assert tagged == {(tag, entry) for entry in entries for tag in entry.tags}, "tags find their entries"
