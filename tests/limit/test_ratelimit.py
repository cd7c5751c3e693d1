"""RateLimiter: what it allows, returns and refuses, with a clock that is moved by hand."""

import copy
import gc
import math
import os
import pickle
import subprocess
import sys
import weakref
from fractions import Fraction
from itertools import count, product

import pytest
from finalizers import struck_at
from twins import Twin

from headgate import Rate

pytestmark = pytest.mark.usefixtures("one_secret")

SECOND = 10**9


def allowed(limiter, key, most=10**4):
    """How many requests of `key` pass now."""
    return next(count for count in range(most) if not limiter.allow(key))


def test_a_burst_then_the_rate(make, clock):
    limiter = make("10/s")
    assert allowed(limiter, "ann") == 10
    clock.now += 100_000_000 - 1
    assert not limiter.allow("ann")
    clock.now += 1
    assert limiter.allow("ann")
    assert not limiter.allow("ann")
    clock.now += 3600 * SECOND
    assert allowed(limiter, "ann") == 10
    assert allowed(limiter, "bob") == 10
    limiter._check()


@pytest.mark.parametrize(
    "rate",
    [
        *("10/s", "3/s", "7/min", "1000/h", "12345/day", "1/day", "1/week", "1000000/s", "0.3/s"),
        *(Rate(0.5, 1), Rate(3, 7.5)),
    ],
    ids=str,
)
def test_the_kth_request_passes_at_its_nanosecond(make, clock, rate):
    limiter = make(rate, burst=50)
    tier = limiter.rates[0]
    assert limiter.allow("ann", 50)
    start = clock.now
    quantum = math.ceil(50 * SECOND * Fraction(tier.period) / Fraction(tier.limit) / 2**30)
    for k in range(1, 50):
        clock.now = start + math.ceil(k * SECOND * Fraction(tier.period) / Fraction(tier.limit)) - quantum - 1
        assert not limiter.allow("ann")
        clock.now += quantum + 1
        assert limiter.allow("ann")


def test_str_bytes_and_int_keys(make):
    limiter = make("1/s")
    keys = ["ann", "änn", "\N{SNOWMAN}" * 9, "", "x" * 1000, b"\xff", b"", 0, -1, 2**63 - 1, -(2**63)]
    assert [limiter.allow(key) for key in keys] == [True] * len(keys)
    assert [limiter.allow(key) for key in keys] == [False] * len(keys)
    assert limiter.allow(b"ann")


@pytest.mark.parametrize("method", ["allow", "decide", "peek", "refund", "reset", "acquire"])
@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (None, TypeError, "key must be str, bytes or int, got None"),
        (1.5, TypeError, "key must be str, bytes or int, got 1.5"),
        (("a", 1), TypeError, "key must be str, bytes or int, got ('a', 1)"),
        (2**63, ValueError, f"key must be in [-2**63, 2**63), got {2**63}"),
    ],
)
def test_bad_keys(make, method, key, error, message):
    with pytest.raises(error) as caught:
        getattr(make("1/s"), method)(key)
    assert str(caught.value) == message


@pytest.mark.parametrize("method", ["allow", "decide", "peek", "acquire"])
@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (-1, ValueError, "cost must be finite and non-negative, got -1"),
        (math.nan, ValueError, "cost must be finite and non-negative, got nan"),
        (math.inf, ValueError, "cost must be finite and non-negative, got inf"),
        (6, ValueError, "cost must be at most the burst 5, got 6"),
        (5.01, ValueError, "cost must be at most the burst 5, got 5.01"),
        (2**80, ValueError, f"cost must be at most the burst 5, got {2**80}"),
        (1e300, ValueError, "cost must be at most the burst 5, got 1e+300"),
        ("1", TypeError, "cost must be a number, got '1'"),
    ],
)
def test_bad_costs(make, method, cost, error, message):
    limiter = make("5/s; 100/min")
    with pytest.raises(error) as caught:
        getattr(limiter, method)("ann", cost)
    assert str(caught.value) == message
    assert limiter.peek("ann").remaining == 5.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_keys": 0}, ValueError, r"max_keys must be in \[1, 2\*\*32\], got 0"),
        ({"max_keys": 2**32 + 1}, ValueError, r"max_keys must be in \[1, 2\*\*32\], got 4294967297"),
        ({"max_keys": 1.5}, TypeError, r"max_keys must be an int, got 1.5"),
        ({"on_full": "drop"}, ValueError, "on_full must be 'evict' or 'deny', got 'drop'"),
        ({"on_full": None}, ValueError, "on_full must be 'evict' or 'deny', got None"),
        ({"clock": 5}, TypeError, "clock must be callable or None, got 5"),
    ],
)
def test_constructor_refuses(twin, options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        twin.keyed.RateLimiter("1/s", **options)


def test_a_cost_of_zero_takes_nothing(make):
    limiter = make("1/s")
    assert limiter.allow("ann")
    for cost in (0, 0.0, False):
        assert limiter.allow("ann", cost)
        assert limiter.decide("ann", cost)
    assert limiter.decide("bob", 0).remaining == 1.0


def test_fractions(make):
    limiter = make("1/s")
    assert [limiter.allow("ann", 0.25) for _ in range(5)] == [True] * 4 + [False]
    assert [limiter.allow("bob", Fraction(1, 2)) for _ in range(3)] == [True, True, False]
    assert make("2.5/s").allow("ann", 2.5)


def test_decide_returns_the_state(make, clock):
    limiter = make("10/5s")
    assert limiter.decide("ann", 4) == (True, 10, 6.0, 0.0, 2.0, "10/5s")
    denied = limiter.decide("ann", 7)
    assert not denied
    assert denied == (False, 10, 6.0, 0.5, 2.0, "10/5s")
    assert limiter.peek("ann", 7) == denied
    clock.now += SECOND // 2
    assert limiter.allow("ann", 7)


def test_retry_after_is_exact(make, clock):
    for rate in ("3/s", "7/min", "1/h", "1000000/s", "5/day", "1/week", "0.7/s", Rate(0.5, 1), Rate(3, 7.5)):
        limiter = make(rate, burst=5)
        limiter.allow("ann", 5)
        wait = round(limiter.peek("ann", 3).retry_after * SECOND)
        slack = wait // 10**12
        clock.now += wait - 1 - slack
        assert not limiter.peek("ann", 3)
        clock.now += 1 + 2 * slack
        assert limiter.peek("ann", 3)


def test_denied_means_untouched_at_every_tier(make, clock):
    limiter = make("2/s; 5/10s; 8/min")
    before = [limiter.peek("ann", cost) for cost in (0, 1, 2)]
    assert allowed(limiter, "ann") == 2
    for _ in range(100):
        assert not limiter.allow("ann")
        assert not limiter.decide("ann", 2)
    counts = [2]
    for _ in range(8):
        clock.now += SECOND
        counts.append(allowed(limiter, "ann"))
    assert sum(counts[:6]) == 5 + 2, "two came back at the second tier within 5 seconds"
    assert counts[0] == counts[1] == 2
    clock.now += 60 * SECOND
    assert [limiter.peek("ann", cost) for cost in (0, 1, 2)] == before


def test_decide_reports_the_tier_that_binds(make, clock):
    limiter = make("2/s; 3/min")
    assert [limiter.decide("ann").policy for _ in range(2)] == ["2/s", "2/s"]
    assert limiter.decide("ann") == (False, 2, 0.0, 0.5, 1.0, "2/s")
    clock.now += SECOND
    assert limiter.decide("ann").policy == "3/min"
    denied = limiter.decide("ann")
    assert (denied.policy, denied.limit, denied.allowed) == ("3/min", 3, False)
    assert denied.retry_after == pytest.approx(19, abs=1e-6)


def test_decide_reports_the_first_of_tiers_that_have_nothing_left(make):
    """However far the debts from before a reconfiguration exceed their bursts."""
    limiter = make("100/h; 100/day")
    limiter.allow("ann", 50)
    limiter.reconfigure("2/h; 1/day")
    assert limiter.peek("ann", 0).policy == "2/h"
    assert limiter.decide("ann", 0) == (True, 2, 0.0, 0.0, 90_000.0, "2/h")


def test_refund(make, clock):
    limiter = make("4/s; 100/min")
    limiter.allow("ann", 4)
    limiter.refund("ann", 3)
    assert limiter.peek("ann").remaining == 3.0
    limiter.refund("ann", 1000)
    assert limiter.peek("ann", 4).allowed
    limiter.refund("bob")
    limiter.refund("ann", 0)
    assert limiter.peek("bob") == limiter.peek("ann") == limiter.peek("cid")
    with pytest.raises(ValueError, match=r"^cost must be finite and non-negative, got -1$"):
        limiter.refund("ann", -1)
    limiter._check()


def test_reset(make):
    limiter = make("4/s; 5/min")
    limiter.allow("ann", 4)
    limiter.allow("bob", 4)
    limiter.reset("ann")
    limiter.reset("cid")
    assert allowed(limiter, "ann") == 4
    assert allowed(limiter, "bob") == 0


def test_reconfigure_keeps_what_was_taken(make, clock):
    limiter = make("10/s")
    limiter.allow("ann", 8)
    limiter.reconfigure("20/s")
    assert limiter.peek("ann").remaining == 12.0
    limiter.reconfigure("4/s")
    assert limiter.peek("ann") == (False, 4, 0.0, 1.25, 2.0, "4/s")
    limiter.reconfigure("4/s; 100/min")
    assert limiter.peek("ann") == (False, 4, 0.0, 1.25, 2.0, "4/s")
    assert limiter.peek("bob", 4)
    limiter.reconfigure("1000/s", burst=8)
    assert limiter.peek("ann").reset_after == pytest.approx(0.008)
    assert limiter.peek("ann").remaining == 0.0
    clock.now += SECOND
    assert allowed(limiter, "ann") == 8
    limiter._check()


def test_reconfigure_refuses_and_changes_nothing(make):
    limiter = make("10/s")
    for rate in ("10", "-1/s", []):
        with pytest.raises(ValueError, match=r"^(rate|limit) must"):
            limiter.reconfigure(rate)
    assert str(limiter.rates[0]) == "10/s"


def test_a_debt_far_above_the_new_burst_is_cut(make, clock):
    limiter = make("4000000000/s")
    limiter.allow("ann", 4_000_000_000)
    limiter.reconfigure("1/day")
    assert not limiter.allow("ann")
    limiter._check()
    clock.now += 100 * 86400 * SECOND
    assert limiter.allow("ann")


def test_clock_steps_back(make, clock):
    limiter = make("10/s; 100/h")
    assert allowed(limiter, "ann") == 10
    for hours in (1, 24 * 365, 24 * 365 * 20):
        clock.now -= hours * 3600 * SECOND
        assert not limiter.allow("ann")
        assert limiter.peek("ann").retry_after <= 3600
        clock.now += 3600 * SECOND
        assert allowed(limiter, "ann") == 10
    limiter._check()


@pytest.mark.parametrize("max_keys", [1, 1000])
@pytest.mark.parametrize("rate", ["1000000/s", "10/s", "1/day"])
def test_long_idle_times(make, clock, rate, max_keys):
    limiter = make(rate, burst=5, max_keys=max_keys)
    burst = 5 * SECOND * limiter.rates[0].period / limiter.rates[0].limit
    for exponent in range(60):
        assert limiter.allow("ann", 5)
        assert not limiter.allow("ann", 5)
        clock.now += min(math.ceil(burst * 1.7**exponent), 2 * 365 * 86400 * SECOND)
        limiter._check()


def test_a_busy_key_over_many_rounds_of_its_times(make, clock):
    limiter = make("1000/s", burst=1, max_keys=64)
    passed = 0
    start = clock.now
    for _ in range(20_000):
        clock.now += 77_000_000
        passed += limiter.allow("ann")
        passed += limiter.allow("ann")
    assert passed == 20_000
    assert clock.now - start > 1500 * SECOND


def test_a_full_table_evicts_the_smallest_debt(make):
    limiter = make("10/h", max_keys=4)
    for number in range(8):
        limiter.allow(number, number + 1)
    assert limiter.evictions == 0
    decision = limiter.decide("new")
    assert decision == limiter.peek(0) or decision.remaining == pytest.approx(9, abs=1e-6)
    assert limiter.evictions == 1
    assert limiter.peek(0).remaining == 10.0, "it was evicted"
    assert limiter.allow("newer")
    assert limiter.peek("newer").remaining == pytest.approx(9, abs=1e-6), "it took over a debt of one"
    limiter._check()


def test_a_full_table_denies(make, clock):
    limiter = make("10/h", max_keys=4, on_full="deny")
    for number in range(8):
        limiter.allow(number, number + 1)
    for _ in range(5):
        denied = limiter.decide("new")
        assert (denied.allowed, denied.remaining) == (False, 0.0)
        assert denied.retry_after == pytest.approx(360, abs=1e-3)
    assert limiter.evictions == 0
    assert limiter.allow("new", 0)
    assert limiter.allow(3)
    clock.now += round(denied.retry_after * SECOND) + 1000
    assert limiter.allow("new")
    assert not limiter.allow("other")
    limiter._check()


@pytest.mark.parametrize("seconds", [0, 30], ids="{} s a step".format)
@pytest.mark.parametrize("cost", [1, 9, 10], ids="junk of {}".format)
@pytest.mark.parametrize("on_full", ["evict", "deny"])
def test_a_flood_of_junk_gets_at_most_a_burst_for_each_eviction(make, clock, on_full, cost, seconds):
    """Ten times as many junk keys as `max_keys`: a key whose burst is spent gets what has come back
    since, and its burst once more when its cell was taken, which junk that owes less cannot do."""
    limiter = make("10/h", max_keys=100, on_full=on_full)
    left = dict.fromkeys((f"limited {number}" for number in range(20)), 0.0)
    assert [allowed(limiter, key) for key in left] == [10] * 20
    gained = evicted = 0
    for junk in range(10 * 100):
        limiter.allow(junk, cost)
        if junk % 10:
            continue
        clock.now += seconds * SECOND
        for key in left:
            due = left[key] + seconds / 360 + 1e-6
            taken = limiter.peek(key).remaining > due + 1e-3
            passed = allowed(limiter, key)
            assert passed <= (10 if taken else math.floor(due))
            gained += passed > math.floor(due)
            evicted += taken
            left[key] = max(0.0, due - passed)
    assert gained <= evicted <= limiter.evictions
    if seconds == 0:
        assert (gained > 0) == (on_full == "evict" and cost == 10)
    assert gained == 0 or (on_full == "evict" and cost == 10)
    limiter._check()


@pytest.mark.parametrize("rate", ["10/h", "10/s; 100/min; 1000/h"])
def test_max_keys_bounds_the_bytes(make, rate):
    limiter = make(rate, max_keys=5000)
    size = sys.getsizeof(limiter)
    for junk in range(50_000):
        limiter.allow(junk)
    assert sys.getsizeof(limiter) == size <= 24 * 5000 * len(limiter.rates) + 3000


def test_max_keys_fit(make):
    limiter = make("10/h", max_keys=5000)
    assert all(limiter.allow(f"user:{number}") for number in range(5000))
    assert limiter.evictions <= 20


def test_tiers_evict_by_themselves(make, clock):
    limiter = make("10/s; 100/h", max_keys=4)
    for number in range(8):
        limiter.allow(number)
    clock.now += 10 * SECOND
    assert limiter.allow("new")
    assert limiter.evictions == 1
    limiter._check()


def test_a_clock_that_uses_the_limiter(twin):
    limiters, depth = [], [0]

    def clock():
        if limiters and depth[0] == 0:
            depth[0] = 1
            limiters[0].allow("ann")
            limiters[0].reconfigure("7/s; 50/min")
            depth[0] = 0
        return 0

    limiters.append(twin.keyed.RateLimiter("5/s", max_keys=100, clock=clock))
    assert limiters[0].allow("ann", 3)
    assert limiters[0].decide("ann").limit == 7
    assert sum(limiters[0].allow("ann") for _ in range(10)) <= 3
    limiters[0]._check()


def test_a_clock_that_raises(twin):
    fail = []

    def clock():
        if fail:
            raise ZeroDivisionError
        return 0

    limiter = twin.keyed.RateLimiter("1/s", clock=clock)
    fail.append(1)
    for call in (limiter.allow, limiter.decide, limiter.peek, limiter.refund, limiter.reset, limiter.acquire):
        with pytest.raises(ZeroDivisionError):
            call("ann")
    with pytest.raises(ZeroDivisionError):
        limiter.reconfigure("2/s")
    fail.clear()
    assert limiter.allow("ann")
    assert not limiter.allow("ann")


def test_default_clock_runs(twin):
    limiter = twin.keyed.RateLimiter("1000/s", burst=1)
    assert limiter.allow("ann")
    assert limiter.acquire("ann", timeout=1)


def test_no_copies_no_pickles(make):
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^a RateLimiter cannot be copied or pickled"):
            call(make("1/s"))


def test_repr_and_attributes(make):
    limiter = make("1/s; 10/min", max_keys=50)
    assert repr(limiter) == "RateLimiter('1/s; 10/min')"
    assert (limiter.max_keys, limiter.evictions) == (50, 0)


def test_cycles_are_collected(twin):
    class Owner:
        def clock(self):
            return 0

    owner = Owner()
    owner.limiter = twin.keyed.RateLimiter("1/s", clock=owner.clock)
    seen = weakref.ref(owner), weakref.ref(owner.limiter)
    del owner
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


SMALL = """
import resource
import sys
from importlib import import_module
module = import_module(f"headgate.limit.keyed._{sys.argv[1]}")
limiter = module.RateLimiter("1/s", max_keys=2**16)
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, in_use + 2**30))
try:
    module.RateLimiter("1/s", max_keys=2**28)
except MemoryError as error:
    print(error)
print(limiter.allow("ann"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is that of Linux")
def test_more_memory_than_there_is(twin):
    command = [sys.executable, "-c", SMALL, twin.name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["max_keys and the limits need more memory than there is", "True"]


# amid a call


KINDS = {
    "one tier": ("9/min", {}),
    "three tiers": ("9/min; 9/h; 20/day, burst 9", {}),
    "strict": ("9/min; 20/h", {"strict": True}),
    "shared": ("9/min; 9/h", {"path": "limit"}),
    "strict and shared": ("9/min", {"strict": True, "path": "limit"}),
}
CALLS = {
    "allow": lambda limiter, key: int(limiter.allow(key)),
    "refund": lambda limiter, key: limiter.refund(key) or -1,
    "reconfigure": lambda limiter, key: limiter.reconfigure(limiter.rates) or 0,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", CALLS)
@pytest.mark.parametrize("call", CALLS)
def test_a_finalizer_amid_a_call_finds_the_limiter_whole(
    twin, clock, tmp_path, exhaustive, kind, call, act
):
    rate, options = KINDS[kind]
    shared = "path" in options
    lost = "strict" in options or act == "reconfigure"  # at most: of what was under way
    if shared and (os.name != "posix" or "reconfigure" in (call, act)):
        return
    debts = (5,) if "refund" in (call, act) else (5, 0)  # where nothing is owed, nothing is given back
    stride = 1 if exhaustive else 5 if call == "reconfigure" else 2
    for start, (owed, key) in enumerate(product(debts, ("ann", "eve"))):
        for step in count(start % stride, stride):
            path = tmp_path / f"limit{owed}{key}{step}" if shared else None
            limiter = twin.keyed.RateLimiter(rate, max_keys=8, clock=clock, **options | {"path": path})
            limiter.allow("ann", owed)
            limiter.allow("eve", 3)
            taken, struck = {"ann": [owed], "eve": [3]}, []

            def strike(limiter=limiter, taken=taken, struck=struck, key=key):
                struck.append(True)
                taken[key].append(CALLS[act](limiter, key))

            with struck_at(step, strike):
                cost = CALLS[call](limiter, "ann")
            taken["ann"].append(cost)
            for name, costs in taken.items():
                left = 9 - sum(costs)
                assert left - lost <= limiter.peek(name).remaining <= left
            limiter._check()
            if not struck:
                break


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("rate", ["0/s", "5/min; 0/h"])
def test_a_limit_of_nothing_denies_everything(twin, clock, rate, strict):
    limiter = twin.keyed.RateLimiter(rate, strict=strict, max_keys=8, clock=clock)
    for cost in (1, 3, 1000):
        decision = limiter.decide("ann", cost)
        assert not decision
        assert (decision.limit, decision.remaining) == (0, 0.0)
        assert decision.retry_after == decision.reset_after == math.inf
        clock.advance(86400)
    assert limiter.allow("ann", 0)
    assert not limiter.acquire("ann", timeout=0.01)
    limiter.refund("ann")
    limiter.reset("ann")
    limiter._check()
    limiter.reconfigure("2/s")
    assert allowed(limiter, "ann") == 2
    limiter.reconfigure("0/s")
    assert not limiter.allow("ann")
    limiter._check()


KEYS_OF_EIGHT_BYTES = [97, "a" + 7 * "\0", b"a" + 7 * b"\0"]


def test_kinds_of_keys_are_distinguished(twin, clock, tmp_path):
    for options in ({}, {"path": tmp_path / "limit"}, {"strict": True}):
        limiter = twin.keyed.RateLimiter("1/h", max_keys=8, clock=clock, **options)
        for key in KEYS_OF_EIGHT_BYTES:
            assert limiter.allow(key)
            assert not limiter.allow(key)


def test_a_strict_limit_is_whole_after_the_clock_stepped_back_and_the_rate_was_changed(twin, clock):
    """What lay ahead of the clock is cut, as by a request."""
    limiter = twin.keyed.RateLimiter("5/h", strict=True, max_keys=8, clock=clock)
    assert [limiter.allow("ann"), limiter.allow("bob", 2)] == [True, True]
    clock.advance(-5000)
    limiter.reconfigure("2/s")
    limiter._check()
    assert not limiter.allow("bob")
    assert limiter.peek("bob").retry_after == 1.0
    clock.advance(1)
    limiter._check()
    assert limiter.allow("bob", 2)
    clock.advance(4999)
    limiter._check()
    assert limiter.allow("ann", 2)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux says what is in use")
def test_memory_is_taken_as_it_is_used(twin, clock):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()  # tables above 32 MiB, since malloc may give smaller ones what others have used
    limiters = [twin.keyed.RateLimiter("2/s; 9/min", max_keys=3_000_000, clock=clock) for _ in range(3)]
    for number in range(100):
        clock.advance(1000 if number == 50 else 0.1)
        assert [limiter.allow(f"key {number}") for limiter in limiters] == [True] * 3
    assert min(map(sys.getsizeof, limiters)) >= 2 * 2**25 + 2**20
    assert resident() - before < 20_000_000


def test_parts_of_two_tags_are_not_a_third():
    (table,) = Twin("pure").keyed.RateLimiter("3/h", max_keys=8)._tiers
    table.tags[0], table.tags[1] = 0x341256, 0x7800
    assert table.find(0x3412, (0, 8)) is None
    table.tags[5] = 0x3412
    assert table.find(0x3412, (0, 8)) == 5
    table.tags[5], table.tags[15] = 0, 0x3412
    assert table.find(0x3412, (0, 8)) == 15


def test_sweeps_pass_over_lines_without_keys():
    (table,) = Twin("pure").keyed.RateLimiter("3/h", max_keys=8000)._tiers
    table.tags[8 * 700] = table.tags[8 * 1999] = 1
    found = [line for line in table.used(600, 2000) if table.tags[8 * line]]
    assert found == [700, 1999]
    assert len(list(table.used(0, 2000))) < 1100
    table.tags[0] = 1
    assert [line for line in table.used(1998, 3) if table.tags[8 * line]] == [1999, 0]
