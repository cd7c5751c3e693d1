"""What a limit answers."""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        allowed: bool
        limit: float
        remaining: float
        retry_after: float
        reset_after: float
        policy: str
else:
    _Fields = namedtuple("_Fields", "allowed limit remaining retry_after reset_after policy")


class Decision(_Fields):
    """The answer of a limit; truthy when the request is allowed.

    `limit` is the largest burst and `remaining` what is left of it, in tokens. `retry_after` is how
    many seconds later the same request can be allowed at the earliest, 0.0 if it is allowed now;
    `reset_after` is how many seconds later the limit is as good as new. `policy` names the limit
    that decided.

    >>> bool(Decision(False, 10, 0.0, 0.5, 5.0, "2/s, burst 10"))
    False
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        return self.allowed
