# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Consistent-hash placement: which node a key belongs to.

    HashRing
      _members  name bytes -> [(node, weight)]      the truth; a change edits only this ...
      _core     points | buckets | ranks            ... the arrays are rebuilt by the next lookup
      _view     _core + (node, node, ...)           read by lookups; None after a change

    2**64 - 1 \\  / 0        every node owns points on a circle of 64-bit positions; a key belongs to
          o----p0---o        the owner of the first point at or after its position, found by its top
         /  key->   p1       bits: see ring.h for the arrays. An owner is a rank, the index of a node
        p5          |        in `nodes`. A hash of 32 bits is in the upper half of a position, and
         \\         p2       the lower half of such a point is all ones.
          p4-------p3

Invariants. Points are sorted, equal points by owner. A table is immutable once it is built, so a lookup
that has a view needs no lock. A change merges: the points of nodes that remain are copied in one pass
with their new ranks, and only those of new nodes are sorted. Any number of changes between two lookups
costs one merge.

Foreign code is `node_key`, a hash function of the user, iterators and mappings, the `__repr__` of a wrong
argument and the hook of a warning: all of it runs before anything changes. Nodes are never hashed or
compared, except in dicts that are returned. The collector or the hash function may re-enter while a table
is built: the build notices it by the version number and starts over. References to nodes are dropped last.
"""
from headgate._c.own_method cimport hg_own_method

include "_base.pxi"
include "_ring.pxi"
include "_rendezvous.pxi"
include "_maglev.pxi"
include "_jump.pxi"
include "_bounded.pxi"

for cls in (HashRing, Rendezvous, Maglev):
    hg_own_method(cls, "get_node")
del cls
