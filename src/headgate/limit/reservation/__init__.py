"""Tokens that were taken before it is known how many are used: Reservation."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.limit.reservation._compiled import Reservation
else:
    from headgate.limit.reservation._pure import Reservation

__all__ = ["Reservation"]
