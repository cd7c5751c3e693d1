"""The cache engine and its policies in pure Python.

    _data: plain key -> entry     lists: entries between the two sides of an end, the oldest first
    "a" -> entry a                end <-> entry b <-> entry a <-> end   one list for LRU, two for S3-FIFO, ...
    _foreign: hash -> entries     _heap: (due, stamp, entry) of the entries that have a lifetime
    h(b) -> (entry b,)

A policy defines where a new entry goes, what a hit changes and which entry is the victim; the engine does the
rest.

Foreign code - ``__hash__`` and ``__eq__`` of keys, getsizeof, the clock, listeners, finalizers of what was
dropped - runs with no lock held. `_data` has the keys that a dict compares without running code of theirs;
any other key is found by `_seek_foreign` in the bucket of its hash. `_seek` looks up an entry without the
lock, and `_is_current` checks its result under the lock; if it no longer holds, the lookup starts over. There
remain signal handlers, and finalizers that the collector runs at an allocation: the lock is re-entrant, and
`_version` counts edits, so that an interrupted call notices. An edit of a list only assigns attributes: from
the last check to its end nothing is called, and nothing is allocated that the collector counts, such as a
tuple of four. So with a GIL, entries without a lifetime are read without the lock.

An entry that is in no list is dead: users do not find it. An item of the heap is valid while its stamp is the
entry's. Evicted entries are dropped last.
"""

from headgate.cache.policies.fifo import FIFOCache
from headgate.cache.policies.lfu import LFUCache
from headgate.cache.policies.lru import LRUCache, TTLCache
from headgate.cache.policies.random import RRCache
from headgate.cache.policies.s3fifo import S3FIFOCache
from headgate.cache.policies.sieve import SieveCache
from headgate.cache.policies.tinylfu import TinyLFUCache

__all__ = [
    "FIFOCache",
    "LFUCache",
    "LRUCache",
    "RRCache",
    "S3FIFOCache",
    "SieveCache",
    "TTLCache",
    "TinyLFUCache",
]
