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

A key that is not watched takes over the node of the oldest key of the least count, and what that key
had counted is its error. One more moves a node to the next bucket, made or renumbered where it is missing.

Invariants (`_check` walks them all)
- Node 0 and bucket 0 are no node and the sentinel; 0 in the table means empty, and a live node stands in
  it once, reachable from its home. The table is at most half full.
- Buckets are circular, sorted by strictly rising counts; each holds a node; the nodes of all are the live
  ones, and 0 <= error <= count. Without decay the counts add up to the total.
- len(keys) == k + 1. The garbage collector sees the keys in that list; when it has torn it down in a
  dead cycle, `_intact` notices and nothing is watched from then on.

Foreign code - ``__index__``, ``__hash__``, the clock, ``__eq__`` in `_find` - runs before the first edit.
The table's version counts edits of the set of keys: a probe that called ``__eq__`` starts over when it
changed. From the first edit to the last nothing is allocated and nothing released; a victim is dropped last.
"""
include "_summary.pxi"
include "_hotkeys.pxi"
