"""Caches: LRUCache."""

from headgate._backend import backend
from headgate._stats import CacheStats

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.cache import LRUCache
else:
    from headgate._pure.cache import LRUCache

__all__ = ["CacheStats", "LRUCache"]
