from collections.abc import Callable
from functools import _lru_cache_wrapper
from typing import TypeVar, overload

_T = TypeVar("_T")

@overload
def lru_cache(maxsize: Callable[..., _T], typed: bool = False) -> _lru_cache_wrapper[_T]: ...
@overload
def lru_cache(
    maxsize: int | None = 128, typed: bool = False
) -> Callable[[Callable[..., _T]], _lru_cache_wrapper[_T]]: ...
