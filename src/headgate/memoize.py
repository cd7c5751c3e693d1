"""Functions that remember: lru_cache and cached."""

from headgate._backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.memoize import cached, lru_cache
else:
    from headgate._pure.memoize import cached, lru_cache

__all__ = ["cached", "lru_cache"]
