"""Rate limits by key: RateLimiter."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.limit.keyed._compiled import RateLimiter
else:
    from headgate.limit.keyed._pure import RateLimiter

__all__ = ["RateLimiter"]
