"""Placement: which node a key belongs to."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.placement._compiled import BoundedLoad, HashRing, Maglev, Rendezvous, jump_hash, redis_slot
else:
    from headgate.placement._pure import BoundedLoad, HashRing, Maglev, Rendezvous, jump_hash, redis_slot

__all__ = ["BoundedLoad", "HashRing", "Maglev", "Rendezvous", "jump_hash", "redis_slot"]
