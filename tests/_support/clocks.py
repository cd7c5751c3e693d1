"""Clocks that move only when a test moves them."""


class FakeClock:
    """A clock in integer nanoseconds that moves only by `advance`."""

    def __init__(self, now=1_000_000_000):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += round(seconds * 1e9)


class TickingClock(FakeClock):
    """A clock that goes on by `step` nanoseconds whenever it is read."""

    step = 10_000_000

    def __call__(self):
        self.now += self.step
        return self.now
