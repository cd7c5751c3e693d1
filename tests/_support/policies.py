"""The cache class of each policy, and caches with and without lifetimes."""

from clocks import TickingClock

POLICIES = (
    "FIFOCache", "LFUCache", "LRUCache", "RRCache", "S3FIFOCache", "SieveCache", "TinyLFUCache",
)


class CacheMaker:
    """Makes caches of one policy; with `timed`, entries end after some thirty readings of the clock."""

    def __init__(self, cls, timed):
        self.cls, self.clock = cls, TickingClock()
        self.options = {"ttl": 0.4, "tti": 0.3, "jitter": 0.5, "clock": self.clock} if timed else {}

    def __call__(self, *args, **kwargs):
        return self.cls(*args, **self.options, **kwargs)
