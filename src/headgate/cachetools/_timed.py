"""The caches with lifetimes: an LRU store, and the deadline of each entry."""

from __future__ import annotations

import time
from collections import OrderedDict
from copy import deepcopy
from heapq import heapify, heappop, heappush
from typing import Any

from headgate.cache._views import _ABSENT
from headgate.cachetools._caches import Cache, LRUStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Timer:
    """The user's timer, which is frozen within ``with timer as now``."""

    __slots__ = ("_hg_depth", "_hg_now", "_hg_source")

    def __init__(self, source: Callable[[], Any]) -> None:
        self._hg_source = source
        self._hg_depth = 0
        self._hg_now: Any = None

    def __call__(self) -> Any:
        return self._hg_now if self._hg_depth else self._hg_source()

    def __enter__(self) -> Any:
        if not self._hg_depth:
            self._hg_now = self._hg_source()
        self._hg_depth += 1
        return self._hg_now

    def __exit__(self, *failure: object) -> None:
        self._hg_depth -= 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hg_source, name)

    def __deepcopy__(self, memo: Any) -> _Timer:
        return _Timer(deepcopy(self._hg_source, memo))  # otherwise __getattr__ would find that of the source

    def __reduce__(self) -> Any:
        return _Timer, (self._hg_source,)

    def copy(self) -> _Timer:
        return _Timer(self._hg_source)


class _Timed(LRUStore):
    _hg_containers = (*LRUStore._hg_containers, "_hg_expiries", "_hg_timer")

    def __init__(self, maxsize: float, timer: Callable[[], Any],
                 getsizeof: Callable[[Any], float] | None) -> None:
        self._hg_timer = _Timer(timer)
        self._hg_expiries: OrderedDict[Any, Any] = OrderedDict()
        super().__init__(maxsize, getsizeof)

    def _hg_reset(self) -> None:
        super()._hg_reset()
        self._hg_plain = False

    @property
    def timer(self) -> Any:
        """The timer; ``with cache.timer as now:`` freezes it for this cache."""
        return self._hg_timer

    def _hg_is_live(self, key: Any) -> bool:
        expires = self._hg_expiries.get(key, _ABSENT)
        if expires is _ABSENT:
            return False
        timer = self._hg_timer
        return bool((timer._hg_now if timer._hg_depth else timer._hg_source()) < expires)

    def _hg_find_live(self, key: Any, default: Any) -> Any:
        expires = self._hg_expiries.get(key, _ABSENT)
        if expires is _ABSENT:
            return default
        timer = self._hg_timer
        if not (timer._hg_now if timer._hg_depth else timer._hg_source()) < expires:
            return default
        return self._hg_find(key, default)

    def _hg_delete_metadata(self, key: Any) -> None:
        del self._hg_expiries[key]
        if self._hg_sizes is not None:
            self._hg_weight -= self._hg_sizes.pop(key)

    def _hg_set_until(self, key: Any, value: Any, expires: Any) -> None:
        if self._hg_sizes is None:
            self._hg_set(key, value)
        else:
            self._hg_set_weighted(key, value, self._hg_sizes)
        self._hg_expiries.pop(key, None)
        self._hg_expiries[key] = expires

    def _hg_remove(self, key: Any) -> tuple[Any, Any]:
        value = self._hg_pop(key, None)
        self._hg_delete_metadata(key)
        return key, value

    def __getitem__(self, key: Any) -> Any:
        expires = self._hg_expiries.get(key, _ABSENT)
        if expires is not _ABSENT:
            timer = self._hg_timer
            if (timer._hg_now if timer._hg_depth else timer._hg_source()) < expires:
                found = self._hg_find(key, _ABSENT)
                if found is not _ABSENT:
                    return found
        return self.__missing__(key)

    def __contains__(self, key: object) -> bool:
        return self._hg_is_live(key)

    def __delitem__(self, key: Any) -> None:
        with self._hg_timer:
            was_live = self._hg_is_live(key)
            Cache.__delitem__(self, key)
            if not was_live:
                raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        for key in list(self._hg_expiries):
            if self._hg_is_live(key):
                yield key

    def __len__(self) -> int:
        self.expire()
        return len(self._hg_expiries)

    def __repr__(self) -> str:
        with self._hg_timer as now:
            self.expire(now)
            return Cache.__repr__(self)

    @property
    def currsize(self) -> Any:
        """The number of live entries, or the sum of their sizes."""
        self.expire()
        return len(self._hg_expiries) if self._hg_sizes is None else self._hg_weight

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`; ``__missing__`` is not called."""
        if not self._hg_hooked:
            return self._hg_find_live(key, default)
        with self._hg_timer:
            return Cache.get(self, key, default)

    def pop(self, key: Any, default: Any = _ABSENT) -> Any:
        """Remove `key` and return its value, or `default`; raises KeyError if there is neither."""
        with self._hg_timer:
            return Cache.pop(self, key, default)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the least recently used entry; raises KeyError if none is live."""
        with self._hg_timer as now:
            self.expire(now)
            return Cache.popitem(self)

    def _hg_evict(self) -> tuple[Any, Any]:
        victim = self._hg_pop_victim()
        self._hg_delete_metadata(victim[0])
        return victim

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of `key`, which is set to `default` if there is none."""
        with self._hg_timer:
            return Cache.setdefault(self, key, default)

    def clear(self) -> None:
        """Remove all entries, without calling ``popitem``."""
        Cache.clear(self)
        self._hg_expiries.clear()

    def expire(self, time: Any = None) -> list[tuple[Any, Any]]:
        """Remove and return the entries that have expired by `time`, by default now."""
        raise NotImplementedError


class TTLCache(_Timed):
    """An LRU cache whose entries expire `ttl` after they were set.

    >>> from headgate.cachetools import TTLCache
    >>> now = 0
    >>> cache = TTLCache(maxsize=10, ttl=5, timer=lambda: now)
    >>> cache["a"] = 1
    >>> now = 5
    >>> cache.expire(), "a" in cache
    ([('a', 1)], False)
    """

    def __init__(self, maxsize: float, ttl: Any, timer: Callable[[], Any] = time.monotonic,
                 getsizeof: Callable[[Any], float] | None = None) -> None:
        self._hg_ttl = ttl
        super().__init__(maxsize, timer, getsizeof)

    @property
    def ttl(self) -> Any:
        """The lifetime of entries."""
        return self._hg_ttl

    def __setitem__(self, key: Any, value: Any) -> None:
        if self._hg_hooked:
            with self._hg_timer as now:
                self.expire(now)
                self._hg_set_until(key, value, now + self._hg_ttl)
            return
        now = self._hg_timer()
        for expires in self._hg_expiries.values():
            if not now < expires:
                self.expire(now)
            break
        self._hg_set_until(key, value, now + self._hg_ttl)

    def expire(self, time: Any = None) -> list[tuple[Any, Any]]:
        """Remove and return the entries that have expired by `time`, by default now."""
        now = self._hg_timer() if time is None else time
        expired = []
        for key, expires in self._hg_expiries.items():
            if now < expires:
                break
            expired.append(key)
        return [self._hg_remove(key) for key in expired]


class TLRUCache(_Timed):
    """An LRU cache whose entries expire at ``ttu(key, value, now)``.

    >>> from headgate.cachetools import TLRUCache
    >>> now = 0
    >>> cache = TLRUCache(maxsize=10, ttu=lambda key, value, now: now + value, timer=lambda: now)
    >>> cache.update(a=1, b=5)
    >>> now = 2
    >>> cache
    TLRUCache({'b': 5}, maxsize=10, currsize=1)
    """

    _hg_containers = (*_Timed._hg_containers, "_hg_heap", "_hg_serials")

    def __init__(self, maxsize: float, ttu: Callable[[Any, Any, Any], Any],
                 timer: Callable[[], Any] = time.monotonic,
                 getsizeof: Callable[[Any], float] | None = None) -> None:
        self._hg_ttu = ttu
        self._hg_heap: list[tuple[Any, int, Any]] = []
        self._hg_serials: dict[Any, int] = {}
        self._hg_serial = 0
        super().__init__(maxsize, timer, getsizeof)

    @property
    def ttu(self) -> Callable[[Any, Any, Any], Any]:
        """The callable that returns when an entry expires."""
        return self._hg_ttu

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._hg_timer as now:
            expires = self._hg_ttu(key, value, now)
            if not now < expires:
                if key in self._hg_expiries:
                    self._hg_remove(key)
                return
            self.expire(now)
            self._hg_set_until(key, value, expires)
            self._hg_serial += 1
            self._hg_serials[key] = self._hg_serial
            heappush(self._hg_heap, (expires, self._hg_serial, key))

    def expire(self, time: Any = None) -> list[tuple[Any, Any]]:
        """Remove and return the entries that have expired by `time`, by default now."""
        now = self._hg_timer() if time is None else time
        self._hg_compact()
        expired = []
        while self._hg_heap and not now < self._hg_heap[0][0]:
            item = heappop(self._hg_heap)
            if self._hg_is_current(item):
                expired.append(self._hg_remove(item[2]))
        return expired

    def _hg_is_current(self, item: tuple[Any, int, Any]) -> bool:
        """Whether an item of the heap has not been superseded."""
        return self._hg_serials.get(item[2]) == item[1]

    def _hg_compact(self) -> None:
        """Bound the heap by O(entries), as items of removed entries stay in it until they expire."""
        if len(self._hg_heap) > 2 * len(self._hg_expiries) + 16:
            self._hg_heap = [item for item in self._hg_heap if self._hg_is_current(item)]
            heapify(self._hg_heap)

    def clear(self) -> None:
        """Remove all entries, without calling ``popitem``."""
        super().clear()
        self._hg_heap.clear()
        self._hg_serials.clear()

    def _hg_delete_metadata(self, key: Any) -> None:
        super()._hg_delete_metadata(key)
        del self._hg_serials[key]
