"""Caches as mappings, and what loads a missing key."""

from __future__ import annotations

import sys
from collections.abc import Mapping, MutableMapping
from operator import attrgetter
from reprlib import recursive_repr
from time import perf_counter_ns
from types import GenericAlias

from headgate.cache._engine import _Engine
from headgate.cache._flights import Flights
from headgate.cache._lifetimes import checked_lifetime, checked_tags
from headgate.cache._loaders import checked_loader, checked_result, is_awaitable, refuse_coroutine_function
from headgate.cache._views import _ABSENT, CacheItems, CacheKeys, CacheValues

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_pair = attrgetter("key", "value")


class _Mapping(_Engine, MutableMapping):
    """The methods of a mapping, and those that load what is missing."""

    __slots__ = ()

    if TYPE_CHECKING:
        __class_getitem__: Any

    __class_getitem__ = classmethod(GenericAlias)

    def __getitem__(self, key):
        entry = self._data.get(key)
        if entry is None and self._foreign:
            entry = self._seek_foreign(key)
        if self._locks_reads or entry is None or entry.next is None:
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
            pairs, maximum, filled = self._snapshot(_pair), self._maximum, self._filled
        return f"{type(self).__name__}({dict(pairs)!r}, maxsize={maximum}, currsize={filled})"

    def __sizeof__(self):
        """The bytes of the cache and its slab, without keys and values."""
        entries = sum(map(sys.getsizeof, self._snapshot()))
        tables = sum(map(sys.getsizeof, (self._data, self._foreign, self._heap, *self._foreign.values())))
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
        if entry is None and self._foreign:
            entry = self._seek_foreign(key)
        if self._locks_reads or entry is None or entry.next is None:
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
        if entry is not None and not self._locks_reads:
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
            _Mapping.__setitem__(self, key, value)
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
        dropped: list = []
        with self._lock:
            while not dropped:
                if not self._count:
                    raise KeyError(f"{type(self).__name__} is empty")
                victim = self._victim(0)
                if victim is not None:
                    self._drop(victim, dropped)
            self._counts["removed"] += 1
        self._notify(dropped, "removed")
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
        found = self._read(key)
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
        found = self._read(key)
        if found is not _ABSENT:
            return found
        return await self._shared_flights().load_async(self, key, lambda: self._load_async(key, loader))

    def _shared_flights(self):
        """The loads of all threads and event loops that are under way; created by the first load."""
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
                self._flights.new_generation()
            dropped = [part for entry in entries for part in (entry.key, entry.value)]
            self._unchain(entries, old[-1])
        del old, entries
        self._notify(dropped, "removed")
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
