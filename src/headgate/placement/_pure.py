"""Consistent-hash placement in pure Python; see docs/internals/placement.md for the data structures."""

from headgate.placement._base import _Placement
from headgate.placement._bounded import BoundedLoad
from headgate.placement._jump import jump_hash, redis_slot
from headgate.placement._maglev import Maglev
from headgate.placement._rendezvous import Rendezvous
from headgate.placement._ring import HashRing

__all__ = ["BoundedLoad", "HashRing", "Maglev", "Rendezvous", "_Placement", "jump_hash", "redis_slot"]
