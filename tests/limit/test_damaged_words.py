"""No value of a word of a shared limit allows more than the limiter's own burst."""

import pytest
from clocks import FakeClock
from damage import overwrite

HEADER = 512  # words
WORDS = [0, 1, 2**32, 2**40 - 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
CONTROLS = {"RateLimiter": 8, "strict": 8, "TokenBucket": 2}
CEILING = 1


class Damaged:
    """A limiter of ten tokens, with a file whose words can be overwritten."""

    def __init__(self, twin, kind, path):
        self.clock, self.path = FakeClock(), path
        if kind == "TokenBucket":
            self.limiter = twin.bucket.TokenBucket(10, 10, path=path, clock=self.clock)
            self.take = self.limiter.consume
        else:
            strict = kind == "strict"
            self.limiter = twin.keyed.RateLimiter(
                "10/s", max_keys=4, strict=strict, path=path, clock=self.clock
            )
            self.take = self._take

    def _take(self):
        return self.limiter.allow("ann")

    def write(self, at, word):
        overwrite(self.path, (HEADER + at, word))

    def drained(self):
        return sum(1 for _ in iter(self.take, False))


@pytest.fixture
def damaged(twin, kind, tmp_path):
    return Damaged(twin, kind, tmp_path / "limit")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(("kind", "at"), [(kind, at) for kind in CONTROLS for at in range(CONTROLS[kind])])
def test_a_damaged_word_costs_a_burst_at_most(damaged, word, at):
    assert damaged.drained() == 10
    damaged.write(at, word)
    assert damaged.drained() <= 10
    damaged.clock.advance(1)
    assert damaged.drained() <= 10
    damaged.clock.advance(3600)
    assert damaged.drained() <= 10


@pytest.mark.parametrize("kind", ["TokenBucket"])
@pytest.mark.parametrize("word", WORDS)
def test_a_ceiling_that_is_overwritten_again_and_again(damaged, word):
    allowed = 0
    for _ in range(40):
        damaged.write(CEILING, word)
        allowed += damaged.take()
    assert allowed == 10
    damaged.limiter.reserve(10)
    damaged.write(CEILING, word)
    assert not damaged.take()
    damaged.limiter._check()


def test_a_reservation_that_is_cancelled_after_ages(twin):
    """Its tokens were refilled long ago, so nothing is given back, though the units have wrapped around."""
    clock = FakeClock(0)
    bucket = twin.bucket.TokenBucket(10, 1, clock=clock)
    reservation = bucket.reserve(5)
    clock.now = 2**62 - 1
    assert bucket.consume(10)
    reservation.cancel()
    assert bucket.available == 0
