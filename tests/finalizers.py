"""Finalizers that strike amid a call: garbage that the collector finds at the next allocations."""

import gc
import sys
from contextlib import contextmanager
from itertools import count


class _Litter:
    """A cycle whose end acts, and leaves more litter while there is some `left`."""

    def __init__(self, act, left):
        self.act, self.left, self.me = act, left, self

    def __del__(self):
        self.act()
        if self.left:
            _Litter(self.act, self.left - 1)


@contextmanager
def struck_by(act, times):
    """Within, `act` is called amid whatever allocates, so many times; none is left behind."""
    threshold = gc.get_threshold()
    gc.disable()
    gc.freeze()
    _Litter(act, times - 1)
    gc.set_threshold(1, 1, 1)
    gc.enable()
    try:
        yield
    finally:
        gc.disable()
        gc.set_threshold(*threshold)
        gc.enable()
        for _ in range(times):
            gc.collect()
        gc.unfreeze()


@contextmanager
def struck_at(number, act):
    """Within, `act` is called once, at the step of that number: wherever Python calls or returns, which is
    where CPython runs finalizers and signal handlers.
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
