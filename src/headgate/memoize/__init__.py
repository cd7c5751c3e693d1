"""Functions that remember: lru_cache and cached."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.memoize._compiled import cached, lru_cache
else:
    from headgate.memoize._pure import cached, lru_cache

__all__ = ["cached", "lru_cache"]
