# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Hot keys: Space-Saving on a stream summary.

    table (u32)        buckets, by count         nodes of a bucket, oldest first
    +---+                  0  <- sentinel
    | 2 | ----+            |
    | 0 |     |         +-----+     +----+     +----+
    | 4 |     |         |  7  | --- | k5 | --- | k1 |   <- the next victim is k5
    | 0 |     |         +-----+     +----+     +----+
    | 1 |     |         +-----+     +----+
    +---+     +-------> | 12  | --- | k2 |
    see slots.h         +-----+     +----+
                        | 300 | --- ...

A new key takes the node of the oldest key with the least count, the victim, whose count becomes its error. An
addition moves a node to the bucket of its new count, which is inserted or renumbered if there is none.

Invariants (all checked by `_check`)
- Node 0 is unused and bucket 0 is the sentinel; 0 in the table means empty, and a live node is in the table
  once, reachable from its home. The table is at most half full.
- Buckets are a circular list, sorted by strictly rising counts; none is empty; their nodes are the live ones,
  and 0 <= error <= count. Without decay the counts add up to the total.
- len(keys) == k + 1. The garbage collector visits the keys in that list; after it has cleared the list in a
  dead cycle, `_intact` is false and all keys are removed.

Foreign code - ``__index__``, ``__hash__``, the clock, ``__eq__`` in `_find` - runs before the first edit.
The table's version counts edits of the set of keys: a probe that called ``__eq__`` starts over if it has
changed. From the first edit to the last nothing is allocated and nothing released; a victim is dropped last.

Files: _summary (nodes, buckets, table, decay), _hotkeys (the public class).
"""
include "_summary.pxi"
include "_hotkeys.pxi"
