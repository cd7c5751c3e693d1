"""Rate limits for WSGI applications."""

from headgate.adapters._limiting import Charge
from headgate.adapters.wsgi._limits import RateLimitMiddleware
from headgate.adapters.wsgi._request import WSGIRequest

__all__ = ["Charge", "RateLimitMiddleware", "WSGIRequest"]
