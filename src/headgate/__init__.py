"""Traffic primitives for Python services: a Cython core and a pure-Python twin that behaves the same."""

from headgate._backend import backend
from headgate.cache import CacheStats, LRUCache
from headgate.hashing import splitmix64, xxh64
from headgate.placement import HashRing

__version__ = "0.1.0"

__all__ = [
    "CacheStats",
    "HashRing",
    "LRUCache",
    "__version__",
    "backend",
    "splitmix64",
    "xxh64",
]
