"""Memoized functions in pure Python: the results of the most recently used calls, in an LRUCache.

A key identifies a call. The only argument, an exact str or int, is its own key. Every other
call has a flat one, hashed once: the positional arguments; with keywords KEYWORDS, their names in the
order of the call and their values; and for a typed memoizer the types of all arguments.

``cache_clear`` sets a new cache in place of the old one, which takes its counts along.
"""

from headgate.memoize._lookup import cached
from headgate.memoize._lru_cache import lru_cache

__all__ = ["cached", "lru_cache"]
