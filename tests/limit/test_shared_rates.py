"""The rate of a limit that processes share, switched by one of them while all go on."""

import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import crowd as crowds
import pytest
from damage import overwrite
from finalizers import struck_at
from watchdog import PATIENCE

from headgate import AddressLimiter, RateLimits
from headgate.limit import Rate

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="a shared limit needs fcntl"),
    pytest.mark.usefixtures("one_secret"),
]

SWITCHES = 4032
SETTLED = SWITCHES // 8 + 1
PROGRAM = Path(crowds.__file__)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "limit"


@pytest.fixture
def make(twin, path, clock):
    """Makes limiters that share the file."""
    def make(rate="10/s", **options):
        return twin.keyed.RateLimiter(rate, path=path, **{"max_keys": 100, "clock": clock, **options})
    return make


def test_all_limiters_have_the_new_rate_at_once(make):
    one, other = make(), make()
    assert other.allow("ann", 8)
    one.reconfigure("20/min")
    assert (one.rates, other.rates) == ((Rate(20, 60),),) * 2
    decision = other.decide("ann", 12)
    assert decision[:4] == (True, 20, 0.0, 0.0)
    assert (decision.reset_after, decision.policy) == (pytest.approx(60), "20/min")
    assert one.peek("ann").retry_after == pytest.approx(3)
    assert repr(other) == "RateLimiter('20/min')"
    one._check()
    other._check()


def test_a_decision_alone_notices_the_switch(make):
    one, other = make(), make()
    one.reconfigure("5/s")
    assert other.decide("ann").policy == "5/s"
    one.reconfigure("50/s")
    assert other.allow("bob", 50)
    one.reconfigure("5/s")
    with pytest.raises(ValueError, match="cost must be at most the burst 5, got 6"):
        other.allow("eve", 6)


def test_debts_are_kept_in_tokens(make, clock):
    one, other = make("10/s; 100/min"), make("10/s; 100/min")
    assert one.allow("ann", 7)
    other.reconfigure("8/s; 1000/h, burst 500")
    assert one.peek("ann").remaining == 1
    clock.advance(0.125)
    assert one.peek("ann").remaining == 2
    other.reconfigure("10/s; 100/min")
    clock.advance(0.1)
    assert one.peek("ann").remaining == 5
    one._check()


def test_a_large_debt_is_kept_up_to_32_bursts(make, clock):
    """Or up to 64, where a burst is half the units that it could be."""
    one, other = make("1000/s"), make("1000/s")
    assert one.allow("ann", 20) and one.allow("bob", 1000)
    other.reconfigure("1/s")
    assert [one.peek(key).retry_after for key in ("ann", "bob", "eve")] == pytest.approx([20, 64, 0])
    clock.advance(20)
    assert [one.allow(key) for key in ("ann", "bob")] == [True, False]
    clock.advance(44)
    assert one.allow("bob")
    one._check()


def test_a_switch_decides_as_that_of_a_private_limiter(make, twin, clock):
    """Where a debt is a whole number of units in both, to the last one."""
    shared = [make("3/s; 10/10s", max_keys=4) for _ in range(2)]
    private = twin.keyed.RateLimiter("3/s; 10/10s", max_keys=4, clock=clock)
    rates = ["6/s; 20/10s", "3/s; 10/10s", "3/s; 40/10s"]
    for turn in range(300):
        clock.advance((0.05, 0.21, 0.0, 0.03)[turn % 4])
        key, cost = f"user:{turn * turn % 3}", (1, 0, 2, 0.5)[turn % 7 % 4]
        if turn % 20 == 19:
            for limiter in (shared[turn % 3 % 2], private):
                limiter.reconfigure(rates[turn // 20 % 3])
        ours, theirs = shared[turn % 2].decide(key, cost), private.decide(key, cost)
        assert (ours.allowed, ours.policy) == (theirs.allowed, theirs.policy)
        assert ours[2:5] == pytest.approx(theirs[2:5], abs=1e-6)
    shared[1]._check()


@pytest.mark.parametrize("strict", [False, True])
def test_what_cannot_be_changed_needs_another_file(make, strict):
    limiter = make("10/s; 20/min", strict=strict)
    for rate in ("10/s", "1/s; 2/s; 3/s"):
        message = r"rate must have 2 tiers, got [13] for the limit in '.*limit', another path begins another"
        with pytest.raises(ValueError, match=message):
            limiter.reconfigure(rate)
    if strict:
        message = r"rate must have a limit of at most 20, got 21 for the limit in '.*limit', another path"
        with pytest.raises(ValueError, match=message):
            limiter.reconfigure("1/s; 21/min")
    assert limiter.decide("ann").policy == "10/s"


def test_the_same_rate_changes_nothing(make, path):
    limiter = make()
    before = path.read_bytes()
    limiter.reconfigure(Rate(10, 1))
    assert path.read_bytes() == before


def test_a_strict_limit(make, clock):
    one, other = make("10/min", strict=True), make("10/min", strict=True)
    assert one.allow("ann", 4)
    clock.advance(20)
    assert other.allow("ann", 2)
    one.reconfigure("5/min")
    assert not other.allow("ann")
    clock.advance(40)
    assert other.peek("ann").remaining == 3
    one.reconfigure("8/2min")
    assert other.peek("ann").remaining == 2
    assert make("8/2min", strict=True).allow("ann", 2)
    assert not other.allow("ann")
    clock.advance(120)
    assert one.allow("ann", 8)
    for limiter in (one, other):
        limiter._check()


def test_a_new_limiter_has_the_rate_in_force(make):
    limiter = make()
    limiter.reconfigure("7/s")
    message = r"rate must be '7/s' as in .*, got '10/s'; on_mismatch='adopt' takes .*, reconfigure\(\) then"
    with pytest.raises(ValueError, match=message):
        make()
    assert make("7/s").allow("ann", 7)
    assert not make(on_mismatch="adopt").allow("ann")


@pytest.mark.parametrize("times", [3, 7, 49, 0.5, 2.5])
def test_the_rate_of_multiples_is_read_as_it_was_written(limits_of_twin, path, times):
    def limiter():
        return AddressLimiter(
            "1/s", v4={24: times}, v6={48: times}, max_keys=10, path=path, on_mismatch="adopt")

    one, other = limiter(), limiter()
    for limit in (2, 3, 7, 60, 100):
        one.reconfigure(f"{limit}/s")
        assert [found.rates for found in (one, other, limiter())] == [(Rate(limit, 1),)] * 3


def test_the_rate_of_a_strict_limit_is_adopted_in_place_of_a_larger_one(make):
    limiter = make("5/s", strict=True)
    other = make("50/s", strict=True, on_mismatch="adopt")
    assert other.rates == limiter.rates and other.allow("ann", 5) and not limiter.allow("ann")
    with pytest.raises(ValueError, match=r"^rate must have a limit of at most 5, got 50 for the limit in"):
        other.reconfigure("50/s")


def test_reservations_and_refunds_across_a_switch(make):
    one, other = make("10/s"), make("10/s")
    reservation = one.reserve("ann", 8)
    other.reconfigure("20/s")
    reservation.settle(3)
    assert one.peek("ann").remaining == 17
    other.reconfigure("30/s")
    one.refund("ann", 2)
    assert one.peek("ann").remaining == 29
    other.reconfigure("10/s")
    one.reset("ann")
    assert other.peek("ann").remaining == 10


def test_levels_and_header_fields_follow(make):
    one, other = make(), make()
    limits = RateLimits(user=other)
    assert limits.policies == ("user: 10/s",)
    one.reconfigure("7/min")
    assert limits.policies == ("user: 7/min",)
    assert limits.rates == {"user": (Rate(7, 60),)}
    fields = limits.decide(user="ann", cost=7).headers(policies=limits.rates)
    assert fields["RateLimit-Policy"] == '"user: 7/min";q=7;w=60'
    denied = limits.decide(user="ann").headers(policies=limits.rates)
    assert denied["Retry-After"] == "9"
    limits.reconfigure(user="70/min")
    assert one.rates == (Rate(70, 60),)


def test_addresses_follow(tmp_path, clock):
    one, other = (AddressLimiter("4/s", v4={32: 1, 24: 10}, path=tmp_path / "ip", max_keys=4, clock=clock)
                  for _ in range(2))
    one.reconfigure("6/s")
    assert other.rates == (Rate(6, 1),)
    assert other.allow("192.0.2.1", 6)
    assert other.decide("192.0.2.1").policy == "/32: 6/s"
    assert one.decide("192.0.2.2", 6).allowed
    one._check()
    other._check()


def test_who_owes_nothing_at_a_switch_owes_nothing_before_it(make, clock):
    one, other = make("100/h"), make("100/h")
    assert one.allow("ann")
    clock.advance(1000)
    other.reconfigure("10/s, burst 7")
    clock.advance(-5)
    assert one.allow("ann", 7)
    assert one.allow("bob", 7)
    one._check()


def test_the_head_of_a_log_is_not_free_if_the_clock_steps_back_after_a_switch(make, clock):
    one, other = make("10/s", strict=True), make("10/s", strict=True)
    assert one.allow("ann", 10)
    clock.advance(3)
    other.reconfigure("5/s")
    clock.advance(-2.5)
    assert not one.allow("ann")
    one._check()


def test_a_switch_after_the_clock_stepped_back(make, clock):
    one, other = make("10/s"), make("10/s")
    clock.advance(100)
    assert one.allow("ann", 10)
    clock.advance(-90)
    other.reconfigure("5/s")
    assert not one.allow("ann")
    clock.advance(2)
    assert one.allow("ann", 5)


def test_old_cells_after_a_long_time(make, clock, path):
    """What was not converted, as the process was killed, owes nothing after a long time."""
    one, other = make("10/s", max_keys=8), make("10/s", max_keys=8)
    assert all(one.allow(key, 10) for key in range(8))
    cells = path.read_bytes()[4096 + 64 :]
    one.reconfigure("1000/s")
    overwrite(path, (SETTLED, 0))
    with path.open("r+b") as file:
        file.seek(4096 + 64)
        file.write(cells)
    assert other.peek(0).remaining == 990
    clock.advance(10**7)
    assert all(other.allow(key, 1000) for key in range(8))
    other.reconfigure("10/s")
    other._check()


def test_a_process_killed_anywhere_has_switched_or_not(twin, tmp_path, exhaustive):
    """At the lines of its Python; the steps of the compiled twin are in test_switch_protocol.py."""
    stride = 1 if exhaustive else {"compiled": 2, "pure": 4}[twin.name]
    command = [sys.executable, PROGRAM, "killed-at-lines", twin.name, tmp_path, stride]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    seen = [line.split() for line in done.stdout.splitlines()]
    assert {int(rate) for rate, _, _ in seen} == {10, 20}
    for rate, remaining, last in seen:
        assert float(remaining) == int(rate) - 8
        assert float(last) == 32


def test_whoever_opens_a_file_completes_the_switch(make, path):
    one, other = make("10/s"), make("10/s")
    assert one.allow("ann", 8)
    one.reconfigure("20/s")
    overwrite(path, (SETTLED, 0))  # as if the process had been killed
    assert other.peek("ann").remaining == 12
    third = make("20/s")
    third._check()
    assert int.from_bytes(path.read_bytes()[8 * SETTLED :][:8], sys.byteorder) == 1


def test_damaged_rates_are_an_error(make, path):
    limiter = make()
    overwrite(path, (SWITCHES // 8, 7))
    with pytest.raises(ValueError, match=r"path must be a file that is not damaged, got '.*limit'"):
        limiter.allow("ann")
    with pytest.raises(ValueError, match="rate must be None as in"):
        make()


def test_a_finalizer_may_switch_the_rate(make):
    """Wherever the call of another object of the same file is."""
    one, other = make("1000000/s", clock=None), make("1000000/s", clock=None)
    rates = ["1000000/s", "500000/s"]
    for number in range(40):
        with struck_at(number, lambda number=number: other.reconfigure(rates[number % 2])):
            one.allow("ann")
    one._check()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("inner", [["6/day; 20/2day"], ["8/min; 30/day", "6/day; 20/2day"]])
def test_a_switch_within_a_switch(make, strict, inner):
    """As a signal handler or a finalizer may do it, through another object of the same file; the one around
    it comes last, unless it was in force before.
    """
    one, other = make("10/h; 50/day", strict=strict), make("10/h; 50/day", strict=strict)

    def within():
        struck.append(number)
        for rate in inner:
            other.reconfigure(rate)

    number, struck = 0, [0]
    while struck:
        one.reconfigure("10/h; 50/day")
        one.reset("ann")
        assert other.allow("ann", 4)
        struck = []
        with struck_at(number, within):
            one.reconfigure("9/min; 40/h")
        rate, rest = ("9/min; 40/h", 5) if one.rates[0].limit == 9 else ("6/day; 20/2day", 2)
        assert one.rates == other.rates == make(rate, strict=strict).rates
        assert one.peek("ann").remaining == other.peek("ann").remaining == rest
        one._check()
        number += 1 + number // 16
    assert number > 20


class ForkedSwitch:
    """A switch within which a signal handler or finalizer forks; parent and child go on with the call, the
    child at once or, if it `waits`, when it has used the limit and the parent has switched once more.
    """

    def __init__(self, one, other, waits):
        self.one, self.other, self.waits = one, other, waits

    def run(self, number):
        """Fork at the step of that number; the status of the child, None if there is no such step."""
        self.child = None
        self.begin, self.end = os.pipe()
        try:
            with struck_at(number, self.fork):
                self.one.reconfigure("9/min; 40/h")
            if self.child:
                self.other.reconfigure("8/min; 30/h")
                os.write(self.end, b".")
            elif self.child == 0:
                self.go_on()
        finally:
            if self.child == 0:
                traceback.print_exc()
                os._exit(1)
            os.close(self.begin)
            os.close(self.end)
        return None if self.child is None else os.waitpid(self.child, 0)[1]

    def fork(self):
        self.child = os.fork()
        if self.child == 0:
            signal.alarm(PATIENCE)
        if self.waits and self.child == 0:
            self.other.allow("bob")
            os.read(self.begin, 1)

    def go_on(self):
        os.read(self.begin, 0 if self.waits else 1)
        assert self.one.rates == self.other.rates
        assert self.one.rates[0].limit in (8, 9)
        self.one.reconfigure("7/min; 40/h")
        assert self.one.peek("ann").remaining == self.other.peek("ann").remaining == 3
        self.one._check()
        os._exit(0)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_a_fork_within_a_switch(make, strict, waits):
    one, other = make("10/h; 50/day", strict=strict), make("10/h; 50/day", strict=strict)
    number, status = 0, 0
    while status == 0:
        one.reconfigure("10/h; 50/day")
        one.reset("ann")
        assert other.allow("ann", 4)
        status = ForkedSwitch(one, other, waits).run(number)
        number += 1 + number // 4
    assert status is None, f"the child failed at step {number}"
    assert number > 20


@pytest.mark.parametrize("actual", [2, 6])
def test_a_switch_within_the_settling_of_a_reservation(make, actual):
    one, other = make("10/h"), make("10/h")
    number, struck = 0, [0]

    def within():
        struck.append(number)
        other.reconfigure("7/min")

    while struck:
        other.reset("ann")
        one.reconfigure("10/h")
        reservation = one.reserve("ann", 4)
        struck.clear()
        with struck_at(number, within):
            reservation.settle(actual)
        assert other.peek("ann").remaining == (7 if struck else 10) - actual
        number += 1 + number // 32


@pytest.mark.parametrize("strict", [False, True])
def test_processes_are_admitted_what_the_rates_allow(twin, tmp_path, strict):
    """Four processes that use one key while a fifth sets the rate, and one of them is killed now and then."""
    switches = {"compiled": 200, "pure": 60}[twin.name]
    command = [sys.executable, PROGRAM, "switched", twin.name, tmp_path / "limit", switches, int(strict)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    admitted, most, kills = map(float, done.stdout.split())
    assert 0 < admitted <= most
    assert kills > 0
