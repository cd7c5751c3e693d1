"""What ``cached`` is made of in both twins; only the front, which looks up, is each twin's own.

    front (def), or Shell around a front (async def)
        hit:   the value in the store
        miss:  Memory.answer -> Flights.load -> the function -> the store

A Memory is what a function remembers. Of a method every instance has one, in its ``__dict__``; neither it nor
its front knows the instance, which comes with every call, so nothing here keeps it alive.

With a ttl the store holds `Timed` values.
"""

from __future__ import annotations

import time
from functools import _CacheInfo, partial, update_wrapper
from operator import index
from types import MethodType
from weakref import WeakSet, ref

from headgate._flights import Flights
from headgate._forks import new_lock
from headgate._listeners import report
from headgate._refreshes import Refreshes, checked_executor
from headgate._units import checked_positive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Any, TypeGuard

    from headgate._flights import _Trip

_SECOND = 10**9
_OWN_KEYS = frozenset({int, str})


class KEYWORDS:
    """Stands in a key between positional and keyword arguments; pickles by name."""


def call_key(args: tuple[Any, ...], kwargs: dict[str, Any], typed: bool) -> Any:
    """What tells two calls apart.

    >>> call_key(("a",), {}, False)
    'a'
    >>> call_key((1, 2), {"b": 3}, False)
    (1, 2, <class 'headgate._cached.KEYWORDS'>, ('b',), 3)
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


# ---- stores -------------------------------------------------------------------------------------


class _Store:
    """A cache by the few methods that are asked of it."""

    __slots__ = ("cache", "peek", "pop", "put")

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.peek = cache.peek if hasattr(cache, "peek") else cache.get
        self.put = cache.put if hasattr(cache, "put") else cache.__setitem__
        self.pop = getattr(cache, "pop", _nothing)


def _nothing(key: object, default: object) -> None:
    """The ``pop`` of a cache that has none."""


class Timed:
    """A result and until when it may be answered, fresh and stale."""

    __slots__ = ("fresh_until", "stale_until", "value")

    def __init__(self, value: Any, fresh_until: int, stale_until: int) -> None:
        self.value, self.fresh_until, self.stale_until = value, fresh_until, stale_until


class _TimedStore:
    """A store whose `peek` shows what is fresh, and nothing else."""

    __slots__ = ("_plan", "_store", "cache", "pop")

    def __init__(self, cache: Any, plan: Plan) -> None:
        store = self._store = _Store(cache)
        self.cache, self.pop = cache, store.pop
        self._plan = plan

    def peek(self, key: Hashable, default: Any, /) -> Any:
        found = self._store.peek(key, default)
        return found.value if type(found) is Timed and self._plan.clock() < found.fresh_until else default

    def put(self, key: Hashable, value: Any, /) -> None:
        fresh_until = self._plan.clock() + self._plan.ttl
        self._store.put(key, Timed(value, fresh_until, fresh_until + self._plan.stale))


# ---- what stands for the function ---------------------------------------------------------------


class Standin:
    """Stands for a function or, with `bind`, which answers an instance's own stand-in, for a method too."""

    __slots__ = ("__dict__", "__weakref__", "_bind", "_is_method")

    def __init__(self, bind: Callable[[Any], Any] | None) -> None:
        self._bind = bind
        self._is_method = False

    if TYPE_CHECKING:
        __qualname__: str

        def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

    def __set_name__(self, owner: type, name: str) -> None:
        self._is_method = self._bind is not None

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self._bind is None or isinstance(instance, type):
            return MethodType(self, instance)
        return MethodType(self._bind(instance), instance)

    def __copy__(self) -> Standin:
        return self

    def __deepcopy__(self, memo: object) -> Standin:
        return self

    def __reduce__(self) -> str:
        return self.__qualname__


class _Pending:
    """What the front of an ``async def`` answers when the value is not there: how to come by it."""

    __slots__ = ("coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine


class _Shell(Standin):
    """Stands for an ``async def``: awaits what its front does not have."""

    __slots__ = ("_front",)

    def __init__(self, front: Any, bind: Callable[[Any], Any] | None) -> None:
        super().__init__(bind)
        self._front = front

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self._is_method and self._bind is not None and args:
            return await self._bind(args[0])(*args, **kwargs)
        found = self._front(*args, **kwargs)
        return await found.coroutine if type(found) is _Pending else found

    @property
    def cache(self) -> Any:
        """The cache that was given to the decorator, or None."""
        return self._front.cache


# ---- what is remembered -------------------------------------------------------------------------


class _Memory:
    """The results of a function or, with `bind` None, of a method of one instance."""

    __slots__ = ("__weakref__", "_flights", "_front", "_plan", "_store", "_tasks", "key", "standin")

    def __init__(self, plan: Plan, bind: Callable[[Any], Any] | None) -> None:
        self._plan = plan
        self._flights = Flights()
        self._tasks: set[Task[None]] = set()
        self.key = plan.key
        if bind is None and plan.cache is not None:
            self.key = partial(_marked_key, object(), plan.key or partial(_default_key, plan.typed))
        answer = self._answer_async if plan.is_async else self._answer
        clock = plan.clock if plan.ttl else None
        self._front = plan.front(answer, self.key, plan.typed, clock, bind, plan.place)
        self._aim()
        self.standin: Any = _Shell(self._front, bind) if plan.is_async else self._front

    def _aim(self) -> None:
        self._store = self._plan.new_store()
        self._front.aim(self._store.cache)

    def info(self) -> _CacheInfo:
        """Report cache statistics"""
        hits, misses = self._front.counts()
        cache = self._store.cache
        currsize = cache.currsize if hasattr(cache, "currsize") else len(cache)
        return _CacheInfo(hits, misses, self._plan.maxsize_of(cache), currsize)

    def clear(self) -> None:
        """Clear the cache and its statistics; what is being loaded is not stored"""
        self._flights.ground()
        self._front.forget_counts()
        if self._plan.cache is None:
            self._aim()
        else:
            self._plan.cache.clear()

    def key_of(self, /, *args: Any, **kwargs: Any) -> Any:
        """The key of a call"""
        return call_key(args, kwargs, self._plan.typed) if self.key is None else self.key(*args, **kwargs)

    # ---- what the front does not have --------------------------------------------------------

    def _usable(self, found: Any) -> bool:
        """Whether a timed value may be answered; counts."""
        usable = type(found) is Timed and self._plan.clock() < found.stale_until
        self._front.count(usable)
        return usable

    def _answer(self, key: Hashable, found: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        loader = partial(self._plan.function, *args, **kwargs)
        if not self._usable(found):
            return self._flights.load(self._store, key, loader)
        if self._plan.clock() >= found.fresh_until:
            self._refresh(key, loader)
        return found.value

    def _answer_async(self, key: Hashable, found: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        loader = partial(self._plan.function, *args, **kwargs)
        if not self._usable(found):
            return _Pending(self._flights.load_async(self._store, key, loader))
        if self._plan.clock() >= found.fresh_until:
            self._refresh_async(key, loader)
        return found.value

    def _refresh(self, key: Hashable, loader: Any) -> None:
        trip = self._flights.begin(self._store, key)
        if trip is not None:
            self._plan.refreshes.submit(trip, partial(self._lead, trip, loader))

    def _lead(self, trip: _Trip, loader: Any) -> None:
        try:
            if trip.starts():
                self._flights.lead(trip, loader)
        except Exception as error:
            report(error)

    def _refresh_async(self, key: Hashable, loader: Any) -> None:
        from asyncio import get_running_loop

        loop = get_running_loop()
        trip = self._flights.begin(self._store, key, loop)
        if trip is not None:
            task = loop.create_task(self._lead_async(trip, loader))
            self._tasks.add(task)
            task.add_done_callback(partial(self._end_refresh, trip))

    async def _lead_async(self, trip: _Trip, loader: Any) -> None:
        try:
            if trip.starts():
                await self._flights.lead_async(trip, loader)
        except Exception as error:
            report(error)

    def _end_refresh(self, trip: _Trip, task: Task[None]) -> None:
        """Let the next caller refresh, if the task was cancelled before its first step."""
        self._tasks.discard(task)
        trip.abandon()


def _default_key(typed: bool, /, *args: Any, **kwargs: Any) -> Any:
    return call_key(args, kwargs, typed)


def _marked_key(mark: object, key: Any, /, *args: Any, **kwargs: Any) -> tuple[object, Any]:
    """A key of one instance's method in a cache that its instances share."""
    return mark, key(*args, **kwargs)


class Place:
    """What an instance's ``__dict__`` has of a method; in a copy or a pickle of the instance it is void."""

    __slots__ = ("owner", "standin")

    def __init__(self, owner: Any, standin: Any) -> None:
        self.owner, self.standin = ref(owner), standin

    def __deepcopy__(self, memo: object) -> None:
        return None

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()


def _is_of(place: Place | None, instance: Any) -> TypeGuard[Place]:
    """Whether it is the place of `instance` itself, and not of one of which that is a copy."""
    return place is not None and place.owner() is instance


# ---- the decorator ------------------------------------------------------------------------------


class Plan:
    """The arguments of the decorator, checked, and the function with all that is remembered of it."""

    def __init__(self, front: Any, new_cache: Any, cache: Any, maxsize: int | None, ttl: float | None,
                 stale: float | None, key: Any, typed: bool, clock: Any, executor: Any) -> None:
        self.front, self._new_cache, self._maxsize = front, new_cache, _checked_maxsize(maxsize)
        self.cache, self.key, self.typed = _checked_cache(cache), _checked_callable("key", key), bool(typed)
        if stale is not None and ttl is None:
            raise ValueError(f"stale needs a ttl, got {stale!r} alone")
        self.ttl = 0 if ttl is None else round(checked_positive("ttl", ttl) * _SECOND)
        self.stale = 0 if stale is None else round(checked_positive("stale", stale) * _SECOND)
        self.clock = _checked_callable("clock", clock) or time.monotonic_ns
        self.refreshes = Refreshes(checked_executor(executor))
        self.new_store()

    def new_store(self) -> _Store | _TimedStore:
        cache = self.cache
        if cache is None:
            cache = self._new_cache(self._maxsize)
        return _TimedStore(cache, self) if self.ttl else _Store(cache)

    def maxsize_of(self, cache: Any) -> int | None:
        return self._maxsize if self.cache is None else getattr(cache, "maxsize", None)

    def decorate(self, function: Any) -> Any:
        """The stand-in for `function`."""
        from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction

        if not callable(function):
            raise TypeError("the first argument must be callable")
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise TypeError(f"a generator cannot be remembered: {function!r}")
        self.function = function
        self.is_async = iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)
        self.place = f"_cached {getattr(function, '__qualname__', id(self))}"
        self._of_instances: WeakSet[_Memory] = WeakSet()
        self._replacing = new_lock()
        self._memory = _Memory(self, self.bind)
        return self._dress(self._memory, self.clear)

    def _dress(self, memory: _Memory, clear: Callable[[], None]) -> Any:
        """Make a stand-in look like the function."""
        standin = memory.standin
        update_wrapper(standin, self.function)
        standin.cache_info, standin.cache_clear, standin.cache_key = memory.info, clear, memory.key_of
        if self.is_async:  # by which ``inspect`` knows a coroutine function
            code = getattr(self.function, "__func__", self.function)
            code = code if hasattr(code, "__code__") else type(self.function).__call__
            standin.__name__ = getattr(self.function, "__name__", code.__name__)
            standin.__code__, standin.__defaults__ = code.__code__, code.__defaults__
            standin.__kwdefaults__ = code.__kwdefaults__
        return standin

    def bind(self, instance: Any) -> Any:
        """The stand-in for the method of `instance`."""
        try:
            places = instance.__dict__
        except AttributeError:
            raise TypeError(f"a cached method needs instances with a __dict__, got {instance!r}") from None
        place = places.get(self.place)
        if not _is_of(place, instance):
            place = self._new_place(instance, places)
        return place.standin

    def _new_place(self, instance: Any, places: dict[str, Any]) -> Place:
        memory = _Memory(self, None)
        self._of_instances.add(memory)
        new = Place(instance, self._dress(memory, memory.clear))
        place: Place | None = places.setdefault(self.place, new)
        if _is_of(place, instance):
            return place
        with self._replacing:  # it is that of another instance, of which this one is a copy
            own: Place | None = places.get(self.place)
            if not _is_of(own, instance):
                own = places[self.place] = new
        return own

    def clear(self) -> None:
        """Clear the cache and its statistics, of all instances too; what is being loaded is not stored"""
        self._memory.clear()
        for memory in self._all_of_instances():
            memory.clear()

    def _all_of_instances(self) -> list[_Memory]:
        while True:
            try:
                return list(self._of_instances)
            except RuntimeError:  # another thread came between
                continue


def _checked_cache(cache: Any) -> Any:
    puts = hasattr(cache, "put") or hasattr(cache, "__setitem__")
    if cache is None or (puts and hasattr(cache, "get")):
        return cache
    raise TypeError(f"cache must have get and put, got {cache!r}")


def _checked_maxsize(maxsize: Any) -> int | None:
    if maxsize is None:
        return None
    try:
        room = index(maxsize)
    except TypeError:
        raise TypeError(f"maxsize must be an int or None, got {maxsize!r}") from None
    if room < 0:
        raise ValueError(f"maxsize must be non-negative, got {maxsize!r}")
    return room


def _checked_callable(name: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {value!r}")
    return value


def decorator(front: Any, new_cache: Any, cache: Any, *options: Any) -> Any:
    """What a twin's ``cached`` answers, by its own front and LRUCache."""
    if callable(cache) and not hasattr(cache, "get"):
        return Plan(front, new_cache, None, *options).decorate(cache)

    def decorating_function(function: Any) -> Any:
        return Plan(front, new_cache, cache, *options).decorate(function)

    Plan(front, new_cache, cache, *options)
    return decorating_function
