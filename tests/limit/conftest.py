"""What several tests of limits need: limiters of the twin that is tested, and a loop on the fake clock."""

from functools import partial

import pytest
from virtual_time import run_on

from headgate.limit import _concurrency, _ledger


@pytest.fixture
def ledger_of_twin(twin, monkeypatch):
    """The ledgers of ConcurrencyLimiters are those of the twin."""
    for module in (_concurrency, _ledger):
        monkeypatch.setattr(module, "Words", twin.words.Words)
    monkeypatch.setattr(_ledger, "backend", twin.name)
    monkeypatch.setattr(_concurrency, "Admission", twin.permits.Admission)


@pytest.fixture
def make(twin, clock):
    """Makes RateLimiters on the fake clock."""
    def make(rate, **options):
        return twin.keyed.RateLimiter(rate, clock=clock, **{"max_keys": 1000} | options)

    return make


@pytest.fixture
def run(clock):
    """Runs a coroutine on the fake clock, and returns its result."""
    return partial(run_on, clock)
