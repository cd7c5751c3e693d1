from abc import ABCMeta
from collections.abc import Callable, Hashable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
    type_check_only,
)

from headgate.cachetools import keys as keys

__all__ = [
    "Cache", "CacheInfo", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TLRUCache", "TTLCache", "cached",
    "cachedmethod",
]

_D = TypeVar("_D")
_K = TypeVar("_K")
_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_S = TypeVar("_S")
_S_contra = TypeVar("_S_contra", contravariant=True)
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_V = TypeVar("_V")

class _CacheMeta(ABCMeta): ...

class Cache(MutableMapping[_K, _V], metaclass=_CacheMeta):
    def __init__(self, maxsize: float, getsizeof: Callable[[_V], float] | None = None) -> None: ...
    def __getitem__(self, key: _K) -> _V: ...
    def __missing__(self, key: _K) -> _V: ...
    def __setitem__(self, key: _K, value: _V) -> None: ...
    def __delitem__(self, key: _K) -> None: ...
    def __contains__(self, key: object) -> bool: ...
    def __iter__(self) -> Iterator[_K]: ...
    def __len__(self) -> int: ...
    @overload
    def get(self, key: _K, default: None = None) -> _V | None: ...
    @overload
    def get(self, key: _K, default: _V) -> _V: ...
    @overload
    def get(self, key: _K, default: _D) -> _V | _D: ...
    @overload
    def pop(self, key: _K) -> _V: ...
    @overload
    def pop(self, key: _K, default: _V) -> _V: ...
    @overload
    def pop(self, key: _K, default: _D) -> _V | _D: ...
    def popitem(self) -> tuple[_K, _V]: ...
    @overload
    def setdefault(self: Cache[_K, _D | None], key: _K, default: None = None) -> _D | None: ...
    @overload
    def setdefault(self, key: _K, default: _V) -> _V: ...
    @property
    def maxsize(self) -> Any: ...
    @property
    def currsize(self) -> Any: ...
    @staticmethod
    def getsizeof(value: Any) -> Any: ...

class FIFOCache(Cache[_K, _V]): ...
class LFUCache(Cache[_K, _V]): ...
class LRUCache(Cache[_K, _V]): ...

class RRCache(Cache[_K, _V]):
    def __init__(
        self,
        maxsize: float,
        choice: Callable[[Sequence[_K]], _K] = ...,
        getsizeof: Callable[[_V], float] | None = None,
    ) -> None: ...
    @property
    def choice(self) -> Callable[[Sequence[_K]], _K]: ...

@type_check_only
class _Timer(Protocol):
    def __call__(self) -> Any: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

@type_check_only
class _Timed(Cache[_K, _V]):
    @property
    def timer(self) -> _Timer: ...
    def expire(self, time: Any = None) -> list[tuple[_K, _V]]: ...

class TTLCache(_Timed[_K, _V]):
    def __init__(
        self,
        maxsize: float,
        ttl: Any,
        timer: Callable[[], Any] = ...,
        getsizeof: Callable[[_V], float] | None = None,
    ) -> None: ...
    @property
    def ttl(self) -> Any: ...

class TLRUCache(_Timed[_K, _V]):
    def __init__(
        self,
        maxsize: float,
        ttu: Callable[[_K, _V, Any], Any],
        timer: Callable[[], Any] = ...,
        getsizeof: Callable[[_V], float] | None = None,
    ) -> None: ...
    @property
    def ttu(self) -> Callable[[_K, _V, Any], Any]: ...

class CacheInfo(NamedTuple):
    hits: int
    misses: int
    maxsize: Any
    currsize: Any

@type_check_only
class _Condition(Protocol):
    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Any: ...
    def wait(self) -> Any: ...
    def notify_all(self) -> Any: ...

@type_check_only
class _Bindable(Protocol[_S_contra, _Q, _T_co]):
    def __call__(self, first: _S_contra, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _T_co: ...

@type_check_only
class _Cached(Generic[_P, _T]):
    __wrapped__: Callable[_P, _T]
    cache: Any
    cache_lock: Any
    cache_condition: Any
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T: ...
    @overload
    def __get__(
        self: _Bindable[type[_S], _Q, _T], instance: None, owner: type[_S], /
    ) -> _Cached[_Q, _T]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: _Bindable[type[_S], _Q, _T], instance: _S, owner: type[_S], /
    ) -> _Cached[_Q, _T]: ...
    @overload
    def __get__(self: _Bindable[_S, _Q, _T], instance: _S, owner: type, /) -> _Cached[_Q, _T]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> Self: ...
    def cache_key(self, *args: Any, **kwargs: Any) -> Hashable: ...
    def cache_clear(self) -> None: ...

@type_check_only
class _CachedWithInfo(_Cached[_P, _T]):
    @overload
    def __get__(
        self: _Bindable[type[_S], _Q, _T], instance: None, owner: type[_S], /
    ) -> _CachedWithInfo[_Q, _T]: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: _Bindable[type[_S], _Q, _T], instance: _S, owner: type[_S], /
    ) -> _CachedWithInfo[_Q, _T]: ...
    @overload
    def __get__(self: _Bindable[_S, _Q, _T], instance: _S, owner: type, /) -> _CachedWithInfo[_Q, _T]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> Self: ...
    def cache_info(self) -> CacheInfo: ...

@type_check_only
class _Decorator(Protocol):
    def __call__(self, function: Callable[_P, _T], /) -> _Cached[_P, _T]: ...

@type_check_only
class _DecoratorWithInfo(Protocol):
    def __call__(self, function: Callable[_P, _T], /) -> _CachedWithInfo[_P, _T]: ...

@overload
def cached(
    cache: MutableMapping[Any, Any],
    key: Callable[..., Hashable] = ...,
    lock: AbstractContextManager[Any] | None = None,
    condition: _Condition | None = None,
    info: Literal[False] = False,
) -> _Decorator: ...
@overload
def cached(
    cache: MutableMapping[Any, Any],
    key: Callable[..., Hashable] = ...,
    lock: AbstractContextManager[Any] | None = None,
    condition: _Condition | None = None,
    *,
    info: Literal[True],
) -> _DecoratorWithInfo: ...
@overload
def cachedmethod(
    cache: Callable[[Any], MutableMapping[Any, Any]],
    key: Callable[..., Hashable] = ...,
    lock: Callable[[Any], AbstractContextManager[Any]] | None = None,
    condition: Callable[[Any], _Condition] | None = None,
    info: Literal[False] = False,
) -> _Decorator: ...
@overload
def cachedmethod(
    cache: Callable[[Any], MutableMapping[Any, Any]],
    key: Callable[..., Hashable] = ...,
    lock: Callable[[Any], AbstractContextManager[Any]] | None = None,
    condition: Callable[[Any], _Condition] | None = None,
    *,
    info: Literal[True],
) -> _DecoratorWithInfo: ...
