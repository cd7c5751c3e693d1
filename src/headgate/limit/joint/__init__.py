"""One decision of several limits for one request."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.limit.joint._compiled import Levels, allow_all, decide_all, peek_all, reserve_all
else:
    from headgate.limit.joint._pure import Levels, allow_all, decide_all, peek_all, reserve_all

__all__ = ["Levels", "allow_all", "decide_all", "peek_all", "reserve_all"]
