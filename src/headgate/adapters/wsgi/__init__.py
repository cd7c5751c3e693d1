"""Rate limits, shedding and a response cache for WSGI applications."""

from headgate.adapters._limiting import Charge
from headgate.adapters._shedding import ShedStats
from headgate.adapters._stack import GateStats
from headgate.adapters.wsgi._cache import CacheMiddleware
from headgate.adapters.wsgi._gate import GateMiddleware, from_gate
from headgate.adapters.wsgi._limits import RateLimitMiddleware
from headgate.adapters.wsgi._request import WSGIRequest
from headgate.adapters.wsgi._shed import ShedMiddleware

__all__ = [
    "CacheMiddleware", "Charge", "GateMiddleware", "GateStats", "RateLimitMiddleware", "ShedMiddleware",
    "ShedStats", "WSGIRequest", "from_gate"
]
