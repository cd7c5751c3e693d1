"""Caches: LRUCache, and functions that remember: lru_cache."""

from headgate._backend import backend
from headgate._stats import CacheStats
from headgate.memoize import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.cache import LRUCache
else:
    from headgate._pure.cache import LRUCache

__all__ = ["CacheStats", "LRUCache", "lru_cache"]
