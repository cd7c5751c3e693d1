"""Limits: TokenBucket and its Decision."""

from typing import TYPE_CHECKING

from headgate._backend import backend
from headgate._decision import Decision

if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.limit import Reservation, TokenBucket
else:
    from headgate._pure.limit import Reservation, TokenBucket

__all__ = ["Decision", "Reservation", "TokenBucket"]
