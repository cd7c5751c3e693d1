"""A backend for Django's CACHES: the memory of the process, with any policy of headgate.

    CacheBackend          one per thread and alias: keys, versions, timeouts
      _Shared             one per LOCATION: changes, one at a time, and loads under way
        LRUCache, ...     key -> Entry; lookups take no lock of ours
"""

from __future__ import annotations

import pickle
from functools import wraps
from math import inf
from sys import getsizeof
from time import monotonic_ns

from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
)
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from headgate._base.forks import new_lock
from headgate._base.sizes import checked_size
from headgate.cache import LRUCache, TTLCache
from headgate.cache._flights import Flights
from headgate.cache._loaders import is_awaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, NamedTuple

    from headgate import CacheStats

    class Settings(NamedTuple):
        """What makes the cache of a LOCATION."""

        policy: Callable[..., Any]
        maxsize: int
        in_bytes: bool
        clock: Callable[[], int] | None
else:
    from collections import namedtuple

    Settings = namedtuple("Settings", ("policy", "maxsize", "in_bytes", "clock"))

_OPTIONS = frozenset(("CLOCK", "CULL_FREQUENCY", "MAX_BYTES", "MAX_ENTRIES", "POLICY"))
_IMMUTABLE = frozenset((bool, bytes, float, int, str, type(None)))
_MISSING = object()
_ENTRIES = 300  # as in all backends of Django
_MOST_ENTRIES = 2**31
_ENTRY_BYTES = 200  # an Entry, its deadline and its slot in the cache


class Entry:
    """A value as it is kept, and the time in nanoseconds at which its timeout ends."""

    __slots__ = ("due", "is_pickled", "key", "value")

    def __init__(self, key: str, value: Any, is_pickled: bool, due: float) -> None:
        self.key, self.value, self.is_pickled, self.due = key, value, is_pickled, due

    def load(self) -> Any:
        """The value, which shares nothing mutable with that of another caller."""
        return pickle.loads(self.value) if self.is_pickled else self.value

    def bytes(self) -> int:
        """About how much memory it takes."""
        return _ENTRY_BYTES + getsizeof(self.key) + getsizeof(self.value)


class _Shared:
    """What the caches of one LOCATION share."""

    __slots__ = ("_lock", "_now", "cache", "flights", "settings")

    def __init__(self, settings: Settings) -> None:
        sizer = Entry.bytes if settings.in_bytes else None
        self.settings = settings
        self.cache = settings.policy(settings.maxsize, getsizeof=sizer, clock=settings.clock)
        self.flights = Flights()
        self._now = settings.clock or monotonic_ns
        self._lock = new_lock()

    def due(self, seconds: float | None) -> float:
        """The time in nanoseconds at which a timeout that begins now ends."""
        return inf if seconds is None else self._now() + seconds * 1e9

    def _put(self, entry: Entry) -> bool:
        """Store an entry unless its timeout has ended or it is too large; then an older one is removed."""
        left = entry.due - self._now()
        if left > 0:
            try:
                self.cache.put(entry.key, entry, ttl=None if left == inf else left / 1e9)
            except ValueError:
                pass
            else:
                return True
        self.cache.pop(entry.key, None)
        return left <= 0

    def set(self, entry: Entry) -> bool:
        """Store an entry; False if it is too large."""
        with self._lock:
            return self._put(entry)

    def add(self, entry: Entry) -> bool:
        """Store an entry if there is none under its key; False if there is, or if it is too large."""
        with self._lock:
            return entry.key not in self.cache and self._put(entry)

    def swap(self, old: Entry, new: Entry) -> bool:
        """Store `new` in place of `old`; False if `old` is stored no longer."""
        with self._lock:
            if self.cache.peek(old.key) is not old:
                return False
            if new.key != old.key:
                self.cache.pop(old.key, None)
            self._put(new)
            return True

    def delete(self, key: str) -> bool:
        """Remove an entry, or what is being loaded under its key; False if there was no entry."""
        with self._lock:
            self.flights.drop(key)
            return self.cache.pop(key, None) is not None

    def clear(self) -> None:
        """Remove all entries, and all that is being loaded."""
        with self._lock:
            self.flights.new_generation()
            self.cache.clear()

    # What `Flights` expects of a store.

    def peek(self, key: str, default: Any, /) -> Any:
        return self.cache.peek(key, default)

    def put(self, key: str, entry: Entry, /) -> None:
        self.add(entry)

    def pop(self, key: str, default: Any, /) -> Any:
        with self._lock:
            return self.cache.pop(key, default)


_shared: dict[str, _Shared] = {}
_lock = new_lock()


def _forget(*, setting: str, **_: Any) -> None:
    """Tests that override CACHES begin with empty caches, whose options may differ."""
    if setting == "CACHES":
        with _lock:
            _shared.clear()


setting_changed.connect(_forget)


def _shared_at(location: str, settings: Settings) -> _Shared:
    with _lock:
        shared = _shared.get(location)
        if shared is None:
            try:
                shared = _shared[location] = _Shared(settings)
            except (TypeError, ValueError) as error:
                raise ImproperlyConfigured(f"cache at LOCATION {location!r}: {error}") from error
        elif shared.settings != settings:
            raise ImproperlyConfigured(
                f"caches at LOCATION {location!r} must have the same OPTIONS, "
                f"got {tuple(shared.settings)} and {tuple(settings)}")
        return shared


def _imported(value: Any) -> Any:
    return import_string(value) if isinstance(value, str) else value


def _checked_policy(value: Any) -> Any:
    policy = _imported(value)
    is_cache = isinstance(policy, type) and all(hasattr(policy, name) for name in ("peek", "put", "stats"))
    if not is_cache or issubclass(policy, TTLCache):
        raise TypeError(f"POLICY must be a cache class of headgate other than TTLCache, got {value!r}")
    return policy


def _checked_entries(value: Any) -> int:
    """The bound on entries, which Django takes as text too."""
    try:
        entries = _ENTRIES if value is None else int(value)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"MAX_ENTRIES must be a number, got {value!r}") from None
    if not 0 <= entries <= _MOST_ENTRIES:
        raise ValueError(f"MAX_ENTRIES must be from 0 to 2**31, got {value!r}")
    return entries


def _settings(params: dict[str, Any]) -> Settings:
    """The settings in the parameters of a cache."""
    options = params.get("OPTIONS", {})
    if unknown := options.keys() - _OPTIONS:
        raise ImproperlyConfigured(
            f"OPTIONS must be of {', '.join(sorted(_OPTIONS))}, got {', '.join(map(repr, sorted(unknown)))}")
    size, entries = options.get("MAX_BYTES"), params.get("max_entries", options.get("MAX_ENTRIES"))
    if size is not None and entries is not None:
        raise ImproperlyConfigured(
            f"either MAX_BYTES or MAX_ENTRIES must be given, got {size!r} and {entries!r}")
    policy, clock = _checked_policy(options.get("POLICY", LRUCache)), _imported(options.get("CLOCK"))
    if size is not None:
        return Settings(policy, checked_size("MAX_BYTES", size), True, clock)
    return Settings(policy, _checked_entries(entries), False, clock)


def _coroutine(name: str) -> Any:
    """The coroutine function beside the method `name`, which is called at once: nothing in it waits."""

    @wraps(getattr(BaseCache, f"a{name}"))
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, name)(*args, **kwargs)

    return call


class CacheBackend(BaseCache):
    """A cache of Django in the memory of the process: ``"BACKEND": "headgate.adapters.django.CacheBackend"``.

    Whatever has the same LOCATION shares its entries, in all threads. Values are pickled, except for plain
    numbers, strings, bytes and None, which nobody can change. Of OPTIONS, all optional,

    - MAX_ENTRIES bounds the number of entries, 300 by default; or
    - MAX_BYTES bounds their memory, keys and bookkeeping included: a number, or text like ``"64 MiB"``;
    - POLICY decides what is evicted: a cache class of headgate or its dotted path, by default
      ``"headgate.LRUCache"``;
    - CLOCK, for tests, is a callable that returns integer nanoseconds, or its dotted path;
    - CULL_FREQUENCY is accepted and does nothing: a policy evicts one entry for one that is stored.

    The other parameters are Django's: TIMEOUT, KEY_PREFIX, VERSION, KEY_FUNCTION. Asynchronous methods run at
    once, in the event loop. ``incr``, ``decr``, ``incr_version`` and ``touch`` are atomic; the first three
    keep the timeout. Of all threads, or all tasks of an event loop, that call ``get_or_set`` for a missing
    key at the same time, one calls its `default`, and the others wait for the value or the error.

    A value larger than MAX_BYTES is not stored, and the older one is removed: ``add`` returns False, and
    ``set_many`` returns the key.

    Raises ImproperlyConfigured if an option is unknown or wrong, or if another cache at this LOCATION has
    other options. Complexity: that of the policy, O(1), and of pickling.

    >>> cache = CacheBackend("pages", {"OPTIONS": {"MAX_BYTES": "1 MiB", "POLICY": "headgate.TinyLFUCache"}})
    >>> cache.set("views", 1)
    >>> cache.incr("views"), cache.get("nothing"), cache.stats().hits
    (2, None, 1)
    """

    pickle_protocol = pickle.HIGHEST_PROTOCOL

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        try:
            settings = _settings(params)
        except (ImportError, TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"cache at LOCATION {location!r}: {error}") from error
        super().__init__(params)
        self._shared = _shared_at(location, settings)
        self._find = self._shared.cache.get

    def validate_key(self, key: str) -> None:
        """Warn about keys that memcached would refuse, as all backends of Django do."""
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or " " in key or not key.isprintable():
            super().validate_key(key)

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """The seconds of a timeout, or None for ever."""
        return self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout  # type: ignore[no-any-return]

    def _entry(self, key: str, value: Any, timeout: Any) -> Entry:
        return self._packed(key, value, self._shared.due(self.get_backend_timeout(timeout)))

    def _packed(self, key: str, value: Any, due: float) -> Entry:
        if type(value) in _IMMUTABLE:
            return Entry(key, value, False, due)
        return Entry(key, pickle.dumps(value, self.pickle_protocol), True, due)

    def _found(self, key: Any, version: int | None) -> Entry:
        """The entry of a key; raises ValueError if there is none."""
        entry = self._find(self.make_and_validate_key(key, version))
        if entry is None:
            raise ValueError(f"Key {key!r} not found")
        return entry  # type: ignore[no-any-return]

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """The value of a key, or `default`."""
        entry = self._find(self.make_and_validate_key(key, version))
        return default if entry is None else entry.load()

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Whether there is a value; the policy counts no use."""
        return self.make_and_validate_key(key, version) in self._shared.cache

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Store a value."""
        self._shared.set(self._entry(self.make_and_validate_key(key, version), value, timeout))

    def set_many(self, data: dict[Any, Any], timeout: Any = DEFAULT_TIMEOUT,
                 version: int | None = None) -> list[Any]:
        """Store all values of a dict; returns the keys of those that are too large."""
        entries = [(key, self._entry(self.make_and_validate_key(key, version), value, timeout))
                   for key, value in data.items()]
        return [key for key, entry in entries if not self._shared.set(entry)]

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Store a value if the key has none; whether it was stored."""
        return self._shared.add(self._entry(self.make_and_validate_key(key, version), value, timeout))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Let the timeout of a value begin again; whether there is a value."""
        key = self.make_and_validate_key(key, version)
        seconds = self.get_backend_timeout(timeout)
        while (old := self._shared.peek(key, None)) is not None:
            new = Entry(key, old.value, old.is_pickled, self._shared.due(seconds))
            if self._shared.swap(old, new):
                return True
        return False

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> Any:
        """Add `delta` to a value and return the sum; raises ValueError if there is none."""
        while True:
            old = self._found(key, version)
            value = old.load() + delta
            if self._shared.swap(old, self._packed(old.key, value, old.due)):
                return value

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move a value to another version and return that; raises ValueError if there is none."""
        if version is None:
            version = self.version
        moved = self.make_and_validate_key(key, version + delta)
        while True:
            old = self._found(key, version)
            if self._shared.swap(old, Entry(moved, old.value, old.is_pickled, old.due)):
                return version + delta

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Remove a value; whether there was one. What ``get_or_set`` is loading is not stored."""
        return self._shared.delete(self.make_and_validate_key(key, version))

    def clear(self) -> None:
        """Remove all values at this LOCATION, of every version and prefix."""
        self._shared.clear()

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT,
                   version: int | None = None) -> Any:
        """The value of a key; if it has none, `default`, or what it returns if it is callable, is stored."""
        if not callable(default):
            return super().get_or_set(key, default, timeout, version)
        value = self.get(key, _MISSING, version)
        if value is not _MISSING:
            return value
        key = self.make_and_validate_key(key, version)
        loaded = self._shared.flights.load(self._shared, key, lambda: self._entry(key, default(), timeout))
        return self._shared.peek(key, loaded).load()

    async def aget_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT,
                          version: int | None = None) -> Any:
        """``get_or_set``; what a callable returns is awaited if it is awaitable."""
        if not callable(default):
            return super().get_or_set(key, default, timeout, version)
        value = self.get(key, _MISSING, version)
        if value is not _MISSING:
            return value
        key = self.make_and_validate_key(key, version)
        loaded = await self._shared.flights.load_async(
            self._shared, key, lambda: self._awaited(key, default, timeout))
        return self._shared.peek(key, loaded).load()

    async def _awaited(self, key: str, default: Callable[[], Awaitable[Any] | Any], timeout: Any) -> Entry:
        value = default()
        if is_awaitable(value):
            value = await value
        return self._entry(key, value, timeout)

    def stats(self) -> CacheStats:
        """Hits, misses, evictions and size of all caches at this LOCATION, as a `CacheStats`; what
        ``get_or_set`` loads is not counted.
        """
        return self._shared.cache.stats()  # type: ignore[no-any-return]

    aadd = _coroutine("add")
    aclear = _coroutine("clear")
    aclose = _coroutine("close")
    adecr = _coroutine("decr")
    adecr_version = _coroutine("decr_version")
    adelete = _coroutine("delete")
    adelete_many = _coroutine("delete_many")
    aget = _coroutine("get")
    aget_many = _coroutine("get_many")
    ahas_key = _coroutine("has_key")
    aincr = _coroutine("incr")
    aincr_version = _coroutine("incr_version")
    aset = _coroutine("set")
    aset_many = _coroutine("set_many")
    atouch = _coroutine("touch")
