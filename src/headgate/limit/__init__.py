"""Limits: TokenBucket, RateLimiter by key, RateLimits by level, ConcurrencyLimiter and Throttle."""

from headgate.limit._addresses import AddressLimiter
from headgate.limit._concurrency import ConcurrencyLimiter
from headgate.limit._decision import Decision
from headgate.limit._levels import RateLimits
from headgate.limit._networks import address_prefix, client_address
from headgate.limit._rate import Rate
from headgate.limit._throttle import Throttle
from headgate.limit.bucket import TokenBucket
from headgate.limit.keyed import RateLimiter
from headgate.limit.permits import Permit
from headgate.limit.reservation import Reservation

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
