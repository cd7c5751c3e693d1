# Caches as mappings, and what loads a missing key.
cimport cython
from cpython.object cimport PyObject
from libc.math cimport rint
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from headgate._c.clock cimport hg_monotonic_ns
from headgate._c.slots cimport hg_node
from headgate._c.unicode_eq cimport hg_hash

from collections.abc import Mapping, MutableMapping
from types import GenericAlias

from headgate.cache._flights import Flights
from headgate.cache._lifetimes import checked_lifetime, checked_tags
from headgate.cache._loaders import checked_loader, checked_result, is_awaitable, refuse_coroutine_function
from headgate.cache._views import _ABSENT, CacheItems, CacheKeys, CacheValues


cdef extern from "Python.h":
    bint PyFloat_CheckExact(object o)
    int Py_ReprEnter(object o) except -1
    void Py_ReprLeave(object o)


cdef int64_t _nanoseconds(object ttl) except -1:
    """What `checked_lifetime` returns, sooner for a plain number."""
    cdef double seconds
    if PyFloat_CheckExact(ttl) or type(ttl) is int:
        seconds = ttl
        if 1e-9 <= seconds < 1e9:
            return <int64_t>rint(seconds * 1e9)
    return checked_lifetime("ttl", ttl)


cdef class _Mapping(_Engine):
    """The methods of a mapping, and those that load what is missing."""

    __hash__ = None
    __reversed__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __getitem__(self, key):
        value = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        if value is _ABSENT:
            raise KeyError(key)
        return value

    def __setitem__(self, key, value):
        self._set(key, value)

    def __delitem__(self, key):
        if self._take(<PyObject *>key, hg_hash(<PyObject *>key)) is None:
            raise KeyError(key)

    def __contains__(self, key):
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef int64_t now = self._now()
        cdef bint found
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            found = slot != NIL and self._due(slot) > now
        return found

    def __len__(self):
        cdef Py_ssize_t count
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            count = self.count if self._intact() else 0
        return count

    def __iter__(self):
        return iter(self._flat_now()[::2])

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    def __repr__(self):
        if Py_ReprEnter(self) != 0:
            return "..."
        if self._is_timed():
            self._purge_now()
        try:
            with cython.critical_section(self):
                flat, maximum, filled = self._flat(), self.maximum, self.filled
            entries = dict(zip(flat[::2], flat[1::2], strict=True))
            return f"{type(self).__name__}({entries!r}, maxsize={maximum}, currsize={filled})"
        finally:
            Py_ReprLeave(self)

    def __sizeof__(self):
        """The bytes of the cache and its slab, without keys and values."""
        cdef size_t fixed = object.__sizeof__(self), slab
        with cython.critical_section(self):
            slab = self._slab_bytes()
        return fixed + slab

    @cython.final
    cdef size_t _slab_bytes(self) noexcept:
        cdef size_t slot = sizeof(hg_node) + 2 * sizeof(PyObject *)
        cdef size_t fixed = self._policy_bytes()
        if self.sizes != NULL:
            slot += sizeof(int64_t)
        if self.marks != NULL:
            slot += sizeof(uint8_t)
        if self.ranks != NULL:
            slot += sizeof(uint32_t) + sizeof(uint64_t)
        if self.timers != NULL:
            slot += sizeof(hg_timer)
        if self.ttl_dues != NULL:
            slot += sizeof(int64_t)
        if self.labels is not None:
            slot += sizeof(PyObject *)
        if self.wheel != NULL:
            fixed += sizeof(hg_wheel)
        return fixed + <size_t>self._slots() * slot + (<size_t>self.table.mask + 1) * sizeof(uint32_t)

    @cython.final
    cdef list _flat_now(self):
        cdef list flat
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            flat = self._flat()
        return flat

    def _entries(self):
        flat = iter(self._flat_now())
        return list(zip(flat, flat, strict=True))

    @cython.binding(False)
    def get(self, key, default=None):
        """The value of `key`, read as the policy counts reads; `default` where there is none.

        Counts a hit or a miss. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.get("a", "nothing")
        'nothing'
        """
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef object value = default
        if self._is_timed():
            return self._read(<PyObject *>key, hash, default)
        with cython.critical_section(self):
            slot = self._seek(<PyObject *>key, hash)
            if slot != NIL:
                self.hit_count += 1
                self._hit(slot)
                value = <object>self._value(slot)
            else:
                self.miss_count += 1
        return value

    @cython.binding(False)
    def peek(self, key, default=None):
        """The value of `key`, or `default`; neither the order nor a counter changes.

        Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.peek("a"), cache.hits
        (1, 0)
        """
        cdef Py_hash_t hash = hg_hash(<PyObject *>key)
        cdef uint32_t slot
        cdef int64_t now = self._now()
        cdef object value = default
        with cython.critical_section(self):
            slot = self._find(<PyObject *>key, hash)
            if slot != NIL and self._due(slot) > now:
                value = <object>self._value(slot)
        return value

    @cython.binding(False)
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
        if type(tags) is not tuple or tags:
            tags = checked_tags(tags)
        if ttl is None and not tags:
            self._set(key, value)
        else:
            self._store(key, value, False, None if ttl is None else _nanoseconds(ttl), tags)

    def pop(self, key, default=_ABSENT):
        """Remove `key` and return its value; `default` where there is none.

        Raises KeyError if there is no such key and no default was given. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.pop("a"), cache.pop("a", None)
        (1, None)
        """
        entry = self._take(<PyObject *>key, hg_hash(<PyObject *>key))
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
        cdef PyObject *key = NULL
        cdef PyObject *value = NULL
        if self._is_timed():
            self._purge_now()
        with cython.critical_section(self):
            if self.count > 0 and self._intact():
                self._remove(self._victim(0), &key, &value)
                self.drop_counts[<int>REMOVED] += 1
        if key == NULL:
            raise KeyError(f"{type(self).__name__} is empty")
        return self._release(key, value, "removed")

    def setdefault(self, key, default=None):
        """The value of `key`; where there is none, `default`, stored under `key`.

        Counts a hit or a miss. Raises what ``put`` raises. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.setdefault("a", 1), cache.setdefault("a", 2)
        (1, 1)
        """
        found = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        return self._store(key, default, True, None, None) if found is _ABSENT else found

    def get_or_load(self, key, loader):
        """The value of `key`; where there is none, what ``loader(key)`` returns, stored under `key`.

        Of all threads that request a missing key at the same time, one calls its loader and the others
        wait for the outcome, an error included; an error is never stored. A loader may request keys
        itself, even its own. What was loaded is not stored if the cache was cleared meanwhile, or
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
        found = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        if found is not _ABSENT:
            return found
        refuse_coroutine_function(loader)
        return self._shared_flights().load(self, key, lambda: self._load(key, loader))

    async def aget_or_load(self, key, loader):
        """The value of `key`; where there is none, what ``await loader(key)`` returns, stored under `key`.

        ``get_or_load`` for coroutines of asyncio: of all tasks of an event loop that request a missing
        key at the same time, one calls its loader and the others wait for the outcome. If its task is
        cancelled, the next waiter takes over. Other event loops, and threads in ``get_or_load``, load for
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
        found = self._read(<PyObject *>key, hg_hash(<PyObject *>key), _ABSENT)
        if found is not _ABSENT:
            return found
        return await self._shared_flights().load_async(self, key, lambda: self._load_async(key, loader))

    @cython.final
    cdef object _shared_flights(self):
        """The loads of all threads and event loops that are under way; created by the first load."""
        with cython.critical_section(self):
            flights = self.flights
        if flights is None:
            fresh = Flights()
            with cython.critical_section(self):
                if self.flights is None:
                    self.flights = fresh
                flights = self.flights
        return flights

    @cython.final
    cdef object _load(self, object key, object loader):
        cdef bint failed = True
        cdef int64_t started = hg_monotonic_ns()
        try:
            value = checked_result(loader(key))
            failed = False
        finally:
            self._count_load(failed, started)
        return value

    async def _load_async(self, key, loader):
        cdef bint failed = True
        cdef int64_t started = hg_monotonic_ns()
        try:
            value = loader(key)
            if is_awaitable(value):
                value = await value
            failed = False
        finally:
            self._count_load(failed, started)
        return value

    @cython.final
    cdef int _count_load(self, bint failed, int64_t started) except -1:
        """Count a load that began when the clock of loads was at `started`."""
        with cython.critical_section(self):
            self.load_count += 1
            self.failure_count += failed
            self.load_time += <uint64_t>(hg_monotonic_ns() - started)
        return 0

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

    @cython.final
    cdef Py_ssize_t _clear(self) except -1:
        """Remove every entry, and return how many there were."""
        cdef list fresh = [None] * (2 * <Py_ssize_t>LISTS)
        cdef list flat = None, labels = None
        cdef dict tagged = None
        cdef Py_ssize_t count
        with cython.critical_section(self):
            if self.listener is not None:
                flat = self._flat()
            count = self.count if self._intact() else 0
            self.drop_counts[<int>REMOVED] += count
            self.clear_count += 1
            self.entries, fresh = fresh, self.entries
            labels, self.labels = self.labels, None
            tagged, self.tagged = self.tagged, tagged
            self._forget_slots()
            flights = self.flights
        if flights is not None:
            flights.new_generation()
        _forget_labels(labels)
        del fresh, tagged
        if flat is not None:
            self._notify(flat, "removed")
        return count

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

MutableMapping.register(_Mapping)


cdef int _forget_labels(list labels) except -1:
    """Mark labels, which others may hold, as of no slot."""
    for label in labels or ():
        if label is not None:
            (<_Label>label).slot = NIL
    return 0
