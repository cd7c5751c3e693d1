"""What all balancers share: the draws, picks in flight, and the outcomes by which servers are ejected."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from math import exp

from headgate._base.checks import checked_iterable
from headgate.balance._members import NEVER, _Members
from headgate.errors import NoServerError
from headgate.hashing._pure import splitmix64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from headgate.balance._members import _Record

GOLDEN = 0x9E3779B97F4A7C15
WORD = 2**64

DECAY_TIME = 10e9
RATE_INTERVAL = 10_000_000_000
MIN_OUTCOMES = 20
UNSAMPLED_LOAD = 1e18
LATENCY_UNIT = 1e6
MARGIN = 2.0
SECOND = 1_000_000_000
MAX_PENALTY = 1023
NO_RECORDS: list[_Record] = []


def _decay(passed):
    """The weight that a moving average keeps after `passed` nanoseconds; linear where exp adds nothing."""
    share = passed / DECAY_TIME
    return 1.0 - share if share < 1e-4 else exp(-share)


class _Pick:
    """A pick of `server`, in flight until the ``with`` block or `done` ends it."""

    __slots__ = ("_balancer", "_generation", "_record", "_start", "server")

    if TYPE_CHECKING:
        _balancer: _Balancer
        _generation: int
        _record: Any
        _start: int
        server: Any

    def done(self, ok=True, *, overloaded=False):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        After a refusal because the server was `overloaded`, such as 429 or 503, the server gets fewer picks
        for a while, as after a failure, and its latency does not fall; if `ok`, the refusal counts neither
        for nor against ejection. A pick that is dropped is no longer in flight and has no outcome.
        """
        if self._record is not None:
            self._balancer._finish(self, bool(ok), bool(overloaded))

    def _exit(self, kind):
        """The end of a block; a BaseException such as a cancellation is no outcome."""
        if kind is None or issubclass(kind, Exception):
            self.done(kind is None)
        elif self._record is not None:
            self._balancer._abandon(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._exit(kind)

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        self._exit(kind)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __del__(self):
        if getattr(self, "_record", None) is not None:  # an exception may have been raised before it was set
            self._balancer._abandon(self)

class _Balancer(_Members):
    """The base of all balancers: random draws, picks and their outcomes."""

    if TYPE_CHECKING:
        _sums: Sequence[float]

    _sums = ()
    _mean_latency, _sequence, _by_latency = 0.0, 0, False

    # ---- draws ------------------------------------------------------------------------------

    def _draw(self):
        """The next 64 bits of splitmix64's sequence."""
        drawn = splitmix64(self._random_state)
        self._random_state = (self._random_state + GOLDEN) % WORD
        return drawn

    def _below(self, n):
        """An unbiased number below `n`: the upper half of n * draw, drawn again where that is biased."""
        product = self._draw() * n
        if product % WORD < n:
            least = (WORD - n) % n
            while product % WORD < least:
                product = self._draw() * n
        return product // WORD

    def _unit(self):
        """A number in [0, 1) of 53 bits."""
        return (self._draw() >> 11) * (1.0 / 9007199254740992.0)

    def _begins_anywhere(self):
        """Whether the first pick is of a random server."""
        return self._fresh and not self._seeded

    def _sum_weights(self, active):
        """Sum up the weights for `_draw_record`, which needs no sums if all are equal."""
        weights = [record.weight for record in active]
        self._sums = list(accumulate(weights)) if len(set(weights)) > 1 else []

    def _indexes(self, skip):
        """The indexes in `_active` of the records in `skip`, sorted."""
        return sorted([record.index for record in skip if record.index >= 0]) if skip else []

    def _draw_record(self, excluded):
        """An active record drawn by weight, except those at the indexes `excluded`, which are not all."""
        active, sums = self._active, self._sums
        if not sums:
            at = self._below(len(active) - len(excluded))
            for index in excluded:
                at += at >= index
            return active[at]
        drawn = self._unit() * self._weight_without(excluded)
        for index in excluded:
            if index == 0 or drawn >= sums[index - 1]:
                drawn += active[index].weight
        at = min(bisect_right(sums, drawn), len(active) - 1)
        while at in excluded:  # only after rounding
            at = at + 1 if at + 1 < len(active) else 0
        return active[at]

    def _less_loaded(self, a, weight, b, other, total, now):
        """The one of `a`, drawn by weight, and `b` with less load on a slot; `a` if it is about the same.

        The lighter weight is the unit; a server has a slot for each unit of its weight, and its load is
        spread evenly over them. Of the slots that one of `a` may be compared with, some belong to `a` itself;
        `total` is the weight of all servers. So shares are in proportion to the weights at any load.
        """
        left, right = a.in_flight + a.penalty, b.in_flight + b.penalty
        if weight < other:
            right = int(right * (weight / other) + self._unit())
        elif weight > other:
            drawn = self._unit() * (total - other)
            if drawn >= total - weight:
                return a
            left = int(left * (other / weight) + drawn / (total - weight))
        margin = MARGIN if left == right else 1.0
        return b if self._load(b, right, now) * margin < self._load(a, left, now) else a

    def _load(self, record, slot, now):
        """The load of a slot of a server, with this request."""
        return slot + 1.0

    def _weight_without(self, excluded):
        """The weight of the active records except those at the indexes `excluded`."""
        total = self._sums[-1]
        for index in excluded:
            total -= self._active[index].weight
        return total

    # ---- picks ------------------------------------------------------------------------------

    def _choose(self, key, skip, now):
        """An active record that is not in `skip`, which leaves at least one."""
        raise NotImplementedError

    def _remaining(self, skip):
        """The active records that are not in `skip`."""
        return [record for record in self._active if record not in skip]

    def _select(self, key, skip, now):
        """The record that a pick goes to; any remaining one if a finalizer picks during an edit."""
        self._apply_due(now)
        busy, self._busy = self._busy, True
        try:
            if not self._active:
                raise NoServerError("there is no server")
            if len(skip) >= len(self._active) and not self._remaining(skip):
                record = self._choose_ejected(key, self._ejected_candidates(skip))
            else:
                record = self._remaining(skip)[0] if busy else self._choose_in_slow_start(key, skip, now)
        except NoServerError:
            raise
        except BaseException:  # from a signal handler, perhaps within a step of a sequence
            self._stale = True
            raise
        finally:
            if not busy:  # otherwise the call that set it clears it, perhaps before this one ends
                self._busy = False
            if self._stale:
                self._rebuild(now)
        return record

    def _ejected_candidates(self, skip):
        """The ejected records that are not in `skip`, for when no active one is left."""
        left = [record for record in self._members.values()
                if record.ejected_until and not record.draining and record not in skip]
        if not left:
            raise NoServerError("every server is excluded")
        return left

    def _choose_ejected(self, key, left):
        """One of the ejected records, drawn by weight: better than none."""
        return self._draw_from(left)

    def _draw_from(self, records):
        """One of a list of records, drawn by weight."""
        sums = list(accumulate([record.weight for record in records]))
        return records[min(bisect_right(sums, self._unit() * sums[-1]), len(records) - 1)]

    def _choose_in_slow_start(self, key, skip, now):
        """The record that this balancer chooses; some picks pass over one in a slow start."""
        record = self._choose(key, skip, now)
        if record.slow_until and self._redraws():
            tried = list(skip)
            while record.slow_until and (
                    self._unit() * self._slow_start >= self._slow_start_elapsed(record, now)):
                tried.append(record)
                if len(tried) >= len(self._active) and not self._remaining(tried):
                    break
                record = self._choose(key, tried, now)
        return record

    def _redraws(self):
        """Whether some picks of a server in a slow start are chosen again."""
        return True

    def _slow_start_elapsed(self, record, now):
        """The nanoseconds since a slow start began, at least a tenth of its length."""
        span = self._slow_start
        return max(span - (record.slow_until - now), span / 10)

    def _excluded(self, exclude):
        """The records of the servers in `exclude`."""
        members = self._members
        found = dict.fromkeys([members.get(server) for server in checked_iterable("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    def get_server(self, key=None, *, exclude=()):
        """Returns the next server, without counting a request in flight.

        `key` is what KeyHash and AddressHash hash; other balancers ignore it. Servers in `exclude` are passed
        over; if all others are ejected, one of those is returned, by weight or in the key's order of
        preference.

        Raises NoServerError if there is no server or every one is excluded, down or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        skip = self._excluded(exclude) if exclude else NO_RECORDS
        key = self._read_key(key, False)
        now = self._now() if self._by_latency or self._next_event != NEVER else self._rebuilt_at
        with self._lock:
            return self._select(key, skip, now).server

    def _read_key(self, key, picked):
        """What `_choose` needs of a key, for a pick or for `get_server`."""

    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Returns a context manager, for ``with`` and ``async with``, with the attribute `server` and the method
        ``done(ok=True, *, overloaded=False)``. Its end records the latency and the outcome, which may eject
        the server; leaving the block by an error is a failure, but a task's cancellation is no outcome.
        `key` and `exclude` are those of get_server.

        Raises NoServerError if there is no server or every one is excluded, down or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"], seed=0)
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        pick = _Pick()
        skip = self._excluded(exclude) if exclude else NO_RECORDS
        key = self._read_key(key, True)
        now = self._now()
        with self._lock:
            record = self._select(key, skip, now)
            record.in_flight += 1
            self._sequence += 1
            record.last_pick = self._sequence
            pick.server, pick._balancer, pick._start = record.server, self, now
            pick._generation = self._generation
            pick._record = record  # no call since the record was chosen: a counted pick is returned
            self._load_changed(record)
        return pick

    def _finish(self, pick, ok, overloaded):
        """End a pick with its outcome, once."""
        now = self._now()
        with self._lock:
            record, pick._record = pick._record, None
            if record is not None and pick._generation == self._generation:
                record.in_flight -= 1
                good = ok and not overloaded
                self._add_sample(record, now - pick._start, now, good)
                if not record.ejected_until and not record.down and not record.draining:
                    self._update_penalty(record, good, now)
                    if good or not ok:
                        self._add_outcome(record, ok, now)
                self._load_changed(record)

    def _abandon(self, pick):
        """End a pick without an outcome, once."""
        with self._lock:
            record, pick._record = pick._record, None
            if record is not None and pick._generation == self._generation:
                record.in_flight -= 1
                self._load_changed(record)

    def _add_sample(self, record, taken, now, good):
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last.

        A failure counts as at least as slow as the server's average and as the mean of all successes.
        """
        sample = max(taken, 0)
        passed = max(now - record.sampled_at, 0)
        if not good:
            sample = max(sample, record.latency, self._mean_latency)
        elif self._by_latency:
            self._mean_latency += (sample - self._mean_latency) / 16.0
        if sample >= record.latency:
            record.latency = sample
        else:
            keep = _decay(passed)
            record.latency = record.latency * keep + sample * (1.0 - keep)
        record.sampled_at = now

    def _update_penalty(self, record, good, now):
        """Count a failure as picks in flight for as many seconds, more with each; a success halves them."""
        if good:
            if record.penalty:
                record.penalty >>= 1
                if not record.penalty:
                    self._penalized.remove(record)
                    if not self._penalized:
                        self._next_penalty_end, self._next_event = NEVER, self._next_return
            return
        penalty = min(2 * record.penalty + 1, MAX_PENALTY)
        until = now + min(penalty * SECOND, self._ejection_time)
        added = not record.penalty  # from here on no finalizer can run in between
        record.penalty, record.penalty_until = penalty, until
        if until < self._next_penalty_end:
            self._next_penalty_end = until
        if until < self._next_event:
            self._next_event = until
        if added:
            self._penalized.append(record)

    def _add_outcome(self, record, ok, now):
        """Count the outcome of a pick, and eject its server if it is an outlier."""
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window_start < RATE_INTERVAL:
            record.window_start, record.successes, record.outcomes = now, 0, 0
        record.outcomes += 1
        record.successes += ok
        if self._ejectable > 0 and (record.failures >= self._max_failures or (
                not ok and record.outcomes >= MIN_OUTCOMES
                and record.successes < self._success_rate * record.outcomes)):
            self._stale = True
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.ejected_until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._ejectable -= 1
            self._rebuild(now)
