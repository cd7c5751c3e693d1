"""The word of a shared bucket, model-checked as the cells of a RateLimiter are."""

from dataclasses import dataclass

import pytest
from interleavings import BLIND, KILLED, built

SECOND = 10**9
CAPACITY = 9
WORDS = 2


@pytest.fixture(scope="session")
def checker(tmp_path_factory):
    return built(tmp_path_factory.mktemp("bucket"), "bucket")


@dataclass
class Scenario:
    """What processes do with a bucket of nine tokens that gets one a second and owes `owed` at the time 0.

    A kill loses `cost` tokens at most.
    """

    programs: list
    times: tuple = (0,)
    owed: int = 0
    cost: int = 4

    def judge(self, checker, kills):
        _, memory = checker.open_bucket(CAPACITY, 1, size=WORDS)
        _, memory = checker.run(lambda bucket: bucket.consume(self.owed), memory, 0)
        for results, changed in checker.outcomes(self.programs, memory, self.times, kills):
            self.judge_end(checker, results, changed)

    def judge_end(self, checker, results, memory):
        end = self.times[-1]
        left, memory = checker.run(drain, memory, end)
        grants = [(0, self.owed), (end, left)]
        grants += [grant for result in results if result != KILLED for grant in result]
        for start in self.times:
            for until in self.times:
                within = sum(cost for at, cost in grants if start <= at <= until)
                most = CAPACITY + (until - start) // SECOND
                assert until < start or within <= most, "more was allowed than the rate"
        if len(self.times) == 1:
            lost = self.cost * results.count(KILLED)
            assert sum(cost for _, cost in grants) >= CAPACITY - lost, "more was lost than by kills"
        last = end + (CAPACITY + self.cost) * SECOND
        assert checker.run(drain, memory, last)[0] == CAPACITY, "a debt outlives its time"


def drain(bucket):
    return sum(1 for _ in iter(bucket.consume, False))


def consume(checker, tokens):
    return lambda bucket: [(checker.read, tokens)] if bucket.consume(tokens) else []


def cancel(bucket):
    """Reserve four tokens, and give back what of them has not come since."""
    bucket.reserve(4).cancel()
    return []


def consuming(checker):
    return Scenario([consume(checker, 4)] * 3, owed=1)


def cancelling(checker):
    return Scenario([cancel, cancel, consume(checker, 4)])


def cancelling_late(checker):
    return Scenario([cancel, consume(checker, 9)], times=(0, 9 * SECOND))


def reading_the_clock_early(checker):
    programs = [consume(checker, 9), lambda bucket: consume(checker, 9)(bucket) + consume(checker, 9)(bucket)]
    return Scenario(programs, times=(0, 20 * SECOND, 50 * SECOND))


def stepping_back(checker):
    return Scenario([consume(checker, 9)] * 2, times=(20 * SECOND, 0))


SCENARIOS = [consuming, cancelling, cancelling_late, reading_the_clock_early, stepping_back]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_protocol(checker, scenario):
    scenario(checker).judge(checker, kills=1)


@pytest.mark.parametrize("scenario", [consuming, cancelling, reading_the_clock_early])
def test_what_a_blind_swap_does_is_seen(checker, scenario):
    with checker.mutant(BLIND), pytest.raises(AssertionError):
        scenario(checker).judge(checker, kills=1)
