"""Rate limits by key: RateLimiter and its Rate."""

from headgate._backend import backend
from headgate._rate import Rate

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.ratelimit import RateLimiter
else:
    from headgate._pure.ratelimit import RateLimiter

__all__ = ["Rate", "RateLimiter"]
