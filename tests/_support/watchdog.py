"""Whatever hangs fails within a minute, which is more than a busy machine lets a thread wait."""

import asyncio
import threading

PATIENCE = 60


def in_threads(work, count, *args):
    """Run ``work(*args)`` in `count` threads at once; their results and errors, in any order."""
    barrier, outcomes = threading.Barrier(count), []

    def body():
        barrier.wait(PATIENCE)
        try:
            outcomes.append(work(*args))
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=body, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(outcomes) == count, "a thread hangs"
    return outcomes


def in_a_thread(work, *args):
    """The outcome of ``work(*args)`` in a thread that may not hang."""
    return in_threads(work, 1, *args)[0]


def in_a_loop(main):
    """The result of a coroutine that may not hang."""

    async def guarded():
        async with asyncio.timeout(PATIENCE):
            return await main

    return asyncio.run(guarded())


def until(condition):
    """Wait for `condition`."""
    event = threading.Event()
    for _ in range(PATIENCE * 1000):
        if condition():
            return
        event.wait(0.001)
    raise AssertionError("the condition does not hold in time")
