"""AddressLimiter: limits by address, over several prefixes of it at once."""

from __future__ import annotations

import os

from headgate._base.addresses import packed_address, unmapped
from headgate._base.pickling import initialized
from headgate.limit._joint import refund_all, reset_all
from headgate.limit._networks import UNIX, carried, checked_length, masked
from headgate.limit._rate import Rate, checked_rates, written
from headgate.limit._units import checked_positive
from headgate.limit.joint import allow_all, decide_all, peek_all, reserve_all
from headgate.limit.keyed import RateLimiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from os import PathLike
    from typing import Literal, Never, SupportsFloat

    from headgate.limit._decision import Decision
    from headgate.limit._joint import Applied
    from headgate.limit._rate import Rates
    from headgate.limit.reservation import Reservation

    Prefixes = int | Iterable[int] | Mapping[int, float]


class AddressLimiter:
    """A `RateLimiter` for addresses that limits the networks they are in, several at once.

    `v4` and `v6` are the lengths of the prefixes that are limited: one, several, or a mapping from length to
    how many times the rate that network has. A request is allowed if all networks of its address allow it,
    and takes its cost from all or none. IPv4 inside IPv6 is IPv4, as it is for `address_prefix`. The
    ``"unix"`` of `client_address` has one limit, at the smallest multiple.

    The other arguments are those of `RateLimiter`, for each table: there is one for each multiplier, with a
    key for each prefix. So with `path` there is a file for each: that of 1 is `path`, that of 2 has the
    suffix ``.x2``. With ``on_mismatch="adopt"`` the rate is that of the first file: of 1, or else of the
    smallest multiple.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type, and what `RateLimiter`
    raises for a path.

    Complexity: O(prefixes x tiers) for a decision.

    >>> limiter = AddressLimiter("2/s", v4={32: 1, 24: 2}, clock=lambda: 0)
    >>> [limiter.allow(f"192.0.2.{host}") for host in (1, 1, 1, 2, 3, 4)]
    [True, True, False, True, True, False]
    >>> limiter.decide("192.0.2.4").policy
    '/24: 4/s'
    """

    __slots__ = ("__weakref__", "_limiters", "_rates", "_shared", "_v4", "_v6")

    def __init__(
        self,
        rate: Rates,
        *,
        v4: Prefixes = 32,
        v6: Prefixes = 64,
        max_keys: int = 1_000_000,
        path: str | PathLike[str] | None = None,
        mode: int = 0o600,
        on_full: Literal["evict", "deny"] = "evict",
        strict: bool = False,
        on_mismatch: Literal["raise", "adopt"] = "raise",
        clock: Callable[[], int] | None = None,
    ) -> None:
        if hasattr(self, "_v6"):
            raise initialized(self)
        prefixes = [_prefixes("v4", v4, 32), _prefixes("v6", v6, 128)]
        self._rates = checked_rates(rate, None)
        self._shared = path is not None
        self._limiters: dict[float, RateLimiter] = {}
        multiples = {times for found in prefixes for times in found.values()}
        for times in sorted(multiples, key=lambda times: (times != 1, times)):
            wanted = _multiplied(self._rates, times)
            limiter = RateLimiter(
                wanted,
                max_keys=max_keys,
                path=_path_of(path, times),
                mode=mode,
                on_full=on_full,
                strict=strict,
                on_mismatch=on_mismatch,
                clock=clock,
            )
            if not self._limiters and limiter.rates != wanted:
                self._rates = _divided(limiter.rates, times)
            self._limiters[times] = limiter
        self._v4, self._v6 = (
            [(f"/{length}", length, self._limiters[times]) for length, times in found.items()]
            for found in prefixes
        )

    def _applied(self, address: str) -> Applied:
        if address == UNIX:
            return [(UNIX, self._limiters[min(self._limiters)], address)]
        packed = carried(unmapped(packed_address(address)))
        prefixes = self._v4 if len(packed) == 4 else self._v6
        return [
            (name, limiter, masked(packed, length) + bytes((length,))) for name, length, limiter in prefixes
        ]

    def allow(self, key: str, cost: SupportsFloat = 1) -> bool:
        """Take `cost` from all networks of the address `key` if all allow it; True if so.

        Raises ValueError if `key` is not an address, and what ``RateLimiter.allow`` raises for a cost.

        >>> AddressLimiter("2/s").allow("2001:db8::17")
        True
        """
        return allow_all(self._applied(key), cost)

    def decide(self, key: str, cost: SupportsFloat = 1) -> Decision:
        """As ``allow``, but return a `Decision`: that of the network that denies for longest, or else of the
        one with the least remaining.

        Raises what ``allow`` raises.

        >>> AddressLimiter("2/s", clock=lambda: 0).decide("2001:db8::17").policy
        '/64: 2/s'
        """
        return decide_all(self._applied(key), cost)

    def peek(self, key: str, cost: SupportsFloat = 1) -> Decision:
        """What ``decide`` would return, but without taking anything.

        Raises what ``allow`` raises.

        >>> AddressLimiter("2/s", clock=lambda: 0).peek("2001:db8::17").remaining
        2.0
        """
        return peek_all(self._applied(key), cost)

    def reserve(self, key: str, cost: SupportsFloat = 1) -> Reservation:
        """Take `cost` from all networks of the address `key` if all allow it, as a `Reservation`.

        Raises what ``allow`` raises.

        >>> limiter = AddressLimiter("20/s", clock=lambda: 0)
        >>> reservation = limiter.reserve("192.0.2.1", 15)
        >>> bool(reservation), reservation.settle(4), limiter.peek("192.0.2.1").remaining
        (True, None, 16.0)
        """
        return reserve_all(self._applied(key), cost)

    def _now_ns(self) -> int:
        return next(iter(self._limiters.values()))._now_ns()

    def _check_settle(self, actual: float) -> None:
        next(iter(self._limiters.values()))._check_settle(actual)

    def _settle(self, key: str, cost: float, actual: float, reserved_at: int) -> None:
        for _, limiter, network in self._applied(key):
            limiter._settle(network, cost, actual, reserved_at)

    def refund(self, key: str, cost: SupportsFloat = 1) -> None:
        """Refund `cost` to all networks of the address `key`.

        Raises what ``allow`` raises.

        >>> limiter = AddressLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("192.0.2.1"), limiter.refund("192.0.2.1"), limiter.peek("192.0.2.1").remaining
        (True, None, 2.0)
        """
        refund_all(self._applied(key), cost)

    def reset(self, key: str) -> None:
        """Forget what the networks of the address `key` owe.

        Raises ValueError if `key` is not an address.

        >>> AddressLimiter("2/s").reset("192.0.2.1")
        """
        reset_all(self._applied(key))

    def reconfigure(self, rate: Rates) -> None:
        """Set another rate, multiplied as before; debts are kept. With `path` it is set for all processes, in
        one file of each multiplier after the other.

        Raises what ``RateLimiter.reconfigure`` raises. Complexity: O(max_keys).

        >>> limiter = AddressLimiter("2/s", clock=lambda: 0)
        >>> limiter.reconfigure("5/s"), limiter.peek("192.0.2.1").policy
        (None, '/32: 5/s')
        """
        rates = self._changed_rates(rate)
        for times, limiter in self._limiters.items():
            limiter.reconfigure(_multiplied(rates, times))
        self._rates = rates

    def _changed_rates(self, rate: Rates) -> tuple[Rate, ...]:
        """The tiers that ``reconfigure`` would set."""
        rates = checked_rates(rate, None)
        for times, limiter in self._limiters.items():
            limiter._changed_rates(_multiplied(rates, times))
        return rates

    @property
    def rates(self) -> tuple[Rate, ...]:
        """The tiers of the rate that is multiplied.

        >>> AddressLimiter("2/s").rates
        (Rate(limit=2, period=1, burst=2),)
        """
        times, limiter = next(iter(self._limiters.items()))
        if self._shared and limiter.rates != _multiplied(self._rates, times):
            self._rates = _divided(limiter.rates, times)
        return self._rates

    def __repr__(self) -> str:
        return f"AddressLimiter({'; '.join(map(str, self.rates))!r})"

    def __reduce__(self) -> Never:
        raise TypeError("an AddressLimiter cannot be copied or pickled: its state belongs to one clock")

    def _check(self) -> None:
        for times, limiter in self._limiters.items():
            limiter._check()
            assert self._shared or limiter.rates == _multiplied(self._rates, times)


def _prefixes(name: str, prefixes: Prefixes, most: int) -> dict[int, float]:
    """The multiplier of the rate by the length of the prefix."""
    if isinstance(prefixes, int):
        prefixes = (prefixes,)
    try:
        pairs = dict(prefixes.items() if hasattr(prefixes, "items") else dict.fromkeys(prefixes, 1))
    except TypeError:
        raise TypeError(f"{name} must be an int, several or a mapping of them, got {prefixes!r}") from None
    if not pairs:
        raise ValueError(f"{name} must be at least one length, got {prefixes!r}")
    return {
        checked_length(name, length, most): checked_positive(name, times) for length, times in pairs.items()
    }


def _path_of(path: str | PathLike[str] | None, times: float) -> str | PathLike[str] | None:
    """The file of the table with this multiplier."""
    return path if path is None or times == 1 else f"{os.fsdecode(path)}.x{written(times)}"


def _multiplied(rates: tuple[Rate, ...], times: float) -> tuple[Rate, ...]:
    """These rates, multiplied; a burst of at least one stays at least one."""
    return tuple([
        Rate(rate.limit * times, rate.period, max(rate.burst * times, min(1, rate.burst))) for rate in rates
    ])


def _divided(rates: tuple[Rate, ...], times: float) -> tuple[Rate, ...]:
    """The rates of which these are multiples: not the product with 1 / times, which is seldom exact."""
    return tuple([
        Rate(rate.limit / times, rate.period, max(rate.burst / times, min(1, rate.burst))) for rate in rates
    ])
