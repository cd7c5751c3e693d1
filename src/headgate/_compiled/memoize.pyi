from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from functools import _CacheInfo, _lru_cache_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload, type_check_only

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_T = TypeVar("_T")

@type_check_only
class _Cache(Protocol):
    def get(self, key: Any, default: Any, /) -> Any: ...
    def put(self, key: Any, value: Any, /) -> object: ...

@type_check_only
class _Mapping(Protocol):
    def get(self, key: Any, default: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> object: ...

@type_check_only
class _Cached(Generic[_P, _T]):
    __wrapped__: Callable[_P, _T]
    @property
    def cache(self) -> Any: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self: _Cached[Concatenate[Any, _Q], _T], instance: object, owner: type, /
    ) -> _Cached[_Q, _T]: ...
    def cache_info(self) -> _CacheInfo: ...
    def cache_clear(self) -> None: ...
    def cache_key(self, *args: Any, **kwargs: Any) -> Hashable: ...

@type_check_only
class _Decorator(Protocol):
    def __call__(self, function: Callable[_P, _T], /) -> _Cached[_P, _T]: ...

@overload
def lru_cache(maxsize: Callable[..., _T], typed: bool = False) -> _lru_cache_wrapper[_T]: ...
@overload
def lru_cache(
    maxsize: int | None = 128, typed: bool = False
) -> Callable[[Callable[..., _T]], _lru_cache_wrapper[_T]]: ...
@overload
def cached(cache: Callable[_P, _T]) -> _Cached[_P, _T]: ...
@overload
def cached(
    cache: _Cache | _Mapping | None = None,
    *,
    maxsize: int | None = 128,
    ttl: float | None = None,
    stale: float | None = None,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    clock: Callable[[], int] | None = None,
    executor: Executor | None = None,
) -> _Decorator: ...
