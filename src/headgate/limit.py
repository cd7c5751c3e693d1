"""Limits: TokenBucket and its Decision."""

from headgate._backend import backend
from headgate._decision import Decision
from headgate._reservation import Reservation

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.limit import TokenBucket
else:
    from headgate._pure.limit import TokenBucket

__all__ = ["Decision", "Reservation", "TokenBucket"]
