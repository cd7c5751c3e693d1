"""Adapters for other packages, one module per package; each is imported only on request.

All adapters of HTTP clients report on servers in the same way: ``server_of(response)``, `BalancerEvent` and
`ServerCounters`.
"""

from headgate.adapters._http import BalancerEvent, ServerCounters, server_of

__all__ = ["BalancerEvent", "ServerCounters", "server_of"]
