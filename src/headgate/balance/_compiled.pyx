# cython: language_level=3, boundscheck=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Balancers: which server takes a request.

    _members  server -> record     all members, a dict that is replaced and never changed
    _active   [record, ...]        those that picks go to, and what each balancer derives from them:
                                   a tournament, an alias table, a heap, sums of weights
    _plan     a placement          where keys belong, in balancers that hash them
    record    weight, in flight, latency, outcomes, penalty, ejected until, warm at

       pick() ---> _choose ---> in_flight + 1 ---> ... done(ok) ---> in_flight - 1, latency, outcome
                     ^                                                  |
                     +---- _rebuild <---- ejected, or back after `_wake` <-+

Invariants. `_active` holds the members that are neither draining nor ejected; all that are not draining
where fewer than the panic threshold would be left. `_wake` is the time of the next return, end of a slow
start or end of a penalty, or earlier; only then does a pick that measures nothing read the clock. A record
outlives its membership, so that picks in flight end where they began. Those that were taken before a fork are
the parent's: in the child they are of another `_era`, and their end changes nothing.

Foreign code is the clock, ``__hash__`` and ``__eq__`` of servers, placements, and arguments: all of it runs
before anything changes and without the lock. A change of the members makes a new dict, and a new placement
where there is one, and takes both on in one step, unless another change came first: then it starts over. A
finalizer may come at any time: while `_busy` says that something is derived or chosen, its picks take any
active record, and its changes leave `_stale` for whoever was interrupted.
"""
include "_members.pxi"
include "_balancer.pxi"
include "_static.pxi"
include "_loads.pxi"
include "_hashed.pxi"
