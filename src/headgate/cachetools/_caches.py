"""The caches without lifetimes.

    Cache                               the public interface, implemented on a store
    |-- FIFOStore, LFUStore, LRUStore   stores: with the compiled twin, headgate's own caches
    |   `-- FIFOCache, LFUCache, LRUCache, RRCache, and the timed ones
    `-- Hooked                          the methods of Cache again

The methods of a store are `_hg_find` (which counts as a use), `_hg_peek`, `_hg_store`, `_hg_pop`,
`_hg_pop_victim` and `_hg_clear`. With the compiled twin the C methods of the store are those of the cache,
unless a subclass overrides a hook: then `Hooked` precedes the store in its method resolution order. An
instance without weights, of a class without overridden hooks, is *plain*: its store enforces the bound.
Otherwise the methods of Cache enforce it, by calling the hooks.
"""

from __future__ import annotations

import random
from abc import ABCMeta
from collections import OrderedDict
from collections.abc import MutableMapping
from reprlib import recursive_repr

from headgate._base.backend import backend
from headgate.cache._views import _ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, ClassVar

_MOST_ENTRIES = 2**31
_HOOKS = frozenset({
    "__contains__", "__delitem__", "__getitem__", "__iter__", "__len__", "__missing__", "__setitem__",
    "clear", "currsize", "expire", "get", "getsizeof", "maxsize", "pop", "popitem", "setdefault",
})


class _CacheMeta(ABCMeta):
    """Records whether a class overrides hooks."""

    def mro(cls) -> list[type]:
        order = super().mro()
        stores = [at for at, base in enumerate(order) if vars(base).get("_hg_engine")]
        if stores and _has_hooks(order) and Hooked not in order:
            order.insert(stores[0], Hooked)
        return order

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace, **options)
        cls._hg_hooked = _has_hooks(cls.__mro__)


def _has_hooks(order: Iterable[type]) -> bool:
    return any(_is_foreign(base) and not _HOOKS.isdisjoint(vars(base)) for base in order)


def _is_foreign(base: type) -> bool:
    """Whether a class is not from this package. Uses `vars`, as attributes cannot be read before `mro`
    returns."""
    return isinstance(base, _CacheMeta) and not vars(base)["__module__"].startswith("headgate.cachetools.")


def _new_empty(cls: type[Cache]) -> Cache:
    return cls.__new__(cls)


class Cache(MutableMapping["Any", "Any"], metaclass=_CacheMeta):
    """A mapping bounded in entries, or by `getsizeof` in the sum of sizes, that evicts arbitrary entries.

    Subclasses may override ``__getitem__``, ``__setitem__``, ``__delitem__``, ``__missing__``, ``popitem``
    and ``getsizeof``; entries are evicted by calling ``popitem``.

    Raises ValueError if `maxsize` or a size is negative, or if a value is larger than `maxsize`.
    """

    _hg_hooked: ClassVar[bool]
    _hg_containers: ClassVar[tuple[str, ...]] = ("_hg_entries", "_hg_sizes")
    _hg_plain = False
    _hg_engine: Any = None
    _hg_sizes: dict[Any, Any] | None

    def __init__(self, maxsize: float, getsizeof: Callable[[Any], float] | None = None) -> None:
        if maxsize < 0:
            raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
        if getsizeof is not None:
            self.__dict__["getsizeof"] = getsizeof
        self._hg_maxsize = maxsize
        weighted = "getsizeof" in self.__dict__ or type(self).getsizeof is not Cache.getsizeof
        self._hg_sizes = {} if weighted else None
        self._hg_weight: Any = 0
        self._hg_reset()

    # ---- the store ---------------------------------------------------------------------------

    def _hg_reset(self) -> None:
        self._hg_entries: Any = OrderedDict()

    def _hg_find(self, key: Any, default: Any) -> Any:
        return self._hg_entries.get(key, default)

    def _hg_peek(self, key: Any, default: Any) -> Any:
        return self._hg_entries.get(key, default)

    def _hg_store(self, key: Any, value: Any) -> None:
        self._hg_entries[key] = value

    def _hg_pop(self, key: Any, default: Any) -> Any:
        return self._hg_entries.pop(key, default)

    def _hg_pop_victim(self) -> tuple[Any, Any]:
        victim: tuple[Any, Any] = self._hg_entries.popitem(last=False)
        return victim

    def _hg_clear(self) -> None:
        self._hg_entries.clear()

    def _hg_count(self) -> int:
        return len(self._hg_entries)

    def _hg_keys(self) -> list[Any]:
        return list(self._hg_entries)

    def _hg_delete_metadata(self, key: Any) -> None:
        """Delete the size of an entry that was removed from the store."""
        if self._hg_sizes is not None:
            self._hg_weight -= self._hg_sizes.pop(key)

    # ---- the mapping -------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._hg_entries[key]
        except KeyError:
            return self.__missing__(key)

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._hg_plain:
            self._hg_store(key, value)
        elif self._hg_sizes is None:
            self._hg_set(key, value)
        else:
            self._hg_set_weighted(key, value, self._hg_sizes)

    def _hg_set(self, key: Any, value: Any) -> None:
        if self._hg_maxsize < 1:
            raise ValueError("value too large")
        entries = self._hg_entries
        if key not in entries:
            evict = self.popitem if self._hg_hooked else self._hg_evict
            while len(entries) + 1 > self._hg_maxsize:
                evict()
        self._hg_store(key, value)

    def _hg_set_weighted(self, key: Any, value: Any, sizes: dict[Any, Any]) -> None:
        size = self.getsizeof(value)
        if size > self._hg_maxsize:
            raise ValueError("value too large")
        if size < 0:
            raise ValueError("value size must be non-negative")
        while self._hg_weight - sizes.get(key, 0) + size > self._hg_maxsize:
            self.popitem()
        self._hg_store(key, value)
        self._hg_weight += size - sizes.get(key, 0)
        sizes[key] = size

    def __delitem__(self, key: Any) -> None:
        if self._hg_pop(key, _ABSENT) is _ABSENT:
            raise KeyError(key)
        self._hg_delete_metadata(key)

    def __contains__(self, key: object) -> bool:
        return key in self._hg_entries

    def __iter__(self) -> Iterator[Any]:
        return iter(self._hg_keys())

    def __len__(self) -> int:
        return self._hg_count()

    @recursive_repr("...")
    def __repr__(self) -> str:
        pairs = {key: self._hg_peek(key, None) for key in self}
        return f"{type(self).__name__}({pairs!r}, maxsize={self.maxsize!r}, currsize={self.currsize!r})"

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`; ``__missing__`` is not called."""
        if not self._hg_hooked:
            return self._hg_find(key, default)
        if key in self:
            return self[key]
        return default

    def pop(self, key: Any, default: Any = _ABSENT) -> Any:
        """Remove `key` and return its value, or `default`; raises KeyError if there is neither."""
        if key in self:
            value = self[key]
            del self[key]
            return value
        if default is _ABSENT:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the next victim; raises KeyError if the cache is empty."""
        if not self._hg_count():
            raise KeyError(f"{type(self).__name__} is empty") from None
        if not self._hg_hooked:
            return self._hg_evict()
        victim = self._hg_pop_victim()
        self._hg_store(*victim)
        return victim[0], self.pop(victim[0])

    def _hg_evict(self) -> tuple[Any, Any]:
        victim = self._hg_pop_victim()
        if self._hg_sizes is not None:
            self._hg_delete_metadata(victim[0])
        return victim

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, which is set to `default` if there is none."""
        if key in self:
            return self[key]
        self[key] = default
        return default

    def clear(self) -> None:
        """Remove all entries, without calling ``popitem``."""
        self._hg_clear()
        if self._hg_sizes is not None:
            self._hg_sizes.clear()
            self._hg_weight = 0

    @property
    def maxsize(self) -> Any:
        """The bound given at construction."""
        return self._hg_maxsize

    @property
    def currsize(self) -> Any:
        """The number of entries, or the sum of their sizes."""
        return self._hg_count() if self._hg_sizes is None else self._hg_weight

    @staticmethod
    def getsizeof(value: Any) -> Any:
        """The size of a value: 1."""
        return 1

    # ---- copies ------------------------------------------------------------------------------

    def _hg_state(self) -> dict[str, Any]:
        """The attributes, with copies of the containers."""
        state = dict(vars(self))
        for name in self._hg_containers:
            if state.get(name) is not None:
                state[name] = state[name].copy()
        return state

    def __reduce__(self) -> Any:
        return _new_empty, (type(self),), self._hg_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def _look_up(self: Cache, key: Any) -> Any:
    """``__getitem__`` by the store's `_hg_find`."""
    found = self._hg_find(key, _ABSENT)
    return self.__missing__(key) if found is _ABSENT else found


class _LFUEntry:
    """An entry of an LFUCache; compared by identity, so that the buckets run no foreign code."""

    __slots__ = ("key", "uses", "value")

    def __init__(self, key: Any, value: Any, uses: int) -> None:
        self.key, self.value, self.uses = key, value, uses


class LFUStore(Cache):
    """A store that evicts the least frequently used entry."""

    __getitem__ = _look_up

    def _hg_reset(self) -> None:
        self._hg_entries = {}
        self._hg_buckets: dict[int, OrderedDict[_LFUEntry, None]] = {}
        self._hg_min_uses = 1

    def _hg_link(self, entry: _LFUEntry) -> None:
        self._hg_buckets.setdefault(entry.uses, OrderedDict())[entry] = None

    def _hg_unlink(self, entry: _LFUEntry) -> None:
        bucket = self._hg_buckets[entry.uses]
        del bucket[entry]
        if not bucket:
            del self._hg_buckets[entry.uses]

    def _hg_touch(self, entry: _LFUEntry) -> None:
        self._hg_unlink(entry)
        entry.uses += 1
        self._hg_link(entry)

    def _hg_find(self, key: Any, default: Any) -> Any:
        entry = self._hg_entries.get(key)
        if entry is None:
            return default
        self._hg_touch(entry)
        return entry.value

    def _hg_peek(self, key: Any, default: Any) -> Any:
        entry = self._hg_entries.get(key)
        return default if entry is None else entry.value

    def _hg_store(self, key: Any, value: Any) -> None:
        new = _LFUEntry(key, value, 1)
        entry = self._hg_entries.setdefault(key, new)
        if entry is new:
            self._hg_min_uses = 1
            self._hg_link(entry)
        else:
            entry.value = value
            self._hg_touch(entry)

    def _hg_pop(self, key: Any, default: Any) -> Any:
        entry = self._hg_entries.pop(key, None)
        if entry is None:
            return default
        self._hg_unlink(entry)
        return entry.value

    def _hg_pop_victim(self) -> tuple[Any, Any]:
        while self._hg_min_uses not in self._hg_buckets:
            self._hg_min_uses = min(self._hg_buckets)
        entry = next(iter(self._hg_buckets[self._hg_min_uses]))
        return entry.key, self._hg_pop(entry.key, None)

    def _hg_clear(self) -> None:
        self._hg_reset()

    def _hg_keys(self) -> list[Any]:
        return [entry.key for uses in sorted(self._hg_buckets) for entry in self._hg_buckets[uses]]

    def _hg_state(self) -> dict[str, Any]:
        state = super()._hg_state()
        del state["_hg_entries"], state["_hg_buckets"]
        return state | {"_hg_pairs": [(key, self._hg_peek(key, None)) for key in self._hg_keys()]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pairs = state.pop("_hg_pairs")
        super().__setstate__(state)
        self._hg_reset()
        for key, value in pairs:
            self._hg_store(key, value)


class FIFOStore(Cache):
    """A store that evicts in the order of insertion."""

    def _hg_store(self, key: Any, value: Any) -> None:
        self._hg_entries.pop(key, None)
        self._hg_entries[key] = value


class LRUStore(Cache):
    """A store that evicts the least recently used entry."""

    def __getitem__(self, key: Any) -> Any:
        entries = self._hg_entries
        try:
            found = entries[key]
            entries.move_to_end(key)
        except KeyError:
            return self.__missing__(key)
        return found

    def _hg_find(self, key: Any, default: Any) -> Any:
        found = self._hg_entries.get(key, default)
        if found is not default:
            self._hg_entries.move_to_end(key)
        return found

    def _hg_store(self, key: Any, value: Any) -> None:
        self._hg_entries[key] = value
        self._hg_entries.move_to_end(key)


class Hooked(Cache):
    """The methods of Cache, which precede those of a store that calls no hooks."""

    __getitem__ = _look_up
    get = Cache.get

    def __contains__(self, key: object) -> bool:
        return self._hg_peek(key, _ABSENT) is not _ABSENT


if not TYPE_CHECKING and backend == "compiled":
    from headgate.cache import _compiled as engines

    class _Hidden:
        """Hides an attribute of the engine that caches of cachetools do not have; instances may set it."""

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            name = (owner or type(instance)).__name__
            raise AttributeError(f"{name!r} object has no attribute {self._name!r}")

    def _methods_of(engine: Any) -> dict[str, Any]:
        hidden = {name: _Hidden() for name in set(dir(engine)) - set(dir(Cache)) if name[0] != "_"}
        return hidden | {
            "_hg_engine": engine, "_hg_find": engine.get, "_hg_peek": engine.peek, "_hg_store": engine.put,
            "_hg_pop": engine.pop, "_hg_pop_victim": engine.popitem, "_hg_clear": engine.clear,
            "_hg_count": engine.__len__, "__getitem__": engine.__getitem__, "get": engine.get,
            "__contains__": engine.__contains__, "__len__": engine.__len__,
        }

    class _CompiledStore(Cache):
        """A store on an engine, the next base of each subclass."""

        def _hg_reset(self) -> None:
            maxsize = self._hg_maxsize
            self._hg_plain = (self._hg_sizes is None and not self._hg_hooked and type(maxsize) is int
                              and maxsize <= _MOST_ENTRIES)
            self._hg_engine.clear(self)
            self._hg_engine.resize(self, maxsize if self._hg_plain else _MOST_ENTRIES)

        def _hg_set(self, key: Any, value: Any) -> None:
            if self._hg_maxsize < 1:
                raise ValueError("value too large")
            if self._hg_peek(key, _ABSENT) is _ABSENT:
                evict = self.popitem if self._hg_hooked else self._hg_evict
                while self._hg_count() + 1 > self._hg_maxsize:
                    evict()
            self._hg_store(key, value)

        def _hg_keys(self) -> list[Any]:
            return list(self._hg_engine.__iter__(self))

        def _hg_state(self) -> dict[str, Any]:
            pairs = [(key, self._hg_peek(key, None)) for key in self._hg_keys()]
            return super()._hg_state() | {"_hg_pairs": pairs}

        def __copy__(self) -> Any:
            copied = _new_empty(type(self))
            copied.__setstate__(self._hg_state())
            return copied

        def __setstate__(self, state: dict[str, Any]) -> None:
            pairs = state.pop("_hg_pairs")
            super().__setstate__(state)
            self._hg_reset()
            for key, value in pairs:
                self._hg_store(key, value)

    class FIFOStore(_CompiledStore, engines.FIFOCache):
        locals().update(_methods_of(engines.FIFOCache))

        def _hg_store(self, key: Any, value: Any) -> None:
            self._hg_pop(key, None)
            self._hg_engine.put(self, key, value)

    class LFUStore(_CompiledStore, engines.LFUCache):
        locals().update(_methods_of(engines.LFUCache))

    class LRUStore(_CompiledStore, engines.LRUCache):
        locals().update(_methods_of(engines.LRUCache))


class FIFOCache(FIFOStore):
    """A cache that evicts the entry that was set least recently."""


class LFUCache(LFUStore):
    """A cache that evicts the least frequently used entry; of several, the one with that count for
    longest."""


class LRUCache(LRUStore):
    """A cache that evicts the least recently used entry.

    >>> from headgate.cachetools import LRUCache
    >>> cache = LRUCache(maxsize=2)
    >>> cache.update(a=1, b=2)
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """


class RRCache(LRUStore):
    """A cache that evicts the key that `choice` returns from the list of keys, by default a random one."""

    _hg_containers = (*LRUStore._hg_containers, "_hg_list", "_hg_indices")

    def __init__(self, maxsize: float, choice: Callable[[Sequence[Any]], Any] = random.choice,
                 getsizeof: Callable[[Any], float] | None = None) -> None:
        self._hg_choice = choice
        self._hg_list: list[Any] = []
        self._hg_indices: dict[Any, int] = {}
        super().__init__(maxsize, getsizeof)

    @property
    def choice(self) -> Callable[[Sequence[Any]], Any]:
        """The callable that selects a key from a list of keys."""
        return self._hg_choice

    def _hg_reset(self) -> None:
        super()._hg_reset()
        self._hg_plain = False

    def _hg_store(self, key: Any, value: Any) -> None:
        if key not in self._hg_indices:
            self._hg_indices[key] = len(self._hg_list)
            self._hg_list.append(key)
        LRUStore._hg_store(self, key, value)

    def _hg_pop(self, key: Any, default: Any) -> Any:
        index = self._hg_indices.pop(key, None)
        if index is None:
            return default
        last = self._hg_list.pop()
        if index < len(self._hg_list):
            self._hg_list[index] = last
            self._hg_indices[last] = index
        return LRUStore._hg_pop(self, key, default)

    def _hg_pop_victim(self) -> tuple[Any, Any]:
        key = self._hg_choice(self._hg_list)
        return key, self._hg_pop(key, None)

    def _hg_clear(self) -> None:
        super()._hg_clear()
        self._hg_list.clear()
        self._hg_indices.clear()
