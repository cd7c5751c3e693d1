"""Limits: TokenBucket, RateLimiter by key, RateLimits by level, ConcurrencyLimiter and Throttle."""

from headgate._addresses import address_prefix, client_address
from headgate._backend import backend
from headgate._concurrency import ConcurrencyLimiter, Permit
from headgate._decision import Decision
from headgate._levels import AddressLimiter, RateLimits
from headgate._rate import Rate
from headgate._reservation import Reservation
from headgate._throttle import Throttle
from headgate.ratelimit import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate._compiled.limit import TokenBucket
else:
    from headgate._pure.limit import TokenBucket

__all__ = [
    "AddressLimiter",
    "ConcurrencyLimiter",
    "Decision",
    "Permit",
    "Rate",
    "RateLimiter",
    "RateLimits",
    "Reservation",
    "Throttle",
    "TokenBucket",
    "address_prefix",
    "client_address",
]
