# cython: language_level=3, boundscheck=False, cdivision=True
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Balancers: which server takes a request.

    _members  server -> record     all members; the dict is replaced and never changed
    _active   [record, ...]        the members that are picked from; each balancer derives from them
                                   a tournament tree, an alias table, a heap or sums of weights
    _plan     a placement          which server a key belongs to, in balancers that hash keys
    record    weight, picks in flight, latency, outcomes, penalty, end of ejection and of slow start

       pick() ---> _choose ---> in_flight + 1 ---> ... done(ok) ---> in_flight - 1, latency, outcome
                     ^                                                  |
                     +---- _rebuild <--- ejected, or back at _next_event <-+

Files: _members (members, records, active ones), _balancer (draws, picks, outcomes), _static (round robin and
random choice), _loads (least loaded, two choices), _hashed (keys and addresses).

Invariants. `_active` holds the members that are neither draining, down nor ejected, or all that are not
draining if fewer than the panic threshold would be left. `_next_event` is the time of the next return, end of
a slow start or end of a penalty, or earlier; a pick that measures no latency reads the clock only if there is
one. A record outlives its membership, so picks in flight end on the record on which they began. A pick from
before a fork belongs to the parent: in the child its `_generation` is an old one, and its end changes
nothing.

Foreign code is the clock, ``__hash__`` and ``__eq__`` of servers, placements, and arguments: all of it runs
before anything changes and without the lock. A change of the members makes a new dict and, if keys are
hashed, a new placement, and installs both in one step, unless another change came first: then it starts over.
A finalizer may run at any time: while `_busy`, which means that something is derived or chosen, its picks
take any active record, and its changes set `_stale` for the call that it interrupted.
"""
include "_members.pxi"
include "_balancer.pxi"
include "_static.pxi"
include "_loads.pxi"
include "_hashed.pxi"
