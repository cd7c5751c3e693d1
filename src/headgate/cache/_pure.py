"""The cache engine and its policies in pure Python.

    _data: plain key -> entry     lists: entries between the two sides of an end, the oldest first
    "a" -> entry a                end <-> entry b <-> entry a <-> end   one list for LRU, two for S3-FIFO, ...
    _odd: hash -> entries         _heap: (due, stamp, entry) of the entries that have a lifetime
    h(b) -> (entry b,)

A policy decides where a new entry goes, what a hit changes and which entry is the victim; all else is the
engine's.

Foreign code - ``__hash__`` and ``__eq__`` of keys, getsizeof, the clock, listeners, finalizers of what was
dropped - runs with no lock held. `_data` has the keys that a dict compares without running code of theirs;
any other key is found by `_seek_odd` in the bucket of its hash. `_seek` looks an entry up without the lock,
and `_is_current` says under the lock whether what it found still holds; if not, the lookup starts over.
What is left are finalizers that the collector runs at an allocation and signal handlers: the lock is
re-entrant, and `_version` counts edits, so that a call that was interrupted notices. An edit of a list is a
straight line of attributes: nothing is called from the last look to its end, nor made for the collector to
count, as a tuple of four would be. So where there is a GIL, what has no lifetime is read without the lock.

An entry that stands in no list is dead and not seen. An item of the heap counts while its stamp is the
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
