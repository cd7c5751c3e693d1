"""Tokens as time: what a cost and a burst are in the units in which the server adds and compares.

A tier refills one token in ``period / limit``: a fraction of microseconds, of which the denominator gives the
unit in which everything of that tier is counted. So costs of whole tokens are exact. Floats are read as they
are written, 0.1 as a tenth; costs are rounded up to whole units, bursts down.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf
from operator import itemgetter
from struct import Struct, pack

from headgate.adapters.redis import _scripts
from headgate.limit._decision import Decision, with_details
from headgate.limit._rate import checked_rates
from headgate.limit._tables import checked_windows, largest_cost
from headgate.limit._units import checked_amount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, SupportsFloat

    from headgate.limit._rate import Rate, Rates

_MICROSECONDS = 10**6
_MOST_INTERVAL = 2**53 - 1
_MOST_DENOMINATOR = 2**52
_MOST_TIME = 2**52
_MOST_BURST_TIME = 2**51
_MOST_ENTRIES = 10_000
_KEPT_CHARGES = 64


def exact(number: float) -> Fraction:
    """A number as it is written."""
    return Fraction(number if isinstance(number, int) else repr(number))


def _split(units: int, denominator: int) -> tuple[int, int]:
    """Whole microseconds and the rest, at most `_MOST_TIME`."""
    whole, rest = divmod(units, denominator)
    return (whole, rest) if whole < _MOST_TIME else (_MOST_TIME, 0)


class _Tier:
    """One rate in its own units, of which there are `denominator` in a microsecond.

    A limit of 0 has no burst, and what is owed under it is refilled as if it were one a second.
    """

    __slots__ = ("denominator", "interval", "most", "packed_most", "rate", "text")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.text = str(rate)
        period, limit = (exact(rate.period), exact(rate.limit)) if rate.limit else (Fraction(1), 1)
        every = period * _MICROSECONDS / limit
        self.interval, self.denominator = every.as_integer_ratio()
        self.most = int(exact(rate.burst) * self.interval)
        if (
            self.interval > _MOST_INTERVAL
            or self.denominator > _MOST_DENOMINATOR
            or self.most // self.denominator > _MOST_BURST_TIME
        ):
            raise ValueError(f"rate must be countable in microseconds below 2**53, got {self.text!r}")
        self.packed_most = _split(self.most, self.denominator)

    def units(self, tokens: float) -> int:
        """What `tokens` cost."""
        if isinstance(tokens, int):
            return tokens * self.interval
        return -int(-exact(tokens) * self.interval // 1)

    def packed(self, units: int, most: tuple[int, int]) -> bytes:
        return pack("<6d", self.interval, self.denominator, *_split(units, self.denominator), *most)

    def seconds(self, units: int) -> float:
        """The time in which so many units are refilled, in whole microseconds."""
        return -(-units // self.denominator) / _MICROSECONDS

    def outcome(self, owed: int, cost: int) -> tuple[float, float, float, _Tier]:
        """How long a cost has to wait, what remains, and how long anything is owed, in seconds."""
        missing = owed + cost - self.most if cost else 0
        is_never = missing > 0 and not self.rate.limit
        wait = inf if is_never else self.seconds(max(0, missing))
        rest = inf if is_never else self.seconds(owed)
        return wait, max(0, self.most - owed) / self.interval, rest, self


class Tiers:
    """All tiers of a limit, which a key has as one value."""

    __slots__ = ("_charges", "_reply", "largest", "rates", "reply_size", "tiers")

    take, give = _scripts.TAKE, _scripts.GIVE

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        self.rates = rates
        self.tiers = [_Tier(rate) for rate in rates]
        self.largest = largest_cost(rates)
        self._charges: dict[int, bytes] = {}
        self._reply = Struct(f"<Bd{2 * len(rates)}d")
        self.reply_size = self._reply.size

    def checked_cost(self, cost: SupportsFloat) -> float:
        """`cost` as an int or a float, if a key may have it."""
        amount = cost if type(cost) is int and cost >= 0 else checked_amount("cost", cost)
        if amount > self.largest:
            raise ValueError(f"cost must be at most the burst {self.largest!r}, got {cost!r}")
        return amount

    def checked_refund(self, name: str, amount: SupportsFloat) -> float:
        """An amount that may be above the burst."""
        return checked_amount(name, amount)

    def charge(self, cost: float) -> bytes:
        """The tiers as the scripts read them, with their costs and bursts."""
        if type(cost) is not int:
            return self._charge(cost)
        found = self._charges.get(cost)
        if found is None:
            found = self._charge(cost)
            if len(self._charges) < _KEPT_CHARGES:
                self._charges[cost] = found
        return found

    def _charge(self, cost: float) -> bytes:
        return b"".join([
            tier.packed(min(tier.units(cost), tier.most + 1), tier.packed_most) for tier in self.tiers
        ])

    def refund(self, amount: float) -> bytes:
        """The tiers with what is to be given back."""
        return b"".join([tier.packed(tier.units(amount), (0, 0)) for tier in self.tiers])

    def unused(self, cost: float, actual: float) -> bytes:
        """The tiers with what is to be given back of a cost of which only `actual` was used."""
        return b"".join([
            tier.packed(tier.units(cost) - tier.units(actual), _split(tier.units(cost), tier.denominator))
            for tier in self.tiers
        ])

    def doublings(self, most: int, wanted: int) -> bytes:
        """What the script for leases reads besides the tiers."""
        costs = [
            part
            for tier in self.tiers
            for step in range(most.bit_length())
            for tokens in (4 << step, 1 << step)
            for part in _split(tier.units(tokens), tier.denominator)
        ]
        return pack(f"<{2 + len(costs)}d", most, wanted, *costs)

    def allowed(self, reply: bytes, at: int = 0) -> bool:
        """Whether the reply that starts at `at` allows its request."""
        return reply[at] == 1

    def decision(self, reply: bytes, at: int, cost: float) -> Decision:
        """What the reply that starts at `at` says about a request of this cost."""
        allowed, _, *parts = self._reply.unpack_from(reply, at)
        outcomes = []
        for tier, whole, rest in zip(self.tiers, parts[::2], parts[1::2], strict=True):
            owed = int(whole) * tier.denominator + int(rest)
            outcomes.append(tier.outcome(owed, 0 if allowed else tier.units(cost)))
        return _decision(bool(allowed), outcomes)


class Windows:
    """All windows of a strict limit, whose keys are lists of the times of their last tokens."""

    __slots__ = ("_reply", "largest", "rates", "reply_size", "tiers", "windows")

    take, give = _scripts.STRICT_TAKE, _scripts.STRICT_GIVE

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        windows = checked_windows(rates)
        if max([limit for limit, _ in windows]) > _MOST_ENTRIES:
            text = "; ".join(map(str, rates))
            wanted = f"a limit of at most {_MOST_ENTRIES} with strict=True"
            raise ValueError(f"rate must have {wanted}, got {text!r}")
        self.rates = rates
        self.tiers = [_Tier(rate) for rate in rates]
        self.windows = [(limit, max(1, period // 1000)) for limit, period in windows]
        self.largest = largest_cost(rates)
        self._reply = Struct(f"<Bd{4 * len(rates)}d")
        self.reply_size = self._reply.size

    def checked_cost(self, cost: SupportsFloat) -> float:
        """`cost` as an int, if a key may have it."""
        amount = self.checked_refund("cost", cost)
        if amount > self.largest:
            raise ValueError(f"cost must be at most the burst {self.largest!r}, got {cost!r}")
        return amount

    def checked_refund(self, name: str, amount: SupportsFloat) -> float:
        """An amount of whole tokens, which may be above the limit."""
        number = checked_amount(name, amount)
        if number % 1:
            raise ValueError(f"{name} must be whole with strict=True, got {amount!r}")
        return int(number)

    def charge(self, cost: float) -> bytes:
        """The windows as the scripts read them, with the cost."""
        numbers: list[Any] = [part for window in self.windows for part in window]
        return pack(f"<{1 + len(numbers)}d", min(cost, _MOST_TIME), *numbers)

    refund = charge

    def unused(self, cost: float, actual: float) -> bytes:
        """The windows with what is to be given back of a cost of which only `actual` was used."""
        return self.charge(cost - actual)

    def allowed(self, reply: bytes, at: int = 0) -> bool:
        """Whether the reply that starts at `at` allows its request."""
        return reply[at] == 1

    def decision(self, reply: bytes, at: int, cost: float) -> Decision:
        """What the reply that starts at `at` says about a request of this cost."""
        allowed, _, *parts = self._reply.unpack_from(reply, at)
        outcomes, more = [], 0.0
        for tier, (limit, _), *found in zip(
            self.tiers, self.windows, parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True
        ):
            count, wait, rest, one = found
            seconds = [inf if part and not limit else part / _MICROSECONDS for part in (wait, rest)]
            outcomes.append((seconds[0], float(max(0, limit - count)), seconds[1], tier))
            more = max(more, one / _MICROSECONDS)
        decision = _decision(bool(allowed), outcomes)
        return decision if decision.remaining >= 1 else with_details(decision, (), more)


Plan = Tiers | Windows


def plan_of(rate: Rates, burst: SupportsFloat | None, strict: bool) -> Plan:
    """The tiers or windows of a limit."""
    rates = checked_rates(rate, burst)
    return Windows(rates) if strict else Tiers(rates)


def time_of(reply: bytes) -> int:
    """The server's time in a reply, in microseconds."""
    return int(_TIME.unpack_from(reply, 1)[0])


_TIME = Struct("<d")


def _decision(allowed: bool, outcomes: list[tuple[float, float, float, _Tier]]) -> Decision:
    """That of the tier that denies for longest, or else of the one with the least remaining."""
    if allowed:
        _, remaining, rest, tier = outcomes[0] if len(outcomes) == 1 else min(outcomes, key=itemgetter(1))
        return Decision(True, tier.rate.burst, remaining, 0.0, rest, tier.text)
    wait, remaining, rest, tier = max(outcomes, key=itemgetter(0))
    decision = Decision(False, tier.rate.burst, remaining, wait, rest, tier.text)
    violated = tuple([outcome[-1].text for outcome in outcomes if outcome[0]])
    return decision if len(violated) < 2 else with_details(decision, violated)
