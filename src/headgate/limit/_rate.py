"""Rates: a number of requests in a period, and their text."""

from __future__ import annotations

from collections import namedtuple
from functools import lru_cache

from headgate._base.checks import checked_number
from headgate._base.durations import DAY, HOUR, MINUTE, number_in, refuse_month, seconds_in
from headgate.limit._units import checked_positive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple, SupportsFloat, TypeAlias

    Rates: TypeAlias = "str | Rate | Iterable[str | Rate]"

    class _Fields(NamedTuple):
        limit: float
        period: float
        burst: float
else:
    _Fields = namedtuple("_Fields", "limit period burst")

_WRITTEN = {"day": DAY, "h": HOUR, "min": MINUTE}
_MOST_BURST = 2**32
_MOST_RATE = 1e18
_MOST_TIERS = 8


class Rate(_Fields):
    """`limit` requests in `period` seconds, of which `burst` may come at once; by default all of them,
    but one at least. A limit of 0 denies every request.

    Raises ValueError if a number is not positive, not finite or too large to count, or if there is a burst
    with a limit of 0; TypeError if it is none.

    >>> Rate(10, 60)
    Rate(limit=10, period=60, burst=10)
    >>> str(Rate(10, 60)), str(Rate(5, 10, burst=20))
    ('10/min', '5/10s, burst 20')
    """

    __slots__ = ()

    def __new__(cls, limit: SupportsFloat, period: SupportsFloat, burst: SupportsFloat | None = None) -> Rate:
        seconds = checked_positive("period", period)
        if checked_number("limit", limit) == 0:
            if burst:
                raise ValueError(f"burst must be None with a limit of 0, got {burst!r}")
            return super().__new__(cls, 0, seconds, 0)
        amount = checked_positive("limit", limit)
        most = checked_positive("burst", max(1, amount) if burst is None else burst)
        if most > _MOST_BURST:
            raise ValueError(f"burst must be at most {_MOST_BURST}, got {most!r}")
        if amount / seconds > _MOST_RATE:
            raise ValueError(f"limit / period must be at most {_MOST_RATE:g}, got {amount!r} / {seconds!r}")
        return super().__new__(cls, amount, seconds, most)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse `text` as a rate: ``"10/s"``, ``"5 per 10 seconds"``, ``"100/min, burst 200"``.

        Units are ms, s, min, h, day and week, their first letters (m is a minute) and their names.

        Raises ValueError if it is not the text of a rate, TypeError if it is not a str.

        >>> Rate.parse("5 per 10 seconds")
        Rate(limit=5, period=10, burst=5)
        """
        if not isinstance(text, str):
            raise TypeError(f"rate must be a str, got {text!r}")
        amount, _, burst = text.lower().partition(",")
        limit, _, period = amount.replace(" per ", "/").partition("/")
        try:
            refuse_month(text)
            most = number_in(_after("burst", burst)) if burst else None
            numbers = number_in(limit), seconds_in(period), most
        except ValueError as error:
            examples = "'10/s', '5/10s' or '100/min, burst 200'"
            raise ValueError(f"rate must be like {examples}, got {text!r}{_hint(text)}") from error
        try:
            return cls(*numbers)
        except ValueError as error:
            raise ValueError(f"{error} in {text!r}") from None

    def __str__(self) -> str:
        return text_of(self)


def checked_rates(rate: Rates, burst: SupportsFloat | None) -> tuple[Rate, ...]:
    """The tiers of `rate`: a rate or several, as text with ``;`` between them or as objects.

    Objects are checked once more, since what ``_replace`` makes is not.
    """
    if isinstance(rate, str):
        rates = _tiers(rate)
    elif isinstance(rate, Rate):
        rates = (Rate(*rate),)
    else:
        try:
            rates = tuple(Rate(*tier) if isinstance(tier, Rate) else Rate.parse(tier) for tier in rate)
        except TypeError:
            raise TypeError(f"rate must be a str, a Rate or several of them, got {rate!r}") from None
    if not 1 <= len(rates) <= _MOST_TIERS:
        raise ValueError(f"rate must have 1 to {_MOST_TIERS} tiers, got {len(rates)}")
    if burst is None:
        return rates
    if len(rates) > 1:
        raise ValueError(f"burst must be None with several tiers, got {burst!r}")
    return (Rate(rates[0].limit, rates[0].period, burst),)


def _tiers(text: str) -> tuple[Rate, ...]:
    tiers = text.split(";")
    try:
        return tuple(map(Rate.parse, tiers))
    except ValueError as error:
        raise ValueError(f"{error} in {text!r}" if len(tiers) > 1 else str(error)) from error


def _hint(text: str) -> str:
    """What is often meant by a text that is not a rate."""
    if "|" in text or text.count("/") > 1:
        return ": tiers are separated by ';'"
    if text.rstrip().removesuffix("s").endswith("month"):
        return ": a month has no length of its own, say '30day'"
    return ": 'M' may be a minute or a month, say 'min' or '30day'" if text.rstrip().endswith("M") else ""


def _after(word: str, text: str) -> str:
    text = text.strip()
    if not text.startswith(word):
        raise ValueError(f"expected {word}, got {text!r}")
    return text.removeprefix(word)


@lru_cache(maxsize=256)
def text_of(rate: Rate) -> str:
    """The text of a rate, which every decision has."""
    text = f"{written(rate.limit)}/{_written_period(rate.period)}"
    usual = max(1, rate.limit) if rate.limit else 0
    return text if rate.burst == usual else f"{text}, burst {written(rate.burst)}"


def written(number: float) -> str:
    """A number as rates are written."""
    return str(int(number) if number == int(number) else number)


def _written_period(seconds: float) -> str:
    unit, size = next(((unit, size) for unit, size in _WRITTEN.items() if seconds % size == 0), ("s", 1))
    count = seconds / size if size > 1 else seconds
    return unit if count == 1 else written(count) + unit
