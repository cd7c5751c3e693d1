"""Threads that start together, and whose first error is the test's."""

import sys
import threading
from contextlib import contextmanager

from watchdog import PATIENCE


@contextmanager
def frequent_switches():
    """A thread switch at nearly every chance that the interpreter has."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def run_threads(work, count=8):
    """Run ``work(number)`` in `count` threads that start together; the first error is raised."""
    barrier, errors = threading.Barrier(count), []

    def body(number):
        try:
            barrier.wait(PATIENCE)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(count)]
    with frequent_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
