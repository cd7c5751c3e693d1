"""Threads that start together, and whose first error is the test's."""

import sys
import threading
from contextlib import contextmanager


@contextmanager
def frequent_switches():
    """A thread switch at nearly every chance that the interpreter has."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def run_threads(work, count=8, patience=60):
    """Run ``work(number)`` in `count` threads that start together; the first error is raised."""
    barrier, errors = threading.Barrier(count), []

    def body(number):
        try:
            barrier.wait(10)
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(count)]
    with frequent_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patience)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
