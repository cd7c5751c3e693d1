"""Caches: LRUCache, and functions that remember: lru_cache, cached."""

from headgate._backend import backend
from headgate._stats import CacheStats
from headgate.memoize import cached, lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.cache import LRUCache
else:
    from headgate._pure.cache import LRUCache

__all__ = ["CacheStats", "LRUCache", "cached", "lru_cache"]
