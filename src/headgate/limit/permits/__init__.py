"""Permits of a concurrency limit, and what grants them."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.limit.permits._compiled import Admission, Permit
else:
    from headgate.limit.permits._pure import Admission, Permit

__all__ = ["Admission", "Permit"]
