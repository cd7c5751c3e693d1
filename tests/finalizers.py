"""Finalizers that strike amid a call: garbage that the collector finds at the next allocations."""

import gc
from contextlib import contextmanager


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
