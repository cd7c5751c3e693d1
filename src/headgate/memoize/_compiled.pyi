from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Executor
from functools import _CacheInfo, _lru_cache_wrapper
from typing import Any, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, overload, type_check_only

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_S = TypeVar("_S")
_S_contra = TypeVar("_S_contra", contravariant=True)
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

@type_check_only
class _Cache(Protocol):
    def get(self, key: Any, default: Any, /) -> Any: ...
    def put(self, key: Any, value: Any, /) -> object: ...

@type_check_only
class _Mapping(Protocol):
    def get(self, key: Any, default: Any, /) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> object: ...

@type_check_only
class _Bindable(Protocol[_S_contra, _Q, _T_co]):
    def __call__(self, first: _S_contra, /, *args: _Q.args, **kwargs: _Q.kwargs) -> _T_co: ...

@type_check_only
class _Cached(Generic[_P, _T]):
    __wrapped__: Callable[_P, _T]
    @property
    def cache(self) -> Any: ...
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
    def cache_contains(self, *args: _P.args, **kwargs: _P.kwargs) -> bool: ...
    def cache_invalidate(self, *args: _P.args, **kwargs: _P.kwargs) -> bool: ...
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
    policy: Callable[..., _Cache] | None = None,
    ttl: float | None = None,
    tti: float | None = None,
    stale: float | None = None,
    jitter: float = 0.0,
    key: Callable[..., Hashable] | None = None,
    typed: bool = False,
    keep: Callable[[Any], object] | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    on_evict: Callable[[Any, Any, Literal["size", "expired", "replaced", "removed"]], object] | None = None,
    clock: Callable[[], int] | None = None,
    executor: Executor | None = None,
) -> _Decorator: ...
