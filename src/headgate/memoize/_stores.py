"""Where ``cached`` keeps results: a cache, by the few methods that it needs of one.

    Store           whatever is found is fresh: the cache itself drops what has expired, or nothing expires
    TimedStore      a store of ``cached``'s own, whose values are `Timed`
    AgeingStore     any other cache: the deadlines are kept beside it, its values are the results themselves

`find` reads what the cache holds, `peek` only what is fresh. `Loading` is the store of a single load, whose
result may be refused or tagged.
"""

from __future__ import annotations

from functools import partial

from headgate.cache._views import _ABSENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any, ClassVar, Protocol

    class Lifetimes(Protocol):
        """How long results are fresh, and for how long they may be returned."""

        clock: Callable[[], int]

        def deadlines(self) -> tuple[int, int]: ...


_FEW = 64


def takes(method: Any, name: str) -> bool:
    """Whether `method` has a parameter of that name."""
    from inspect import signature

    try:
        return name in signature(method).parameters
    except (TypeError, ValueError):  # a builtin without a signature
        return False


class Store:
    """A cache in which whatever is found is fresh; `ttl` in seconds is passed on to it."""

    __slots__ = ("_put", "cache", "find", "pop")

    ages: ClassVar[bool] = False

    def __init__(self, cache: Any, ttl: float | None = None) -> None:
        self.cache = cache
        self.find = cache.peek if hasattr(cache, "peek") else cache.get
        put = cache.put if hasattr(cache, "put") else cache.__setitem__
        self._put = put if ttl is None else partial(put, ttl=ttl)
        self.pop: Callable[[Any, Any], Any] = getattr(cache, "pop", _nothing)

    def peek(self, key: Hashable, default: Any, /) -> Any:
        """The result if it is fresh."""
        return self.find(key, default)

    def put(self, key: Hashable, value: Any, /, tags: Iterable[str] = ()) -> None:
        """Keep a result."""
        if tags:
            self._put(key, value, tags=tags)
        else:
            self._put(key, value)

    def is_fresh(self, key: Hashable, found: Any) -> bool:
        """Whether what was found may be returned without a refresh."""
        return True

    def is_usable(self, key: Hashable, found: Any) -> bool:
        """Whether what was found may be returned."""
        return True

    def result_of(self, found: Any) -> Any:
        """The result in what was found."""
        return found


def _nothing(key: object, default: Any) -> Any:
    """The ``pop`` of a cache that has none."""
    return default


class Timed:
    """A result with the times at which it ceases to be fresh and to be usable."""

    __slots__ = ("fresh_until", "stale_until", "value")

    def __init__(self, value: Any, fresh_until: int, stale_until: int) -> None:
        self.value, self.fresh_until, self.stale_until = value, fresh_until, stale_until


class TimedStore(Store):
    """A private cache of `Timed` values."""

    __slots__ = ("_lifetimes",)

    ages = True

    def __init__(self, cache: Any, lifetimes: Lifetimes) -> None:
        super().__init__(cache)
        self._lifetimes = lifetimes

    def peek(self, key: Hashable, default: Any, /) -> Any:
        found = self.find(key, _ABSENT)
        return found.value if found is not _ABSENT and self.is_fresh(key, found) else default

    def put(self, key: Hashable, value: Any, /, tags: Iterable[str] = ()) -> None:
        super().put(key, Timed(value, *self._lifetimes.deadlines()), tags)

    def is_fresh(self, key: Hashable, found: Timed) -> bool:
        return self._lifetimes.clock() < found.fresh_until

    def is_usable(self, key: Hashable, found: Timed) -> bool:
        return self._lifetimes.clock() < found.stale_until

    def result_of(self, found: Timed) -> Any:
        return found.value


class AgeingStore(Store):
    """A cache with deadlines beside it, for as many keys as it holds, within a factor of two.

    A value that was not put here, such as one that the user has put, is fresh from when it is first found. It
    is distinguished from an earlier result by its identity; with a cache that returns copies, deadlines go by
    key alone.
    With `ttl` the cache itself drops what is no longer usable.
    """

    __slots__ = ("_deadlines", "_lifetimes", "_most")

    ages = True

    def __init__(self, cache: Any, lifetimes: Lifetimes, ttl: float | None = None) -> None:
        super().__init__(cache, ttl)
        self._lifetimes = lifetimes
        self._deadlines: dict[Hashable, tuple[int, int, int | None]] = {}
        self._most = _FEW
        remove = self.pop
        self.pop = partial(_pop_both, self._deadlines, remove)

    def peek(self, key: Hashable, default: Any, /) -> Any:
        found = self.find(key, _ABSENT)
        return found if found is not _ABSENT and self.is_fresh(key, found) else default

    def put(self, key: Hashable, value: Any, /, tags: Iterable[str] = ()) -> None:
        super().put(key, value, tags)
        self._begin(key, value)

    def is_fresh(self, key: Hashable, found: Any) -> bool:
        return self._lifetimes.clock() < self._deadline(key, found)[0]

    def is_usable(self, key: Hashable, found: Any) -> bool:
        return self._lifetimes.clock() < self._deadline(key, found)[1]

    def _deadline(self, key: Hashable, found: Any) -> tuple[int, int, int | None]:
        deadline = self._deadlines.get(key)
        if deadline is None or deadline[2] not in (None, id(found)):
            return self._begin(key, found)
        return deadline

    def _begin(self, key: Hashable, value: Any) -> tuple[int, int, int | None]:
        """Let the lifetime of a value begin, if the cache holds it."""
        kept = self.find(key, _ABSENT)
        deadline = (*self._lifetimes.deadlines(), id(value) if kept is value else None)
        if kept is _ABSENT:
            self._deadlines.pop(key, None)
        else:
            self._deadlines[key] = deadline
            if len(self._deadlines) > self._most:
                self._sweep()
        return deadline

    def _sweep(self) -> None:
        """Drop the deadlines of what the cache no longer holds."""
        for key in list(self._deadlines):
            if not self._holds(key):
                self._deadlines.pop(key, None)
        self._most = 2 * len(self._deadlines) + _FEW

    def _holds(self, key: Hashable) -> bool:
        if hasattr(self.cache, "__contains__"):
            return key in self.cache
        return self.find(key, _ABSENT) is not _ABSENT


def _pop_both(deadlines: dict[Any, Any], pop: Callable[[Any, Any], Any], key: Any, default: Any, /) -> Any:
    deadlines.pop(key, None)
    return pop(key, default)


class Loading:
    """One load of one call, and the store of its result, which `keep` may refuse, with the call's tags."""

    __slots__ = ("_call", "_is_kept", "_keep", "_new_tags", "_store", "_tags")

    def __init__(self, store: Store, call: Callable[[], Any], keep: Callable[[Any], object] | None,
                 new_tags: Callable[[], Iterable[str]]) -> None:
        self._store, self._call, self._keep, self._new_tags = store, call, keep, new_tags
        self._is_kept = True
        self._tags: Iterable[str] = ()

    def load(self) -> Any:
        """What the function returns."""
        return self._judged(self._call())

    async def load_async(self) -> Any:
        """`load` for a coroutine function."""
        return self._judged(await self._call())

    def _judged(self, result: Any) -> Any:
        self._is_kept = self._keep is None or bool(self._keep(result))
        if self._is_kept:
            self._tags = self._new_tags()
        return result

    def peek(self, key: Hashable, default: Any, /) -> Any:
        """The result if it is fresh."""
        return self._store.peek(key, default)

    def put(self, key: Hashable, value: Any, /) -> None:
        """Keep the result unless it was refused."""
        if self._is_kept:
            self._store.put(key, value, self._tags)

    def pop(self, key: Hashable, default: Any, /) -> Any:
        """Drop what was loaded too late."""
        return self._store.pop(key, default)
