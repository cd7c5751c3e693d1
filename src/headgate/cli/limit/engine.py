"""Rate limiters whose clock is that of a log."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from headgate.cli.simulate.records import Chunk
from headgate.limit._networks import address_prefix
from headgate.limit._rate import checked_rates
from headgate.limit._tables import checked_windows, count_lines
from headgate.limit.keyed import RateLimiter

TOO_LARGE = "cost above the burst"
_WIDTHS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600, 43200, 86400, 604800)
_MOST_BINS = 1000
_NANOSECONDS = 10**9


class Timeline:
    """Counts of events in spans of time; spans are widened so that their number stays bounded."""

    def __init__(self) -> None:
        self.width = _WIDTHS[0]
        self.bins: Counter[int] = Counter()

    def add(self, moment: int) -> None:
        self.bins[moment // (self.width * _NANOSECONDS)] += 1
        if len(self.bins) > _MOST_BINS:
            wider = next_width(self.width)
            self.width, self.bins = wider, self.widened(wider)

    def widened(self, width: int) -> Counter[int]:
        """The counts in spans of `width` seconds, a multiple of the current width."""
        factor = width // self.width
        wider: Counter[int] = Counter()
        for at, count in self.bins.items():
            wider[at // factor] += count
        return wider


def next_width(width: int) -> int:
    """The next larger width in seconds, a multiple of `width`."""
    return next((wider for wider in _WIDTHS if wider > width), 2 * width)


class Traffic:
    """All requests, allowed or not; a line is `late` if its time is before that of a previous line."""

    def __init__(self) -> None:
        self.requests = 0
        self.late = 0
        self.start = 0
        self.end = 0
        self.by_key: Counter[Any] = Counter()
        self.timeline = Timeline()

    def add(self, key: Any, moment: int) -> None:
        if not self.requests:
            self.start = self.end = moment
        self.requests += 1
        self.late += moment < self.end
        self.end = max(self.end, moment)
        self.by_key[key] += 1
        self.timeline.add(self.end)


class Trial:
    """One rate, and the requests it denied."""

    def __init__(self, rate: str, max_keys: int, strict: bool) -> None:
        self.rates = checked_rates(rate, None)
        if strict:
            checked_windows(self.rates)
        self.rate = "; ".join(map(str, self.rates))
        self.denied = 0
        self.by_key: Counter[Any] = Counter()
        self.by_tier: Counter[str] = Counter()
        self.timeline = Timeline()
        self._largest = min(tier.burst for tier in self.rates)
        self._max_keys = max_keys
        self._strict = strict
        count_lines(max_keys)
        self._now = 0
        self._limiter: RateLimiter | None = None

    def request(self, key: Any, limited: bytes | int, cost: int, now: int) -> None:
        """Decide one request of `key`; `limited` is the same key in the form that the limiter takes."""
        self._now = now
        if self._limiter is None:
            self._limiter = RateLimiter(
                self.rates, max_keys=self._max_keys, strict=self._strict, clock=lambda: self._now
            )
        if cost > self._largest:
            self._deny(key, TOO_LARGE)
        elif not self._limiter.allow(limited, cost):
            self._deny(key, self._limiter.peek(limited, cost).policy)

    def _deny(self, key: Any, tier: str) -> None:
        self.denied += 1
        self.by_key[key] += 1
        self.by_tier[tier] += 1
        self.timeline.add(self._now)

    @property
    def evictions(self) -> int:
        return 0 if self._limiter is None else self._limiter.evictions


def networks(v4: int | None, v6: int | None) -> Callable[[Any], Any]:
    """A function that maps addresses to their networks; it keeps other keys, or all if no length is given."""
    if v4 is None and v6 is None:
        return lambda key: key
    lengths = 32 if v4 is None else v4, 64 if v6 is None else v6
    address_prefix("unix", *lengths)

    @lru_cache(maxsize=100_000)
    def network(key: Any) -> Any:
        try:
            return address_prefix(key, *lengths)
        except ValueError:
            return key

    return network


def feed(
    chunks: Iterable[Chunk],
    trials: Sequence[Trial],
    step: Callable[[str], None],
    key_of: Callable[[Any], Any],
) -> Traffic:
    """Replay all requests through all trials; a time that steps back counts as the latest time before it."""
    traffic = Traffic()
    for chunk in chunks:
        costs = chunk.weights or [1] * len(chunk.keys)
        for key, cost, moment in zip(map(key_of, chunk.keys), costs, chunk.times or (), strict=True):
            traffic.add(key, moment)
            limited = key.encode(errors="backslashreplace") if isinstance(key, str) else key
            for trial in trials:
                trial.request(key, limited, cost, traffic.end)
        step(f"{traffic.requests:,} requests")
    return traffic
