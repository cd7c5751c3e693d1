"""What a limiter decides when its store does not."""

from __future__ import annotations

from contextlib import suppress
from inspect import iscoroutinefunction

from headgate.adapters.redis._breakers import PAUSE
from headgate.limit._decision import Decision, as_degraded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from headgate.errors import StoreError
    from headgate.limit._rate import Rate

_WORDS = ("raise", "allow", "deny")


class OnError:
    """The policy of a limiter for calls that fail: raise, allow, deny, or ask a local limiter."""

    __slots__ = ("_degraded", "_word", "local")

    local: Any

    def __init__(self, on_error: Any, example: type, degraded: Callable[[], object]) -> None:
        self._word = on_error if isinstance(on_error, str) else None
        self.local = None if isinstance(on_error, str) else on_error
        self._degraded = degraded
        if self._word is not None and self._word not in _WORDS:
            raise ValueError(f"on_error must be one of {_WORDS} or a limiter, got {on_error!r}")
        if self._word is None and not _is_local(on_error, example):
            wanted = f"one of {_WORDS} or a local {example.__name__}"
            raise TypeError(f"on_error must be {wanted}, got {on_error!r}")

    def decide(
        self, error: StoreError, rate: Rate, policy: str, method: str, *args: Any, **named: Any
    ) -> Decision:
        """The decision without the store: what `method` of the local limiter returns, if there is one."""
        if self._word == "raise":
            raise error
        self._degraded()
        if self.local is not None:
            with suppress(ValueError):  # a cost above its burst is denied
                return as_degraded(getattr(self.local, method)(*args, **named))
        if self._word == "allow":
            decision = Decision(True, rate.burst, float(rate.burst), 0.0, 0.0, policy)
        else:
            decision = Decision(False, rate.burst, 0.0, PAUSE, PAUSE, policy)
        return as_degraded(decision)

    def reserve(self, *args: Any, **named: Any) -> Any:
        """A reservation of the local limiter; None if there is none, or the cost is above its burst."""
        if self.local is None:
            return None
        with suppress(ValueError):
            reservation = self.local.reserve(*args, **named)
            as_degraded(reservation.decision)
            self._degraded()
            return reservation
        return None

    def ignore(self, error: StoreError, method: str, *args: Any, **named: Any) -> None:
        """Do without the store what has no result."""
        if self._word == "raise":
            raise error
        if self.local is not None and method:
            with suppress(ValueError):  # an amount that it cannot have had
                getattr(self.local, method)(*args, **named)


def _is_local(limiter: Any, example: type) -> bool:
    """Whether it has the methods of the example, and neither blocks nor has to be awaited."""
    methods = [getattr(limiter, name, None) for name in ("decide", "peek", "reserve", "refund", "reset")]
    if not all(map(callable, methods)) or any(map(iscoroutinefunction, methods)):
        return False
    if getattr(limiter, "blocking", False):
        return False
    return hasattr(getattr(limiter, "rates", None), "items") == (example.__name__ == "RateLimits")
