"""Tokens that were taken ahead of time."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Reservation:
    """Tokens taken ahead of time; made by ``TokenBucket.reserve``.

    >>> TokenBucket(1, 1).reserve()
    Reservation(tokens=1)
    """

    __slots__ = ("_booked", "_bucket", "_due", "_open", "_tokens")

    def __init__(self, bucket: Any, tokens: float, booked: int, due: int) -> None:
        self._bucket = bucket
        self._tokens = tokens
        self._booked = booked
        self._due = due
        self._open = [True]

    @property
    def tokens(self) -> float:
        """How many tokens were taken.

        >>> TokenBucket(10, 1).reserve(3).tokens
        3
        """
        return self._tokens

    @property
    def delay(self) -> float:
        """Seconds until the tokens may be used; 0.0 when that time has come.

        >>> bucket = TokenBucket(1, 10, clock=lambda: 0)
        >>> bucket.reserve(1).delay, bucket.reserve(0.5).delay
        (0.0, 0.05)
        """
        return float(max(0, self._due - self._bucket._now_ns()) / 1e9)

    def cancel(self) -> None:
        """Give the tokens back, less those that the refill has brought since; once.

        A full refund would let more than ``capacity + refill_rate * t`` tokens pass in t seconds.

        >>> bucket = TokenBucket(1, 1, clock=lambda: 0)
        >>> bucket.reserve().cancel()
        >>> bucket.available
        1.0
        """
        try:
            self._open.pop()
        except IndexError:
            return
        self._bucket._refund(self._tokens, self._booked)

    def __repr__(self) -> str:
        return f"Reservation(tokens={self._tokens!r})"

    def __reduce__(self) -> str:
        raise TypeError("a Reservation cannot be copied or pickled: it belongs to one bucket")
