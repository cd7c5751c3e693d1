"""Gates whose objects are of the twin that is tested."""

import pytest
from clocks import FakeClock

from headgate.config import load as load_gate

PLAIN = {
    "lru": "LRUCache", "fifo": "FIFOCache", "lfu": "LFUCache", "sieve": "SieveCache", "s3fifo": "S3FIFOCache",
    "tinylfu": "TinyLFUCache", "random": "RRCache",
}
BALANCERS = {
    "round_robin": "RoundRobin", "weighted_round_robin": "WeightedRoundRobin", "random": "RandomChoice",
    "power_of_two": "PowerOfTwo", "least_loaded": "LeastLoaded", "peak_ewma": "PeakEWMA",
    "key_hash": "KeyHash", "address_hash": "AddressHash",
}
PLACEMENTS = {"ring": "HashRing", "rendezvous": "Rendezvous", "maglev": "Maglev"}


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def load(twin, limits_of_twin, monkeypatch):
    building = "headgate.config._building"
    for table, names, idea in (
        ("_POLICIES", PLAIN, twin.cache), ("_BALANCERS", BALANCERS, twin.balance),
        ("_PLACEMENTS", PLACEMENTS, twin.placement),
    ):
        classes = {kind: getattr(idea, name) for kind, name in names.items()}
        monkeypatch.setattr(f"{building}.{table}", classes)
    for name, idea in (
        ("RateLimiter", twin.keyed), ("TokenBucket", twin.bucket), ("BoundedLoad", twin.placement),
        ("HotKeys", twin.hotkeys), ("SLO", twin.slo),
    ):
        monkeypatch.setattr(f"{building}.{name}", getattr(idea, name))
    return load_gate
