"""XXH64 and splitmix64 against the published algorithm."""

import array

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

SEEDS = [0, 1, 0x9E3779B1, 2**63, 2**64 - 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_xxh64_every_length_up_to_300(twin, seed):
    data = bytes((i * 131 + 7) & 0xFF for i in range(300))
    for size in range(301):
        assert twin.hashing.xxh64(data[:size], seed) == xxhash.xxh64_intdigest(data[:size], seed)


@given(data=st.binary(max_size=500), seed=st.integers(0, 2**64 - 1))
def test_xxh64_random(data, seed):
    from twins import Twin, twin_names

    for name in twin_names():
        assert Twin(name).hashing.xxh64(data, seed) == xxhash.xxh64_intdigest(data, seed)


def test_xxh64_str_is_its_utf8(twin):
    for text in ["", "a", "é", "日本", "\U0001f600", "x" * 1000]:
        assert twin.hashing.xxh64(text) == xxhash.xxh64_intdigest(text.encode())
    with pytest.raises(UnicodeEncodeError):
        twin.hashing.xxh64("\ud800")


def test_xxh64_any_buffer(twin):
    words = array.array("I", range(100))
    expected = xxhash.xxh64_intdigest(words.tobytes())
    assert twin.hashing.xxh64(words) == expected
    assert twin.hashing.xxh64(bytearray(words.tobytes())) == expected
    assert twin.hashing.xxh64(memoryview(words)) == expected
    every_second = memoryview(bytes(range(200)))[::2]
    assert twin.hashing.xxh64(every_second) == xxhash.xxh64_intdigest(bytes(range(0, 200, 2)))


def test_buffer_is_released(twin):
    data = bytearray(b"abc")
    twin.hashing.xxh64(data)
    data.append(1)


@pytest.mark.parametrize("data", [1, None, ["a"], 1.5])
def test_xxh64_refuses_other_types(twin, data):
    with pytest.raises(TypeError, match=r"^data must be str, bytes or a buffer, got "):
        twin.hashing.xxh64(data)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_xxh64_seed_out_of_range(twin, seed):
    with pytest.raises(ValueError, match=rf"^seed must be in \[0, 2\*\*64\), got {seed}$"):
        twin.hashing.xxh64(b"", seed)


def test_xxh64_seed_no_int(twin):
    with pytest.raises(TypeError, match=r"^seed must be an int, got 'x'$"):
        twin.hashing.xxh64(b"", "x")


def test_splitmix64_published_sequence(twin):
    """The first outputs of Vigna's generator for the state 1234567."""
    state, gamma = 1234567, 0x9E3779B97F4A7C15
    outputs = [twin.hashing.splitmix64(state + i * gamma) for i in range(5)]
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_splitmix64_is_modulo_2_to_64(twin):
    assert twin.hashing.splitmix64(-1) == twin.hashing.splitmix64(2**64 - 1)
    assert twin.hashing.splitmix64(2**200 + 5) == twin.hashing.splitmix64(5)
    with pytest.raises(TypeError, match=r"^x must be an int, got 1.5$"):
        twin.hashing.splitmix64(1.5)
