"""Traffic primitives for Python services: a Cython core and a pure-Python twin that behaves the same."""

from headgate._base.backend import backend
from headgate.balance import (
    AddressHash,
    KeyHash,
    LeastLoaded,
    PeakEWMA,
    PowerOfTwo,
    RandomChoice,
    RetryBudget,
    RoundRobin,
    ServerRecord,
    WeightedRoundRobin,
)
from headgate.cache import (
    CacheStats,
    FIFOCache,
    LFUCache,
    LRUCache,
    RRCache,
    S3FIFOCache,
    SieveCache,
    TinyLFUCache,
    TTLCache,
)
from headgate.errors import HeadgateError, NoServerError
from headgate.hashing import splitmix64, xxh64
from headgate.hotkeys import HotKey, HotKeys
from headgate.limit import (
    AddressLimiter,
    ConcurrencyLimiter,
    Decision,
    Permit,
    Rate,
    RateLimiter,
    RateLimits,
    Reservation,
    Throttle,
    TokenBucket,
    address_prefix,
    client_address,
)
from headgate.memoize import cached, lru_cache
from headgate.placement import BoundedLoad, HashRing, Maglev, Rendezvous, jump_hash, redis_slot

__version__ = "0.1.0"

__all__ = [
    "AddressHash",
    "AddressLimiter",
    "BoundedLoad",
    "CacheStats",
    "ConcurrencyLimiter",
    "Decision",
    "FIFOCache",
    "HashRing",
    "HeadgateError",
    "HotKey",
    "HotKeys",
    "KeyHash",
    "LFUCache",
    "LRUCache",
    "LeastLoaded",
    "Maglev",
    "NoServerError",
    "PeakEWMA",
    "Permit",
    "PowerOfTwo",
    "RRCache",
    "RandomChoice",
    "Rate",
    "RateLimiter",
    "RateLimits",
    "Rendezvous",
    "Reservation",
    "RetryBudget",
    "RoundRobin",
    "S3FIFOCache",
    "ServerRecord",
    "SieveCache",
    "TTLCache",
    "Throttle",
    "TinyLFUCache",
    "TokenBucket",
    "WeightedRoundRobin",
    "__version__",
    "address_prefix",
    "backend",
    "cached",
    "client_address",
    "jump_hash",
    "lru_cache",
    "redis_slot",
    "splitmix64",
    "xxh64",
]
