"""A request that costs more than a burst is denied for ever by the level that has it, and counted there."""

import asyncio
from math import inf

import pytest

from headgate import HotKeys, RateLimits
from headgate.adapters._limiting import Limiting
from headgate.limit import Reservation
from headgate.limit._rules import LevelCounts

KEYS = {"ip": lambda request: "::1", "user": lambda request: "ann", "team": lambda request: None}
UNUSED = LevelCounts(0, 0, {})


class Awaited:
    """The limits of a store, which count nothing themselves."""

    def __init__(self, limits):
        self.limits, self.rates = limits, limits.rates

    async def reserve(self, *, cost=1, **keys):
        made = self.limits.reserve(cost=cost, **keys)
        return Reservation(cost, [], None, made.decision)

    async def peek(self, *, cost=1, **keys):
        return self.limits.peek(cost=cost, **keys)


@pytest.fixture
def limits(clock):
    limits = RateLimits(team="2/min", user="9/min", ip="4/min", clock=clock)
    assert limits.allow(user="ann", cost=6)  # the least remains at another level
    return limits


def charged(limits, **options):
    """The charge of a request, and what was counted for it."""
    if isinstance(limits, RateLimits):
        before = limits.counters()["user"].allowed
        limiting = Limiting(limits, keys=KEYS, **options)
        charge = limiting.charge(None)
        counts = limiting.stats()
        assert counts["user"].allowed == before
    else:
        limiting = Limiting(limits, keys=KEYS, asynchronous=True, **options)
        charge = asyncio.run(limiting.charge_async(None))
        counts = limiting.stats()
    return charge, counts


@pytest.mark.parametrize("waiting", [False, True])
def test_the_level_with_that_burst_denies_and_counts(limits, waiting):
    charge, counts = charged(Awaited(limits) if waiting else limits, cost=5)
    assert not charge
    assert charge.decision.policy == "ip: 4/min"
    assert charge.decision.retry_after == inf
    assert counts["ip"] == LevelCounts(0, 1, {"4/min": 1})
    assert counts["user"].denied == 0
    assert counts["team"] == UNUSED
    assert limits.peek(ip="::1").remaining == 4


@pytest.mark.parametrize("waiting", [False, True])
def test_a_dry_run_counts_it_too(limits, waiting):
    charge, counts = charged(Awaited(limits) if waiting else limits, cost=5, dry_run=True)
    assert charge
    assert charge.would_deny.policy == "ip: 4/min"
    assert counts["ip"].denied == 1


def test_its_key_is_counted(limits):
    limits.count_denied(ip=HotKeys(10), user=HotKeys(10))
    charged(limits, cost=5)
    assert [key for key, *_ in limits.denied["ip"].top()] == ["::1"]
    assert limits.denied["user"].top() == []


def test_other_values_are_errors_and_count_nothing(limits):
    with pytest.raises(ValueError, match="cost must be finite and non-negative, got -1"):
        charged(limits, cost=lambda request: -1)
    assert limits.counters()["ip"] == UNUSED
