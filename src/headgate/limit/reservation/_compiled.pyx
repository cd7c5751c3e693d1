# cython: language_level=3
# cython: freethreading_compatible=True, embedsignature=True, embedsignature.format=clinic, autotestdict=False
"""Tokens that were taken before it is known how many are used."""
cimport cython

from headgate.limit._decided cimport is_allowed

from headgate.limit._decision import Decision
from headgate.limit._units import checked_amount

cdef type DECISION = Decision


cdef class Reservation:
    """Reservation(tokens, parts, due=None, decision=None)\n--\n
    Tokens taken ahead of time; made by the ``reserve`` of a limit. It is false if they were denied.

    What a reservation took stays taken if it is neither settled nor cancelled.

    >>> TokenBucket(1, 1).reserve()
    Reservation(tokens=1)
    >>> limiter = RateLimiter("1000/min", clock=lambda: 0)
    >>> reservation = limiter.reserve("ann", cost=800)
    >>> limiter.peek("ann").remaining, reservation.settle(300), limiter.peek("ann").remaining
    (200.0, None, 700.0)
    >>> bool(limiter.reserve("ann", cost=701))
    False
    """

    def __cinit__(self, tokens, parts, due=None, decision=None):
        if not isinstance(parts, list):
            raise TypeError(f"parts must be a list, got {parts!r}")
        self.amount = tokens
        self.parts = parts
        self.due = due
        self.made = decision
        self.open = decision is None or is_allowed(DECISION, decision)

    def __bool__(self):
        return self.made is None or is_allowed(DECISION, self.made)

    @property
    def tokens(self):
        """How many tokens were requested.

        >>> TokenBucket(10, 1).reserve(3).tokens
        3
        """
        return self.amount

    @property
    def decision(self):
        """What the limit decided; None if it was a `TokenBucket`, which never denies a reservation.

        >>> RateLimiter("2/s", clock=lambda: 0).reserve("ann").decision.remaining
        1.0
        """
        return self.made

    @property
    def delay(self):
        """Seconds until the tokens may be used; 0.0 from then on. If they were denied, the seconds after
        which to try again.

        >>> bucket = TokenBucket(1, 10, clock=lambda: 0)
        >>> bucket.reserve(1).delay, bucket.reserve(0.5).delay
        (0.0, 0.05)
        """
        if self.made is not None:
            return self.made.retry_after
        if self.due is None:
            return 0.0
        (limit, _, _), *_ = self.parts
        return max(0, self.due - limit._now_ns()) / 1e9

    def settle(self, actual):
        """Settle for `actual` tokens instead of those that were reserved; once.

        A surplus is refunded, minus what has been refilled since, so that no interval has more than the limit
        allows. A shortfall is taken as well, whether it is available or not. But a key never owes more than
        its burst, and of a `TokenBucket` no more than the capacity is taken in addition.

        Raises ValueError if `actual` is negative or not finite, or not whole where the limit is strict.

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.reserve("ann", 2).settle(7)
        >>> limiter.peek("ann").remaining
        3.0
        """
        cdef Reservation each
        used = checked_amount("actual", actual)
        together = self._together()
        for each in together:
            for limit, _, _ in each.parts if each._is_open() else ():
                limit._check_settle(used)
        for each in together:
            each._settle(used)

    cdef list _together(self):
        """This one, and those that joined it."""
        cdef Reservation other
        with cython.critical_section(self):
            joined = list(self.joined or ())
        together = [self]
        for other in joined:
            together += other._together()
        return together

    cdef int _settle(self, object used) except -1:
        if self._closed():
            return 0
        for limit, key, reserved_at in self.parts:
            limit._settle(key, self.amount, used, reserved_at)
        return 0

    def cancel(self):
        """Refund the tokens, minus those that have been refilled since; once.

        A full refund would let more than ``capacity + refill_rate * t`` tokens pass in t seconds.

        >>> bucket = TokenBucket(1, 1, clock=lambda: 0)
        >>> bucket.reserve().cancel()
        >>> bucket.available
        1.0
        """
        self.settle(0)

    def join(self, other):
        """Let `other`, made for the same request by another limit, be settled and cancelled with this one;
        False if it was denied: then this one is cancelled, so that the request takes nothing anywhere.

        Each refunds or takes according to its own tokens. What joins after ``settle`` or ``cancel`` is
        settled by the next call of them.

        Raises TypeError if `other` is no reservation, ValueError if it is this one.

        >>> users, routes = RateLimiter("5/s", clock=lambda: 0), RateLimiter("1/s", clock=lambda: 0)
        >>> request = users.reserve("ann")
        >>> request.join(routes.reserve("/search")), request.join(routes.reserve("/search"))
        (True, False)
        >>> users.peek("ann").remaining, routes.peek("/search").remaining
        (5.0, 1.0)
        """
        if not isinstance(other, Reservation):
            raise TypeError(f"other must be a Reservation, got {other!r}")
        if self in (<Reservation>other)._together():
            raise ValueError(f"other must be another reservation, got {other!r}")
        if not other:
            self.cancel()
            return False
        with cython.critical_section(self):
            if self.joined is None:
                self.joined = []
            self.joined.append(other)
        return True

    def _add(self, parts):
        """Settle at these limits too."""
        self.parts = self.parts + parts

    cdef bint _is_open(self):
        """Whether it is neither settled nor cancelled."""
        cdef bint open
        with cython.critical_section(self):
            open = self.open
        return open

    cdef bint _closed(self):
        """Whether it was settled or cancelled before; from now on it is."""
        cdef bint was_open
        with cython.critical_section(self):
            was_open, self.open = self.open, False
        return not was_open

    def __repr__(self):
        return f"Reservation(tokens={self.amount!r})"

    def __reduce__(self):
        raise TypeError("a Reservation cannot be copied or pickled: it belongs to one limit")
