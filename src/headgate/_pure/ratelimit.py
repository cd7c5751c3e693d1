"""Rate limits by key in pure Python: a table of fixed size for each tier of the rate.

    key --keyed BLAKE2b--> tag, two lines

    line  | cell | cell | cell | cell | cell | cell | cell | cell |
    cell  | tag: 24 bits | time at which nothing is owed any more: 40 bits |

The cells, and what becomes of them, are those of the compiled twin; the tags stand in one array, which is
searched at the speed of C, and the times in another. A lock takes the place of the compare-and-swap; the
clock and the conversions of arguments, which are foreign code, run before it is taken.
"""

import threading
from array import array
from hashlib import blake2b
from math import inf, ldexp
from operator import itemgetter
from os import urandom
from time import monotonic_ns

from headgate import _waiting
from headgate._clock import checked_clock, checked_now
from headgate._decision import Decision
from headgate._membership import key_bytes
from headgate._rate import checked_rates
from headgate._tables import checked_overflow, count_lines, scale_of, stride_of
from headgate._units import checked_amount, to_units, units_at, wait

_CELLS = 8
_CONTROL = 8
_WORD_SIZE = 8
_TAG_SIZE = 4
_TIMES = 2**40
_HALF = _TIMES // 2
_WORD = 2**64
_PASS = 2**38
_LONG_PAST = 2**37
_MOST_COST = 2**40
_AT, _MISSING, _AHEAD = 1, 6, 8


class _Tier:
    """The table of a tier, its parameters, and the time up to which its lines are swept."""

    __slots__ = (
        "bits",
        "burst",
        "ceiling",
        "epoch",
        "evictions",
        "lines",
        "multiplier",
        "rate",
        "shift",
        "stride",
        "swept",
        "tags",
        "times",
    )

    def __init__(self, rate, lines, now):
        self.rate = rate
        self.bits, self.multiplier, self.shift, self.burst = scale_of(rate)
        self._allot(lines)
        self.lines = lines
        self.stride = stride_of(lines)
        self.epoch = now
        self.ceiling = self.burst

    def _allot(self, lines):
        self.tags = array("I", [0]) * (_CELLS * lines)
        self.times = array("Q", [0]) * (_CELLS * lines)
        self.evictions = 0
        self.swept = 0

    def units(self, now):
        return units_at(now - self.epoch, self.multiplier, self.shift)

    def places(self, hashed):
        """Where the two lines of a key start."""
        lines = self.lines
        return (
            ((hashed >> 32 & 0xFFFF_FFFF) * lines >> 32) * _CELLS,
            ((hashed & 0xFFFF_FFFF) * lines >> 32) * _CELLS,
        )

    def find(self, tag, places):
        """Where the cell of a key is, or None."""
        for start in places:
            if tag in self.tags[start : start + _CELLS]:
                return self.tags.index(tag, start)
        return None

    def earliest(self, places, now):
        """The cell that a new key takes, and its gap."""
        best, least = 0, inf
        for start in places:
            for at in range(start, start + _CELLS):
                gap = self.gap(at, now)
                if gap < least:
                    best, least = at, gap
        return best, least

    def gap(self, at, now):
        """The time of a cell less now; that of a cell never used is earlier than all others."""
        if self.tags[at] == 0:
            return -_TIMES
        return (self.times[at] - now + _HALF) % _TIMES - _HALF

    def look(self, tag, hashed, now_ns, amount, evict):
        """What a request meets: its cost and the debt of its key, the units that are missing, if above 0,
        the debt of the key that it would displace, and the time of its cell if that is too far ahead, or
        if what others have swept is.
        """
        elapsed = now_ns - self.epoch
        if elapsed >= 0:
            now = elapsed * self.multiplier >> self.shift
        else:
            now = units_at(elapsed, self.multiplier, self.shift)
        cost = amount << self.bits if type(amount) is int else to_units(amount, self.bits)
        first, second = places = self.places(hashed)
        tags = self.tags
        if tag in tags[first : first + _CELLS]:
            at = tags.index(tag, first)
        elif tag in tags[second : second + _CELLS]:
            at = tags.index(tag, second)
        else:
            at, gap = self.earliest(places, now)
            inherited = min(max(gap, 0), self.ceiling)
            ahead = self.times[at] if gap > self.ceiling else None
            if inherited and cost and not evict:
                return self, at, now, elapsed, cost, self.burst, inherited, 0, ahead
            return self, at, now, elapsed, cost, 0, 0, inherited, ahead
        ahead = None
        debt = gap = (self.times[at] - now + _HALF) % _TIMES - _HALF
        if gap > self.ceiling:
            debt = self.ceiling
            ahead = self.times[at]
        elif gap < 0:
            debt = 0
            if (self.swept - now + _WORD // 2) % _WORD - _WORD // 2 >= _PASS:
                ahead = self.times[at]
        return self, at, now, elapsed, cost, debt, debt + cost - self.burst if cost else 0, 0, ahead

    def mend(self, charge, now):
        """Cut a time that was seen, and is too far ahead of a clock that was read later."""
        at, ahead = charge[_AT], charge[_AHEAD]
        if self.times[at] == ahead and self.gap(at, now) > self.ceiling:
            self.times[at] = (now + self.ceiling) % _TIMES

    def take(self, tag, charge):
        """Write what an allowed request owes. Who takes the cell of another takes over his debt as well."""
        _, at, now, _, cost, debt, _, inherited, _ = charge
        if inherited > 0:
            self.evictions += 1
        self.tags[at] = tag
        self.times[at] = (now + max(debt + cost, inherited)) % _TIMES

    def give(self, tag, hashed, now, back):
        """Give back at most `back` of what a key owes."""
        at = self.find(tag, self.places(hashed))
        gap = 0 if at is None else self.gap(at, now)
        if gap > 0 and back > 0:
            self.times[at] = (self.times[at] - min(back, gap)) % _TIMES

    def restamp(self, line, now, gap, everything):
        """Set the times of a line to ``now + gap``: those long past, or all of them."""
        start = line * _CELLS
        for at, tag in enumerate(self.tags[start : start + _CELLS], start):
            if tag and (everything or self.gap(at, now) < -_LONG_PAST):
                self.times[at] = (now + gap) % _TIMES

    def sweep(self, now, certain):
        """Sweep the lines that are due; False if the clock is far behind and the caller is not certain."""
        lag = (now - self.swept + _WORD // 2) % _WORD - _WORD // 2
        if -_PASS < lag < 0:
            return True
        if lag < 0 and not certain:
            return False
        everything = not 0 <= lag < _PASS
        due = lag >> self.stride
        gap = self.ceiling if lag < 0 else -_LONG_PAST
        first = (self.swept >> self.stride) % self.lines
        for offset in range(self.lines if everything else min(due, self.lines)):
            self.restamp((first + offset) % self.lines, now, gap, everything)
        self.swept = now if everything else self.swept + (due << self.stride)
        return True

    def rescaled(self, rate, now_ns):
        """This table in the units of `rate`, with the debts of all cells."""
        table = _Tier(rate, self.lines, self.epoch)
        before, now = self.units(now_ns), table.units(now_ns)
        for at, tag in enumerate(self.tags):
            owed = min(self.gap(at, before), self.ceiling) if tag else 0
            if owed > 0:
                owed = min(_LONG_PAST, -(-(owed << table.bits) >> self.bits))
                table.ceiling = max(table.ceiling, owed)
                table.tags[at] = tag
                table.times[at] = (now + owed) % _TIMES
        table.swept = now
        table.evictions = self.evictions
        return table


class _SharedTags:
    """The tags of a shared table, with what a tier needs of an array."""

    __slots__ = ("_words",)

    def __init__(self, words):
        self._words = words

    def __len__(self):
        return len(self._words)

    def __getitem__(self, at):
        return self._words[at]

    def __setitem__(self, at, tag):
        self._words[at] = tag

    def index(self, tag, start):
        return start + self._words[start : start + _CELLS].tolist().index(tag)


class _SharedTier(_Tier):
    """A tier whose table, and the words that control it, lie in a file."""

    __slots__ = ("_control", "_memory")

    def __init__(self, rate, memory, lines, epoch):
        self._memory = memory
        super().__init__(rate, lines, epoch)

    def _allot(self, lines):
        words = _WORD_SIZE * (_CONTROL + _CELLS * lines)
        self._control = self._memory[: _WORD_SIZE * _CONTROL].cast("Q")
        self.times = self._memory[_WORD_SIZE * _CONTROL : words].cast("Q")
        self.tags = _SharedTags(self._memory[words:].cast("I"))

    @property
    def swept(self):
        return self._control[0]

    @swept.setter
    def swept(self, units):
        self._control[0] = units % _WORD

    @property
    def evictions(self):
        return self._control[1]

    @evictions.setter
    def evictions(self, count):
        self._control[1] = count


class RateLimiter:
    """At most so many requests in so long for each key, in memory of fixed size.

    `rate` is a rate or several tiers of them, each of which must allow a request: ``"10/s"``,
    ``"5 per 10 seconds"``, ``"1/s; 5/10s; 10/min"``, `Rate` objects. A request takes its cost at every tier
    or nothing at any; a denied one changes nothing. `burst` is how many may come at once, if it is not the
    limit of a single rate. Over any interval of t seconds a key is allowed at most
    ``burst + t * limit / period``, so up to twice the limit within one period.

    Keys are str, bytes or int. They are not kept: a keyed hash of 24 bits finds a cell among sixteen, and
    two keys may share one, with odds of one in a million. `max_keys` keys that owe something have room, in
    16 bytes a key and tier that are set aside from the start. When all sixteen cells are in use, the key that
    owes least gives way to a new one (`on_full` is ``"evict"``), which is allowed but takes over that debt,
    or else the new key is denied (``"deny"``). `clock` is a callable that answers integer nanoseconds, by
    default the monotonic clock.

    `path` names a file, best in /dev/shm, through which all processes of a host have one limit; it is made
    with the permissions `mode`. All must give the same settings. One that is killed loses what it was about
    to take, at most. The limit outlives the processes, but not the system: after a restart nothing is owed.

    Raises ValueError if `rate` says no rate, if `burst` is given with several tiers, if `max_keys` or
    `on_full` is unknown or out of range, or if `path` is a file of something else, of other settings, of the
    other twin or with another mode; TypeError if an argument has a wrong type; OSError if the file cannot
    be opened or has no room.

    Source: the generic cell rate algorithm of ITU-T I.371, as virtual scheduling.

    Complexity: O(tiers) for a decision.

    >>> limiter = RateLimiter("2/s", clock=lambda: 0)
    >>> limiter.allow("ann"), limiter.allow("ann"), limiter.allow("ann"), limiter.allow("bob")
    (True, True, False, True)
    >>> limiter
    RateLimiter('2/s')
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_evict",
        "_keyed",
        "_largest",
        "_lock",
        "_max_keys",
        "_table",
        "_tiers",
        "_waiting",
    )

    def __init__(
        self,
        rate,
        *,
        burst=None,
        max_keys=1_000_000,
        path=None,
        mode=0o600,
        on_full="evict",
        clock=None,
    ):
        rates = checked_rates(rate, burst)
        lines = count_lines(max_keys)
        self._evict = checked_overflow(on_full)
        self._clock = checked_clock(clock)
        self._max_keys = max_keys
        self._waiting = _waiting.Lines()
        now = self._now_ns()
        if path is None:
            self._table = None
            self._lock = threading.Lock()
            self._keyed = blake2b(key=urandom(16), digest_size=11)
            self._offer([_Tier(tier, lines, now) for tier in rates])
            return
        size = _WORD_SIZE * (_CONTROL + _CELLS * lines) + _TAG_SIZE * _CELLS * lines
        from headgate._shared import shared_limiter

        table = shared_limiter(path, mode, "pure", rates, max_keys, on_full, size, now)
        self._table = self._lock = table
        self._keyed = blake2b(key=table.secret, digest_size=11)
        cells = memoryview(table.map)[-size * len(rates) :]
        parts = [cells[size * at : size * (at + 1)] for at in range(len(rates))]
        self._offer([_SharedTier(*tier, lines, table.epoch) for tier in zip(rates, parts, strict=True)])

    def _offer(self, tiers):
        self._tiers = tiers
        self._largest = min([tier.rate.burst for tier in tiers])

    def _now_ns(self):
        return monotonic_ns() if self._clock is None else checked_now(self._clock())

    def _swept(self):
        """Now, when all lines are swept that are due; a time far back is believed when it is read twice."""
        now = monotonic_ns() if self._clock is None else checked_now(self._clock())
        for tier in self._tiers:
            if ((now - tier.epoch) * tier.multiplier >> tier.shift) - tier.swept >> tier.stride:
                return now if self._sweep(now, False) else self._swept_back()
        return now

    def _swept_back(self):
        now = self._now_ns()
        self._sweep(now, True)
        return now

    def _sweep(self, now, certain):
        with self._lock:
            return False not in [tier.sweep(tier.units(now), certain) for tier in self._tiers]

    def _locate(self, key):
        """The tag of a key, and the hash that gives its lines."""
        keyed = self._keyed.copy()
        keyed.update(key_bytes(key, "key"))
        hashed = int.from_bytes(keyed.digest(), "little")
        return hashed >> 64 or 1, hashed

    def _charge(self, key, cost, take):
        """Ask every tier; with `take`, charge all of them or none. Whether all allow, and what each said."""
        amount = cost if type(cost) is int and cost >= 0 else checked_amount("cost", cost)
        if amount > self._largest:
            raise ValueError(f"cost must be at most the burst {self._largest!r}, got {cost!r}")
        tag, hashed = self._locate(key)
        now = self._swept()
        while True:
            allowed, ahead, charges = True, False, []
            with self._lock:
                for tier in self._tiers:
                    charge = tier.look(tag, hashed, now, amount, self._evict)
                    charges.append(charge)
                    if charge[_MISSING] > 0:
                        allowed = False
                    if charge[_AHEAD] is not None:
                        ahead = take
                if take and allowed and amount and not ahead:
                    for charge in charges:
                        charge[0].take(tag, charge)
            if not ahead:
                return allowed, charges
            now = self._swept()
            self._mend(now, charges)

    def _mend(self, now, charges):
        """Cut the times that are too far ahead of the clock, as it was read after they were."""
        with self._lock:
            for charge in charges:
                tier = charge[0]
                if charge[_AHEAD] is not None:
                    tier.mend(charge, tier.units(now))

    def _decision(self, allowed, charges, taken):
        """Of the tiers that deny the one that does so for longest, or the one with the least left."""
        answers = []
        for tier, _, _, elapsed, cost, debt, missing, _, _ in charges:
            owed = debt + cost if taken and allowed else debt
            wait_ns = wait(elapsed, missing, tier.multiplier, tier.shift)
            left = ldexp(max(0, tier.burst - owed), -tier.bits)
            reset = wait(elapsed, owed, tier.multiplier, tier.shift)
            answers.append((wait_ns, left, reset, tier.rate))
        if allowed:
            _, left, reset, rate = min(answers, key=itemgetter(1))
            return Decision(True, rate.burst, left, 0.0, reset / 1e9, str(rate))
        wait_ns, left, reset, rate = max(answers, key=itemgetter(0))
        return Decision(False, rate.burst, left, wait_ns / 1e9, reset / 1e9, str(rate))

    def allow(self, key, cost=1):
        """Take `cost` for `key` if every tier has it; True if so.

        Raises TypeError or ValueError if `key` is no key, ValueError if `cost` is negative, not finite or
        above the smallest burst. A cost of 0 is always allowed. Complexity: O(tiers).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.allow("ann", 3), limiter.allow("ann", 2)
        (True, False, True)
        """
        return self._charge(key, cost, True)[0]

    def decide(self, key, cost=1):
        """Take `cost` for `key` if every tier has it, and say how matters stand, as a `Decision`.

        It speaks for the tier that denies for longest, or else for the one with the least remaining.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s; 10/min", clock=lambda: 0)
        >>> limiter.decide("ann").policy
        '2/s'
        >>> limiter.decide("ann").remaining
        0.0
        >>> limiter.decide("ann").retry_after
        0.5
        """
        return self._decision(*self._charge(key, cost, True), True)

    def peek(self, key, cost=1):
        """What ``decide`` would answer, but without taking anything.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.peek("ann").remaining, limiter.peek("ann").remaining
        (2.0, 2.0)
        """
        return self._decision(*self._charge(key, cost, False), False)

    def refund(self, key, cost=1):
        """Give back `cost` of what `key` owes, at every tier, as when a request came to nothing.

        More than is owed is not given. Requests that were refunded late do not count, so more than the rate
        may have been allowed while they were under way.

        Raises what ``allow`` raises, but a cost may be above the burst. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.refund("ann"), limiter.peek("ann").remaining
        (True, None, 1.0)
        """
        self._give(key, checked_amount("cost", cost))

    def reset(self, key):
        """Forget what `key` owes.

        Raises TypeError or ValueError if `key` is no key. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.reset("ann"), limiter.allow("ann", 2)
        (True, None, True)
        """
        self._give(key, _MOST_COST)

    def _give(self, key, amount):
        self._charge(key, 0, True)  # mends a time that is too far ahead
        tag, hashed = self._locate(key)
        now = self._swept()
        with self._lock:
            for tier in self._tiers:
                tier.give(tag, hashed, tier.units(now), to_units(min(amount, _MOST_COST), tier.bits))

    def acquire(self, key, cost=1, timeout=None):
        """Wait until `cost` can be taken for `key`; False if `timeout` seconds are too few.

        Those who wait for one key are served in the order in which they came, in this process. The thread
        sleeps; other threads and event loops go on. ``allow`` does not queue and may take what comes in
        between.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.

        >>> limiter = RateLimiter("2/h")
        >>> limiter.acquire("ann", 2), limiter.acquire("ann", timeout=5)
        (True, False)
        """
        return _waiting.acquire_key(self, self._waiting, key, cost, timeout)

    def acquire_async(self, key, cost=1, timeout=None):
        """``acquire`` for coroutines, on any event loop; cancelling gives the place back.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimiter("2/s").acquire_async("ann"))
        True
        """
        return _waiting.acquire_key_async(self, self._waiting, key, cost, timeout)

    def reconfigure(self, rate, *, burst=None):
        """Set another rate; what is owed at a tier is owed at the tier in its place, up to 32 bursts.

        Raises what the constructor raises, ValueError if processes share the limit. Complexity: O(max_keys).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.reconfigure("20/s"), limiter.peek("ann").remaining
        (True, None, 12.0)
        """
        rates = checked_rates(rate, burst)
        if self._table is not None:
            raise ValueError(self._table.refusal)
        lines = self._tiers[0].lines
        now = self._swept()
        with self._lock:
            kept = zip(self._tiers, rates, strict=False)
            tiers = [tier.rescaled(changed, now) for tier, changed in kept]
            tiers += [_Tier(changed, lines, now) for changed in rates[len(tiers) :]]
            self._offer(tiers)

    @property
    def rates(self):
        """The tiers, a tuple of `Rate`.

        >>> RateLimiter("1/s; 10/min").rates
        (Rate(limit=1, period=1, burst=1), Rate(limit=10, period=60, burst=10))
        """
        return tuple([tier.rate for tier in self._tiers])

    @property
    def max_keys(self):
        """How many keys that owe something have room.

        >>> RateLimiter("1/s").max_keys
        1000000
        """
        return self._max_keys

    @property
    def evictions(self):
        """How often a key that owed something gave way to another.

        >>> RateLimiter("1/s").evictions
        0
        """
        return sum([tier.evictions for tier in self._tiers])

    def _delay(self, key, cost):
        """Seconds until `cost`, however much, can have come for `key`."""
        _, charges = self._charge(key, 0, False)
        waits = [
            wait(elapsed, debt + int(cost * 2**tier.bits) - tier.burst, tier.multiplier, tier.shift)
            for tier, _, _, elapsed, _, debt, _, _, _ in charges
        ]
        return max(waits) / 1e9

    def __sizeof__(self):
        return object.__sizeof__(self) + sum(
            [tier.tags.__sizeof__() + tier.times.__sizeof__() for tier in self._tiers]
        )

    def __repr__(self):
        return f"{type(self).__name__}({'; '.join(map(str, self.rates))!r})"

    def __reduce__(self):
        raise TypeError("a RateLimiter cannot be copied or pickled: its state belongs to one clock")

    def _check(self):
        self._swept()
        for tier in self._tiers:
            assert (tier.bits, tier.multiplier, tier.shift, tier.burst) == scale_of(tier.rate)
            assert 0 < tier.burst <= tier.ceiling
            assert tier.lines == count_lines(self._max_keys)
            for start in range(0, len(tier.tags), _CELLS):
                tags = list(tier.tags[start : start + _CELLS])
                assert len(set(tags) - {0}) == _CELLS - tags.count(0)
