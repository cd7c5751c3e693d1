"""Finalizers that run during a call: garbage that the collector finds at the next allocations."""

import gc
import sys
from contextlib import contextmanager
from itertools import count
from time import monotonic

from watchdog import PATIENCE

IN_BYTECODE = sys.version_info >= (3, 12)
"""Whether the collector runs between bytecodes only, not during the allocations of compiled code."""


class _Litter:
    """A cycle that calls `act` when it is collected, and makes another one while some are `left`."""

    def __init__(self, act, left):
        self.act, self.left, self.me = act, left, self

    def __del__(self):
        self.act()
        if self.left:
            _Litter(self.act, self.left - 1)


def struck_by(act, times):
    """In the block, `act` is called as finalizers are, so many times: no call remains for later."""
    return _struck_at_steps(act, times) if IN_BYTECODE else _struck_by_litter(act, times)


@contextmanager
def _struck_by_litter(act, times):
    """At allocations."""
    left = times

    def counted():
        nonlocal left
        try:
            act()
        finally:
            left -= 1

    threshold = gc.get_threshold()
    gc.disable()
    gc.freeze()
    _Litter(counted, times - 1)
    gc.set_threshold(1, 1, 1)
    gc.enable()
    try:
        yield
    finally:
        gc.disable()
        gc.set_threshold(*threshold)
        gc.enable()
        deadline = monotonic() + PATIENCE
        while left and monotonic() < deadline:  # collections do nothing while another thread is at one
            gc.collect()


@contextmanager
def _struck_at_steps(act, times):
    """Wherever Python calls or returns, farther and farther apart. A collection is not needed for it, which
    visits every object of the process in a build without the GIL.
    """
    left, gap, wait = times, 0, 0

    def step(frame, event, argument):
        nonlocal left, gap, wait
        if left and not wait:
            left, gap, wait = left - 1, gap + 1, gap + 1
            act()
        elif left:
            wait -= 1

    sys.setprofile(step)
    try:
        yield
    finally:
        sys.setprofile(None)
        for _ in range(left):
            act()


@contextmanager
def struck_at(number, act):
    """In the block, `act` is called once, at the step of that number: where Python calls or returns, as
    finalizers and signal handlers are.
    """
    steps = count()

    def step(frame, event, argument):
        if next(steps) == number:
            act()

    sys.setprofile(step)
    try:
        yield
    finally:
        sys.setprofile(None)
