"""What a limit answers."""

from typing import NamedTuple


class Decision(NamedTuple):
    """The answer of a limit; truthy when the request is allowed.

    `limit` is the largest burst and `remaining` what is left of it, in tokens. `retry_after` is how
    many seconds later the same request can be allowed at the earliest, 0.0 if it is allowed now;
    `reset_after` is how many seconds later the limit is as good as new. `policy` names the limit
    that decided.

    >>> bool(Decision(False, 10, 0.0, 0.5, 5.0, "2/s, burst 10"))
    False
    """

    allowed: bool
    limit: float
    remaining: float
    retry_after: float
    reset_after: float
    policy: str

    def __bool__(self) -> bool:
        return self.allowed
