"""Caches of every eviction policy, with lifetimes and tags; functions that remember: lru_cache, cached."""

from headgate._backend import backend
from headgate._stats import CacheStats
from headgate.memoize import cached, lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.cache import (
        FIFOCache,
        LFUCache,
        LRUCache,
        RRCache,
        S3FIFOCache,
        SieveCache,
        TinyLFUCache,
        TTLCache,
    )
else:
    from headgate._pure.cache import (
        FIFOCache,
        LFUCache,
        LRUCache,
        RRCache,
        S3FIFOCache,
        SieveCache,
        TinyLFUCache,
        TTLCache,
    )

__all__ = [
    "CacheStats",
    "FIFOCache",
    "LFUCache",
    "LRUCache",
    "RRCache",
    "S3FIFOCache",
    "SieveCache",
    "TTLCache",
    "TinyLFUCache",
    "cached",
    "lru_cache",
]
