"""Limits: TokenBucket, RateLimiter by key, and what they answer."""

from headgate._backend import backend
from headgate._decision import Decision
from headgate._rate import Rate
from headgate._reservation import Reservation
from headgate.ratelimit import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.limit import TokenBucket
else:
    from headgate._pure.limit import TokenBucket

__all__ = ["Decision", "Rate", "RateLimiter", "Reservation", "TokenBucket"]
