"""Rate limits, shedding and a response cache for ASGI applications."""

from headgate.adapters._limiting import Charge
from headgate.adapters._shedding import ShedStats
from headgate.adapters._stack import GateStats
from headgate.adapters.asgi._cache import CacheMiddleware
from headgate.adapters.asgi._gate import GateMiddleware, from_gate
from headgate.adapters.asgi._limits import RateLimitMiddleware
from headgate.adapters.asgi._request import ASGIRequest
from headgate.adapters.asgi._shed import ShedMiddleware

__all__ = [
    "ASGIRequest", "CacheMiddleware", "Charge", "GateMiddleware", "GateStats", "RateLimitMiddleware",
    "ShedMiddleware", "ShedStats", "from_gate"
]
