"""How a RateLimiter hashes keys: by a secret, which differs from table to table, and evenly."""

import math
import os
import subprocess
import sys
from collections import Counter
from importlib import import_module
from itertools import product
from types import SimpleNamespace

import pytest

HASHES = """
from headgate.limit.keyed import _compiled as ratelimit
ratelimit.urandom = bytes
limiter = ratelimit.RateLimiter("1/s", clock=lambda: 0)
mask = 2**64 - 1
for key in [b"", b"a", b"1234567", b"12345678", b"123456789", bytes(range(256))]:
    print(limiter._hash(key) == (hash(key) & mask if key else limiter._hash(b"")))
"""


def test_keys_are_hashed_with_siphash(both_twins):
    """With a key of zeros, as PYTHONHASHSEED=0 gives one to Python's own SipHash-1-3."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip("this Python hashes bytes in another way")
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", HASHES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 6


def test_two_limiters_place_keys_differently(twin):
    """No client can aim at a cell: the secret differs from table to table."""
    kept = []
    for _ in range(4):
        limiter = twin.keyed.RateLimiter("10/h", max_keys=40, clock=lambda: 0)
        for number in range(100):
            limiter.allow(number)
        kept.append([limiter.peek(number).remaining < 10 for number in range(100)])
    assert any(places != kept[0] for places in kept)


@pytest.mark.parametrize("make_hash", ["_hash_in_process", "_hash_anywhere"])
def test_the_pure_twin_spreads_keys_evenly(make_hash):
    """Tag and lines are each, and together, as good as drawn at random."""
    hash_of = getattr(import_module("headgate.limit.keyed._pure"), make_hash)(os.urandom(16))
    hashes = [hash_of(b"user:%d" % number) for number in range(32_000)]
    lines, tags = [[hashed >> 61 & 7 for hashed in hashes], [hashed >> 85 for hashed in hashes]]
    others = [hashed >> 29 & 7 for hashed in hashes]
    counts = Counter(zip(lines, others, tags, strict=True))
    mean = len(hashes) / 512
    chi_square = sum((counts[cell] - mean) ** 2 / mean for cell in product(range(8), repeat=3))
    assert abs(chi_square - 511) < 7 * math.sqrt(2 * 511)
    assert max(hashes) < 2**88


def test_a_python_without_siphash(monkeypatch):
    module = import_module("headgate.limit.keyed._pure")
    for algorithm, width in (("fnv", 64), ("siphash13", 32)):
        monkeypatch.setattr(sys, "hash_info", SimpleNamespace(algorithm=algorithm, width=width))
        assert module._hash_in_process(b"secret")(b"ann") == module._hash_anywhere(b"secret")(b"ann")
