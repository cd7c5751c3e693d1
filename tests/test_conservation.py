"""Threads that use one object at once: what all of them did together shows in what is left of it.

It is for builds without the GIL too, and for ThreadSanitizer (``make tsan``).
"""

import random
import threading
import time
from collections import Counter
from itertools import chain

import pytest
from clocks import FakeClock
from threads import run_threads

from headgate import Decision, LRUCache
from headgate.limit._algorithms import Bounds
from headgate.limit._concurrency import LocalLedger
from headgate.limit._rules import LevelTally, Networks

CALLS = 150
ROUNDS = 60

# ---- limits ---------------------------------------------------------------------------------


def joint_levels(twin, **rates):
    """The levels of a `RateLimits` at a time that stands still, their limiters, and their counters."""
    limiters = {level: twin.keyed.RateLimiter(rate, clock=FakeClock()) for level, rate in rates.items()}
    tallies = {level: LevelTally() for level in rates}
    made = twin.joint.Levels(
        limiters, {level: Networks() for level in rates}, {level: {} for level in rates}, tallies, ())
    return made, limiters, tallies


def test_levels_take_all_or_nothing(twin):
    levels, limiters, tallies = joint_levels(twin, user="60/min", all="100/min")
    allowed = [[] for _ in range(4)]

    def work(number):
        draw = random.Random(number)
        calls = [levels.allow, levels.decide, levels.reserve]
        for at in range(CALLS):
            user = f"u{draw.randrange(2)}"
            keys = {"user": user, "all": "all"}
            if calls[at % 3](keys, 1):
                allowed[number].append(user)
            levels.peek(keys, 1).fields(policies=levels.policies())

    run_threads(work, count=4)
    taken = Counter(chain(*allowed))
    for user in ("u0", "u1"):
        assert limiters["user"].peek(user).remaining == 60 - taken[user]
    assert limiters["all"].peek("all").remaining == 100 - taken.total()
    assert tallies["all"].counts().allowed == tallies["user"].counts().allowed == taken.total()
    assert sum(tally.counts().denied for tally in tallies.values()) >= 4 * CALLS - taken.total()


def test_reservations_that_are_cancelled_take_nothing(twin):
    levels, limiters, _ = joint_levels(twin, user="9/min", all="20/min")

    def work(number):
        for _ in range(CALLS):
            levels.reserve({"user": number % 3, "all": "all"}, 2).cancel()

    run_threads(work, count=4)
    assert limiters["all"].peek("all").remaining == 20
    assert [limiters["user"].peek(user).remaining for user in range(3)] == [9, 9, 9]


def test_a_reservation_is_settled_once_by_all_threads(twin):
    limiter, route = (twin.keyed.RateLimiter("50/min", clock=FakeClock()) for _ in range(2))
    for at in range(ROUNDS):  # so that refunds have no bound
        assert limiter.allow(at, 30) and route.allow(at, 30)
    reserved = [limiter.reserve(at, 10) for at in range(ROUNDS)]

    def work(number):
        for at, reservation in enumerate(reserved):
            if number < 3:
                reservation.settle(number)
            else:
                reservation.join(route.reserve(at, 10))
            assert reservation.delay == 0 and reservation and reservation.tokens == 10

    run_threads(work, count=4)
    for at, reservation in enumerate(reserved):
        assert limiter.peek(at).remaining in (18, 19, 20)
        reservation.settle(1)  # what joined after the first
        assert route.peek(at).remaining in (18, 19, 20)


def test_permits_never_exceed_the_limit_and_all_come_back(twin):
    ledger = LocalLedger(2 * 2**32)
    admission = twin.permits.Admission(ledger, {None: 1.0}, Bounds(2, 2), "fixed", None, None)
    held = []

    def work(number):
        for _ in range(CALLS):
            permit = admission.acquire(None)
            if permit:
                held.append(number)
                time.sleep(0)
                assert len(held) <= 2
                held.pop()
            permit.release()
            permit.release()

    run_threads(work, count=4)
    assert ledger.inflight == 0 and not held


@pytest.mark.parametrize("algorithm", ["gradient", "aimd"])
def test_a_permit_adapts_the_limit_once_for_all_threads(twin, algorithm):
    readings = []

    def clock():
        readings.append(None)
        return len(readings)

    admission = twin.permits.Admission(
        LocalLedger(10**5 * 2**32), {None: 1.0}, Bounds(1, 10**6), algorithm, 10**9, clock)
    permits = [admission.acquire(None) for _ in range(5 * ROUNDS)]

    def work(number):
        for permit in permits:
            getattr(permit, ("observe", "release")[number % 2])()

    run_threads(work, count=4)
    assert len(readings) == 2 * len(permits)  # one when a permit is taken, one when it adapts the limit
    assert admission.recover() == 0


def test_fields_are_those_of_their_decision(twin):
    decisions = [Decision(bool(left), 60, left, 0.0 if left else 2.5, 60.0 - left, f"user: {rate}/min")
                 for left in (0.0, 0.5, 3.0) for rate in range(60, 70)]
    styles = ("draft", "legacy", "both")
    policies = ("user: 60/min", "all: 100/s")
    wanted = [[twin.fields.fields_of(each, None, policies, style) for style in styles] for each in decisions]

    def work(number):
        for at in range(ROUNDS):
            which = (at + 7 * number) % len(decisions)
            found = [twin.fields.fields_of(decisions[which], None, policies, style) for style in styles]
            assert found == wanted[which]

    run_threads(work, count=4)


# ---- near tables ----------------------------------------------------------------------------


class Switching(LRUCache):
    """Lets other threads go on before and after an entry is put into it."""

    def __setitem__(self, key, entry):
        time.sleep(0)
        super().__setitem__(key, entry)
        time.sleep(0)


class Remote:
    """Versions of keys, and the near table that is told of each change."""

    def __init__(self, twin):
        self.table = twin.near.NearTable(Switching(100), prefixes=["k"], negative_ttl=60)
        self.lock = threading.Lock()
        self.versions = Counter()
        self.dropped = Counter()
        self.stored, self.lookups = [], []
        self.open()

    def open(self):
        self.epoch = self.table.open_epoch("run")
        self.epoch.extend(2**62)

    def write(self, key):
        with self.lock:
            self.versions[key] += 1
            self.table.invalidate([key])
            self.dropped[key] = self.versions[key]

    def read(self, key):
        least = self.dropped[key]
        self.lookups.append(key)
        value = self.table.peek(key, None, -1)
        if value is not None:
            assert value == -1 or value >= least
            return
        entry = self.table.begin(key, self.epoch)
        version = self.versions[key]
        time.sleep(0)  # the reply is under way
        kept = self.table.store(entry, version, "run") if version else self.table.store_absence(entry, "run")
        assert entry.key == key
        if kept:  # else it may be an older one's, fetched on a connection that has been lost since
            self.stored.append(key)
            assert entry.value is None or entry.value >= least
        self.table.end(entry)

    def lose(self):
        """The connection is lost, and with it the announcements of some changes."""
        with self.lock:
            self.table.close_epoch(self.epoch)
            self.versions.update(["k0", "k1"])
            self.dropped.update(self.versions - self.dropped)
            self.open()


def test_a_near_table_never_serves_what_was_dropped(twin):
    remote = Remote(twin)

    def work(number):
        draw = random.Random(number)
        for _ in range(2 * CALLS):
            action = draw.random()
            if action < 0.1:
                remote.write(f"k{draw.randrange(2)}")
            elif action < 0.15:
                remote.lose()
            else:
                remote.read(f"k{draw.randrange(2)}")
        remote.table.stats()

    run_threads(work, count=4)
    remote.table._check()
    stats = remote.table.stats()
    assert stats.pending == 0 and stats.hits + stats.misses == len(remote.lookups)
    assert stats.stored == len(remote.stored)


def test_a_lookup_is_awaited_once_by_all_threads(twin):
    remote = Remote(twin)
    remote.versions["k"] = 1
    remote.read("k")
    lookups = [remote.table._aget("k") for _ in range(ROUNDS)]
    found = [[] for _ in range(4)]

    def work(number):
        for lookup in lookups:
            try:
                lookup.send(None)
            except StopIteration as stop:
                found[number].append(stop.value)
            except (RuntimeError, ValueError):  # another thread was faster, or is at it
                pass

    run_threads(work, count=4)
    assert list(chain(*found)) == [1] * ROUNDS


# ---- objectives -----------------------------------------------------------------------------


def test_an_objective_counts_every_event_in_its_slot(twin):
    clock = FakeClock()
    slo = twin.slo.SLO(99, "12 h", clock=clock)
    start = clock.now

    def work(number):
        for _ in range(40):
            slo.record(number > 0)
            slo.burn_rate(60)

    slots = [0, 1, 5, 6, 65, 355]
    for slot in slots:
        clock.now = start + slot * 10**9
        run_threads(work, count=4)
    for phases, slot in enumerate(reversed(slots), 1):
        assert slo._events(slots[-1] - slot) == (120 * phases, 40 * phases)
    clock.now += 13 * 3600 * 10**9
    assert (slo.good, slo.bad) == (720, 240)
    assert slo._events(43200) == (0, 0)
