"""Functions that remember: lru_cache."""

from headgate._backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.memoize import lru_cache
else:
    from headgate._pure.memoize import lru_cache

__all__ = ["lru_cache"]
