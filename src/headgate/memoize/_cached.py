"""The cold code of ``cached``, shared by both twins; each twin has a `_Lookup` of its own.

    lookup (def), or _AsyncWrapper around one (async def)   the wrapper of the function
        hit:   the value in the store
        miss:  Memory.new_load, then the function and the store; for coroutines, and where there is more to do
               than to call a function, Memory.resolve -> Flights.load -> the function -> the store

    Plan      the function and the arguments of the decorator
      .by_id    id(instance) -> (weak reference, wrapper), removed by the reference's callback
      ._strong  id(instance) -> (instance, wrapper), for instances without weak references: at most `maxsize`

References go from a wrapper to its lookup, memory, store and results, and never back, so the results of a
method go with the instance. Neither memory nor lookup refers to the instance: every call passes it.
"""

from __future__ import annotations

import time
from functools import _CacheInfo, partial, update_wrapper
from types import MethodType
from weakref import ref

from headgate._base.checks import checked_callable, checked_int_or_none
from headgate.cache._flights import Flights
from headgate.cache._lifetimes import NEVER, checked_fraction, checked_lifetime, checked_tags, shortened
from headgate.cache._listeners import report
from headgate.cache._loaders import is_coroutine_function, unwrapped
from headgate.cache._views import _ABSENT
from headgate.memoize._refreshes import Refreshes, checked_executor
from headgate.memoize._stores import AgeingStore, Loading, Store, TimedStore, takes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Coroutine, Hashable, Iterable
    from typing import Any

    from headgate.cache._flights import _Load

_MOST_ENTRIES = 2**31
_METHODS = "cache_clear", "cache_contains", "cache_info", "cache_invalidate", "cache_key"
_OWN_KEYS = frozenset({int, str})
_GONE = object()


class KEYWORDS:
    """Separates positional and keyword arguments in a key; pickles by name."""


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any], typed: bool) -> Any:
    """The key of a call.

    >>> call_key(("a",), {}, False)
    'a'
    >>> call_key((1, 2), {"b": 3}, False)
    (1, 2, <class 'headgate.memoize._cached.KEYWORDS'>, ('b',), 3)
    >>> call_key((1,), {}, True)
    (1, <class 'int'>)
    """
    if not typed and not kwargs and not args[1:] and args and type(args[0]) in _OWN_KEYS:
        return args[0]
    key = args
    if kwargs:
        key += KEYWORDS, tuple(kwargs), *kwargs.values()
    if typed:
        key += tuple([type(value) for value in (*args, *kwargs.values())])
    return key


# ---- wrappers -----------------------------------------------------------------------------------


class Wrapper:
    """Wraps a function or, with `bind`, which returns the wrapper of an instance, a method too."""

    __slots__ = ("__dict__", "__weakref__", "_bind", "_is_method", "_memory")

    def __init__(self, memory: Memory, bind: Callable[[Any], Any] | None) -> None:
        self._memory, self._bind = memory, bind
        self._is_method = False

    if TYPE_CHECKING:
        __qualname__: str
        __wrapped__: Any

        def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

    def __set_name__(self, owner: type, name: str) -> None:
        self._is_method = self._bind is not None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self._bind is None or (isinstance(instance, type) and not self._is_method):
            return MethodType(self, instance)
        return MethodType(self._bind(instance), instance)

    def _counting(self) -> Any:
        """The lookup, which holds the counters."""
        return self

    def cache_info(self) -> _CacheInfo:
        """Report cache statistics"""
        return self._memory.info(self._counting())

    def cache_clear(self) -> None:
        """Clear the cache and its statistics; what is being loaded is not stored"""
        self._memory.clear(self._counting())

    def cache_key(self, /, *args: Any, **kwargs: Any) -> Any:
        """The key of a call"""
        if self._is_method and self._bind is not None and args:
            return self._bind(args[0]).cache_key(*args[1:], **kwargs)
        return self._memory.key_of(args, kwargs)

    def cache_contains(self, /, *args: Any, **kwargs: Any) -> bool:
        """Whether a call is remembered, without counting or touching it"""
        if self._is_method and self._bind is not None and args:
            return bool(self._bind(args[0]).cache_contains(*args[1:], **kwargs))
        return self._memory.contains(self._counting(), args, kwargs)

    def cache_invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forget one call, and return whether it was remembered; if it is being loaded, it is not stored"""
        if self._is_method and self._bind is not None and args:
            return bool(self._bind(args[0]).cache_invalidate(*args[1:], **kwargs))
        return self._memory.invalidate(self._counting(), args, kwargs)

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"

    def __copy__(self) -> Wrapper:
        return self

    def __deepcopy__(self, memo: object) -> Wrapper:
        return self

    def __reduce__(self) -> str:
        return self.__qualname__


class _Pending:
    """What the lookup of an ``async def`` returns on a miss: a coroutine that returns the value."""

    __slots__ = ("coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine


class _AsyncWrapper(Wrapper):
    """Wraps an ``async def``; awaits what its lookup does not find."""

    __slots__ = ("_lookup",)

    def __init__(self, memory: Memory, lookup: Any, bind: Callable[[Any], Any] | None) -> None:
        super().__init__(memory, bind)
        self._lookup = lookup

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self._is_method and self._bind is not None and args:
            return await self._bind(args[0])(*args, **kwargs)
        found = self._lookup(*args, **kwargs)
        return await found.coroutine if type(found) is _Pending else found

    def _counting(self) -> Any:
        return self._lookup

    @property
    def cache(self) -> Any:
        """The cache of the results, or None for the built-in one."""
        return self._lookup.cache


class Mark:
    """Identifies an instance in the keys of a method's results in a cache that instances share."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name} of one instance>"


# ---- results ------------------------------------------------------------------------------------


class Memory:
    """The results of a function or of a method of one instance."""

    __slots__ = ("__weakref__", "_flights", "_is_of_instance", "_mark", "_plan", "_store", "_tasks")

    def __init__(self, plan: Plan, is_of_instance: bool) -> None:
        self._plan, self._is_of_instance = plan, is_of_instance
        self._flights = Flights()
        self._tasks: set[Task[None]] = set()
        self._store = plan.new_store()
        self._mark: Any = None

    def use(self, lookup: Any, mark: object) -> None:
        """Let `lookup` use this memory; in a given cache, keys carry `mark`."""
        self._mark = mark
        lookup.use(self._store.cache, self._store.is_fresh if self._store.ages else None, mark)

    def info(self, lookup: Any) -> _CacheInfo:
        """Hits, misses, bound and size."""
        hits, misses = lookup.counts()
        cache = self._store.cache
        return _CacheInfo(hits, misses, self._plan.maxsize_of(cache), self._size_of(cache))

    def _size_of(self, cache: Any) -> int:
        if self._mark is not None:
            return len(self._marked_keys("cache_info"))
        if hasattr(cache, "currsize"):
            currsize: int = cache.currsize
            return currsize
        self._require("cache_info", "__len__")
        return len(cache)

    def _marked_keys(self, method: str) -> list[Any]:
        """The keys of this memory in a given cache. O(size of the cache)."""
        self._require(method, "__iter__")
        keys = list(self._store.cache)
        return [key for key in keys if type(key) is tuple and key and key[0] is self._mark]

    def _require(self, method: str, *needed: str) -> None:
        """Refuse a method of the wrapper for which a given cache lacks a method."""
        cache = self._store.cache
        for name in needed:
            if not hasattr(cache, name):
                raise TypeError(f"{method} needs a cache with {name}, got {cache!r}")

    def clear(self, lookup: Any) -> None:
        """Forget everything, of all instances too if this is the memory of the function itself."""
        if not self._plan.has_own_results:
            self._require("cache_clear", *(("clear",) if self._mark is None else ("pop", "__iter__")))
        self._flights.new_generation()
        lookup.forget_counts()
        if self._plan.has_own_results:
            self._store = self._plan.new_store()
            self.use(lookup, None)
        elif self._mark is None:
            self._store.cache.clear()
        else:
            for key in self._marked_keys("cache_clear"):
                self._store.pop(key, None)
        if not self._is_of_instance:
            for wrapper in self._plan.wrappers():
                wrapper.cache_clear()

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The key of a call."""
        plan = self._plan
        key = call_key(args, kwargs, plan.typed) if plan.key is None else plan.key(*args, **kwargs)
        return key if self._mark is None else (self._mark, key)

    def contains(self, lookup: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call would return a result that is here."""
        key = lookup.stored_key(self.key_of(args, kwargs))
        found = self._store.find(key, _ABSENT)
        return found is not _ABSENT and self._store.is_usable(key, found)

    def invalidate(self, lookup: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Forget a call; whether there was one."""
        self._require("cache_invalidate", "pop")
        key = lookup.stored_key(self.key_of(args, kwargs))
        self._flights.drop(key)
        found = self._store.find(key, _ABSENT)
        usable = found is not _ABSENT and self._store.is_usable(key, found)
        return self._store.pop(key, _GONE) is not _GONE and usable

    # ---- misses ------------------------------------------------------------------------------

    def resolve(self, lookup: Any, key: Hashable, found: Any, args: tuple[Any, ...],
               kwargs: dict[str, Any]) -> Any:
        """The result of a call for which `lookup` has found nothing, or nothing fresh."""
        store, loader = self._load_of(args, kwargs)
        usable = found is not _ABSENT and self._store.is_usable(key, found)
        lookup.count(usable)
        if not usable:
            return self._flights.load(store, key, loader)
        if not self._store.is_fresh(key, found):
            self._refresh(store, key, loader)
        return self._store.result_of(found)

    def new_load(self, lookup: Any, key: Hashable) -> _Load:
        """A load for `lookup`, where nothing but the function has to be called."""
        lookup.count(False)
        return self._flights.new_load(self._store, key)

    def _load_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """The store and the loader of a call."""
        plan = self._plan
        call = partial(plan.function, *args, **kwargs)
        if plan.keep is None and not plan.tags:
            return self._store, call
        loading = Loading(self._store, call, plan.keep, partial(self._tags_of, args, kwargs))
        return loading, loading.load_async if plan.is_async else loading.load

    def _tags_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterable[str]:
        tags = self._plan.tags
        return tags(*args[self._is_of_instance:], **kwargs) if callable(tags) else tags

    def _refresh(self, store: Any, key: Hashable, loader: Any) -> None:
        load = self._flights.refresh(store, key)
        try:
            if load.begin():
                self._plan.refreshes.submit(load, partial(self._lead, load, loader))
        except BaseException:
            load.abandon()
            raise

    def _lead(self, load: _Load, loader: Any) -> None:
        try:
            self._flights.lead(load, loader)
        except Exception as error:
            report(error)

    def _refresh_async(self, store: Any, key: Hashable, loader: Any) -> None:
        from asyncio import get_running_loop

        loop = get_running_loop()
        load = self._flights.refresh(store, key, loop)
        try:
            if load.begin():
                task = loop.create_task(self._lead_async(load, loader))
                self._tasks.add(task)
                task.add_done_callback(partial(self._end_refresh, load))
        except BaseException:
            load.abandon()
            raise

    async def _lead_async(self, load: _Load, loader: Any) -> None:
        try:
            await self._flights.lead_async(load, loader)
        except Exception as error:
            report(error)

    def _end_refresh(self, load: _Load, task: Task[None]) -> None:
        """Let the next caller refresh, if the task was cancelled before its first step."""
        self._tasks.discard(task)
        load.abandon()


class _AsyncMemory(Memory):
    """The results of a coroutine function."""

    __slots__ = ()

    def resolve(self, lookup: Any, key: Hashable, found: Any, args: tuple[Any, ...],
               kwargs: dict[str, Any]) -> Any:
        store, loader = self._load_of(args, kwargs)
        usable = found is not _ABSENT and self._store.is_usable(key, found)
        lookup.count(usable)
        if not usable:
            return _Pending(self._flights.load_async(store, key, loader))
        if not self._store.is_fresh(key, found):
            self._refresh_async(store, key, loader)
        return self._store.result_of(found)


# ---- the decorator ------------------------------------------------------------------------------


class _Default(int):
    """The default of `maxsize`, which is no number that a user gives."""


DEFAULT_MAXSIZE = _Default(128)


class Plan:
    """The checked arguments of the decorator, and the function with its wrappers.

    Results are in a given cache, in one of a given policy, or in the twin's own `new_results`.
    """

    def __init__(self, new_lookup: Any, new_results: Any, default_policy: Any, cache: Any, *,
                 maxsize: int | None, policy: Any, ttl: float | None, tti: float | None, stale: float | None,
                 jitter: float, key: Any, typed: bool, keep: Any, tags: Any, on_evict: Any, clock: Any,
                 executor: Any) -> None:
        self._new_lookup, self._new_results = new_lookup, new_results
        self.cache, self._maxsize = _checked_cache(cache), _checked_maxsize(maxsize)
        self.key, self.keep = checked_callable("key", key), checked_callable("keep", keep)
        self.typed, self.tags = bool(typed), tags if callable(tags) else checked_tags(tags)
        self.clock = checked_callable("clock", clock) or _clock_of(cache) or time.monotonic_ns
        self.refreshes = Refreshes(checked_executor(executor))
        self._set_lifetimes(ttl, stale)
        self._jitter = checked_fraction("jitter", jitter)
        self._policy: Any = None
        policy = checked_callable("policy", policy)
        options = _not_none(tti=tti, jitter=jitter or None, on_evict=on_evict)
        if cache is not None:
            _refuse_beside(cache, maxsize, _not_none(policy=policy) | options)
            _refuse_tags(cache, self.tags)
        elif policy is not None or options or self.tags:
            times = _not_none(ttl=self._seconds or None, clock=clock)
            self._policy = partial(policy or default_policy, **options, **times)
        self.has_own_results = cache is None and self._policy is None
        self._passes_ttl = _has_lifetimes(cache) and self.clock is (_clock_of(cache) or time.monotonic_ns)
        self.new_store()

    def _set_lifetimes(self, ttl: float | None, stale: float | None) -> None:
        if stale is not None and ttl is None:
            raise ValueError(f"stale needs a ttl, got {stale!r} alone")
        self.ttl, self.stale = checked_lifetime("ttl", ttl) or 0, checked_lifetime("stale", stale) or 0
        self._seconds = float(ttl or 0) + float(stale or 0)

    def deadlines(self) -> tuple[int, int]:
        """Until when a result of now is fresh, and until when it is usable."""
        now, ttl = self.clock(), self.ttl
        if self._jitter:
            from random import getrandbits

            ttl = shortened(ttl, self._jitter, getrandbits(64))
        return min(now + ttl, NEVER), min(now + ttl + self.stale, NEVER)

    def new_store(self) -> Store:
        """A store in the cache that was given, or in a new one."""
        if self.has_own_results:
            results = self._new_results(self._maxsize)
            return TimedStore(results, self) if self.ttl else Store(results)
        if self._policy is not None:
            cache = self._policy(_MOST_ENTRIES if self._maxsize is None else self._maxsize)
            return AgeingStore(cache, self) if self.stale else Store(cache)
        ttl = self._seconds if self.ttl and self._passes_ttl else None
        ages = self.stale or (self.ttl and ttl is None)
        return AgeingStore(self.cache, self, ttl) if ages else Store(self.cache, ttl)

    def maxsize_of(self, cache: Any) -> int | None:
        """The `maxsize` of ``cache_info``."""
        return self._maxsize if self.cache is None else getattr(cache, "maxsize", None)

    def decorate(self, function: Any) -> Any:
        """The wrapper for `function`."""
        self.function, self.is_async = _checked_function(function)
        self.by_id: dict[int, tuple[ref[Any], Any]] = {}
        self._strong = self._new_results(None if self._maxsize is None else max(1, self._maxsize))
        return self._new_wrapper(self.bind)

    def _new_wrapper(self, bind: Callable[[Any], Any] | None) -> Any:
        """A wrapper for the function, or without `bind` for the method of one instance."""
        memory = (_AsyncMemory if self.is_async else Memory)(self, bind is None)
        clock = self.clock if self.has_own_results and self.ttl else None
        function = None if self.is_async or self.keep or self.tags else self.function
        lookup = self._new_lookup(memory, function, self.key, self.typed, clock, bind, self.by_id)
        wrapper = _AsyncWrapper(memory, lookup, bind) if self.is_async else lookup
        self._update(wrapper)
        if self.cache is None:
            mark: Any = None
        elif bind is None:
            mark = Mark(getattr(self.function, "__qualname__", repr(self.function)))
        else:
            mark = wrapper if self.key is None else None
        memory.use(lookup, mark)
        return wrapper

    def _update(self, wrapper: Any) -> None:
        """Give a wrapper the attributes of the function."""
        update_wrapper(wrapper, self.function)
        for name in _METHODS:  # those of a function that is itself an object with a cache
            wrapper.__dict__.pop(name, None)
        if self.is_async:  # by which ``inspect`` knows a coroutine function
            code = _code_of(self.function)
            wrapper.__name__ = getattr(self.function, "__name__", code.__name__)
            wrapper.__code__, wrapper.__defaults__ = code.__code__, code.__defaults__
            wrapper.__kwdefaults__ = code.__kwdefaults__

    # ---- methods -----------------------------------------------------------------------------

    def bind(self, instance: Any) -> Any:
        """The wrapper for the method of `instance`."""
        identity = id(instance)
        row = self.by_id.get(identity) or self._strong.get(identity, None)
        if row is not None and _is_of(row, instance):
            return row[1]
        wrapper = self._new_wrapper(None)
        try:
            owner = ref(instance, partial(self.by_id.pop, identity))
        except TypeError:
            return self._strong.setdefault(identity, (instance, wrapper))[1]
        return self._first(identity, instance, (owner, wrapper))

    def _first(self, identity: int, instance: Any, new: tuple[ref[Any], Any]) -> Any:
        """The wrapper of the thread that was first."""
        while not _is_of(row := self.by_id.setdefault(identity, new), instance):
            self.by_id.pop(identity, None)  # of an instance that is dead, though its callback has not run
        return row[1]

    def wrappers(self) -> list[Any]:
        """The wrappers of all instances."""
        return [wrapper for _, wrapper in (*self.by_id.copy().values(), *self._strong.values())]


def _is_of(row: tuple[Any, Any], instance: Any) -> bool:
    """Whether a row is that of `instance`, and not of a dead one that had its address."""
    owner = row[0]
    return owner is instance or (type(owner) is ref and owner() is instance)


# ---- the checks ---------------------------------------------------------------------------------


def _not_none(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _serves(value: Any) -> bool:
    """Whether a value is meant as a cache; a class is a function that makes objects."""
    has_methods = hasattr(value, "get") and (hasattr(value, "put") or hasattr(value, "__setitem__"))
    return has_methods and not isinstance(value, type)


def _checked_cache(cache: Any) -> Any:
    if cache is None or _serves(cache):
        return cache
    raise TypeError(f"cache must have get and put, got {cache!r}")


def _has_lifetimes(cache: Any) -> bool:
    return takes(getattr(cache, "put", None), "ttl")


def _clock_of(cache: Any) -> Any:
    return getattr(cache, "clock", None) if _has_lifetimes(cache) else None


def _refuse_beside(cache: Any, maxsize: Any, options: dict[str, Any]) -> None:
    """Refuse the arguments of a cache that is made when one is given."""
    if maxsize is not DEFAULT_MAXSIZE:
        options = {"maxsize": maxsize} | options
    for name, value in options.items():
        raise ValueError(f"{name} cannot be set for a cache that is given, got {value!r} with {cache!r}")


def _refuse_tags(cache: Any, tags: Any) -> None:
    if tags and not takes(getattr(cache, "put", None), "tags"):
        raise TypeError(f"tags need a cache with put(tags=), got {cache!r}")


def _checked_maxsize(maxsize: Any) -> int | None:
    number = checked_int_or_none("maxsize", maxsize)
    if number is not None and number < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    return number


def _checked_function(function: Any) -> tuple[Any, bool]:
    """`function`, and whether it is a coroutine function."""
    from inspect import isasyncgenfunction, isgeneratorfunction

    if isinstance(function, (classmethod, staticmethod)):
        kind = type(function).__name__
        raise TypeError(f"@cached must come below @{kind}, next to the function, got {function!r}")
    if not callable(function):
        raise TypeError("the first argument must be callable")
    inner = unwrapped(function)
    call = type(inner).__call__
    if any(is_one(inner) or is_one(call) for is_one in (isgeneratorfunction, isasyncgenfunction)):
        raise TypeError(f"results of a generator function can be iterated only once, got {function!r}")
    return function, is_coroutine_function(function)


def _code_of(function: Any) -> Any:
    """The function that has the code of a coroutine function or of an object with one."""
    inner = unwrapped(function)
    return inner if hasattr(inner, "__code__") else type(inner).__call__


def decorator(new_lookup: Any, new_results: Any, default_policy: Any, cache: Any, **options: Any) -> Any:
    """What a twin's ``cached`` returns; the twin passes its own lookup, results and LRUCache."""
    parts = new_lookup, new_results, default_policy
    if isinstance(cache, (classmethod, staticmethod)) or (callable(cache) and not _serves(cache)):
        return Plan(*parts, None, **options).decorate(cache)

    def decorating_function(function: Any) -> Any:
        return Plan(*parts, cache, **options).decorate(function)

    Plan(*parts, cache, **options)
    return decorating_function
