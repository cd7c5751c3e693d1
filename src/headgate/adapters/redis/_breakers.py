"""Breakers: a server that does not respond is left alone for a while, so that no call waits for it."""

from __future__ import annotations

from time import monotonic

FAILURES = 3
PAUSE = 0.5


class Breaker:
    """Opens after 3 consecutive failures; then one call in 0.5 s is let through, until one succeeds.

    No lock is needed: at worst two threads probe at once.
    """

    __slots__ = ("_failures", "_until")

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def is_closed(self) -> bool:
        return self._failures < FAILURES

    def permits(self) -> bool:
        """Whether a call may be tried now."""
        if self._failures < FAILURES:
            return True
        now = monotonic()
        if now < self._until:
            return False
        self._until = now + PAUSE
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._until = monotonic() + PAUSE
