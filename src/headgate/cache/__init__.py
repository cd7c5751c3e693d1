"""Caches of every eviction policy, with lifetimes and tags."""

from headgate._base.backend import backend
from headgate.cache._stats import CacheStats

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.cache._compiled import (
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
    from headgate.cache._pure import (
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
]
