"""jump_hash and redis_slot against recorded and published results."""

import json
from binascii import crc_hqx

import pytest
from ring_model import name_of
from twins import SHARED
from xxhash import xxh64_intdigest

VECTORS = SHARED / "vectors"
RECORDED = pytest.mark.skipif(not VECTORS.exists(), reason="the recorded results are not beside the project")


def naive_jump(key, buckets):
    bucket, after = -1, 0
    while after < buckets:
        bucket = after
        key = (key * 2862933555777941757 + 1) % 2**64
        after = int((bucket + 1) * (2**31 / ((key >> 33) + 1)))
    return bucket


@RECORDED
def test_every_recorded_bucket(twin):
    for case in json.loads((VECTORS / "jump.json").read_text())["cases"]:
        for key, bucket in case["keys"].items():
            assert twin.placement.jump_hash(int(key), case["buckets"]) == bucket


@RECORDED
def test_every_recorded_slot(twin):
    keys = json.loads((VECTORS / "redis-slot.json").read_text())["keys"]
    assert {key: twin.placement.redis_slot(key) for key in keys} == keys


def test_published_buckets(twin):
    """Those of other implementations' tests."""
    assert twin.placement.jump_hash(256, 1024) == 520
    assert twin.placement.jump_hash(1, 1) == twin.placement.jump_hash(0, 60) == 0
    assert twin.placement.jump_hash(42, 57) == 43
    assert twin.placement.jump_hash(0xDEAD10CC, 666) == 361


def test_keys_of_all_kinds(twin):
    jump_hash = twin.placement.jump_hash
    for key in (0, 1, -1, 2**63, 2**64 - 1, -(2**63), True):
        for buckets in (1, 2, 3, 1000, 2**31):
            assert jump_hash(key, buckets) == naive_jump(int(key) % 2**64, buckets)
    for key in ("user:1", "é", b"\xff", ""):
        data = key if isinstance(key, bytes) else key.encode()
        assert jump_hash(key, 1000) == naive_jump(xxh64_intdigest(data), 1000)
    for keywords in ({"buckets": 7}, {"key": "x", "buckets": 7}):  # positional-only, as all lookups are
        with pytest.raises(TypeError, match="jump_hash"):
            jump_hash(*["x"][: 2 - len(keywords)], **keywords)


def test_growth_moves_only_to_the_new_bucket(twin):
    before, after = ([twin.placement.jump_hash(f"user:{i}", n) for i in range(5000)] for n in (100, 101))
    moved = [now for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {100}
    assert len(moved) / 5000 == pytest.approx(1 / 101, rel=0.4)


@pytest.mark.parametrize("key, slot", [
    ("123456789", 0x31C3), ("", 0), ("foo", 12182), ("{user1000}.following", 3443), ("foo{}{bar}", 8363),
    ("foo{{bar}}zap", 4015), ("foo{bar}{zap}", 5061),
])
def test_published_slots(twin, key, slot):
    assert twin.placement.redis_slot(key) == twin.placement.redis_slot(key.encode()) == slot


@pytest.mark.parametrize("key", ["{", "}", "}{", "{}", "{a", "a}", "{é}x", b"\xff{\xff}", 7, -1])
def test_odd_tags(twin, key):
    data = name_of(key)
    tag = data.partition(b"{")[2].partition(b"}")
    assert twin.placement.redis_slot(key) == crc_hqx(tag[0] if tag[1] and tag[0] else data, 0) % 16384


WRONG = [
    (lambda module: module.jump_hash(1, 0), ValueError, "buckets must be in [1, 2**31], got 0"),
    (lambda module: module.jump_hash(1, 10**10), ValueError, f"buckets must be in [1, 2**31], got {10**10}"),
    (lambda module: module.jump_hash(1, 1.0), TypeError, "buckets must be an int, got 1.0"),
    (lambda module: module.jump_hash(2**64, 1), ValueError, f"key must be in [-2**63, 2**64), got {2**64}"),
    (lambda module: module.jump_hash(None, 1), TypeError, "key must be str, bytes or int, got None"),
    (lambda module: module.redis_slot(1.5), TypeError, "key must be str, bytes or int, got 1.5"),
    (lambda module: module.redis_slot(2**63), ValueError, f"key must be in [-2**63, 2**63), got {2**63}"),
]


@pytest.mark.parametrize("act, error, message", WRONG, ids=[message for *_, message in WRONG])
def test_wrong_input(twin, act, error, message):
    with pytest.raises(error) as caught:
        act(twin.placement)
    assert caught.value.args == (message,)
