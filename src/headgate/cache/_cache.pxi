# What caches have beyond mappings: settings, counters, invalidation, dumps, copies and pickles.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from headgate._c.fields cimport hg_set
from headgate._c.slots cimport hg_node, hg_table_filled, hg_table_has, hg_table_probes
from headgate._c.unicode_eq cimport hg_hash

from headgate._base.checks import checked_callable
from headgate._base.pickling import carried, carry, checked_state, name_class, restore
from headgate.cache._lifetimes import checked_tags, lifetimes
from headgate.cache._stats import CacheStats


cdef class _Cache(_Mapping):
    """What the policies share; the docstring of the module draws its structure."""

    @property
    def maxsize(self):
        """The bound on `currsize`.

        >>> LRUCache(2).maxsize
        2
        """
        return self._maxsize()

    @property
    def currsize(self):
        """The number of entries, or the sum of their sizes where the cache has a getsizeof.

        >>> cache = LRUCache(10, getsizeof=len)
        >>> cache["a"] = "xyz"
        >>> cache.currsize
        3
        """
        cdef int64_t filled
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            filled = self.filled if self._intact() else 0
        return filled

    @property
    def getsizeof(self):
        """The callable that sizes a value, or None.

        >>> LRUCache(10, getsizeof=len).getsizeof("xyz")
        3
        """
        return self.sizer

    @property
    def on_evict(self):
        """The listener that is called for every entry that has left, or None.

        >>> cache = LRUCache(1, on_evict=print)
        >>> cache["a"] = 1
        >>> cache["b"] = 2
        a 1 size
        """
        return self.listener

    @property
    def ttl(self):
        """The lifetime of an entry in seconds, or None.

        >>> LRUCache(2, ttl=60).ttl
        60.0
        """
        return None if self.lifetime == NEVER else self.lifetime / 1e9

    @property
    def tti(self):
        """The time in seconds after which an entry that is not used ends, or None.

        >>> LRUCache(2, tti=0.5).tti
        0.5
        """
        return None if self.idle == NEVER else self.idle / 1e9

    @property
    def clock(self):
        """The callable that returns integer nanoseconds, or None for the monotonic clock.

        >>> LRUCache(2).clock is None
        True
        """
        return self.ticker

    @property
    def generation(self):
        """How often the whole cache was cleared, by ``clear`` or by ``invalidate()``.

        >>> LRUCache(2).generation
        0
        """
        with cython.critical_section(self):
            count = self.clear_count
        return count

    @property
    def hits(self):
        """How many lookups found their key.

        >>> cache = LRUCache(1)
        >>> cache["a"] = 1
        >>> cache.get("a"), cache.hits
        (1, 1)
        """
        with cython.critical_section(self):
            count = self.hit_count
        return count

    @property
    def misses(self):
        """How many lookups did not find their key.

        >>> cache = LRUCache(1)
        >>> cache.get("a"), cache.misses
        (None, 1)
        """
        with cython.critical_section(self):
            count = self.miss_count
        return count

    @property
    def evictions(self):
        """How many entries were dropped to keep within `maxsize`.

        >>> cache = LRUCache(1)
        >>> cache.update(a=1, b=2)
        >>> cache.evictions
        1
        """
        with cython.critical_section(self):
            count = self.eviction_count
        return count

    @property
    def expirations(self):
        """How many entries were dropped at the end of their lifetime.

        >>> LRUCache(1).expirations
        0
        """
        with cython.critical_section(self):
            count = self.drop_counts[<int>EXPIRED]
        return count

    def stats(self, *, reset=False):
        """A snapshot of the counters and of the size; with `reset` the counters start again from 0.

        >>> cache = LRUCache(2)
        >>> cache.get("a")
        >>> cache.stats(reset=True).misses, cache.stats().misses
        (1, 0)
        """
        cdef bint resets = reset
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            currsize, maximum = self.filled if self._intact() else 0, self.maximum
            counts = (self.hit_count, self.miss_count, self.eviction_count, self.drop_counts[<int>EXPIRED],
                      self.drop_counts[<int>REPLACED], self.drop_counts[<int>REMOVED], self.load_count,
                      self.failure_count, self.load_time / 1e9)
            if resets:
                self.hit_count = self.miss_count = self.eviction_count = 0
                memset(self.drop_counts, 0, sizeof(self.drop_counts))
                self.load_count = self.failure_count = self.load_time = 0
        return CacheStats(*counts, currsize, maximum)

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
        cdef list dropped = [], labels = None
        if tag is not None and predicate is not None:
            raise TypeError(f"either tag or predicate must be None, got {tag!r} and {predicate!r}")
        if tag is not None:
            checked_tags((tag,))
            with cython.critical_section(self):
                labels = list(self.tagged.get(tag, ())) if self.tagged is not None else []
                self._remove_labelled(labels, dropped)
            self._notify(dropped, "removed")
            return len(dropped) // 2
        checked_callable("predicate", predicate)
        if predicate is None:
            self._purge_now()
            return self._clear()
        chosen = [(key, value) for key, value in self._entries() if predicate(key, value)]
        try:
            for key, value in chosen:
                self._drop_unchanged(key, value, dropped)
        finally:
            self._notify(dropped, "removed")
        return len(dropped) // 2

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
        cdef int64_t maximum = _checked_maxsize(maxsize, self.sizer is not None)
        cdef list dropped = []
        self._purge_now()
        with cython.critical_section(self):
            if not self._intact():
                self._wipe()
            self.maximum = maximum
            self._fit()
            self._evict(0, dropped, NULL, NULL)
            if self.capacity > self._limit() or self.capacity > 4 * <uint64_t>self.count:
                self._move(max(self.count, min(<uint32_t>FIRST_CAPACITY, self._limit())))
        self._notify(dropped, "size")

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
            size = self._measure(value)
            if size > self._maxsize():
                raise self._too_large(size)
        for key, value, *_ in rows:
            self[key] = value
        self.__setstate__(({}, lifetimes(rows)))
        return len(rows)

    def __copy__(self):
        maximum, rows = self._rows()
        cdef _Cache copy = type(self)._from_state(self._state(maximum))
        listener, copy.listener = copy.listener, None
        for key, value, *_ in rows:
            copy._store(key, value, False, None, None)
        copy.__setstate__((carried(self), lifetimes(rows)))
        copy.drop_counts[<int>REPLACED] = 0
        copy.listener = listener
        return copy

    def __reduce__(self):
        maximum, rows = self._rows()
        own, lasting = carried(self), lifetimes(rows)
        more = (own, lasting) if own or lasting else None
        return restore, (name_class(self), self._state(maximum)), more, None, iter([row[:2] for row in rows])

    @cython.final
    cdef int64_t _maxsize(self):
        """maxsize, which another thread may be changing."""
        cdef int64_t maximum
        with cython.critical_section(self):
            maximum = self.maximum
        return maximum

    def _state(self, maximum):
        return (2, maximum, self.sizer, None if self.lifetime == NEVER else self.lifetime,
                None if self.idle == NEVER else self.idle, self.jitter, self.ticker, self.listener, self.seed)

    @classmethod
    def _from_state(cls, state):
        if state[0] != 2:
            raise ValueError(f"state must be of version 2, got {state[0]!r}")
        cdef _Cache cache = cls.__new__(cls)
        _, maximum, sizer, lifetime, idle, jitter, clock, listener, seed = state
        cache._configure(maximum, sizer, lifetime, idle, jitter, clock, listener, seed)
        return cache

    @cython.final
    cdef tuple _rows(self):
        """The maximum, and for every entry its key, value, nanoseconds left in all and by ttl, and tags."""
        cdef int64_t now, maximum
        cdef int64_t *ends = NULL
        cdef bint timed, whole = False
        cdef list flat, labels, rows = []
        cdef Py_ssize_t at, count
        try:
            while not whole:
                timed, now = self._is_timed(), self._now()
                self._purge_at(now)
                with cython.critical_section(self):
                    count = self.count
                labels = [None] * count
                free(ends)
                ends = <int64_t *>malloc((2 * len(labels) + 1) * sizeof(int64_t))
                if ends == NULL:
                    raise MemoryError
                with cython.critical_section(self):
                    flat, maximum = self._flat(), self.maximum
                    if timed == self._is_timed():  # or `now` is no time
                        whole = PyList_GET_SIZE(<PyObject *>flat) == 2 * PyList_GET_SIZE(<PyObject *>labels)
                    if whole:
                        self._read_deadlines(labels, ends)
            for at in range(len(labels)):
                label = labels[at]
                rows.append((
                    flat[2 * at], flat[2 * at + 1],
                    ends[2 * at] if ends[2 * at] == NEVER else ends[2 * at] - now,
                    ends[2 * at + 1] if ends[2 * at + 1] == NEVER else ends[2 * at + 1] - now,
                    () if label is None else (<_Label>label).tags,
                ))
        finally:
            free(ends)
        return maximum, rows

    @cython.final
    cdef void _read_deadlines(self, list labels, int64_t *ends) noexcept:
        """The label of each entry and its deadlines, in all and by ttl, in the order of `_flat`."""
        cdef uint32_t slot, end
        cdef Py_ssize_t at = 0
        for end in range(LISTS):
            slot = self.nodes[end].next
            while slot != end:
                ends[2 * at] = self._due(slot)
                ends[2 * at + 1] = self._ttl_due(slot)
                if self.labels is not None:
                    Py_INCREF(PyList_GET_ITEM(<PyObject *>self.labels, slot))
                    PyList_SET_ITEM(<PyObject *>labels, at, PyList_GET_ITEM(<PyObject *>self.labels, slot))
                    Py_DECREF(Py_None)  # which was there
                at += 1
                slot = self.nodes[slot].next

    def __setstate__(self, state):
        """Adopt the attributes of a subclass, and lifetimes and tags: what ``__reduce__`` wrote."""
        own, lasting = checked_state(state)
        carry(self, own)
        for key, left, ttl_left, tags in lasting:
            self._resume(key, left, ttl_left, tags)

    @cython.final
    cdef int _resume(self, object key, int64_t left, int64_t ttl_left, tuple tags) except -1:
        """Let the lifetime of the entry of `key` end in `left` nanoseconds, and set its tags."""
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef int64_t now
        cdef list groups = [{} for _ in tags]
        cdef _Label label = _Label.__new__(_Label)
        label.tags = tags
        if left != NEVER:
            hg_set(&self.timed, True)
        now = self._now()
        with cython.critical_section(self):
            slot = self._find_or_slot(<PyObject *>key, hash, bool(tags))
            if slot != NIL:
                if self._is_timed():
                    self._ready_timers()
                    if self.ttl_dues != NULL:
                        self.ttl_dues[slot] = NEVER if ttl_left == NEVER else now + ttl_left
                    self._set_timer(slot, NEVER if left == NEVER else now + left)
                if tags:
                    self._unlabel(slot)
                    self._label(slot, label, groups)
        return 0

    def _check(self):
        cdef uint32_t slot, at, end, seen = 0, chained = 0, prev, scheduled = 0, timers = 0
        cdef int64_t filled = 0
        assert self._intact(), "the list of entries fits the capacity"
        assert self.used < self.capacity + LISTS
        assert self.capacity <= self._limit() or self.capacity == FIRST_CAPACITY
        assert 2 * (<uint64_t>self.table.mask + 1) >= 5 * <uint64_t>self.capacity or self.capacity == 0
        for end in range(LISTS):
            prev = end
            slot = self.nodes[end].next
            while slot != end:
                assert self.nodes[slot].prev == prev, "the lists are doubly linked"
                assert LISTS <= slot <= self.used
                assert hg_table_has(&self.table, self.nodes[slot].hash, slot), "a live slot is reachable"
                filled += self._size(slot)
                scheduled += self._due(slot) != NEVER
                seen += 1
                prev = slot
                slot = self.nodes[slot].next
            assert self.nodes[end].prev == prev
        assert seen == self.count, "the lists hold every live slot"
        assert filled == self.filled <= self.maximum, "currsize is the sum of the sizes, within maxsize"
        assert hg_table_filled(&self.table) == seen, "the table holds every live slot once"
        slot = self.free
        while slot != NIL:
            assert self._key(slot) == Py_None and self._value(slot) == Py_None, "free slots hold nothing"
            assert self._due(slot) == NEVER, "free slots have no lifetime"
            chained += 1
            slot = self.nodes[slot].next
        assert self.count + chained == self.used + 1 - LISTS, "every used slot is live or free"
        if self.timers != NULL:
            for at in range(704):
                slot = self.wheel.first[at]
                while slot != NIL:
                    assert hg_bucket(self.wheel, hg_rank(self.timers[slot].due)) == at, "a timer's bucket"
                    timers += 1
                    slot = self.timers[slot].next
        assert timers == scheduled, "the wheel holds every slot that has a lifetime"
        self._check_labels()
        self._check_policy()

    def _probes(self):
        """How many cells of the table the lookups of all keys read."""
        with cython.critical_section(self):
            cells = hg_table_probes(&self.table, self.nodes, sizeof(hg_node))
        return cells

    @cython.final
    cdef int _check_labels(self) except -1:
        cdef _Label label
        for tag, group in (self.tagged or {}).items():
            assert group, "a tag that nothing has is forgotten"
            for label in group:
                assert PyList_GET_ITEM(<PyObject *>self.labels, label.slot) == <PyObject *>label
                assert tag in label.tags and self._key(label.slot) != Py_None or label.slot >= LISTS
        return 0
