"""A single limit: TokenBucket."""

from headgate._base.backend import backend

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.limit.bucket._compiled import TokenBucket
else:
    from headgate.limit.bucket._pure import TokenBucket

__all__ = ["TokenBucket"]
