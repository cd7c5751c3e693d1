"""cachetools' interface on headgate's caches: change the import, keep the code.

The classes, their hooks for subclasses and the decorators behave as those of cachetools 8. The key functions
are in ``headgate.cachetools.keys``, the decorators with the interface of functools in
``headgate.cachetools.func``.

>>> class Logged(LRUCache):
...     def popitem(self):
...         key, value = super().popitem()
...         print("evicted", key)
...         return key, value
>>> cache = Logged(maxsize=2)
>>> cache.update(a=1, b=2, c=3)
evicted a
>>> cache
Logged({'b': 2, 'c': 3}, maxsize=2, currsize=2)
"""

from headgate.cachetools._caches import Cache, FIFOCache, LFUCache, LRUCache, RRCache
from headgate.cachetools._decorators import CacheInfo, cached
from headgate.cachetools._methods import cachedmethod
from headgate.cachetools._timed import TLRUCache, TTLCache

__all__ = ["Cache", "CacheInfo", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TLRUCache", "TTLCache",
           "cached", "cachedmethod"]
