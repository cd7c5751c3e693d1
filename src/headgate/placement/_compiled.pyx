# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""Consistent-hash placement: which node a key belongs to.

    HashRing
      _members  name bytes -> [(node, weight)]      the truth; a change touches only this ...
      _core     points | buckets | ranks            ... the arrays follow at the next lookup
      _view     _core + (node, node, ...)           what a lookup reads; None after a change

    2**64 - 1 \\  / 0        every node owns points on a circle of 64-bit positions; a key belongs
          o----p0---o        to the owner of the first point at or after its own, found by the
         /  key->   p1       top bits: see ring.h for the arrays. Owners are ranks: node i of
        p5          |        `nodes`. A hash of 32 bits stands in the upper half of a position,
         \\         p2       and the lower half of such points is all ones.
          p4-------p3

Invariants. Points are sorted, equal ones by owner; a table never changes once it is built, so a
lookup that holds a view needs no lock. A change merges: the points of nodes that stay are copied
in one pass with their new ranks, those of new nodes are sorted alone. Any number of changes
between two lookups costs one merge.

Foreign code is `node_key`, a hash function of the user's, the iterators and mappings given, the
`__repr__` of a wrong argument and a warning's hook: all of it runs before anything changes. Nodes
are never hashed or compared, but in the dicts handed out. A collector run or the hash function may
re-enter while a table is built: the version number tells, and the build starts over. References to
nodes are dropped last.
"""
include "_base.pxi"
include "_ring.pxi"
include "_rendezvous.pxi"
include "_maglev.pxi"
include "_jump.pxi"
include "_bounded.pxi"
