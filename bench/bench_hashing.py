"""XXH64 and splitmix64, compared with the xxhash package: ``pytest bench/bench_hashing.py
--benchmark-only``."""

import pytest

from headgate.hashing import _compiled as compiled
from headgate.hashing import _pure as pure

TWINS = pytest.mark.parametrize("twin", [compiled, pure], ids=["compiled", "pure"])
SIZES = pytest.mark.parametrize("size", [8, 32, 1024])


@TWINS
@SIZES
@pytest.mark.benchmark(group="xxh64 of bytes")
def test_xxh64(benchmark, twin, size):
    benchmark(twin.xxh64, b"x" * size)


@SIZES
@pytest.mark.benchmark(group="xxh64 of bytes")
def test_xxhash_package(benchmark, size):
    benchmark(pytest.importorskip("xxhash").xxh64_intdigest, b"x" * size)


@TWINS
@pytest.mark.benchmark(group="xxh64 of a str of 12 characters")
def test_xxh64_of_str(benchmark, twin):
    benchmark(twin.xxh64, "user:1234567")


@TWINS
@pytest.mark.benchmark(group="splitmix64")
def test_splitmix64(benchmark, twin):
    benchmark(twin.splitmix64, 1234567)
