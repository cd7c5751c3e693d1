"""An event loop that runs on the fake clock: what waits for hours is tested in no time."""

import asyncio
import selectors

SECOND = 10**9


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is the fake clock, which jumps to the next timer when all are idle."""

    def __init__(self, clock):
        class Selector(selectors.SelectSelector):
            def select(self, timeout=None):
                events = super().select(0 if timeout is not None else 5)
                if not events and timeout:
                    clock.now += max(1, round(timeout * SECOND))
                return events

        super().__init__(Selector())
        self.clock = clock

    def time(self):
        return self.clock.now / SECOND


def run_on(clock, coroutine):
    """The result of `coroutine`, run on a loop of its own."""
    loop = VirtualLoop(clock)
    try:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 10**6))
    finally:
        loop.close()


async def started(*coroutines):
    """The tasks of `coroutines`, each of which has reached its first wait."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.ensure_future(coroutine))
        await asyncio.sleep(0)
    return tasks
