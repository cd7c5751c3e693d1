"""Rate limits for ASGI applications."""

from headgate.adapters._limiting import Charge
from headgate.adapters.asgi._limits import RateLimitMiddleware
from headgate.adapters.asgi._request import ASGIRequest

__all__ = ["ASGIRequest", "Charge", "RateLimitMiddleware"]
