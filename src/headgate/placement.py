"""Placement: which node a key belongs to."""

from headgate._backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.placement import BoundedLoad, HashRing, Maglev, Rendezvous, jump_hash, redis_slot
else:
    from headgate._pure.placement import BoundedLoad, HashRing, Maglev, Rendezvous, jump_hash, redis_slot

__all__ = ["BoundedLoad", "HashRing", "Maglev", "Rendezvous", "jump_hash", "redis_slot"]
