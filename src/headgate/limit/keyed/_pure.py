"""Rate limits by key in pure Python: a table of fixed size for each tier of the rate.

    key --keyed hash--> tag, two lines

    line  | cell | cell | cell | cell | cell | cell | cell | cell |
    cell  | tag: 22 bits | parity of its generation, time at which nothing is owed any more: 41 bits |

The cells, and the rules for them, are those of the compiled twin; the tags of a table are stored behind its
times, and are searched at the speed of C. The system provides its memory as it is used. A lock takes the
place of the compare-and-swap; the clock and the conversions of arguments, which are foreign code, run before
the lock is taken.

A finalizer or a signal handler may use the limiter wherever Python calls or returns, even during a write. So
the lock is re-entrant, `edits` counts the writes, and a call that writes first checks that the count is still
the one under which it has read, with no call between the two; if not, it starts over.

A strict limiter has one table, whose cells are the heads of logs of the times, in nanoseconds, of the last
requests of each key:

    log   | time | time | ... |         one per token of the largest limit, for all tiers together

The compiled twin keeps a log in no order, since many processes may write to it at once; here it is a ring.
"""

import os
from operator import itemgetter
from time import monotonic_ns

from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, under
from headgate._base.keys import key_bytes
from headgate._base.pickling import initialized
from headgate.limit import _waiting
from headgate.limit._decision import Decision, with_details
from headgate.limit._rate import checked_rates
from headgate.limit._tables import (
    checked_mismatch,
    checked_overflow,
    checked_windows,
    count_lines,
    scale_of,
    tables_of,
)
from headgate.limit._units import checked_amount
from headgate.limit.keyed._log import _log_length, _Logs
from headgate.limit.keyed._switching import _Switching
from headgate.limit.keyed._table import (
    _AHEAD,
    _CELLS,
    _INT,
    _MISSING,
    _MOST_COST,
    _STR,
    _hash_anywhere,
    _hash_in_process,
    _private_memory,
    _table_size,
    _Tier,
)
from headgate.limit.reservation._pure import Reservation


class RateLimiter(_Switching):
    """A rate limit for each key, in memory of fixed size.

    `rate` is a rate or several tiers of them, each of which must allow a request: ``"10/s"``,
    ``"5 per 10 seconds"``, ``"1/s; 5/10s; 10/min"``, `Rate` objects. A request takes its cost at every tier
    or at none; a denied one changes nothing. `burst` is how many may come at once, if that is not the limit
    of a single rate. Over any interval of t seconds a key is allowed at most
    ``burst + t * limit / period``, so up to twice the limit within one period.

    With `strict` a key is never allowed more than the limit in any interval as long as the period: the times
    of its last requests are kept, exact to the nanosecond, in 16 bytes for each of the limit and each of
    `max_keys`, once for all tiers. Limits and costs are then whole numbers, and no burst is given.

    Keys are str, bytes or int; a str and its bytes are different keys. They are not stored: a keyed hash of
    22 bits finds a cell among sixteen, and two keys may share one, with a probability of four in a million.
    `max_keys` keys may owe something at once, in 16 bytes per key and tier, reserved from the start. When all
    sixteen cells are in use, a new key evicts the one that owes least (`on_full` is ``"evict"``): it is
    allowed but takes over that debt; or else it is denied (``"deny"``). `clock` is a callable that returns
    integer nanoseconds, by default the monotonic clock.

    `path` names a file, best in /dev/shm, through which all processes of a host share one limit; it is
    created with the permissions `mode`. All must give the same settings, but with ``on_mismatch="adopt"`` the
    rate of an existing file takes the place of `rate`. A process that is killed loses at most what it was
    about to take. The limit outlives the processes, but not the system: after a restart nothing is owed.

    Raises ValueError if `rate` is not a rate, or not one that can be `strict`, if `burst` is given with
    several tiers, if `max_keys` or `on_full` is unknown or out of range, or if `path` is a file of another
    kind, with other settings, of the other twin or with another mode; TypeError if an argument has a wrong
    type; OSError if the file cannot be opened or there is no space for it.

    Source: the generic cell rate algorithm of ITU-T I.371, as virtual scheduling.

    Complexity: O(tiers) for a decision, O(tiers * limit) if it is strict.

    >>> limiter = RateLimiter("2/s", clock=lambda: 0)
    >>> limiter.allow("ann"), limiter.allow("ann"), limiter.allow("ann"), limiter.allow("bob")
    (True, True, False, True)
    >>> limiter
    RateLimiter('2/s')
    >>> minute = RateLimiter("100/min", strict=True, max_keys=10, clock=lambda: 0)
    >>> minute.allow("ann", 100), minute.decide("ann").retry_after
    (True, 60.0)
    """

    __slots__ = (
        "__weakref__",
        "_evict",
        "_hash",
        "_max_keys",
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
        strict=False,
        on_mismatch="raise",
        clock=None,
    ):
        rates = checked_rates(rate, burst)
        adopt = checked_mismatch(on_mismatch)
        length = _log_length(rates, strict)
        lines = count_lines(max_keys)
        if hasattr(self, "_tiers"):
            raise initialized(self)
        self._evict = checked_overflow(on_full)
        self._clock = checked_clock(clock)
        self._max_keys = max_keys
        self._strict = bool(strict)
        self._waiting = _waiting.Queues()
        self._edits = [0]
        now = self._now_ns()
        if path is None:
            self._table = None
            self._locked = under(new_lock())
            self._hash = _hash_in_process(os.urandom(16))
            if strict:
                self._publish(rates, [_Logs(rates, _private_memory(lines, length), 0, lines, now)], 0)
            else:
                tiers = [_Tier(tier, _private_memory(lines, 0), 0, lines, now) for tier in rates]
                self._publish(rates, tiers, 0)
            return
        from headgate.limit._files import shared_limiter

        def size_of(rates, entries):
            return _table_size(lines, entries) * (1 if strict else len(rates))

        table = shared_limiter(
            path, mode, "pure", rates, max_keys, on_full, self._strict, size_of, now, adopt
        )
        self._hash = _hash_anywhere(table.secret)
        self._share(table, lines, self._strict, self._clock)

    def _sweep_now(self):
        """Sweep the lines that are due and return now; a time far back is accepted if it is read twice."""
        now = monotonic_ns() if self._clock is None else checked_now(self._clock())
        for tier in self._tiers:
            if ((now - tier.epoch) * tier.multiplier >> tier.shift) - tier.swept >> tier.stride:
                return now if self._sweep(now, False) else self._sweep_again()
        return now

    def _sweep_again(self):
        now = self._now_ns()
        self._sweep(now, True)
        return now

    def _sweep(self, now, certain):
        return self._locked(self._renewed, self._sweep_all, now, certain)

    def _sweep_all(self, now, certain):
        return False not in [tier.sweep(tier.units(now), certain) for tier in self._tiers]

    def _locate(self, key):
        """The tag of a key, and the hash that gives its lines, different for a str, bytes and an int."""
        kind = _STR if isinstance(key, str) else 0 if isinstance(key, bytes) else _INT
        hashed = self._hash(key_bytes(key, "key")) ^ kind
        return hashed >> 66 or 1, hashed

    def _charge(self, key, cost, take, fully=False):
        """Decide for every tier; with `take`, charge all of them or none.

        Returns whether all allow, and the charge of each: complete enough for ``_decision`` if `fully`.
        """
        amount = cost if type(cost) is int and cost >= 0 else checked_amount("cost", cost)
        if amount > self._largest:
            self._locked(self._renewed, self._check_cost, cost, amount)
        self._check_whole(cost, amount)
        tag, hashed = self._locate(key)
        now = self._sweep_now()
        while True:
            allowed, ahead, charges = self._locked(self._attempt, tag, hashed, now, amount, take, fully)
            if not ahead:
                return allowed, charges
            now = self._sweep_now()
            self._locked(self._renewed, self._clamp, now, charges)

    def _check_cost(self, cost, amount):
        """Raise if a cost is above the smallest burst."""
        if amount > self._largest:
            raise ValueError(f"cost must be at most the burst {self._largest!r}, got {cost!r}")

    def _attempt(self, tag, hashed, now, amount, take, fully):
        """What ``_charge`` returns, and whether a time must be clamped first."""
        while True:
            if self._table is not None and self._prepare(hashed, now):
                self._check_cost(amount, amount)
            allowed, ahead, charges, edit = True, False, [], self._edits[0]
            if self._table is not None and self._is_overtaken():
                continue
            for tier in self._tiers:
                charge = tier.decide(tag, hashed, now, amount, self._evict, fully)
                charges.append(charge)
                if charge[_MISSING] > 0:
                    allowed = False
                if charge[_AHEAD] is not None:
                    ahead = take
            if not (take and allowed and amount) or ahead or self._take(tag, charges, edit):
                return allowed, ahead, charges

    def _is_overtaken(self):
        """Whether the rate has been switched, or a fork has freed the file, which is taken again."""
        is_free = self._edits[1]
        if is_free:
            self._table.retake()
        return is_free or self._switches[0] != self._tiers[0].generation

    def _take(self, tag, charges, edit):
        """Charge all tiers; False, and none is charged, if something was written since `edit`."""
        for charge in charges:
            if not charge[0].take(tag, charge, edit):
                for other in charges[: charges.index(charge)]:
                    other[0].undo(tag, other)
                return False
            edit += 1
        return True

    def _check_whole(self, cost, amount):
        if self._strict and amount % 1:
            raise ValueError(f"cost must be whole with strict=True, got {cost!r}")

    def _clamp(self, now, charges):
        """Clamp the times that are too far ahead of the clock, which was read after them."""
        for charge in charges:
            tier = charge[0]
            if charge[_AHEAD] is not None and tier in self._tiers:
                tier.clamp(charge, now)

    def _decision(self, taken, allowed, charges):
        """That of the tier that denies for longest, or else of the one with the least remaining."""
        outcomes = []
        for charge in charges:
            outcomes += charge[0].outcomes(charge, taken and allowed)
        if allowed:
            _, remaining, reset, rate = min(outcomes, key=itemgetter(1))
            return Decision(True, rate.burst, remaining, 0.0, reset / 1e9, str(rate))
        wait_ns, remaining, reset, rate = max(outcomes, key=itemgetter(0))
        decision = Decision(False, rate.burst, remaining, wait_ns / 1e9, reset / 1e9, str(rate))
        violated = tuple([str(outcome[-1]) for outcome in outcomes if outcome[0]])
        return decision if len(violated) < 2 else with_details(decision, violated)

    def _with_more(self, key, decision):
        """With the time until one more token is available, which for a strict limit only the log gives."""
        if not self._strict or decision.remaining >= 1:
            return decision
        one = self._decision(False, *self._charge(key, 1, False, True))
        return with_details(decision, (), one.retry_after)

    def allow(self, key, cost=1):
        """Take `cost` for `key` if every tier allows it; True if so.

        Raises TypeError or ValueError if `key` is not a valid key, ValueError if `cost` is negative, not
        finite, above the smallest burst, or not whole where the limiter is strict. A cost of 0 is always
        allowed. Complexity: O(tiers).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.allow("ann", 3), limiter.allow("ann", 2)
        (True, False, True)
        """
        return self._charge(key, cost, True)[0]

    def decide(self, key, cost=1):
        """Take `cost` for `key` if every tier allows it, and return a `Decision`.

        It is that of the tier that denies for longest, or else of the one with the least remaining.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s; 10/min", clock=lambda: 0)
        >>> limiter.decide("ann").policy
        '2/s'
        >>> limiter.decide("ann").remaining
        0.0
        >>> limiter.decide("ann").retry_after
        0.5
        """
        return self._with_more(key, self._decision(True, *self._charge(key, cost, True, True)))

    def peek(self, key, cost=1):
        """What ``decide`` would return, but without taking anything.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.peek("ann").remaining, limiter.peek("ann").remaining
        (2.0, 2.0)
        """
        return self._with_more(key, self._decision(False, *self._charge(key, cost, False, True)))

    def reserve(self, key, cost=1):
        """Take `cost` for `key` if every tier allows it, as a `Reservation`, which is false if one denies.
        Its ``settle`` takes what is used in the end, and ``cancel`` gives all back.

        Raises what ``allow`` raises. Complexity: O(tiers).

        >>> limiter = RateLimiter("1000/min", clock=lambda: 0)
        >>> reservation = limiter.reserve("ann", cost=800)
        >>> limiter.peek("ann").remaining, reservation.settle(300), limiter.peek("ann").remaining
        (200.0, None, 700.0)
        """
        reserved_at = self._now_ns()
        decision = self.decide(key, cost)
        return Reservation(checked_amount("cost", cost), [(self, key, reserved_at)], None, decision)

    def _has(self, key, cost):
        """Whether ``peek`` would allow it."""
        return self._charge(key, cost, False)[0]

    def refund(self, key, cost=1):
        """Refund `cost` of what `key` owes, at every tier, for example because a request failed.

        No more than is owed is refunded. A refunded request does not count, so if the refund is late, more
        than the rate may have been allowed meanwhile. A strict limiter drops the oldest entries, so that no
        interval has too many, whichever request is refunded.

        Raises what ``allow`` raises, but a cost may be above the burst. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.refund("ann"), limiter.peek("ann").remaining
        (True, None, 1.0)
        """
        amount = checked_amount("cost", cost)
        self._check_whole(cost, amount)
        self._give_back(key, amount)

    def reset(self, key):
        """Forget what `key` owes.

        Raises TypeError or ValueError if `key` is not a valid key. Complexity: O(tiers).

        >>> limiter = RateLimiter("2/s", clock=lambda: 0)
        >>> limiter.allow("ann", 2), limiter.reset("ann"), limiter.allow("ann", 2)
        (True, None, True)
        """
        self._give_back(key, _MOST_COST)

    def _give_back(self, key, amount):
        self._charge(key, 0, True)  # clamps a time that is too far ahead
        place, given = self._locate(key), 0
        while given < len(self._tiers):
            given = self._locked(self._refund_from, given, *place, self._sweep_now(), amount)
        self._waiting.notify(key)

    def _refund_from(self, which, tag, hashed, now, amount):
        """Refund at this tier and those after it, up to one for which the clock must be read again."""
        if self._table is not None:
            self._prepare(hashed, now)
        for given, tier in enumerate(self._tiers[which:], which):
            if tier.is_behind(tier.units(now)):
                return given
            while not tier.refund(tag, hashed, now, amount):
                if tier.is_stale():
                    return given
        return len(self._tiers)

    def _check_settle(self, actual):
        """Raise if a reservation cannot be settled with so many tokens."""
        if self._strict and actual % 1:
            raise ValueError(f"actual must be whole with strict=True, got {actual!r}")

    def _settle(self, key, cost, actual, reserved_at):
        """Settle `cost`, taken at the time `reserved_at`, as if `actual` had been taken."""
        self._charge(key, 0, True)  # clamps a time that is too far ahead
        place, done = self._locate(key), 0
        while done < len(self._tiers):
            done = self._locked(self._settle_from, done, *place, self._sweep_now(), cost, actual, reserved_at)
        self._waiting.notify(key)

    def _settle_from(self, which, tag, hashed, now, cost, actual, reserved_at):
        """Settle at this tier and those after it, up to one for which the clock must be read again."""
        if self._table is not None:
            self._prepare(hashed, now)
        for done, tier in enumerate(self._tiers[which:], which):
            if tier.is_behind(tier.units(now)):
                return done
            if actual > cost:
                while not tier.charge_up_to(tag, hashed, now, actual - cost, self._evict):
                    if tier.is_stale():
                        return done
                continue
            back = tier.unused(cost, actual, reserved_at, now)
            while not tier.refund(tag, hashed, now, back):
                if tier.is_stale():
                    return done
        return len(self._tiers)

    def acquire(self, key, cost=1, timeout=None):
        """Wait until `cost` can be taken for `key`; False if that is not within `timeout` seconds, None for
        any time.

        The waiters of one key are served first come, first served, within this process. The thread sleeps;
        other threads and event loops go on. The call returns early only if it succeeds, since ``refund``,
        ``reset`` or ``reconfigure`` may bring tokens sooner; a `timeout` of 0 never waits. ``allow`` does not
        queue and may take tokens in between.

        Raises what ``allow`` raises, ValueError if `timeout` is negative.

        >>> limiter = RateLimiter("2/h")
        >>> limiter.acquire("ann", 2), limiter.acquire("ann", timeout=0.01)
        (True, False)
        """
        return _waiting.acquire_key(self, self._waiting, key, cost, timeout)

    def acquire_async(self, key, cost=1, timeout=None):
        """``acquire`` for coroutines, on any event loop of asyncio; a cancelled call leaves the queue.

        Raises what ``acquire`` raises.

        >>> import asyncio
        >>> asyncio.run(RateLimiter("2/s").acquire_async("ann"))
        True
        """
        return _waiting.acquire_key_async(self, self._waiting, key, cost, timeout)

    def reconfigure(self, rate, *, burst=None):
        """Set another rate; the debts of a tier become those of the new tier in its place, up to 32 bursts.

        A strict limiter keeps as many of the last entries of each key as the largest limit. With `path` the
        rate is set for all processes: each decides by it from its next decision on, at the latest when the
        call returns. The number of tiers is kept, and no limit of a strict one is above the largest that the
        file was made for. If the process is killed, the rate has been set or not.

        Raises what the constructor raises, ValueError if a shared limit cannot have that rate, HeadgateError
        if another process holds the lock of the file and is stopped. Complexity: O(max_keys).

        >>> limiter = RateLimiter("10/s", clock=lambda: 0)
        >>> limiter.allow("ann", 8), limiter.reconfigure("20/s"), limiter.peek("ann").remaining
        (True, None, 12.0)
        """
        rates = self._changed_rates(rate, burst)
        if self._table is not None:
            self._switch_to(rates)
            self._waiting.notify_all()
            return
        seen = self._locked(self._newest) if self._strict else 0
        self._locked(self._change, rates, self._sweep_now(), seen)
        self._waiting.notify_all()

    def _newest(self):
        return self._tiers[0].newest()

    def _change(self, rates, now, seen):
        edit = None
        while edit is None or not self._publish(rates, self._rescaled(rates, now, seen), edit):
            edit = self._edits[0]

    def _rescaled(self, rates, now, seen):
        """Tables for other rates, with the debts of the present ones. No entry of a log that was written
        before the clock was read is later than `seen`.
        """
        if self._strict:
            return [self._tiers[0].with_windows(rates, now, seen)]
        kept = zip(self._tiers, rates, strict=False)
        tiers = [tier.rescaled(changed, now) for tier, changed in kept]
        lines = self._tiers[0].lines
        more = [_Tier(changed, _private_memory(lines, 0), 0, lines, now) for changed in rates[len(tiers) :]]
        return tiers + more

    def _changed_rates(self, rate, burst=None):
        """The tiers that ``reconfigure`` would set."""
        rates = checked_rates(rate, burst)
        if self._strict:
            checked_windows(rates)
        if self._table is not None:
            self._table.check_switch(self.rates, rates)
        return rates

    @property
    def rates(self):
        """The tiers, a tuple of `Rate`.

        >>> RateLimiter("1/s; 10/min").rates
        (Rate(limit=1, period=1, burst=1), Rate(limit=10, period=60, burst=10))
        """
        if self._table is not None:
            self._locked(self._renew)
        return self._rates

    @property
    def max_keys(self):
        """How many keys may owe something at once.

        >>> RateLimiter("1/s").max_keys
        1000000
        """
        return self._max_keys

    @property
    def evictions(self):
        """How often a key that owed something was evicted by another.

        >>> RateLimiter("1/s").evictions
        0
        """
        return sum([tier.evictions for tier in self._tiers])

    def __sizeof__(self):
        return object.__sizeof__(self) + sum([tier.size for tier in self._tiers])

    def __repr__(self):
        return f"{type(self).__name__}({'; '.join(map(str, self.rates))!r})"

    def __reduce__(self):
        raise TypeError("a RateLimiter cannot be copied or pickled: its state belongs to one clock")

    def _check(self):
        self._locked(self._renewed, self._sweep_now)
        tables = tables_of(self._rates, checked_windows(self._rates) if self._strict else ())
        for tier, rate in zip(self._tiers, tables, strict=True):
            assert (tier.bits, tier.multiplier, tier.shift, tier.burst) == scale_of(rate)
            assert 0 <= tier.burst <= tier.ceiling
            assert tier.lines == count_lines(self._max_keys)
            for start in range(0, len(tier.tags), _CELLS):
                tags = list(tier.tags[start : start + _CELLS])
                assert len(set(tags) - {0}) == _CELLS - tags.count(0)
        if self._strict:
            self._tiers[0].check_logs(self._now_ns())
