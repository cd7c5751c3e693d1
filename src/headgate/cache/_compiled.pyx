# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""The cache engine and its policies.

    table (u32)      nodes (C structs)                 entries (one Python list)
    +---+            slot  hash   prev  next           2*slot   2*slot+1
    | 0 |             0     -      4     3             None     None      <- sentinels: the ends of lists 0,
    | 3 | --------->  1     -      1     1             None     None         1 and 2; LRU uses the first only
    | 0 |     +---->  2     -      2     2             None     None
    | 4 | ----|--+->  3    h(a)    0     4             "a"      value     <- next victim
    | 0 |     |  +->  4    h(b)    3     0             "b"      value     <- most recently used
    | 5 | ----+       5     -      -     6             None     None      <- free, chained by next
    +---+
    nodes, their table and their lists: see slots.h
    marks (u8), ranks and side (u32, u64) as a policy needs them: its counts, and the list of a slot
    timers: due, prev, next of a slot in the wheel of wheel.h; ttl_dues: due by ttl, where there is a tti too
    labels: a Python list of a _Label per slot; tagged: tag -> {label: None}

A policy defines where a new entry goes, what a hit changes and which entry is the victim; the engine does the
rest.

Invariants (`_check` walks them all)
- Slots 0 to 2 are the sentinels of circular lists; 0 in the table means empty, 0 ends the free chain.
- The table is at most two fifths full, and every live slot is in it once, reachable from its home.
- The lists hold exactly the live slots; the entries of any other slot are None.
- len(entries) == 2 * (capacity + 3). The garbage collector sees keys and values in that list; when
  it has cleared it in a dead cycle, `_intact` is false and the cache is empty from then on.
- currsize is the sum of the live sizes, at most maxsize; without getsizeof every size is 1.
- A slot is in the wheel exactly when its due is not NEVER, and has a label exactly when it has tags.

Foreign code - ``__hash__``, getsizeof, the clock, ``__eq__`` in `_find`, finalizers run by an allocation -
runs before the first edit. The table's version counts its edits: a probe that called ``__eq__`` starts over
when it changed. From the first edit to the last nothing of Python is allocated and nothing released. Evicted
references are dropped last, and then the listener is called; both may re-enter.
"""
from headgate._c.own_method cimport hg_own_method
from headgate._c.scatter cimport hg_seed_secrets

from os import urandom

hg_seed_secrets(urandom(16))

include "_table.pxi"
include "_entries.pxi"
include "_engine.pxi"
include "_mapping.pxi"
include "_cache.pxi"
include "policies/lru.pxi"
include "policies/fifo.pxi"
include "policies/lfu.pxi"
include "policies/sieve.pxi"
include "policies/queues.pxi"
include "policies/s3fifo.pxi"
include "policies/tinylfu.pxi"
include "policies/random.pxi"

for cls in (LRUCache, TTLCache, FIFOCache, LFUCache, SieveCache, S3FIFOCache, TinyLFUCache, RRCache):
    for name in ("get", "peek", "put"):
        hg_own_method(cls, name)
del cls, name
