"""Balancers in pure Python: which server takes a request.

    _members  server -> record     all members; a change of any of them ends in `_rebuild`
    _active   [record, ...]        those that picks go to, and what each balancer derives from them:
                                   a tournament, an alias table, a heap, a ring
    record    weight, in flight, latency, outcomes, ejected until, warm at

       pick() ---> _choose ---> in_flight + 1 ---> ... done(ok) ---> in_flight - 1, latency, outcome
                     ^                                                  |
                     +---- _rebuild <---- ejected, or back after `_wake` <-+

Invariants. `_active` holds the members that are neither draining nor ejected; all that are not draining
where fewer than the panic threshold would be left. `_wake` is the time of the next return or end of a slow
start; only then does a pick that measures nothing read the clock. A record outlives its membership, so
that picks in flight end where they began.

Foreign code is the clock, ``__hash__`` and ``__eq__`` of servers, and arguments: all of it runs before
anything changes. A finalizer may come at any time: while `_busy` says that something is derived or chosen,
its picks take any active record, and its changes leave `_stale` for whoever was interrupted.
"""
from bisect import bisect_right
from itertools import accumulate
from math import exp
from time import monotonic_ns
from types import GenericAlias

from headgate._clock import checked_clock, checked_now
from headgate._fleet import (
    ServerRecord,
    address_bytes,
    checked_scheme,
    checked_settings,
    nginx_hash,
    server_weights,
)
from headgate._forks import new_lock, renew
from headgate._membership import RingRules, admitted, checked_several, checked_weight
from headgate._pure.hashing import splitmix64
from headgate._pure.placement import HashRing
from headgate.errors import NoServerError

_NEVER = 2**63 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64

TAU = 10e9
INTERVAL = 10_000_000_000
VOLUME = 20
STEP_BACK = 1_000_000_000
PENALTY = 1e18
_FAR = 2.0**62
_DRAWS = 64
NOBODY = []
RING_RULES = RingRules()


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
        "place",
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
        self.until = self.warm = self.ejections = self.turn = 0
        self.stamp = self.window = self.since = now
        self.place = -1
        self.draining = False

    def shown(self):
        health = "draining" if self.draining else "ejected" if self.until else "healthy"
        return ServerRecord(self.server, self.weight, self.in_flight, self.cost / 1e9, health, self.since)


class _Pick:
    """A server picked: `server`, in flight until the ``with`` block or `done(ok)` ends it."""

    __slots__ = ("_balancer", "_record", "_start", "server")

    def done(self, ok=True):
        """Ends the pick with its outcome and the time since it began; later calls do nothing.

        A pick that is dropped unended leaves the flight without an outcome.
        """
        if self._record is not None:
            self._balancer._finish(self, bool(ok))

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
        if self._record is not None:
            self._balancer._abandon(self)


class _Balancer:
    """What all balancers share: members, health, picks in flight, and the draws."""

    _clock, _wake, _seen, _state, _sequence = None, _NEVER, 0, 0, 0
    _timed = _busy = _stale = False

    __class_getitem__ = classmethod(GenericAlias)

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self._lock = new_lock()
        renew(self)
        self._members, self._active = {}, []
        return self

    def __init__(self, servers, *, clock=None, seed=0, max_failures=5, success_rate=None, ejection_time=30,
                 panic_threshold=0.5, slow_start=0):
        self._begin(server_weights(servers), checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, panic_threshold, slow_start))

    def _begin(self, pairs, clock, settings):
        self._clock = clock
        now = self._now()
        members = {}
        for server, weight in pairs:
            record = _Record(server, weight, now)
            if members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
        (self._state, self._max_failures, self._success_rate, self._ejection_time, self._panic,
         self._slow_start) = settings
        self._members = members
        self._sequence = 0
        self._rebuild(now)

    def _renew(self):
        """In the child of a fork: finish what another thread was amid."""
        if self._busy:
            self._busy = False
            self._rebuild(self._seen)

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

    # ---- members ----------------------------------------------------------------------------

    def _rebuild(self, now):
        """Derive what picks read from the members as they are; again where a finalizer changed them."""
        self._stale = True
        while self._stale and not self._busy:
            self._busy, self._stale = True, False
            try:
                self._derive(now)
            finally:
                self._busy = False

    def _derive(self, now):
        if now < self._seen - STEP_BACK:
            self._shift(now - self._seen)
        self._seen = now
        wake = _NEVER
        present = []
        healthy = []
        for record in list(self._members.values()):
            if record.until and record.until <= now:
                record.until = 0
                record.failures = record.good = record.total = 0
                record.window = record.since = now
                if self._slow_start:
                    record.warm = now + self._slow_start
            if record.warm and record.warm <= now:
                record.warm = 0
            record.place = -1
            if record.until:
                wake = min(wake, record.until)
            if record.warm:
                wake = min(wake, record.warm)
            if not record.draining:
                present.append(record)
                if not record.until:
                    healthy.append(record)
        if len(healthy) < self._panic * len(present) or not healthy:
            healthy = present
        self._wake = wake
        self._arrange(healthy)
        self._active = healthy

    def _shift(self, step):
        """Take the clock's step back in all times that are waited for."""
        for record in list(self._members.values()):
            if record.until:
                record.until += step
            if record.warm:
                record.warm += step
            record.since += step

    def _settle(self, now):
        """Rebuild where a server is due, the clock has stepped back, or a finalizer asked for it."""
        if self._stale or (self._wake != _NEVER and not self._seen - STEP_BACK <= now < self._wake):
            self._rebuild(now)

    def _arrange(self, active):
        """Derive what this balancer picks by."""

    def _moved(self, record):
        """The picks in flight of a record have changed."""

    def _known(self, server):
        found = self._members.get(server)
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
        weight = self._admitted(server, weight)
        now = self._now()
        record = _Record(server, weight, now)
        if self._slow_start:
            record.warm = now + self._slow_start
        hash(server)
        with self._lock:
            if self._has_name(server) or self._members.setdefault(server, record) is not record:
                raise ValueError(f"server must not be a member already, got {server!r}")
            self._rebuild(now)

    def _admitted(self, server, weight):
        """The exact weight of a server that may be a member."""
        return checked_weight(weight)

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
        with self._lock:
            record = self._members.pop(server, None)
            if record is not None:
                self._rebuild(now)
        if record is None:
            raise KeyError(f"server must be a member, got {server!r}")

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
        with self._lock:
            record = self._known(server)
            if record.draining != draining:
                record.draining, record.since = draining, now
                self._rebuild(now)

    def set_weight(self, server, weight):
        """Gives `server` another weight.

        Raises KeyError if it is no member, ValueError if `weight` is not positive and finite, TypeError if
        it is neither int nor float.

        Complexity: O(n) for n servers.

        >>> balancer = WeightedRoundRobin(["a", "b"])
        >>> balancer.set_weight("a", 2)
        >>> [balancer.get_server() for _ in range(3)]
        ['a', 'b', 'a']
        """
        weight = self._admitted(server, weight)
        now = self._now()
        with self._lock:
            record = self._known(server)
            record.weight = float(weight)
            self._rebuild(now)

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
            return [record.shown() for record in list(self._members.values())]

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
        assert self._active in (present, healthy)
        for server, record in self._members.items():
            assert record.server is server
            assert record.in_flight >= 0
            if record.until:
                wake = min(wake, record.until)
            if record.warm:
                wake = min(wake, record.warm)
        assert self._wake == wake
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
                raise NoServerError("every server is excluded")
            record = self._left(skip)[0] if busy else self._considered(key, skip, now)
        finally:
            self._busy = busy
            if self._stale:
                self._rebuild(now)
        return record

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
        found = dict.fromkeys([self._members.get(server) for server in checked_several("exclude", exclude)])
        found.pop(None, None)
        return list(found)

    def get_server(self, key=None, *, exclude=()):
        """Names the next server, without counting a request in flight.

        `key` is what AddressHash hashes; the others do not look at it. Servers in `exclude` are passed over.

        Raises NoServerError if there is no server or every one is excluded, TypeError if `exclude` is a
        single server.

        Complexity: see the class; up to O(n) for n servers with `exclude` or in a slow start.

        >>> balancer = RoundRobin(["a", "b"])
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

        Answers a context manager, for ``with`` and ``async with``, with the attribute `server` and the
        method ``done(ok=True)``. Its end measures the latency and feeds outlier ejection; leaving the block
        by an error is a failure, but a task that is cancelled says nothing of the server. `key` and `exclude`
        are those of get_server.

        Raises NoServerError if there is no server or every one is excluded, TypeError if `exclude` is a
        single server.

        Complexity: see the class.

        >>> balancer = LeastLoaded(["a", "b"])
        >>> with balancer.pick() as one, balancer.pick() as two:
        ...     one.server, two.server
        ('a', 'b')
        """
        pick = _Pick()
        pick._record = None
        skip = self._skipped(exclude) if exclude else NOBODY
        key = self._read_key(key)
        now = self._now()
        with self._lock:
            record = self._chosen(key, skip, now)
            record.in_flight += 1
            self._sequence += 1
            record.turn = self._sequence
            self._moved(record)
        pick.server, pick._balancer, pick._start = record.server, self, now
        pick._record = record
        return pick

    def _finish(self, pick, ok):
        """Count a pick's outcome, once."""
        now = self._now()
        with self._lock:
            record, pick._record = pick._record, None
            if record is not None:
                record.in_flight -= 1
                self._measure(record, now - pick._start, now)
                self._judge(record, ok, now)
                self._moved(record)

    def _abandon(self, pick):
        """Take a pick that was dropped out of the flight."""
        with self._lock:
            record, pick._record = pick._record, None
            if record is not None:
                record.in_flight -= 1
                self._moved(record)

    def _measure(self, record, taken, now):
        """Peak EWMA: a slower sample counts at once, a faster one by the time since the last."""
        sample = max(taken, 0)
        passed = max(now - record.stamp, 0)
        if sample >= record.cost:
            record.cost = sample
        else:
            keep = _kept(passed)
            record.cost = record.cost * keep + sample * (1.0 - keep)
        record.stamp = now

    def _judge(self, record, ok, now):
        """Feed the outcome of a pick to outlier ejection."""
        if record.until:
            return
        record.failures = 0 if ok else record.failures + 1
        if self._success_rate and not 0 <= now - record.window < INTERVAL:
            record.window, record.good, record.total = now, 0, 0
        record.total += 1
        record.good += ok
        if record.failures >= self._max_failures or (
                not ok and record.total >= VOLUME and record.good < self._success_rate * record.total):
            if now - record.since > 10 * self._ejection_time:
                record.ejections = 0
            record.ejections += 1
            record.until = now + self._ejection_time * min(record.ejections, 10)
            record.since = now
            self._rebuild(now)


class RoundRobin(_Balancer):
    """Servers in turn.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) a pick.

    >>> balancer = RoundRobin(["a", "b"])
    >>> [balancer.get_server() for _ in range(3)]
    ['a', 'b', 'a']
    """

    _cursor = 0

    def _arrange(self, active):
        for record in self._active:
            record.place = -1
        for place, record in enumerate(active):
            record.place = place
        coming = self._active[self._cursor:] + self._active[:self._cursor]
        self._cursor = next((record.place for record in coming if record.place >= 0), 0)

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

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: nginx, ngx_http_upstream_round_robin.c.

    Complexity: O(log n) amortised a pick for n servers.

    >>> balancer = WeightedRoundRobin({"a": 5, "b": 1, "c": 1})
    >>> "".join(balancer.get_server() for _ in range(7))
    'aabacaa'
    """

    def _arrange(self, active):
        """Starts the sequence anew: everybody stands at 0."""
        self._weights, self._total = [], 0.0
        for place, record in enumerate(active):
            record.place = place
            self._weights.append(record.weight)
            self._total += record.weight
        self._stands, self._steps = [0.0] * len(active), [0] * len(active)
        self._step = 0
        self._winners, self._until = [0] * len(active), [_NEVER] * len(active)
        self._play_all()

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

    def _choose(self, key, skip, now):
        self._step += 1
        self._replay(1)
        best = self._ahead(1, skip)
        total = self._total
        for record in skip:
            if 0 <= record.place < len(self._active) and self._active[record.place] is record:
                self._pay(record.place, record.weight)
                total -= record.weight
        self._pay(best, total)
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
                assert first == self._winners[node] or lead <= 1e-9 * self._total

    def _is_below(self, node, at):
        """Whether a server's leaf is in the subtree of `node`."""
        leaf = at + len(self._weights)
        return leaf >> (leaf.bit_length() - node.bit_length()) == node


class RandomChoice(_Balancer):
    """A server at random, in proportion to the weights.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

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

    The pick itself counts in, so an idle fleet gives first to the server of the greatest weight.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(log n) a pick for n servers.

    >>> balancer = LeastLoaded(["a", "b"])
    >>> pick = balancer.pick()
    >>> pick.server, balancer.get_server(), balancer.get_server()
    ('a', 'b', 'b')
    >>> LeastLoaded({"small": 1, "large": 4}).get_server()
    'large'
    """

    def _arrange(self, active):
        self._heap = []
        for at in range(len(active)):
            record = active[at]
            record.place = at
        self._heap = list(active)
        for at in reversed(range(len(active) // 2)):
            self._sink(self._heap[at])

    def _check_order(self):
        assert len(self._heap) == len(self._active)
        for at in range(len(self._heap)):
            record = self._heap[at]
            assert record.place == at
            assert not self._before(record, self._heap[max(at - 1, 0) // 2])

    def _before(self, a, b):
        """Whether `a` has less in flight for its weight than `b`, or was picked longer ago."""
        left = (a.in_flight + 1) * b.weight
        right = (b.in_flight + 1) * a.weight
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

    def _choose(self, key, skip, now):
        return self._first(0, skip)

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
    """The less loaded of two distinct servers drawn at random; equals are told apart by a draw.

    Load is what LeastLoaded compares: picks in flight, this one counted in, for the weight.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001.

    Complexity: O(1) a pick.

    >>> balancer = PowerOfTwo(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    def _load(self, record, now):
        """What a server carries, this request counted in."""
        return record.in_flight + 1.0

    def _choose(self, key, skip, now):
        active = self._active if 2 * len(skip) < len(self._active) else self._left(skip)
        if len(active) == 1:
            return active[0]
        while True:
            at, other = self._below(len(active)), self._below(len(active) - 1)
            a, b = active[at], active[other + (other >= at)]
            if not skip or not (a in skip or b in skip):
                break
        left, right = self._load(a, now) * b.weight, self._load(b, now) * a.weight
        if left == right:
            return a if self._draw() >> 63 else b
        return a if left < right else b


class PeakEWMA(PowerOfTwo):
    """The one of two distinct servers drawn at random whose latency times load is less.

    The latency is a moving average over 10 seconds that a slower sample replaces at once; a server
    without a sample but with picks in flight is avoided.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Source: Finagle, PeakEwma.

    Complexity: O(1) a pick.

    >>> balancer = PeakEWMA(["a", "b"])
    >>> with balancer.pick() as one, balancer.pick() as two:
    ...     one.server != two.server
    True
    """

    _timed = True

    def _load(self, record, now):
        if record.cost == 0.0 and record.in_flight:
            return PENALTY + record.in_flight
        passed = max(now - record.stamp, 0)
        return record.cost * _kept(passed) * (record.in_flight + 1)


class AddressHash(_Balancer):
    """The same server for the same client address: `key`, IPv4 or IPv6 as text or packed.

    A HashRing places the addresses, IPv6 by its /64, so that a server that joins or leaves moves only its
    own clients; servers are then str, bytes or int. With ``scheme="nginx"`` it is nginx's ip_hash. A slow
    start does not hold back.

    `servers` are any hashables: an iterable, or a mapping to weights. A server is ejected for
    `ejection_time` seconds times the number of its ejections (10 at most) after `max_failures` failures in
    a row, or when less than `success_rate` of at least 20 picks within 10 seconds succeeded. Where less than
    `panic_threshold` of the servers would be left, ejections are passed over. A server that is added or
    returns takes a share that grows over `slow_start` seconds. `clock` answers integer nanoseconds, by
    default the monotonic clock; all draws follow from `seed`. Every method is atomic among threads.

    Raises ValueError or TypeError for an argument that is out of range or of the wrong type.

    Complexity: O(1) expected a pick; O(k log k) where k servers that the address prefers are out.

    >>> balancer = AddressHash(["a", "b"])
    >>> balancer.get_server("2001:db8::1") == balancer.get_server("2001:db8::2")
    True
    """

    _scheme, _ring = "headgate", None

    def __init__(self, servers, *, scheme="headgate", clock=None, seed=0, max_failures=5, success_rate=None,
                 ejection_time=30, panic_threshold=0.5, slow_start=0):
        self._scheme = checked_scheme(scheme)
        pairs = server_weights(servers)
        for server, weight in pairs:
            self._admitted(server, weight)
        self._begin(pairs, checked_clock(clock), checked_settings(
            seed, max_failures, success_rate, ejection_time, panic_threshold, slow_start))

    def _admitted(self, server, weight):
        if self._scheme == "headgate":
            _, (_, weight) = admitted(server, checked_weight(weight), None, RING_RULES)
            return weight
        weight = checked_weight(weight)
        if weight != int(weight):
            raise ValueError(f"weight must be whole in nginx's scheme, got {weight!r}")
        return weight

    def _has_name(self, server):
        return self._scheme == "headgate" and server in self._ring

    def _arrange(self, active):
        for place, record in enumerate(active):
            record.place = place
        members = list(self._members.values())
        if self._scheme == "nginx":
            present = [record for record in members if not record.draining]
            self._ring, self._sums = present, list(accumulate(int(record.weight) for record in present))
            return
        weights = {record.server: record.weight for record in members}
        if self._ring is None or self._ring.weights != weights:
            self._ring = HashRing(weights)

    def _warms(self):
        return False

    def _read_key(self, key):
        return address_bytes(key, self._scheme == "nginx")

    def _choose(self, key, skip, now):
        if self._scheme == "nginx":
            return self._walk(key, skip)
        count = 1
        while count < 4 * len(self._members):
            for server in self._ring.get_nodes(key, count):
                record = self._members.get(server)
                if record is not None and record.place >= 0 and record not in skip:
                    return record
            count *= 4
        return self._left(skip)[0]

    def _walk(self, key, skip):
        """nginx hashes on where a server is out, up to 20 times."""
        hashed = 89
        for _ in range(21):
            hashed = nginx_hash(key, hashed)
            record = self._ring[bisect_right(self._sums, hashed % self._sums[-1])]
            if record.place >= 0 and record not in skip:
                return record
        return self._left(skip)[0]
