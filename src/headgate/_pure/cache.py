"""The cache engine and its policies in pure Python.

    _data: a dict            _order: an OrderedDict whose keys are the entries
    "a" -> entry a           entry b, entry a, ...
    "b" -> entry b           next victim first

Entries compare by identity, so only an access to `_data` runs ``__hash__`` and ``__eq__`` of keys. What
stands in `_order` is live; an entry that only `_data` still has, because a key's ``__eq__`` raised or its
hash changed, is dead: nobody sees it, and `_sweep` drops it. Foreign code - those two, getsizeof,
finalizers run at a call or an allocation - may use the cache: the lock of the writers is re-entrant, and
`_version` counts edits, so that whoever was interrupted looks again. From the last look to the edit
nothing is called. Readers take no lock where there is a GIL, which makes each of their steps atomic.
Evicted entries are dropped last.
"""

import sys
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from functools import wraps
from operator import index
from reprlib import recursive_repr
from threading import RLock
from types import GenericAlias

from headgate._listeners import notify
from headgate._pickling import attributes, name_class, restore
from headgate._stats import CacheStats
from headgate._views import _ABSENT, CacheItems, CacheKeys, CacheValues

_MOST_ENTRIES = 2**31


def _checked_maxsize(maxsize, weighted):
    try:
        maxsize = index(maxsize)
    except TypeError:
        raise TypeError(f"maxsize must be an int, got {maxsize!r}") from None
    if maxsize < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    most = 2**63 - 1 if weighted else _MOST_ENTRIES
    if maxsize > most:
        raise ValueError(f"maxsize must be at most {most}, got {maxsize!r}")
    return maxsize


def _checked_callable(name, value):
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {value!r}")
    return value


def _reader(method):
    """`method` as it is where there is a GIL, and under the lock of the writers where there is none."""
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return method

    @wraps(method)
    def locked(self, *args, **kwargs):
        with self._lock:
            return method(self, *args, **kwargs)

    return locked


class _Entry:
    __slots__ = ("key", "size", "value")


class LRUCache(MutableMapping):
    """A mapping of at most `maxsize` entries that drops the least recently used one first.

    With `getsizeof`, a callable from a value to a non-negative int, `maxsize` bounds the sum of
    the sizes instead of the number of entries. ``on_evict(key, value, reason)`` is called after
    an entry has left, with the reason ``"size"``, ``"replaced"`` or ``"removed"``; what it
    raises goes to ``sys.unraisablehook``.

    ``cache[key]``, ``get``, ``setdefault`` and ``put`` make an entry the most recently used;
    ``peek``, ``in`` and iteration touch nothing. Iteration goes over a snapshot, least recently
    used first. Every method is atomic among threads.

    Raises ValueError if `maxsize` is negative or above 2**31 entries (2**63 - 1 with
    `getsizeof`), TypeError if an argument has the wrong type.

    Complexity: O(1) for every operation on one key; memory grows with use, never beyond maxsize.

    >>> cache = LRUCache(2)
    >>> cache["a"], cache["b"] = 1, 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """
    __slots__ = (
        "__weakref__",
        "_acquire",
        "_data",
        "_evictions",
        "_filled",
        "_hits",
        "_listener",
        "_lock",
        "_misses",
        "_order",
        "_release",
        "_room",
        "_sizer",
        "_version",
    )

    __hash__ = None
    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = RLock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._hits = self._misses = self._evictions = self._room = self._version = 0
        self._filled = 0
        self._data, self._order = {}, OrderedDict()
        self._sizer = self._listener = None
        return self

    def __init__(self, maxsize, getsizeof=None, *, on_evict=None):
        room = _checked_maxsize(maxsize, getsizeof is not None)
        _checked_callable("getsizeof", getsizeof)
        _checked_callable("on_evict", on_evict)
        self.clear()
        self._sizer = getsizeof
        self._listener = on_evict
        self._room = room

    # ---- entries and their order ------------------------------------------------------------

    def _live(self, key):
        """The entry of `key`, or None."""
        entry = self._data.get(key)
        return entry if entry in self._order else None

    def _pop(self, key):
        """Take the entry of `key` out and return it; None where there is none."""
        entry = self._data.pop(key, None)
        self._version += 1
        if entry not in self._order:
            return None
        del self._order[entry]
        self._filled -= entry.size
        return entry

    def _pop_victim(self):
        """Take the next victim out and return it; None if foreign code was faster.

        What the ``__eq__`` of its key raises leaves it dead.
        """
        version = self._version
        try:
            victim, _ = self._order.popitem(last=False)
        except KeyError:
            return None
        if version == self._version:
            self._filled -= victim.size
        else:
            self._recount()
        self._version += 1
        try:
            self._pop(victim.key)
            if len(self._data) > 2 * len(self._order) + 8:
                self._sweep()
        except Exception:
            pass
        return victim

    def _recount(self):
        version = None
        while version != self._version:
            version = self._version
            filled = sum([entry.size for entry in self._snapshot()])
        self._filled = filled

    def _sweep(self):
        """Make `_data` and `_order` anew, small and without dead entries."""
        version = self._version
        live = self._snapshot()
        data = {entry.key: entry for entry in live}
        order = OrderedDict.fromkeys(live)
        if version == self._version:
            data, self._data = self._data, data
            order, self._order = self._order, order
            self._version += 1

    # ---- what the methods are made of -------------------------------------------------------

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

    def _evict(self, size, dropped):
        """Evict until `size` more fits."""
        while self._filled > self._room - size:
            victim = self._pop_victim()
            if victim is not None:
                self._evictions += 1
                dropped.append(victim)

    def _store(self, key, value, keep):
        """Put an entry; with `keep`, an entry that is there stays and its value is returned."""
        size = 1 if self._sizer is None else self._measure(value)
        new, dropped = _Entry(), []
        new.key = key
        new.value = None
        self._acquire()
        try:
            while True:
                version = self._version
                entry = self._data.get(key)
                live = entry in self._order
                if keep and live:
                    self._order.move_to_end(entry)
                    return entry.value
                if size > self._room:
                    raise ValueError(f"value too large: size {size} exceeds maxsize {self._room}")
                if not live and self._filled > self._room - size:
                    self._evict(size, dropped)
                    continue
                if entry is None:
                    entry = self._data.setdefault(key, new)
                if version == self._version:
                    break
            stored, replaced, entry.value = entry.key, entry.value, value
            self._filled += size
            if live:
                self._filled -= entry.size
            entry.size = size
            self._order[entry] = None
            self._version += 1
            if live:
                self._order.move_to_end(entry)
                self._evict(0, dropped)
        finally:
            self._release()
        if self._listener is not None:
            if live:
                notify(self._listener, (stored, replaced), "replaced")
            self._notify(dropped, "size")
        return value

    def _take(self, key):
        """Remove the entry of `key` and return it; None where there is none."""
        with self._lock:
            entry = self._pop(key)
        if entry is not None and self._listener is not None:
            self._notify([entry], "removed")
        return entry

    def _notify(self, entries, reason):
        notify(self._listener, [part for entry in entries for part in (entry.key, entry.value)], reason)

    @_reader
    def _snapshot(self):
        """The entries in the order of eviction."""
        while True:
            try:
                return list(self._order)
            except RuntimeError:
                continue

    # ---- the mapping ------------------------------------------------------------------------

    @_reader
    def __getitem__(self, key):
        entry = self._data.get(key)
        try:
            self._order.move_to_end(entry)
        except KeyError:
            self._misses += 1
            raise KeyError(key) from None
        self._hits += 1
        return entry.value

    def __setitem__(self, key, value):
        self._store(key, value, False)

    def __delitem__(self, key):
        if self._take(key) is None:
            raise KeyError(key)

    def __contains__(self, key):
        return self._live(key) is not None

    def __len__(self):
        return len(self._order)

    def __iter__(self):
        return iter([entry.key for entry in self._snapshot()])

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) == dict(other.items())

    @recursive_repr()
    def __repr__(self):
        entries = dict(self._entries())
        return f"{type(self).__name__}({entries!r}, maxsize={self._room}, currsize={self._filled})"

    def __sizeof__(self):
        """The bytes of the cache and its slab, without keys and values."""
        entries = sum(map(sys.getsizeof, self._snapshot()))
        return object.__sizeof__(self) + sys.getsizeof(self._data) + sys.getsizeof(self._order) + entries

    def _entries(self):
        return [(entry.key, entry.value) for entry in self._snapshot()]

    @_reader
    def get(self, key, default=None):
        """The value of `key`, made the most recently used; `default` where there is none.

        Counts a hit or a miss. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.get("a", "nothing")
        'nothing'
        """
        entry = self._data.get(key)
        try:
            self._order.move_to_end(entry)
        except KeyError:
            self._misses += 1
            return default
        self._hits += 1
        return entry.value

    def peek(self, key, default=None):
        """The value of `key`, or `default`; neither the order nor a counter changes.

        Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.peek("a"), cache.hits
        (1, 0)
        """
        entry = self._live(key)
        return default if entry is None else entry.value

    def put(self, key, value):
        """Store `value` under `key` as the most recently used and evict what no longer fits.

        The same as ``cache[key] = value``. Raises ValueError if the value's size is negative or
        above `maxsize`; the cache is then as it was. Complexity: O(1), amortised over the
        entries evicted where sizes differ.

        >>> cache = LRUCache(3, getsizeof=len)
        >>> cache.put("a", "xy")
        >>> cache.put("b", "xyz")
        >>> list(cache)
        ['b']
        """
        self._store(key, value, False)

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
            return entry.value
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
        with self._lock:
            entry = None
            while entry is None:
                if not self._order:
                    raise KeyError(f"{type(self).__name__} is empty")
                entry = self._pop_victim()
        if self._listener is not None:
            self._notify([entry], "removed")
        return entry.key, entry.value

    def setdefault(self, key, default=None):
        """The value of `key`; where there is none, `default`, stored under `key`.

        Counts a hit or a miss. Raises what ``put`` raises. Complexity: O(1).

        >>> cache = LRUCache(2)
        >>> cache.setdefault("a", 1), cache.setdefault("a", 2)
        (1, 1)
        """
        found = self.get(key, _ABSENT)
        return self._store(key, default, True) if found is _ABSENT else found

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
        """Remove every entry and give the memory back; counters stay.

        Complexity: O(n).

        >>> cache = LRUCache(2)
        >>> cache["a"] = 1
        >>> cache.clear()
        >>> len(cache)
        0
        """
        data, order = {}, OrderedDict()
        with self._lock:
            data, self._data = self._data, data
            order, self._order = self._order, order
            self._filled = 0
            self._version += 1
        if self._listener is not None:
            self._notify(order, "removed")

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

    def stats(self):
        """A snapshot of the counters and of the size.

        >>> LRUCache(2).stats()
        CacheStats(hits=0, misses=0, evictions=0, currsize=0, maxsize=2)
        """
        return CacheStats(self._hits, self._misses, self._evictions, self._filled, self._room)

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
        dropped = []
        with self._lock:
            self._room = room
            self._version += 1
            self._evict(0, dropped)
            if len(dropped) > len(self._order):
                self._sweep()
        if self._listener is not None:
            self._notify(dropped, "size")

    # ---- copies, pickles, checks ------------------------------------------------------------

    def __copy__(self):
        copy = type(self)._from_state(self._state())
        attributes(copy).update(attributes(self))
        listener, copy._listener = copy._listener, None
        for key, value in self._entries():
            copy._store(key, value, False)
        copy._listener = listener
        return copy

    def __reduce__(self):
        how = name_class(self), self._state()
        return restore, how, attributes(self) or None, None, iter(self._entries())

    def _state(self):
        return 1, self._room, self._sizer, self._listener

    @classmethod
    def _from_state(cls, state):
        version, maxsize, getsizeof, on_evict = state
        if version != 1:
            raise ValueError(f"state must be of version 1, got {version!r}")
        cache = cls.__new__(cls)
        LRUCache.__init__(cache, maxsize, getsizeof, on_evict=on_evict)
        return cache

    def _check(self):
        found = set(map(id, self._data.values()))
        assert all(id(entry) in found for entry in self._order), "every live entry can be found"
        assert sum(entry.size for entry in self._order) == self._filled <= self._room, "currsize is the sum"
