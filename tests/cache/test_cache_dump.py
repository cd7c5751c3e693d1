"""dump and load: what is written comes back, what was altered is refused and changes nothing."""

import io
import json
import pickle

import pytest
from threads import run_threads

POLICIES = ["FIFOCache", "LFUCache", "LRUCache", "RRCache", "S3FIFOCache", "SieveCache", "TinyLFUCache"]


def dumped(cache, **options):
    file = io.BytesIO()
    cache.dump(file, **options)
    return file.getvalue()


def example(twin, clock, policy="LRUCache"):
    cache = getattr(twin.cache, policy)(9, clock=clock)
    cache["plain"] = {"a": [1, 2]}
    cache.put("timed", 2, ttl=10)
    cache.put("tagged", None, tags=("x", "y"))
    return cache


@pytest.mark.parametrize("policy", POLICIES)
def test_entries_lifetimes_and_tags_come_back(twin, clock, policy):
    data = dumped(example(twin, clock, policy))
    clock.advance(1000)
    other = getattr(twin.cache, policy)(9, clock=clock)
    assert other.load(io.BytesIO(data)) == 3
    assert dict(other.items()) == {"plain": {"a": [1, 2]}, "timed": 2, "tagged": None}
    clock.advance(9.999)
    assert "timed" in other
    clock.advance(0.001)
    assert "timed" not in other
    assert other.invalidate(tag="x") == 1
    other._check()


def test_twins_write_the_same_bytes(both_twins, clock):
    compiled, pure = (dumped(example(twin, clock)) for twin in both_twins)
    assert compiled == pure


def test_a_path_is_exchanged_as_a_whole(twin, clock, tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(b"something else")
    example(twin, clock).dump(path)
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]
    cache = twin.cache.LRUCache(9)
    assert cache.load(str(path)) == 3


def test_a_dump_that_fails_leaves_the_file(twin, tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(b"before")
    cache = twin.cache.LRUCache(9)
    cache["a"] = object()
    with pytest.raises(TypeError):
        cache.dump(path)
    assert path.read_bytes() == b"before"


def test_whatever_was_altered_or_cut_is_refused(twin, clock):
    data = dumped(example(twin, clock))
    cache = twin.cache.LRUCache(9)
    cache["mine"] = 1
    altered = [bytes([*data[:at], data[at] ^ 1, *data[at + 1:]]) for at in range(len(data))]
    for wrong in [b"", data[:-1], data + b"x", *(data[:at] for at in range(0, len(data), 7)), *altered]:
        with pytest.raises(ValueError, match=r"^file must be"):
            cache.load(io.BytesIO(wrong))
    assert list(cache.items()) == [("mine", 1)]


def test_another_serializer_is_refused_by_name(twin, clock):
    data = dumped(example(twin, clock), serializer=pickle)
    cache = twin.cache.LRUCache(9)
    with pytest.raises(ValueError, match=r"^serializer must be pickle, got json$"):
        cache.load(io.BytesIO(data))
    assert cache.load(io.BytesIO(data), serializer=pickle) == 3


def test_a_key_that_json_would_change_is_refused(twin):
    cache = twin.cache.LRUCache(9)
    cache["a", 1] = 1
    with pytest.raises(TypeError, match=r"^key \('a', 1\) does not survive json$"):
        dumped(cache)
    other = twin.cache.LRUCache(9)
    other.load(io.BytesIO(dumped(cache, serializer=pickle)), serializer=pickle)
    assert other["a", 1] == 1


def test_what_is_no_serializer(twin):
    with pytest.raises(TypeError, match=r"^serializer must have dumps and loads, got 7$"):
        dumped(twin.cache.LRUCache(1), serializer=7)


def test_records_are_plain_json(twin, clock):
    data = dumped(example(twin, clock))
    start = data.index(b'["timed"')
    record = json.loads(data[start:data.index(b"]", start + 1) + 2])
    assert record == ["timed", 2, 10**10, 10**10, []]


@pytest.mark.parametrize("value", [
    (1, 2), [(1,)], {1: "a"}, {"a": {None: 1}}, {"a": (1,)}, {True: 1}, {1.5: 1},
])
def test_a_value_that_json_would_change_is_refused(twin, tmp_path, value):
    cache = twin.cache.LRUCache(9)
    cache["a"] = value
    path = tmp_path / "cache"
    path.write_bytes(b"before")
    with pytest.raises(TypeError, match=r"^value .* of key 'a' does not survive json$"):
        cache.dump(path)
    assert path.read_bytes() == b"before"
    other = twin.cache.LRUCache(9)
    other.load(io.BytesIO(dumped(cache, serializer=pickle)), serializer=pickle)
    assert other["a"] == value


@pytest.mark.parametrize("value", [
    None, True, 1, 2.5, float("nan"), float("inf"), "a", [], {}, [[1], {"b": [None, False]}], {"z": 1, "a": 2}
])
def test_a_value_that_json_keeps(twin, value):
    cache, other = twin.cache.LRUCache(9), twin.cache.LRUCache(9)
    cache["a"] = value
    other.load(io.BytesIO(dumped(cache)))
    assert repr(other["a"]) == repr(value)


@pytest.mark.parametrize("of_key", [True, False])
def test_a_subclass_does_not_come_back(twin, of_key):
    class Text(str):
        pass

    cache = twin.cache.LRUCache(9)
    cache[Text("a") if of_key else "a"] = Text("a")
    with pytest.raises(TypeError, match=r"^(key|value) 'a' .*does not survive json$"):
        dumped(cache)


def test_what_pickle_keeps_is_not_compared_any_further(twin):
    """Objects without ``__eq__``, and a list within itself."""
    cache, other = twin.cache.LRUCache(9), twin.cache.LRUCache(9)
    circle = []
    circle.append(circle)
    cache.update(a=Plain(), b=[Plain(), {Plain(): 1}], c=circle)
    other.load(io.BytesIO(dumped(cache, serializer=pickle)), serializer=pickle)
    assert type(other["a"]) is Plain and other["c"][0] is other["c"]


class Plain:
    pass


def test_threads_that_dump_to_one_path(twin, tmp_path):
    path = tmp_path / "cache"
    cache = twin.cache.LRUCache(50)
    cache.update((str(number), number) for number in range(50))
    cache.dump(path)

    def work(number):
        for _ in range(10):
            cache.dump(path)
            assert twin.cache.LRUCache(50).load(path) == 50

    run_threads(work, 4)
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("wrong", [
    5, ["key"], ["key", 1, None, None], ["key", 1, None, None, 5], ["key", 1, None, None, [5]],
    ["key", 1, "soon", None, []], ["key", 1, -5, None, []], ["key", 1, 2**70, None, []],
    [["key"], 1, None, None, []],
], ids=repr)
def test_records_of_another_form_are_refused(twin, wrong):
    class Forging:
        """A serializer named json that reads something else."""

        __name__ = "json"
        dumps = json.dumps

        def loads(self, data):
            return wrong

    cache = twin.cache.LRUCache(9)
    cache["key"] = 1
    with pytest.raises(ValueError, match=r"^file must hold entries, got "):
        cache.load(io.BytesIO(dumped(cache)), serializer=Forging())
    assert list(cache.items()) == [("key", 1)]


@pytest.mark.parametrize("sizes", [[3, 11, 2], [11], [3, -1], [3, None]])
def test_a_load_with_a_value_of_no_size_that_fits_leaves_the_cache(twin, sizes):
    source = twin.cache.LRUCache(99)
    source.update(enumerate(sizes))
    cache = twin.cache.LRUCache(10, getsizeof=lambda value: value)
    cache.put("old", 9, tags=("tag",))
    with pytest.raises((TypeError, ValueError)):
        cache.load(io.BytesIO(dumped(source)))
    assert (list(cache.items()), cache.currsize, cache.evictions) == ([("old", 9)], 9, 0)
    assert cache.invalidate(tag="tag") == 1
    cache._check()


def test_a_load_into_a_cache_without_a_slot(twin):
    source, cache = twin.cache.LRUCache(9), twin.cache.LRUCache(0)
    source["a"] = 1
    with pytest.raises(ValueError, match="value too large: size 1 exceeds maxsize 0"):
        cache.load(io.BytesIO(dumped(source)))
    assert cache.load(io.BytesIO(dumped(cache))) == 0
