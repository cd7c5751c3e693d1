from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload, type_check_only

from headgate.cachetools import _CacheInfo

__all__ = ["fifo_cache", "lfu_cache", "lru_cache", "rr_cache", "ttl_cache"]

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_T = TypeVar("_T")

@type_check_only
class _CachedFunction(Generic[_P, _T]):
    __wrapped__: Callable[_P, _T]
    cache: Any
    cache_lock: Any
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: _CachedFunction[Concatenate[Any, _Q], _T], instance: object, owner: type, /
    ) -> _CachedFunction[_Q, _T]: ...
    def cache_key(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]: ...
    def cache_info(self) -> _CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...

@type_check_only
class _Decorator(Protocol):
    def __call__(self, function: Callable[_P, _T], /) -> _CachedFunction[_P, _T]: ...

@overload
def fifo_cache(maxsize: Callable[_P, _T], typed: bool = False) -> _CachedFunction[_P, _T]: ...
@overload
def fifo_cache(maxsize: int | None = 128, typed: bool = False) -> _Decorator: ...
@overload
def lfu_cache(maxsize: Callable[_P, _T], typed: bool = False) -> _CachedFunction[_P, _T]: ...
@overload
def lfu_cache(maxsize: int | None = 128, typed: bool = False) -> _Decorator: ...
@overload
def lru_cache(maxsize: Callable[_P, _T], typed: bool = False) -> _CachedFunction[_P, _T]: ...
@overload
def lru_cache(maxsize: int | None = 128, typed: bool = False) -> _Decorator: ...
@overload
def rr_cache(
    maxsize: Callable[_P, _T], choice: Callable[[Sequence[Any]], Any] = ..., typed: bool = False
) -> _CachedFunction[_P, _T]: ...
@overload
def rr_cache(
    maxsize: int | None = 128, choice: Callable[[Sequence[Any]], Any] = ..., typed: bool = False
) -> _Decorator: ...
@overload
def ttl_cache(
    maxsize: Callable[_P, _T], ttl: Any = 600, timer: Callable[[], Any] = ..., typed: bool = False
) -> _CachedFunction[_P, _T]: ...
@overload
def ttl_cache(
    maxsize: int | None = 128, ttl: Any = 600, timer: Callable[[], Any] = ..., typed: bool = False
) -> _Decorator: ...
