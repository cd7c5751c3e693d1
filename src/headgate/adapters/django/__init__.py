"""For Django: a backend for CACHES, rate limits of sites and of views, a throttle for REST framework."""

from headgate.adapters._extras import extra
from headgate.adapters._limiting import Charge

with extra("django"):
    from headgate.adapters.django._cache import CacheBackend
    from headgate.adapters.django._limits import RateLimitMiddleware
    from headgate.adapters.django._request import DjangoRequest
    from headgate.adapters.django._throttle import Throttle
    from headgate.adapters.django._views import ratelimit

__all__ = ["CacheBackend", "Charge", "DjangoRequest", "RateLimitMiddleware", "Throttle", "ratelimit"]
