"""Rate limits that all hosts share, in Redis or Valkey: `RedisRateLimiter`, `RedisRateLimits` and their
asynchronous forms; and near caches before it: `NearCache`, `AsyncNearCache`.

The package of the client, redis or valkey, is imported by the code that makes the client.
"""

from headgate.adapters.redis._async_levels import AsyncRedisRateLimits
from headgate.adapters.redis._async_limiter import AsyncRedisRateLimiter
from headgate.adapters.redis._counters import StoreCounts
from headgate.adapters.redis._levels import RedisRateLimits
from headgate.adapters.redis._limiter import RedisRateLimiter
from headgate.adapters.redis._near import NearCache
from headgate.adapters.redis._near_async import AsyncNearCache
from headgate.adapters.redis._reservations import AsyncReservation

__all__ = [
    "AsyncNearCache",
    "AsyncRedisRateLimiter",
    "AsyncRedisRateLimits",
    "AsyncReservation",
    "NearCache",
    "RedisRateLimiter",
    "RedisRateLimits",
    "StoreCounts",
]
