"""The twins of Admission adapt the limit alike, to the last bit of their state."""

from functools import partial

import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from headgate.limit._algorithms import STATE_SIZE, Bounds
from headgate.limit._concurrency import LocalLedger

MOST = 50
STEP = st.tuples(
    st.sampled_from(["acquire", "observe", "release"]),
    st.integers(0, 99),
    st.sampled_from(["success", "success", "success", "dropped", "ignored"]),
    st.one_of(st.integers(0, 10**8), st.integers(-(10**9), 3 * 10**9)),
)


class Twin:
    """An admission, its permits, and the words of its state."""

    def __init__(self, twin, algorithm, clock):
        self.ledger = LocalLedger(10 * 2**32)
        self.make = partial(twin.permits.Admission, self.ledger, {None: 1.0, "low": 0.3}, Bounds(2, MOST))
        self.admission = self.make(algorithm, 2 * 10**8, clock)
        self.permits = []

    def step(self, name, which, outcome):
        if name == "acquire":
            permit = self.admission.acquire("low" if which % 3 == 0 else None)
            if permit:
                self.permits.append(permit)
        elif self.permits:
            at = which % len(self.permits)
            getattr(self.permits.pop(at) if name == "release" else self.permits[at], name)(outcome)
        return self.ledger.inflight, self.ledger.state.load_from(0)[: STATE_SIZE // 8]


@pytest.mark.parametrize("algorithm", ["aimd", "gradient"])
def test_the_twins_agree(both_twins, algorithm):
    @given(st.lists(STEP, min_size=20, max_size=80))
    def agree(steps):
        clock = FakeClock()
        compiled, pure = (Twin(twin, algorithm, clock) for twin in both_twins)
        for name, which, outcome, elapsed in steps:
            clock.now += elapsed
            assert compiled.step(name, which, outcome) == pure.step(name, which, outcome)
        for permit in compiled.permits + pure.permits:
            permit.release()
        assert compiled.ledger.inflight == pure.ledger.inflight == 0

    agree()


class AmidReadings(LocalLedger):
    """A ledger that calls `amid`, as another thread may, when a permit reads its owner."""

    amid = staticmethod(lambda: None)

    @property
    def owner(self):
        self.amid()
        return self.process

    @owner.setter
    def owner(self, process):
        self.process = process


@pytest.mark.parametrize("first", ["observe", "release"])
@pytest.mark.parametrize("other", ["observe", "release"])
def test_a_permit_adapts_the_limit_once(twin, first, other):
    clock, ledger = FakeClock(), AmidReadings(100 * 2**32)
    admission = twin.permits.Admission(ledger, {None: 1.0}, Bounds(1, 1000), "aimd", 10**9, clock)
    permit = admission.acquire(None)

    def act_too():
        del ledger.amid
        getattr(permit, other)("dropped")
        clock.now += 10**10  # another cut is due

    ledger.amid = act_too
    getattr(permit, first)("dropped")
    assert ledger.state.load(0) == 90 * 2**32
    permit.release()
    assert ledger.inflight == 0
