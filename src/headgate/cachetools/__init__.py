"""cachetools' interface on headgate's caches: change the import, keep the code.

The classes, their hooks for subclasses and the decorators do what those of cachetools 8 do. ``hashkey`` and
its kin are in ``headgate.cachetools.keys``, the decorators in the manner of functools in
``headgate.cachetools.func``.
"""

from headgate.cachetools._caches import Cache, FIFOCache, LFUCache, LRUCache, RRCache
from headgate.cachetools._decorators import cached
from headgate.cachetools._methods import cachedmethod
from headgate.cachetools._timed import TLRUCache, TTLCache

__all__ = ["Cache", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TLRUCache", "TTLCache", "cached",
           "cachedmethod"]
