"""Balancers in pure Python: which server takes a request.

    _members  server -> record     all members, a dict that is replaced and never changed
    _active   [record, ...]        those that picks go to, and what each balancer derives from them:
                                   a tournament, an alias table, a heap, sums of weights
    _plan     a placement          where keys belong, in balancers that hash them
    record    weight, in flight, latency, outcomes, penalty, ejected until, warm at

       pick() ---> _choose ---> in_flight + 1 ---> ... done(ok) ---> in_flight - 1, latency, outcome
                     ^                                                  |
                     +---- _rebuild <---- ejected, or back after `_wake` <-+

Invariants. `_active` holds the members that are neither draining nor ejected; all that are not draining
where fewer than the panic threshold would be left. `_wake` is the time of the next return, end of a slow
start or end of a penalty, or earlier; only then does a pick that measures nothing read the clock. A record
outlives its membership, so that picks in flight end where they began. Those that were taken before a fork are
the parent's: in the child they are of another `_era`, and their end changes nothing.

Foreign code is the clock, ``__hash__`` and ``__eq__`` of servers, placements, and arguments: all of it runs
before anything changes and without the lock. A change of the members makes a new dict, and a new placement
where there is one, and takes both on in one step, unless another change came first: then it starts over. A
finalizer may come at any time: while `_busy` says that something is derived or chosen, its picks take any
active record, and its changes leave `_stale` for whoever was interrupted.
"""
from bisect import bisect_right, insort
from itertools import accumulate
from math import ceil, exp, floor
from time import monotonic_ns
from types import GenericAlias

from headgate._base.checks import checked_callable, checked_iterable
from headgate._base.clock import checked_clock, checked_now
from headgate._base.forks import new_lock, renew
from headgate._base.keys import key_bytes
from headgate._base.pickling import initialized
from headgate.balance._settings import (
    ServerRecord,
    address_bytes,
    checked_scheme,
    checked_settings,
    first_steps,
    nginx_hash,
    random_word,
    server_weight,
    server_weights,
)
from headgate.errors import NoServerError
from headgate.hashing._pure import _xxh64_bytes, splitmix64
from headgate.placement._pure import HashRing, _Placement

_NEVER = 2**63 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64

TAU = 10e9
INTERVAL = 10_000_000_000
VOLUME = 20
STEP_BACK = 1_000_000_000
UNKNOWN = 1e18
RESOLUTION = 1e6
MARGIN = 2.0
SECOND = 1_000_000_000
MOST_PENALTY = 1023
_FAR = 2.0**62
_DRAWS = 64
NOBODY = []


def _kept(passed):
    """What a moving average keeps of itself over `passed` nanoseconds; linear where exp would not tell."""
    share = passed / TAU
    return 1.0 - share if share < 1e-4 else exp(-share)


class _Record:
    """A server as its balancer knows it."""

    __slots__ = (
        "cost",
        "draining",
        "ejections",
        "failures",
        "good",
        "in_flight",
        "lapses",
        "penalty",
        "place",
        "seat",
        "server",
        "since",
        "stamp",
        "total",
        "turn",
        "until",
        "warm",
        "weight",
        "window",
    )

    def __init__(self, server, weight, now):
        self.server, self.weight = server, float(weight)
        self.cost = 0.0
        self.in_flight = self.failures = self.good = self.total = 0
        self.until = self.warm = self.ejections = self.turn = self.penalty = self.lapses = 0
        self.stamp = self.window = self.since = now
        self.place = self.seat = -1
        self.draining = False

    def shown(self):
        health = "draining" if self.draining else "ejected" if self.until else "healthy"
        return ServerRecord(self.server, self.weight, self.in_flight, self.cost / 1e9, health, self.since)


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


class _Balancer:
    """What all balancers share: members, health, picks in flight, and the draws."""

    _clock, _wake, _due, _lapse, _seen, _state, _sequence = None, _NEVER, _NEVER, _NEVER, 0, 0, 0
    _spare, _typical, _era = 0, 0.0, 0
    _timed = _busy = _stale = _panicking = _fresh = False
    _seeded = True
    _made = False

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        renew(self)
        self._members, self._active, self._sums, self._penalized = {}, [], [], []
        return self

    def __init__(self, servers, *, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), None)

    def _begin(self, pairs, clock, settings, make):
        now = monotonic_ns() if clock is None else checked_now(clock())
        members = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        plan = self._planned(members, make, None, 0)
        with self._lock:
            if self._made:
                raise initialized(self)
            self._made = True
            (self._state, self._seeded, self._max_failures, self._success_rate, self._ejection_time,
             self._max_ejected, self._panic, self._slow_start) = settings
            self._clock, self._members, self._fresh = clock, members, True
            self._adopt(plan)
            self._rebuild(now)

    def _renew(self):
        """In the child of a fork: nothing is in flight, and draws differ from the parent's.

        What another thread was amid is derived anew, and again where this thread itself was amid it.
        """
        busy, self._busy = self._busy, False
        self._era += 1
        for record in self._members.values():
            record.in_flight = 0
        if not self._seeded:
            self._state, self._fresh = random_word(), True
        self._rebuild(self._seen)
        self._stale = busy

    def __reduce__(self):
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    def __copy__(self):
        raise TypeError(f"cannot copy {type(self).__name__!r} object")

    def _now(self):
        if self._clock is None:
            return monotonic_ns()
        return checked_now(self._clock())

    # ---- draws ------------------------------------------------------------------------------

    def _draw(self):
        """The next 64 bits of splitmix64's sequence."""
        drawn = splitmix64(self._state)
        self._state = (self._state + _GOLDEN) % _WORD
        return drawn

    def _below(self, n):
        """An unbiased number below `n`: the upper half of n * draw, drawn again where that favours some."""
        product = self._draw() * n
        if product % _WORD < n:
            least = (_WORD - n) % n
            while product % _WORD < least:
                product = self._draw() * n
        return product // _WORD

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

    # ---- members ----------------------------------------------------------------------------

    def _rebuild(self, now):
        """Derive what picks read from the members as they are; again where a finalizer changed them.

        Whoever changes members says first that all is `_stale`, so that the next pick derives it if an
        exception out of a signal handler comes in between.
        """
        self._stale = True
        while self._stale and not self._busy:
            self._busy, self._stale = True, False
            try:
                self._derive(now)
            except BaseException:
                self._stale = True
                raise
            finally:
                self._busy = False

    def _derive(self, now):
        if now < self._seen - STEP_BACK:
            self._shift(now - self._seen)
        self._seen = now
        due = _NEVER
        present = []
        healthy = []
        for record in self._members.values():
            if record.until and record.until <= now:
                record.until = 0
                record.failures = record.good = record.total = 0
                record.window = record.since = now
                if self._slow_start:
                    record.warm = now + self._slow_start
            if record.warm and record.warm <= now:
                record.warm = 0
            if record.until:
                due = min(due, record.until)
            if record.warm:
                due = min(due, record.warm)
            if not record.draining:
                present.append(record)
                if not record.until:
                    healthy.append(record)
        most = min(ceil(self._max_ejected * len(present)), len(present) - 1)
        self._spare = most - (len(present) - len(healthy))
        self._panicking = not healthy or len(healthy) < floor(self._panic * len(present))
        if self._panicking:
            healthy = present
        self._due = due
        self._relieved(now)
        for record in self._active:
            record.seat = -1
        for seat, record in enumerate(healthy):
            record.seat = seat
        self._arrange(healthy)
        self._active = healthy
        self._fresh = self._fresh and not healthy

    def _shift(self, step):
        """Take the clock's step back in all times that are waited for."""
        for record in self._members.values():
            if record.until:
                record.until += step
            if record.warm:
                record.warm += step
            record.since += step
            record.lapses += step

    def _settle(self, now):
        """Rebuild where a server is due, the clock has stepped back, or a finalizer asked for it."""
        back = now < self._seen - STEP_BACK
        if self._stale or (self._wake != _NEVER and (back or now >= self._wake)):
            if self._stale or back or now >= self._due:
                self._rebuild(now)
            else:
                for record in self._relieved(now):
                    self._moved(record)

    def _relieved(self, now):
        """End the penalties that have lapsed; returns their records."""
        lapsed = []
        kept = []
        self._lapse = _NEVER
        for record in self._penalized:
            if record.until or record.draining or record.lapses <= now:
                record.penalty = 0
                lapsed.append(record)
            else:
                kept.append(record)
                self._lapse = min(self._lapse, record.lapses)
        self._penalized = kept
        self._wake = min(self._due, self._lapse)
        return lapsed

    def _arrange(self, active):
        """Derive what this balancer picks by."""

    def _moved(self, record):
        """The load of a record has changed."""

    def _planned(self, members, make, changed, weight):
        """The placement of `members`, with `changed` at another weight, where keys are hashed."""

    def _make(self):
        """What makes the placement, where keys are hashed."""

    def _adopt(self, plan):
        """Take on a placement."""

    def _replace(self, before, after, record, weight, plan, now):
        """Take on the members `after`, with `record` at `weight` or at 0 without it, if they were `before`.

        Returns False, and changes nothing, where another change came first.
        """
        with self._lock:
            if self._members is not before:
                return False
            self._members, self._stale = after, True
            if weight:
                record.weight = float(weight)
            else:
                record.draining = True
            self._adopt(plan)
            self._rebuild(now)
        return True

    def _known(self, members, server):
        found = members.get(server)
        if found is None:
            raise KeyError(f"server must be a member, got {server!r}")
        return found

    def add_server(self, server, weight=1):
        """Adds `server`, in a slow start where there is one.

        Raises ValueError if it is a member or `weight` is not positive and finite, TypeError if one has
        the wrong type.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a"])
        >>> balancer.add_server("b")
        >>> balancer.servers
        ('a', 'b')
        """
        weight = self._admitted(weight, self._make())
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.warm = now + self._slow_start
        while True:
            before = self._members
            after = before.copy()
            if after.setdefault(server, record) is not record or self._has_name(server):
                raise ValueError(f"server must not be a member already, got {server!r}")
            plan = self._planned(after, self._make(), None, 0)
            if self._replace(before, after, record, weight, plan, now):
                return

    def _admitted(self, weight, make):
        """The exact weight that a server may have."""
        return server_weight(weight)

    def _has_name(self, server):
        """Whether a member that need not equal `server` has its name."""
        return False

    def remove_server(self, server):
        """Removes `server` at once; its picks in flight end unheeded.

        Raises KeyError if it is no member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.remove_server("a")
        >>> balancer.servers
        ('b',)
        """
        now = self._now()
        while True:
            before = self._members
            record = self._known(before, server)
            after = before.copy()
            del after[record.server]
            plan = self._planned(after, self._make(), None, 0)
            if self._replace(before, after, record, 0, plan, now):
                return

    def drain_server(self, server, draining=True):
        """Gives `server` no more picks, or gives it some again, while those in flight go on.

        Raises KeyError if it is no member.

        Complexity: O(n) for n servers.

        >>> balancer = RoundRobin(["a", "b"])
        >>> balancer.drain_server("a")
        >>> balancer.get_server(), balancer.get_server()
        ('b', 'b')
        """
        now = self._now()
        draining = bool(draining)
        record = self._known(self._members, server)
        with self._lock:
            if record.draining != draining:
                self._stale = True
                record.draining, record.since = draining, now
                self._rebuild(now)

    def set_weight(self, server, weight):
        """Gives `server` another weight.

        Raises KeyError if it is no member, ValueError if `weight` is not positive and finite, TypeError if
        it is neither int nor float.

        Complexity: O(n) for n servers.

        >>> balancer = WeightedRoundRobin(["a", "b"], seed=0)
        >>> balancer.set_weight("a", 2)
        >>> [balancer.get_server() for _ in range(3)]
        ['a', 'b', 'a']
        """
        weight = self._admitted(weight, self._make())
        now = self._now()
        while True:
            before = self._members
            record = self._known(before, server)
            plan = self._planned(before, self._make(), record, weight)
            if self._replace(before, before.copy(), record, weight, plan, now):
                return

    @property
    def servers(self):
        """The servers as a tuple, in the order of their arrival.

        >>> RoundRobin(["b", "a"]).servers
        ('b', 'a')
        """
        return tuple(self._members)

    @property
    def records(self):
        """A list of `ServerRecord`: weight, picks in flight, latency, health and since when, for each server.

        Complexity: O(n) for n servers.

        >>> RoundRobin({"a": 2}, clock=lambda: 5).records
        [ServerRecord(server='a', weight=2.0, in_flight=0, latency=0.0, health='healthy', since=5)]
        """
        now = self._now()
        with self._lock:
            self._settle(now)
            return [record.shown() for record in self._members.values()]

    def __len__(self):
        return len(self._members)

    def __contains__(self, server):
        return server in self._members

    def __repr__(self):
        return f"{type(self).__name__}({list(self._members)!r})"

    def _check(self):
        """Walk the records and raise AssertionError where an invariant does not hold."""
        wake = _NEVER
        present = [record for record in self._members.values() if not record.draining]
        healthy = [record for record in present if not record.until]
        assert self._active == (present if self._panicking else healthy)
        assert [record.seat for record in self._active] == list(range(len(self._active)))
        assert self._penalized == [record for record in self._penalized if record.penalty > 0]
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            assert record.penalty == 0 or record in self._penalized
            for time in (record.until, record.warm, record.penalty and record.lapses):
                wake = min(wake, time or _NEVER)
        assert self._wake <= wake
        self._check_order()

    def _check_order(self):
        """Validate what this balancer picks by."""

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
            self._busy = busy
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
        now = self._now() if self._timed or self._wake != _NEVER else self._seen
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
                        self._lapse, self._wake = _NEVER, self._due
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


class RoundRobin(_Balancer):
    """Servers in turn, from a random one on; from the first with a `seed`.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"], seed=0)
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    _cursor = 0

    def _arrange(self, active):
        coming = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = next((record.seat for record in coming if record.seat >= 0), 0)
        if active and self._scatters():
            self._cursor = self._below(len(active))

    def _choose(self, key, skip, now):
        while True:
            if self._cursor >= len(self._active):
                self._cursor = 0
            record = self._active[self._cursor]
            self._cursor += 1
            if not skip or record not in skip:
                return record


class WeightedRoundRobin(_Balancer):
    """Servers in turn by weight: nginx's smooth weighted round robin, pick for pick.

    With a `seed` the sequence begins where nginx's does, else anywhere in it.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1}, seed=0)
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    def _arrange(self, active):
        """Begins the sequence anew, with all servers at 0, at its first step or without a seed at any."""
        self._weights = [record.weight for record in active]
        self._price = 0.0
        for weight in self._weights:
            self._price += weight
        self._stands, self._steps = [0.0] * len(active), [0] * len(active)
        self._step = 0
        self._winners, self._until = [0] * len(active), [_NEVER] * len(active)
        self._play_all()
        if active and not self._seeded:
            for _ in range(self._below(first_steps(self._weights))):
                self._advance()
                self._pay(self._winners[1] if len(active) > 1 else 0, self._price)

    def _stand(self, at):
        """nginx's `current_weight` of a server: it grows by the weight at every step."""
        return self._stands[at] + (self._step - self._steps[at]) * self._weights[at]

    def _play(self, node):
        """Let the winners of both halves meet, and note when the other one will have overtaken."""
        count, left, right = len(self._weights), 2 * node, 2 * node + 1
        ahead = left - count if left >= count else self._winners[left]
        other = right - count if right >= count else self._winners[right]
        lead = self._stand(ahead) - self._stand(other)
        if lead < 0.0 or (lead == 0.0 and other < ahead):
            ahead, other, lead = other, ahead, -lead
        until = min(_NEVER if left >= count else self._until[left],
                    _NEVER if right >= count else self._until[right])
        gain = self._weights[other] - self._weights[ahead]
        if gain > 0.0 and lead < gain * _FAR:
            until = min(until, self._step + max(1, int(lead / gain)))
        self._winners[node], self._until[node] = ahead, until

    def _play_all(self):
        for node in range(len(self._weights) - 1, 0, -1):
            self._play(node)

    def _replay(self, node):
        """Play again where somebody was to overtake by now."""
        if node < len(self._weights) and self._until[node] <= self._step:
            self._replay(2 * node)
            self._replay(2 * node + 1)
            self._play(node)

    def _climb(self, at):
        """A server has changed where it stands: its matches, up to the last."""
        node = (at + len(self._weights)) // 2
        while node:
            self._play(node)
            node //= 2

    def _pay(self, at, price):
        """Take `price` from where a server stands."""
        self._stands[at] = self._stand(at) - price
        self._steps[at] = self._step
        self._climb(at)

    def _advance(self):
        """Goes to the next step, at which all matches hold."""
        self._step += 1
        self._replay(1)

    def _choose(self, key, skip, now):
        self._advance()
        best = self._ahead(1, skip)
        price = self._price
        for seat in self._seats(skip):
            self._pay(seat, self._weights[seat])
            price -= self._weights[seat]
        self._pay(best, price)
        return self._active[best]

    def _ahead(self, node, skip):
        """Who is ahead below `node` and not in `skip`, or -1."""
        count = len(self._weights)
        at = node - count if node >= count else self._winners[node]
        if not skip or self._active[at] not in skip:
            return at
        if node >= count:
            return -1
        at, other = self._ahead(2 * node, skip), self._ahead(2 * node + 1, skip)
        if at < 0 or (other >= 0 and self._beats(other, at)):
            return other
        return at

    def _beats(self, at, other):
        """Whether a server is ahead of another one."""
        stand, against = self._stand(at), self._stand(other)
        return stand > against or (stand == against and at < other)

    def _check_order(self):
        assert self._weights == [record.weight for record in self._active]
        for node in range(1, len(self._weights)):
            if self._until[node] > self._step:
                below = [at for at in range(len(self._weights)) if self._is_below(node, at)]
                first = max(below, key=lambda at: (self._stand(at), -at))
                lead = self._stand(first) - self._stand(self._winners[node])
                assert first == self._winners[node] or lead <= 1e-9 * self._price

    def _is_below(self, node, at):
        """Whether a server's leaf is in the subtree of `node`."""
        leaf = at + len(self._weights)
        return leaf >> (leaf.bit_length() - node.bit_length()) == node


class RandomChoice(_Balancer):
    """A server at random, in proportion to the weights.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.

    Complexity: O(1) a pick.

    >>> balancer = RandomChoice({"a": 9, "b": 1}, seed=1)
    >>> sum(balancer.get_server() == "a" for _ in range(1000)) > 850
    True
    """

    def _arrange(self, active):
        """Vose's alias table: each slot holds its own record up to its chance, above it the alias."""
        total = 0.0
        for record in active:
            total += record.weight
        self._chances = [record.weight * len(active) / total for record in active]
        self._aliases = list(range(len(active)))
        small = [at for at, chance in enumerate(self._chances) if chance < 1.0]
        large = [at for at, chance in enumerate(self._chances) if chance >= 1.0]
        while small and large:
            low, high = small.pop(), large[-1]
            self._aliases[low] = high
            self._chances[high] -= 1.0 - self._chances[low]
            if self._chances[high] < 1.0:
                small.append(large.pop())
        for at in small + large:
            self._chances[at] = 1.0

    def _choose(self, key, skip, now):
        for _ in range(_DRAWS):
            at = self._below(len(self._active))
            if self._unit() >= self._chances[at]:
                at = self._aliases[at]
            if not skip or self._active[at] not in skip:
                return self._active[at]
        return self._choose_left(self._left(skip))

    def _choose_left(self, left):
        """A weighted draw from a few."""
        total = 0.0
        for record in left:
            total += record.weight
        drawn = self._unit() * total
        for record in left:
            drawn -= record.weight
            if drawn < 0.0:
                return record
        return left[-1]


class LeastLoaded(_Balancer):
    """The server with the fewest picks in flight for its weight; of equals, the one picked longest ago.

    Those that have not been picked yet come in random order, with a `seed` in their own. What failed counts
    as in flight for some time. Where weights differ, a server drawn by weight takes the pick unless it
    carries more for its weight than the least loaded one: so shares are those of the weights in an idle
    fleet too.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(log n) a pick for n servers.

    >>> balancer = LeastLoaded(["a", "b"], seed=0)
    >>> pick = balancer.pick()
    >>> pick.server, balancer.get_server(), balancer.get_server()
    ('a', 'b', 'b')
    """

    _heap = ()

    def _arrange(self, active):
        for record in self._heap:
            record.place = -1
        if self._scatters():
            for record in active:
                record.turn = -(self._draw() >> 2)
        self._weigh(active)
        self._warming = [record for record in active if record.warm]
        heap = [record for record in active if not record.warm]
        for at, record in enumerate(heap):
            record.place = at
        self._heap = heap
        for at in reversed(range(len(heap) // 2)):
            self._sink(heap[at])

    def _check_order(self):
        assert len(self._heap) + len(self._warming) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.place == at
            assert not self._before(record, self._heap[max(at - 1, 0) // 2])

    def _before(self, a, b):
        """Whether `a` has less in flight for its weight than `b`, or was picked longer ago."""
        left = (a.in_flight + a.penalty + 1) * b.weight
        right = (b.in_flight + b.penalty + 1) * a.weight
        return left < right or (left == right and a.turn < b.turn)

    def _swap(self, a, b):
        self._heap[a.place], self._heap[b.place] = b, a
        a.place, b.place = b.place, a.place

    def _sink(self, record):
        while 2 * record.place + 1 < len(self._heap):
            at = 2 * record.place + 1
            child = self._heap[at]
            if at + 1 < len(self._heap) and self._before(self._heap[at + 1], child):
                child = self._heap[at + 1]
            if not self._before(child, record):
                break
            self._swap(record, child)

    def _moved(self, record):
        if self._busy:
            self._stale = True
            return
        self._busy = True
        try:
            self._mend(record)
        finally:
            self._busy = False
        if self._stale:
            self._rebuild(self._seen)

    def _mend(self, record):
        """Put a record where its load belongs."""
        if not 0 <= record.place < len(self._heap) or self._heap[record.place] is not record:
            return
        while record.place > 0:
            parent = self._heap[(record.place - 1) // 2]
            if not self._before(record, parent):
                break
            self._swap(record, parent)
        self._sink(record)

    def _warms(self):
        return False

    def _choose(self, key, skip, now):
        if self._panicking:
            return self._drawn(self._seats(skip))
        first = self._first(0, skip)
        if not self._sums and not self._warming:
            return first
        best = self._least(first, skip, now)
        out = self._seats(skip)
        total = self._total(out) if self._sums else (len(self._active) - len(out)) * best.weight
        drawn = self._drawn(out)
        while drawn.warm and self._unit() * self._slow_start >= self._warmth(drawn, now):
            insort(out, drawn.seat)
            if len(out) == len(self._active):
                return best
            drawn = self._drawn(out)
        if drawn is best:
            return best
        return self._preferred(drawn, self._share(drawn, now), best, self._share(best, now), total, now)

    def _share(self, record, now):
        """The weight of a server, less in a slow start."""
        if not record.warm:
            return record.weight
        return record.weight * (self._warmth(record, now) / self._slow_start)

    def _least(self, best, skip, now):
        """The least loaded of `best` and the servers in a slow start that are not in `skip`."""
        for record in self._warming:
            if record not in skip and (best is None or (
                    (record.in_flight + record.penalty + 1) * self._share(best, now)
                    < (best.in_flight + best.penalty + 1) * self._share(record, now))):
                best = record
        return best

    def _first(self, at, skip):
        """The first in order of the subtree at `at` that is not in `skip`, or None."""
        if at >= len(self._heap):
            return None
        record = self._heap[at]
        if not skip or record not in skip:
            return record
        left, right = self._first(2 * at + 1, skip), self._first(2 * at + 2, skip)
        if left is None or (right is not None and self._before(right, left)):
            return right
        return left


class PowerOfTwo(_Balancer):
    """The less loaded of two distinct servers drawn by weight; of equals, the one that was drawn first.

    Load is the picks in flight for the weight; what failed counts as in flight for some time. Shares are
    those of the weights, in an idle fleet and under load. Where what is picked has failed of late, a third
    server is looked at.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PowerOfTwo(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    def _arrange(self, active):
        self._weigh(active)

    def _choose(self, key, skip, now):
        out = self._seats(skip)
        a = self._drawn(out)
        if self._panicking or len(self._active) - len(out) == 1:
            return a
        total = self._total(out) if self._sums else 0.0
        insort(out, a.seat)
        b = self._drawn(out)
        best = self._preferred(a, a.weight, b, b.weight, total, now)
        insort(out, b.seat)
        if not best.penalty or len(out) == len(self._active):
            return best
        return self._third(best, out, total, now)

    def _third(self, best, out, total, now):
        """`best` of two, or a third server: both may have failed of late."""
        other = self._drawn(out)
        return self._preferred(best, best.weight, other, other.weight, total, now)


class PeakEWMA(PowerOfTwo):
    """The one of two distinct servers drawn by weight whose latency times load is less.

    The latency is a moving average over 10 seconds that a slower sample replaces at once; a server
    without a sample but with picks in flight is avoided. A failure is no faster than successes mostly are.
    Of two that carry the same for their weights the one drawn first is taken, unless its latency is more than
    twice that of the other, both lengthened by a millisecond.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Finagle, PeakEwma.

    Complexity: O(1) a pick; O(log n) for n servers whose weights differ.

    >>> balancer = PeakEWMA(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    _timed = True

    def _load(self, record, slot, now):
        if record.cost == 0.0 and record.in_flight + record.penalty:
            return UNKNOWN + slot
        passed = max(now - record.stamp, 0)
        return (record.cost * _kept(passed) + RESOLUTION) * (slot + 1.0)


class _Hashed(_Balancer):
    """A balancer that hashes keys; its plan is (what makes a placement, the placement, records by id)."""

    _plan = None, None, {}

    def _make(self):
        return self._plan[0]

    def _adopt(self, plan):
        self._plan = plan

    def _planned(self, members, make, changed, weight):
        if make is None:
            return None, None, {}
        weights = {}
        for record in members.values():
            share = weight if record is changed else record.weight
            weights[record.server] = int(share) if share < 2**53 and share == int(share) else share
        placement = make(weights)
        if not isinstance(placement, _Placement):
            raise TypeError(f"placement must make a HashRing, Rendezvous or Maglev, got {placement!r}")
        return make, placement, {id(record.server): record for record in members.values()}

    def _has_name(self, server):
        placement = self._plan[1]
        return placement is not None and server in placement

    def _warms(self):
        return False

    def _read_key(self, key):
        data = self._key_data(key)
        _, placement, records = self._plan
        if placement is not None:
            _Placement.nodes.__get__(placement)  # builds it, which other threads are not to wait for
        return placement, records, data

    def _key_data(self, key):
        """The bytes that a key is placed by."""
        return key_bytes(key, "key")

    def _choose(self, key, skip, now):
        record = self._preference(key, skip, now, True)
        return record or self._preference(key, skip, now, False) or self._left(skip)[0]

    def _preference(self, key, skip, now, warming):
        """The first active record that a key prefers, or None; `warming` holds back slow starts."""
        placement, records, data = key
        count = 0
        while count < len(records):
            count = 4 * count or 1
            found = _Placement.get_nodes(placement, data, count) if count > 1 else [
                _Placement.get_node(placement, data)]
            for server in found:
                record = records.get(id(server))
                if record is not None and record.seat >= 0 and record not in skip and not (
                        warming and record.warm and self._comes_later(data, record, now)):
                    return record
        return None

    def _resort(self, key, left):
        """The ejected record that a key prefers."""
        placement, records, data = key
        found = _Placement.get_nodes(placement, data, len(records)) if placement is not None else ()
        preferred = (records.get(id(server)) for server in found)
        return next((record for record in preferred if record in left), left[0])

    def _comes_later(self, data, record, now):
        """Whether a key does not go yet to a server in a slow start: keys come one by one, and stay."""
        return splitmix64(_xxh64_bytes(data)) / _WORD * self._slow_start >= self._warmth(record, now)


class KeyHash(_Hashed):
    """The same server for the same `key`, whatever is hashed: a str, bytes or an int.

    `placement` is called with a mapping of server to weight and returns the placement of keys: HashRing,
    which is the default, Rendezvous, Maglev, or such as ``partial(HashRing, scheme="nginx")``. Servers are
    what its nodes may be: str, bytes or int, and anything else with its `node_key`. While a server is
    ejected, draining or excluded, each of its keys goes to the next server in the order in which the key
    prefers them, and no other key moves. In a slow start a server gets its keys one by one. No key is
    remembered.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: that of the placement a pick, and O(k log k) where k servers that the key prefers are out; a
    change of the members makes a new placement, which the next pick builds.

    >>> balancer = KeyHash(["a", "b", "c"])
    >>> balancer.get_server("user:1"), balancer.get_server("user:1", exclude=["a"])
    ('a', 'c')
    """

    def __init__(self, servers, *, placement=None, clock=None, seed=None, max_failures=5, success_rate=None,
                 ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        checked_callable("placement", placement)
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start),
            HashRing if placement is None else placement)


class AddressHash(_Hashed):
    """The same server for the same client address: `key`, IPv4 or IPv6 as text or packed.

    A HashRing places the addresses, IPv6 by its /64, so that a server that joins or leaves moves only its
    own clients; servers are then str, bytes or int. In a slow start a server gets its clients one by one.
    With ``scheme="nginx"`` it is nginx's ip_hash, in which a slow start does not hold back.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded; but at most the
    share `max_ejected` of the servers at once, rounded up, and never the last. Where fewer than the share
    `panic_threshold` of the servers, rounded down, would be left, ejections are passed over and picks spread
    by weight alone. A server that is added or returns takes a share that grows over `slow_start` seconds.
    `clock` returns integer nanoseconds, by default those of the monotonic clock. All draws follow from
    `seed`; without one they differ from balancer to balancer. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) expected a pick; O(k log k) where k servers that the address prefers are out.

    >>> balancer = AddressHash(["a", "b"])
    >>> balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::2")
    True
    """

    def __init__(self, servers, *, scheme="headgate", clock=None, seed=None, max_failures=5,
                 success_rate=None, ejection_time=30, max_ejected=0.5, panic_threshold=0.5, slow_start=0):
        make = HashRing if checked_scheme(scheme) == "headgate" else None
        pairs = server_weights(servers)
        for _, weight in pairs:
            self._admitted(weight, make)
        self._begin(pairs, checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, max_ejected, panic_threshold, slow_start), make)

    def _admitted(self, weight, make):
        weight = server_weight(weight)
        if make is None and weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    def _arrange(self, active):
        """What nginx's scheme walks over: the servers, those that are out too, and sums of their weights."""
        self._line = [record for record in self._members.values() if not record.draining]
        self._ends = list(accumulate(int(record.weight) for record in self._line))

    def _key_data(self, key):
        return address_bytes(key, self._plan[0] is None)

    def _choose(self, key, skip, now):
        if key[0] is not None:
            return super()._choose(key, skip, now)
        hashed = 89
        for _ in range(21):  # nginx hashes on where a server is out, up to 20 times
            hashed = nginx_hash(key[2], hashed)
            record = self._line[bisect_right(self._ends, hashed % self._ends[-1])]
            if record.seat >= 0 and record not in skip:
                return record
        return self._left(skip)[0]
