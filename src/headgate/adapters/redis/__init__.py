"""Rate limits that all hosts share, in Redis or Valkey: `RedisRateLimiter`, `RedisRateLimits` and their
asynchronous forms; near caches before it: `NearCache`, `AsyncNearCache`; and the log of purges that HTTP
caches follow: `AsyncPurgeStream`.

The package of the client, redis or valkey, is imported by the code that makes the client.
"""

from headgate.adapters.redis._async_levels import AsyncRedisRateLimits
from headgate.adapters.redis._async_limiter import AsyncRedisRateLimiter
from headgate.adapters.redis._counters import StoreCounts
from headgate.adapters.redis._levels import RedisRateLimits
from headgate.adapters.redis._limiter import RedisRateLimiter
from headgate.adapters.redis._near import NearCache
from headgate.adapters.redis._near_async import AsyncNearCache
from headgate.adapters.redis._purge_stream import AsyncPurgeStream
from headgate.adapters.redis._reservations import AsyncReservation

__all__ = [
    "AsyncNearCache",
    "AsyncPurgeStream",
    "AsyncRedisRateLimiter",
    "AsyncRedisRateLimits",
    "AsyncReservation",
    "NearCache",
    "RedisRateLimiter",
    "RedisRateLimits",
    "StoreCounts",
]
