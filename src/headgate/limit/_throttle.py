"""Client-side throttling by the rule of Google SRE: requests against accepts.

    | requests, accepts | requests, accepts | ...      one bin for each 1/60 of the window, a ring
"""

from __future__ import annotations

from time import monotonic_ns

from headgate._base.checks import checked_callable, checked_number
from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock
from headgate._base.pickling import initialized
from headgate.limit._units import checked_positive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never, SupportsFloat

_BINS = 60
_MOST_WINDOW = 10**8


class Throttle:
    """Decides in the client whether to send a request, by how many the server accepted before.

    Of the `requests` of the last `window` seconds, sent or not, let the server have accepted `accepts`. The
    next is held back with a probability of ``max(0, (requests - k * accepts) / (requests + 1))``. So nothing
    is held back while the server accepts 1/k of the requests or more; one that accepts less is sent k times
    what it accepts, and one that accepts nothing is still sent a request about once a window, so that its
    recovery is noticed. What is sent then grows several times over in each window: a client of 100
    requests a second sends all of them again after five to eight windows. So choose a short `window` if that
    is too late.

    `random` is a callable that returns a float in [0, 1), by default ``random.random``; `clock` one that
    returns integer nanoseconds, by default the monotonic clock.

    Raises ValueError if `k` is below 1 or `window` is not positive, TypeError if an argument is of a wrong
    type.

    Source: Beyer and others, Site Reliability Engineering, 2016, chapter 21, client-side throttling.

    Complexity: O(1), in memory of fixed size.

    >>> throttle = Throttle(random=lambda: 0.5)
    >>> [throttle.allow() for _ in range(4)]
    [True, True, False, False]
    >>> throttle.accept()
    >>> throttle.rejection_probability
    0.4
    """

    __slots__ = (
        "__weakref__",
        "_accepts",
        "_all_accepts",
        "_all_requests",
        "_bin",
        "_clock",
        "_k",
        "_lock",
        "_random",
        "_requests",
        "_width",
    )

    def __init__(
        self,
        k: SupportsFloat = 2.0,
        window: SupportsFloat = 120.0,
        *,
        random: Callable[[], float] | None = None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        if hasattr(self, "_bin"):
            raise initialized(self)
        self._k = checked_number("k", k)
        if not 1 <= self._k < float("inf"):
            raise ValueError(f"k must be finite and at least 1, got {k!r}")
        seconds = checked_positive("window", window)
        if seconds > _MOST_WINDOW:
            raise ValueError(f"window must be at most {_MOST_WINDOW}, got {window!r}")
        checked_callable("random", random)
        self._random = _default_random() if random is None else random
        self._clock = checked_clock(clock)
        self._width = max(1, int(seconds * 1e9) // _BINS)
        self._lock = new_lock()  # a finalizer may come wherever Python calls; all sums are whole there
        self._requests = [0] * _BINS
        self._accepts = [0] * _BINS
        self._all_requests = self._all_accepts = 0
        self._bin = self._now_bin()

    def _now_bin(self) -> int:
        return (monotonic_ns() if self._clock is None else checked_now(self._clock())) // self._width

    def _turn(self, bin_: int) -> int:
        """The index of a bin in the ring, after those that have left the window are cleared. If the clock has
        stepped back within the window, the latest bin stays current; if further back, its bin is.
        """
        steps = bin_ - self._bin
        if steps > _BINS:
            self._bin = bin_ - _BINS
        elif steps < -_BINS:
            self._bin = bin_
        while self._bin < bin_:
            at = (self._bin + 1) % _BINS
            self._all_requests -= self._requests[at]
            self._all_accepts -= self._accepts[at]
            self._requests[at] = self._accepts[at] = 0
            self._bin += 1
        return self._bin % _BINS

    def _probability(self) -> float:
        return max(0.0, (self._all_requests - self._k * self._all_accepts) / (self._all_requests + 1))

    def _seen(self) -> tuple[int, int, float]:
        """The requests and accepts of the window as of now, and what follows from them."""
        now = self._now_bin()
        with self._lock:
            self._turn(now)
            return self._all_requests, self._all_accepts, self._probability()

    def allow(self) -> bool:
        """Count one request, and return whether to send it. Those not sent count too.

        >>> Throttle().allow()
        True
        """
        drawn, now = self._random(), self._now_bin()
        with self._lock:
            at = self._turn(now)
            probability = self._probability()
            self._requests[at] += 1
            self._all_requests += 1
        return drawn >= probability

    def accept(self) -> None:
        """Count a request that the server accepted: it responded, and did not refuse it for overload or
        quota. A response that is an error of another kind counts as accepted.

        >>> throttle = Throttle()
        >>> throttle.allow(), throttle.accept(), throttle.accepts
        (True, None, 1)
        """
        now = self._now_bin()
        with self._lock:
            self._accepts[self._turn(now)] += 1
            self._all_accepts += 1

    @property
    def rejection_probability(self) -> float:
        """How likely the next request is not to be sent.

        >>> Throttle().rejection_probability
        0.0
        """
        return self._seen()[2]

    @property
    def requests(self) -> int:
        """How many requests the window has, sent or not.

        >>> Throttle().requests
        0
        """
        return self._seen()[0]

    @property
    def accepts(self) -> int:
        """How many requests of the window the server accepted.

        >>> Throttle().accepts
        0
        """
        return self._seen()[1]

    def __repr__(self) -> str:
        requests, accepts, _ = self._seen()
        return f"<Throttle requests={requests} accepts={accepts}>"

    def __reduce__(self) -> Never:
        raise TypeError("a Throttle cannot be copied or pickled: it belongs to one clock")

    def _check(self) -> None:
        with self._lock:
            assert sum(self._requests) == self._all_requests
            assert sum(self._accepts) == self._all_accepts
            assert min(self._requests) >= 0 <= min(self._accepts)


def _default_random() -> Callable[[], float]:
    from random import random

    return random
