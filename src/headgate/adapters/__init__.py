"""Where the primitives plug into other packages, one module a host; none is imported unasked.

What the adapters of HTTP clients say of their servers is the same for all of them: ``server_of(response)``,
`BalancerEvent` and `ServerCounters`.
"""

from headgate.adapters._http import BalancerEvent, ServerCounters, server_of

__all__ = ["BalancerEvent", "ServerCounters", "server_of"]
