"""Placement: which node a key belongs to."""

from typing import TYPE_CHECKING

from headgate._backend import backend

if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.placement import HashRing
else:
    from headgate._pure.placement import HashRing

__all__ = ["HashRing"]
