"""ConcurrencyLimiter: what is admitted, how the limit adapts, and priorities."""

import asyncio
import copy
import gc
import pickle
from collections import deque
from heapq import heappop, heappush
from random import Random

import pytest
from clocks import FakeClock
from finalizers import struck_at
from hypothesis import given
from hypothesis import strategies as st
from threads import run_threads

import headgate

pytestmark = pytest.mark.usefixtures("ledger_of_twin")

ALGORITHMS = ["fixed", "aimd", "gradient"]


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    return request.param


def ConcurrencyLimiter(limit=20, algorithm="gradient", **options):
    if algorithm == "aimd":
        options.setdefault("max_latency", 60)
    return headgate.ConcurrencyLimiter(limit, algorithm=algorithm, **options)


def hold(limiter, count, priority=None):
    """So many permits, all of them admitted."""
    permits = [limiter.acquire(priority) for _ in range(count)]
    assert all(permits)
    return permits


# permits


def test_so_many_and_no_more(algorithm):
    limiter = ConcurrencyLimiter(3, algorithm=algorithm)
    permits = hold(limiter, 3)
    assert not limiter.acquire()
    assert limiter.inflight == 3
    permits[0].release("ignored")
    permits += hold(limiter, 1)
    assert not limiter.acquire()
    limiter._check()


def test_a_permit_is_given_back_once():
    limiter = ConcurrencyLimiter(10)
    permit, _ = hold(limiter, 2)
    for _ in range(3):
        permit.release("ignored")
    assert limiter.inflight == 1


@pytest.mark.parametrize("path", [None, "permits"])
def test_permits_that_are_deleted_come_back(path, tmp_path):
    limiter = ConcurrencyLimiter(3, algorithm="fixed", path=path and tmp_path / path)
    held = hold(limiter, 1)
    hold(limiter, 2)
    gc.collect()
    assert limiter.inflight == 3
    with pytest.warns(ResourceWarning, match="2 permits were deleted without release"):
        held += hold(limiter, 1)
    assert limiter.inflight == 2
    held += hold(limiter, 1)
    assert not limiter.acquire()
    limiter._check()


def test_another_thread_takes_back_the_last_deleted_permit():
    class Emptied(deque):
        """As seen by a thread while another takes its permits."""

        def __bool__(self):
            return True

    limiter = ConcurrencyLimiter(1)
    held = hold(limiter, 1)
    limiter._admission._lost = Emptied()
    assert not limiter.acquire()
    del held


def test_a_denied_permit_gives_nothing_back():
    limiter = ConcurrencyLimiter(1)
    permit, denied = limiter.acquire(), limiter.acquire()
    with denied:
        denied.release("dropped")
    assert (limiter.inflight, limiter.limit) == (1, 1)
    assert (repr(permit), repr(denied)) == ("<Permit admitted>", "<Permit denied>")


@pytest.mark.parametrize(
    ("error", "limit"), [(None, 11), (TimeoutError, 9), (ValueError, 10), (KeyboardInterrupt, 10)]
)
def test_how_a_block_ends_is_how_the_request_fared(error, limit):
    limiter = ConcurrencyLimiter(10, algorithm="aimd")
    held = hold(limiter, 4)
    try:
        with limiter.acquire():
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error
    assert (limiter.limit, limiter.inflight) == (limit, len(held))


def test_a_release_within_the_block_counts():
    limiter = ConcurrencyLimiter(10, algorithm="aimd")
    with limiter.acquire() as permit:
        permit.release("dropped")
        assert limiter.inflight == 0
    assert limiter.limit == 9


@pytest.mark.parametrize(("outcome", "limit"), [("success", 11), ("dropped", 9), ("ignored", 10)])
def test_an_observed_request_is_still_in_flight(outcome, limit):
    """Once it is observed, neither another observation nor the release has a say."""
    limiter = ConcurrencyLimiter(10, algorithm="aimd")
    held = hold(limiter, 4)
    with limiter.acquire() as permit:
        for each in (outcome, "dropped"):
            permit.observe(each)
            assert (limiter.limit, limiter.inflight) == (limit, 5)
        permit.release("dropped")
    assert (limiter.limit, limiter.inflight) == (limit, len(held))


def test_the_latency_of_an_observed_request_ends_there(clock):
    limiter = ConcurrencyLimiter(10, algorithm="aimd", max_latency=1, clock=clock)
    for seconds, limit in ((0.5, 10), (1.5, 9)):
        permit = limiter.acquire()
        clock.advance(seconds)
        permit.observe()
        clock.advance(60)
        permit.release()
        assert limiter.limit == limit


def test_a_permit_that_is_not_held_observes_nothing():
    limiter = ConcurrencyLimiter(1, algorithm="aimd")
    permit = limiter.acquire()
    denied = limiter.acquire()
    denied.observe("dropped")
    permit.release("ignored")
    permit.observe()
    assert (limiter.limit, limiter.inflight) == (1, 0)


def test_on_an_event_loop():
    limiter = ConcurrencyLimiter(2, algorithm="fixed")

    async def request(seconds):
        async with limiter.acquire() as permit:
            await asyncio.sleep(seconds)
            return bool(permit)

    async def run():
        admitted = await asyncio.gather(*(request(0.01) for _ in range(5)))
        slow = asyncio.ensure_future(request(60))
        await asyncio.sleep(0)
        assert limiter.inflight == 1
        slow.cancel()
        await asyncio.wait([slow])
        return admitted

    assert asyncio.run(run()) == [True, True, False, False, False]
    assert limiter.inflight == 0


def test_threads_never_have_more_than_the_limit(algorithm):
    limiter = ConcurrencyLimiter(5, algorithm=algorithm, max_limit=8)
    inside, most = [], []

    def work(number):
        for turn in range(100):
            with limiter.acquire() as permit:
                if permit:
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
                    if turn % 7 == 0:
                        permit.release("dropped")

    run_threads(work)
    assert limiter.inflight == 0
    assert max(most) <= 8
    limiter._check()


@pytest.mark.parametrize("path", [None, "permits"])
@pytest.mark.parametrize("act", ["acquire", "release"])
@pytest.mark.parametrize("call", ["acquire", "release"])
def test_a_finalizer_amid_a_call_finds_the_limiter_whole(algorithm, path, call, act, tmp_path):
    for step in range(90):
        file = path and tmp_path / f"{path}{step}"
        limiter = ConcurrencyLimiter(3, max_limit=3, algorithm=algorithm, path=file)
        held = hold(limiter, 2)

        def do(what, limiter=limiter, held=held):
            if what == "release":
                held.pop().release()
            elif permit := limiter.acquire():
                held.append(permit)

        with struck_at(step, lambda do=do: do(act)):
            do(call)
        assert limiter.inflight == len(held) <= 3
        assert len(hold(limiter, limiter.limit - len(held))) == limiter.limit - len(held)
        limiter._check()


# priorities


def test_what_is_reserved_for_higher_priorities():
    limiter = ConcurrencyLimiter(10, priorities={"user": 1.0, "batch": 0.5, "probe": 0.1})
    held = hold(limiter, 5, "batch")
    assert not limiter.acquire("batch")
    assert not limiter.acquire("probe")
    held += hold(limiter, 5, "user")
    assert not limiter.acquire("user")


def test_the_priorities_of_a_limiter():
    given = {"batch": 0.5, "user": 1}
    limiter = ConcurrencyLimiter(priorities=given)
    given.clear()
    assert list(limiter.priorities.items()) == [("batch", 0.5), ("user", 1.0)]
    with pytest.raises(TypeError):
        limiter.priorities["batch"] = 1.0
    assert ConcurrencyLimiter().priorities is None


def test_the_lowest_priority_is_admitted_when_nothing_is_in_flight():
    limiter = ConcurrencyLimiter(2, priorities={"probe": 0.1})
    (permit,) = hold(limiter, 1, "probe")
    assert not limiter.acquire("probe")
    permit.release("ignored")
    assert limiter.acquire("probe")


@pytest.mark.parametrize(("priorities", "priority"), [(None, "user"), ({"user": 1}, None), ({"user": 1}, [])])
def test_unknown_priorities(priorities, priority):
    with pytest.raises(ValueError, match=r"priority must be one of (None|'user'), got"):
        ConcurrencyLimiter(priorities=priorities).acquire(priority)


# algorithms


@given(outcomes=st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["success", "dropped", "ignored"]))))
def test_aimd_is_the_rule(outcomes):
    limiter, limit = ConcurrencyLimiter(10, "aimd", min_limit=3, max_limit=15), 10.0
    cut = False
    for others, outcome in outcomes:
        permits = [permit for permit in (limiter.acquire() for _ in range(others + 1)) if permit]
        permits[-1].release(outcome)
        if outcome == "dropped":
            limit, cut = max(3.0, limit * 0.9), True
        elif outcome == "success" and 2 * len(permits) >= limit:
            limit = min(15.0, limit + (1 / limit if cut else 1))
        assert limiter._bounds.read(limiter._ledger.state) == pytest.approx(limit, abs=1e-6)
        for permit in permits:
            permit.release("ignored")
    limiter._check()


def test_aimd_cuts_once_a_round_trip(clock):
    limiter = ConcurrencyLimiter(100, "aimd", max_latency=0.5, clock=clock)
    first, second = hold(limiter, 50), hold(limiter, 1)
    clock.advance(1)
    for permit in first:
        permit.release()
    assert limiter.limit == 90, "all of them were late, and started before the first of them cut the limit"
    third = hold(limiter, 1)
    clock.advance(1)
    second[0].release("dropped")
    assert limiter.limit == 90
    third[0].release("dropped")
    assert limiter.limit == 81, "it started after the cut"


def test_aimd_after_a_clock_that_stepped_back(clock):
    limiter = ConcurrencyLimiter(100, "aimd", max_latency=0.5, clock=clock)
    limiter.acquire().release("dropped")
    clock.advance(-3600)
    limiter.acquire().release("dropped")
    assert limiter.limit == 81


def test_aimd_needs_to_know_what_is_late():
    with pytest.raises(ValueError, match="max_latency must be given with algorithm='aimd', got None"):
        headgate.ConcurrencyLimiter(algorithm="aimd")
    assert headgate.ConcurrencyLimiter().algorithm == "gradient"


def test_a_call_slower_than_max_latency_counts_as_dropped(clock):
    limiter = ConcurrencyLimiter(100, "aimd", max_latency=0.5, clock=clock)
    for seconds, outcome, limit in ((0.5, "success", 100), (0.6, "success", 90), (0.6, "ignored", 90)):
        permit = limiter.acquire()
        clock.advance(seconds)
        permit.release(outcome)
        assert limiter.limit == limit


class Service:
    """Responds in `base` seconds, or as late as its queue makes it, to requests that come at random."""

    def __init__(self, limiter, clock, capacity, base=0.1):
        self.limiter, self.clock, self.capacity, self.base = limiter, clock, capacity, base
        self.random = Random(7)
        self.ends = []
        self.denied = 0

    def run(self, requests, per_second, patience=10.0):
        for _ in range(requests):
            self.clock.advance(self.random.expovariate(per_second))
            self.finish(self.clock.now)
            permit = self.limiter.acquire()
            if not permit:
                self.denied += 1
                continue
            seconds = self.base * max(1.0, (len(self.ends) + 1) / self.capacity)
            outcome = "success" if seconds < patience else "dropped"
            end = self.clock.now + round(min(seconds, patience) * 1e9)
            heappush(self.ends, (end, self.random.random(), outcome, permit))
        self.finish(float("inf"))

    def finish(self, until):
        now = self.clock.now
        while self.ends and self.ends[0][0] <= until:
            end, _, outcome, permit = heappop(self.ends)
            self.clock.now = end
            permit.release(outcome)
        self.clock.now = max(now, self.clock.now)


def test_aimd_finds_the_capacity(clock):
    limiter = ConcurrencyLimiter(20, "aimd", max_latency=0.3, clock=clock)
    service = Service(limiter, clock, capacity=50)
    service.run(3_000, per_second=400, patience=0.3)
    assert limiter.limit >= 40
    service.run(6_000, per_second=2_000, patience=0.3)
    assert 40 <= limiter.limit <= 160
    assert service.denied > 1_000
    limiter._check()


def test_the_gradient_finds_the_capacity_and_follows_when_it_falls(clock):
    limiter = ConcurrencyLimiter(20, algorithm="gradient", clock=clock)
    service = Service(limiter, clock, capacity=50, base=1.0)
    service.run(10_000, per_second=100)
    before = limiter.limit
    assert 50 <= before <= 150
    assert service.denied > 1_000
    service.capacity = 20
    service.run(3_000, per_second=100)
    assert limiter.limit < 0.7 * before
    service.capacity = 50
    service.run(10_000, per_second=100)
    assert 50 <= limiter.limit <= 150
    limiter._check()


def test_the_gradient_backs_off_once_for_all_that_a_window_drops(clock):
    limiter = ConcurrencyLimiter(100, algorithm="gradient", clock=clock)
    for permit in hold(limiter, 50):
        permit.release("dropped")
    assert limiter.limit == 100
    clock.advance(1)
    limiter.acquire().release()
    assert limiter.limit == 90


def test_a_clock_that_steps_back_teaches_nothing(clock):
    limiter = ConcurrencyLimiter(20, algorithm="gradient", clock=clock)
    permits = hold(limiter, 20)
    clock.advance(-5)
    for permit in permits:
        permit.release()
    assert limiter.limit == 20
    limiter._check()


# wrong input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limit": 0}, ValueError, r"limit must be in \[1, 1000\], got 0"),
        ({"limit": 2000}, ValueError, r"limit must be in \[1, 1000\], got 2000"),
        ({"limit": 1.5}, TypeError, "limit must be an int, got 1.5"),
        ({"min_limit": 0}, ValueError, r"min_limit must be in \[1, 1000000\], got 0"),
        ({"max_limit": 0}, ValueError, r"max_limit must be in \[1, 1000000\], got 0"),
        ({"algorithm": "vegas"}, ValueError, "algorithm must be one of fixed, aimd, gradient, got 'vegas'"),
        ({"max_latency": 0}, ValueError, "max_latency must be positive and finite, got 0"),
        ({"priorities": {"a": 1.5}}, ValueError, r"priorities must be shares in \(0, 1\], got 1.5"),
        ({"priorities": {}}, ValueError, "priorities must be at least one, got {}"),
        ({"priorities": [("a", 1)]}, TypeError, "priorities must be a mapping from priorities to shares"),
        ({"priorities": {"a": "1"}}, TypeError, "priorities must be a number, got '1'"),
        ({"clock": 7}, TypeError, "clock must be callable or None, got 7"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        ConcurrencyLimiter(**options)


def test_an_unknown_outcome_leaves_the_permit():
    limiter = ConcurrencyLimiter(10, algorithm="aimd")
    permit = limiter.acquire()
    message = "outcome must be one of success, dropped, ignored, got 'failed'"
    for end in (permit.observe, permit.release):
        with pytest.raises(ValueError, match=message):
            end("failed")
    assert limiter.inflight == 1
    permit.observe("dropped")
    assert limiter.limit == 9


def test_neither_copies_nor_pickles():
    limiter = ConcurrencyLimiter(5, clock=FakeClock())
    for each in (limiter, limiter.acquire()):
        for make in (copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                make(each)
    assert repr(limiter) == "<ConcurrencyLimiter limit=5 inflight=1>"
