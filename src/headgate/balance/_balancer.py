"""What all balancers share: the draws, picks in flight, and the outcomes by which servers are ejected."""

from bisect import bisect_right
from itertools import accumulate
from math import exp

from headgate._base.checks import checked_iterable
from headgate.balance._members import NEVER, _Members
from headgate.errors import NoServerError
from headgate.hashing._pure import splitmix64

GOLDEN = 0x9E3779B97F4A7C15
WORD = 2**64

TAU = 10e9
INTERVAL = 10_000_000_000
VOLUME = 20
UNKNOWN = 1e18
RESOLUTION = 1e6
MARGIN = 2.0
SECOND = 1_000_000_000
MOST_PENALTY = 1023
NOBODY = []


def _kept(passed):
    """What a moving average keeps of itself over `passed` nanoseconds; linear where exp would not tell."""
    share = passed / TAU
    return 1.0 - share if share < 1e-4 else exp(-share)


class _Pick:
    """A server picked: `server`, in flight until the ``with`` block or `done(ok)` ends it."""

    __slots__ = ("_balancer", "_era", "_record", "_start", "server")

    def done(self, ok=True, *, overloaded=False):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        A server that was `overloaded`, and refused the request as by 429 or 503, has not been fast: it gets
        fewer picks for a while, as after a failure. If `ok`, this counts neither for nor against ejection.
        A pick that is dropped unended leaves the flight without an outcome.
        """
        if self._record is not None:
            self._balancer._finish(self, bool(ok), bool(overloaded))

    def _leave(self, kind):
        """The end of a block; a cancellation and the like are no outcome."""
        if kind is None or issubclass(kind, Exception):
            self.done(kind is None)
        elif self._record is not None:
            self._balancer._abandon(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._leave(kind)

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        self._leave(kind)

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __del__(self):
        if getattr(self, "_record", None) is not None:  # an exception may have come before there was one
            self._balancer._abandon(self)

class _Balancer(_Members):
    """What all balancers share: members, health, picks in flight, and the draws."""

    _sums = ()
    _typical, _sequence, _timed = 0.0, 0, False

    # ---- draws ------------------------------------------------------------------------------

    def _draw(self):
        """The next 64 bits of splitmix64's sequence."""
        drawn = splitmix64(self._state)
        self._state = (self._state + GOLDEN) % WORD
        return drawn

    def _below(self, n):
        """An unbiased number below `n`: the upper half of n * draw, drawn again where that favours some."""
        product = self._draw() * n
        if product % WORD < n:
            least = (WORD - n) % n
            while product % WORD < least:
                product = self._draw() * n
        return product // WORD

    def _unit(self):
        """A number in [0, 1) of 53 bits."""
        return (self._draw() >> 11) * (1.0 / 9007199254740992.0)

    def _scatters(self):
        """Whether the first picks are to begin at a random place."""
        return self._fresh and not self._seeded

    def _weigh(self, active):
        """Sum up the weights that `_drawn` draws by; where all are equal it needs none."""
        weights = [record.weight for record in active]
        self._sums = list(accumulate(weights)) if len(set(weights)) > 1 else []

    def _seats(self, skip):
        """The places in `_active` of the records in `skip`, in order."""
        return sorted([record.seat for record in skip if record.seat >= 0]) if skip else []

    def _drawn(self, out):
        """An active record drawn by weight, none of those at the places `out`, which leave at least one."""
        active, sums = self._active, self._sums
        if not sums:
            at = self._below(len(active) - len(out))
            for place in out:
                at += at >= place
            return active[at]
        drawn = self._unit() * self._total(out)
        for place in out:
            if place == 0 or drawn >= sums[place - 1]:
                drawn += active[place].weight
        at = min(bisect_right(sums, drawn), len(active) - 1)
        while at in out:  # which only rounding leads to
            at = at + 1 if at + 1 < len(active) else 0
        return active[at]

    def _preferred(self, a, weight, b, other, total, now):
        """The one of `a`, drawn by weight, and `b` whose slot carries less; `a` if they carry about the same.

        A server has a slot for each unit of its weight, the lighter one's being the unit, and its load is
        spread evenly over them. Of the slots that one of `a` could be compared with, some are again of `a`:
        `total` is the weight of all. So shares are those of the weights, in an idle fleet and under load.
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
        """What a slot of a server carries, this request counted in."""
        return slot + 1.0

    def _total(self, out):
        """The weight of the active records that are not at the places `out`."""
        total = self._sums[-1]
        for place in out:
            total -= self._active[place].weight
        return total
    # ---- picks ------------------------------------------------------------------------------

    def _choose(self, key, skip, now):
        """An active record that is not in `skip`, which leaves at least one."""
        raise NotImplementedError

    def _left(self, skip):
        """The active records that are not in `skip`."""
        return [record for record in self._active if record not in skip]

    def _chosen(self, key, skip, now):
        """The record that a request goes to; for a finalizer that comes amid an edit, any that is left."""
        self._settle(now)
        busy, self._busy = self._busy, True
        try:
            if not self._active:
                raise NoServerError("there is no server")
            if len(skip) >= len(self._active) and not self._left(skip):
                record = self._resort(key, self._ejected(skip))
            else:
                record = self._left(skip)[0] if busy else self._considered(key, skip, now)
        except NoServerError:
            raise
        except BaseException:  # out of a signal handler, perhaps amid a step of a sequence
            self._stale = True
            raise
        finally:
            if not busy:  # or else it is cleared by whoever set it, who may have come to the end before
                self._busy = False
            if self._stale:
                self._rebuild(now)
        return record

    def _ejected(self, skip):
        """The ejected records that are not in `skip`, where no active one is left."""
        left = [record for record in self._members.values()
                if record.until and not record.draining and record not in skip]
        if not left:
            raise NoServerError("every server is excluded")
        return left

    def _resort(self, key, left):
        """One of the ejected records, by weight alone: better tried than none."""
        sums = list(accumulate([record.weight for record in left]))
        return left[min(bisect_right(sums, self._unit() * sums[-1]), len(left) - 1)]

    def _considered(self, key, skip, now):
        """The record of this balancer's choice; a warming one is passed over in part."""
        record = self._choose(key, skip, now)
        if record.warm and self._warms():
            tried = list(skip)
            while record.warm and self._unit() * self._slow_start >= self._warmth(record, now):
                tried.append(record)
                if len(tried) >= len(self._active) and not self._left(tried):
                    break
                record = self._choose(key, tried, now)
        return record

    def _warms(self):
        """Whether a slow start holds picks back."""
        return True

    def _warmth(self, record, now):
        """The nanoseconds since a slow start began, a tenth of it at least."""
        span = self._slow_start
        return max(span - (record.warm - now), span / 10)

    def _skipped(self, exclude):
        """The records of the servers in `exclude`."""
        members = self._members
        found = dict.fromkeys([members.get(server) for server in checked_iterable("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what KeyHash and AddressHash hash; the others ignore it. Those in `exclude` are passed over;
        where all others are ejected, one of these is taken, by its weight or by what the key prefers.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"], seed=0)
        >>> balancer.get_server(), balancer.get_server(exclude=["b"])
        ('a', 'a')
        """
        skip = self._skipped(exclude) if exclude else NOBODY
        key = self._read_key(key)
        now = self._now() if self._timed or self._wake != NEVER else self._seen
        with self._lock:
            return self._chosen(key, skip, now).server

    def _read_key(self, key):
        """What `_choose` is given of a key."""

    def pick(self, key=None, *, exclude=()):
        """Picks the next server and counts the request in flight until it ends.

        Returns a context manager, for ``with`` and ``async with``, with the attribute `server` and the method
        ``done(ok=True, *, overloaded=False)``. Its end measures the latency and feeds outlier ejection;
        leaving the block by an error is a failure, but a task that is cancelled says nothing of the server.
        `key` and `exclude` are those of get_server.

        Raises NoServerError if there is no server or every one is excluded or draining, TypeError if
        `exclude` is a single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"], seed=0)
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        pick = _Pick()
        skip = self._skipped(exclude) if exclude else NOBODY
        key = self._read_key(key)
        now = self._now()
        with self._lock:
            record = self._chosen(key, skip, now)
            record.in_flight += 1
            self._sequence += 1
            record.turn = self._sequence
            pick.server, pick._balancer, pick._era, pick._start = record.server, self, self._era, now
            pick._record = record  # no call since the record was chosen: what is counted has its pick
            self._moved(record)
        return pick

    def _finish(self, pick, ok, overloaded):
        """Count a pick's outcome, once."""
        now = self._now()
        with self._lock:
            record, pick._record = pick._record, None
            if record is not None and pick._era == self._era:
                record.in_flight -= 1
                good = ok and not overloaded
                self._measure(record, now - pick._start, now, good)
                if not record.until and not record.draining:
                    self._punish(record, good, now)
                    if good or not ok:
                        self._judge(record, ok, now)
                self._moved(record)

    def _abandon(self, pick):
        """Take a pick that was dropped out of the flight."""
        with self._lock:
            record, pick._record = pick._record, None
            if record is not None and pick._era == self._era:
                record.in_flight -= 1
                self._moved(record)

    def _measure(self, record, taken, now, good):
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last.

        What failed was no faster than its server mostly is, nor than successes of all servers are.
        """
        sample = max(taken, 0)
        passed = max(now - record.stamp, 0)
        if not good:
            sample = max(sample, record.cost, self._typical)
        elif self._timed:
            self._typical += (sample - self._typical) / 16.0
        if sample >= record.cost:
            record.cost = sample
        else:
            keep = _kept(passed)
            record.cost = record.cost * keep + sample * (1.0 - keep)
        record.stamp = now

    def _punish(self, record, good, now):
        """Count a failure as requests in flight for as many seconds, more with each; a success undoes one."""
        if good:
            if record.penalty:
                record.penalty >>= 1
                if not record.penalty:
                    self._penalized.remove(record)
                    if not self._penalized:
                        self._lapse, self._wake = NEVER, self._due
            return
        penalty = min(2 * record.penalty + 1, MOST_PENALTY)
        lapses = now + min(penalty * SECOND, self._ejection_time)
        lapse = min(self._lapse, lapses)
        wake = min(self._wake, lapse)
        if not record.penalty:  # no call from here on, so that nothing comes in between
            self._penalized = [*self._penalized, record]
        record.penalty, record.lapses, self._lapse, self._wake = penalty, lapses, lapse, wake

    def _judge(self, record, ok, now):
        """Feed the outcome of a pick to outlier ejection."""
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window < INTERVAL:
            record.window, record.good, record.total = now, 0, 0
        record.total += 1
        record.good += ok
        if self._spare > 0 and (record.failures >= self._max_failures or (
                not ok and record.total >= VOLUME and record.good < self._success_rate * record.total)):
            self._stale = True
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._spare -= 1
            self._rebuild(now)
