"""NearTable and NearSource: keys, deadlines, tokens, epochs, statistics; and a naive model of them."""

import gc
import os
import pickle
import weakref

import pytest
from clocks import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import Twin, twin_names
from watchdog import in_threads

from headgate import LRUCache, TTLCache
from headgate.near import NearSource

SECOND = 10**9


@pytest.fixture
def make(twin, clock):
    def make_table(cache=None, **options):
        return twin.near.NearTable(cache, clock=clock, **{"prefixes": ["user:"]} | options)

    return make_table


def heartbeat(source):
    source.heartbeat_sent()
    source.heartbeat_answered()


def listening(table, run_id="1"):
    """A source of a server that has been heard of."""
    source = NearSource(table)
    source.connected(run_id)
    heartbeat(source)
    heartbeat(source)
    return source


def fetched(table, source, key, value, **options):
    entry = table.begin(key, source.epoch)
    stored = table.store(entry, value, "1", **options)
    table.end(entry)
    return stored


# ---- keys -----------------------------------------------------------------------------------


def test_text_and_bytes_are_one_key(make):
    table = make()
    source = listening(table)
    fetched(table, source, "user:ä", 1)
    assert table.get("user:ä") == table.get("user:ä".encode()) == 1
    table.drop("user:ä".encode())
    assert table.get("user:ä") is None


def test_bytes_that_are_no_text_are_a_key(make):
    table = make()
    source = listening(table)
    fetched(table, source, b"user:\xff", 1)
    assert table.get(b"user:\xff") == 1
    source.invalidated([b"user:\xff"])
    assert table.get(b"user:\xff") is None


def test_subclasses_of_keys_run_no_code_of_theirs(make):
    class Text(str):
        def __hash__(self):
            raise RuntimeError

    class Data(bytes):
        def decode(self, *args):
            raise RuntimeError

    table = make()
    fetched(table, listening(table), "user:1", 1)
    assert table.get(Text("user:1")) == table.get(Data(b"user:1")) == 1


@pytest.mark.parametrize("key", [None, 1, ("user:1",), bytearray(b"user:1")])
def test_other_keys_are_refused(make, key):
    table = make()
    for use in (table.get, table.peek, table.begin, table.drop, table.covers):
        with pytest.raises(TypeError, match=r"^key must be str or bytes, got "):
            use(key)


def test_a_key_outside_the_prefixes_is_never_kept(make):
    table = make()
    source = listening(table)
    assert not fetched(table, source, "page:1", 1)
    assert not fetched(table, source, "user", 1)
    assert table.get("page:1") is None


# ---- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefixes", "message"), [
    ([], "prefixes must name at least one, got none"),
    ([""], "prefixes must not be empty, which is any key of the server, got ''"),
    (["a:", b""], "prefixes must not be empty, which is any key of the server, got b''"),
    (["user:1", "page:", b"user:"], "prefixes must be disjoint, got 'user:' and 'user:1'"),
    (["a:", "a:"], "prefixes must be disjoint, got 'a:' and 'a:'"),
    (["\udcff"], "key must have no surrogates"),
])
def test_prefixes_that_no_server_accepts(make, prefixes, message):
    with pytest.raises(ValueError) as caught:
        make(prefixes=prefixes)
    assert message in str(caught.value)


@pytest.mark.parametrize("prefixes", ["user:", b"user:", 5, [5], None])
def test_prefixes_of_a_wrong_type(make, prefixes):
    with pytest.raises(TypeError, match=r"^prefixes must be "):
        make(prefixes=prefixes)


@pytest.mark.parametrize("name", ["ttl", "max_stale", "negative_ttl"])
def test_times_are_checked(make, name):
    for wrong in (-1, float("nan"), float("inf"), 1e10):
        with pytest.raises(ValueError, match=f"^{name} must be .*got {wrong}"):
            make(**{name: wrong})
    with pytest.raises(TypeError, match=f"^{name} must be a number, got 'x'"):
        make(**{name: "x"})


def test_a_cache_must_be_bounded_and_empty(make):
    with pytest.raises(TypeError, match=r"^cache must be a mapping with a maxsize, got \{\}"):
        make({})
    cache = LRUCache(2)
    cache["a"] = 1
    with pytest.raises(ValueError, match=r"^cache must be empty, got 1 entries"):
        make(cache)


def test_it_is_made_once_and_neither_copied_nor_pickled(make):
    table = make()
    with pytest.raises(TypeError, match="initialized once"):
        table.__init__(prefixes=["a:"])
    for thing in (table, table.open_epoch("1"), table.begin("user:1")):
        with pytest.raises(TypeError, match=f"^a {type(thing).__name__} cannot be copied or pickled"):
            pickle.dumps(thing)


# ---- deadlines ------------------------------------------------------------------------------


@pytest.mark.parametrize(("lifetime", "seconds"), [(None, 60), (100_000, 60), (1500, 1.5), (1, 0.001)])
def test_an_entry_outlives_neither_ttl_nor_the_lifetime_at_the_server(make, clock, lifetime, seconds):
    table = make(ttl=60, max_stale=1000)
    assert fetched(table, listening(table), "user:1", 1, lifetime=lifetime)
    clock.now += round(seconds * SECOND) - 1
    assert table.get("user:1") == 1
    clock.now += 1
    assert table.get("user:1") is None


def test_a_lifetime_counts_from_the_beginning_of_the_fetch(make, clock):
    table = make(ttl=60, max_stale=1000)
    entry = table.begin("user:1", listening(table).epoch)
    clock.advance(40)
    assert table.store(entry, 1, "1")
    clock.advance(20)
    assert table.get("user:1") is None


def test_a_value_without_a_rest_of_life_is_not_kept(make):
    table = make()
    assert not fetched(table, listening(table), "user:1", 1, lifetime=0)


def test_fresh_until_max_stale_after_the_last_heartbeat_but_one(make, clock):
    table = make(max_stale=2)
    source = NearSource(table)
    source.connected("1")
    assert fetched(table, source, "user:1", 1)
    source.heartbeat_sent()
    clock.advance(0.5)
    source.heartbeat_answered()
    assert table.get("user:1") is None, "one heartbeat proves nothing"
    heartbeat(source)
    clock.now += 3 * SECOND // 2 - 1
    assert table.get("user:1") == 1
    clock.now += 1
    assert table.get("user:1") is None, "2 seconds after the first was sent"
    heartbeat(source)
    assert table.get("user:1") == 1, "it was not dropped, only not trusted"
    clock.now += SECOND // 2 - 1
    assert table.get("user:1") == 1
    clock.now += 1
    assert table.get("user:1") is None, "2 seconds after the second was sent"


def test_absence_is_remembered_if_wished(make, clock):
    table = make(negative_ttl=5, max_stale=1000)
    source = listening(table)
    entry = table.begin("user:1", source.epoch)
    assert table.store_absence(entry, "1")
    table.end(entry)
    assert table.get("user:1", "nothing") == "nothing"
    assert table.peek("user:1", "not known", "absent") == "absent"
    assert table.stats().negative_hits == table.stats().hits == 2
    clock.advance(5)
    assert table.peek("user:1", "not known", "absent") == "not known"
    never = make()
    entry = never.begin("user:1", listening(never).epoch)
    assert not never.store_absence(entry, "1")


def test_none_is_a_value(make):
    table = make()
    assert fetched(table, listening(table), "user:1", None)
    assert table.get("user:1", "nothing") is None


# ---- tokens and epochs ----------------------------------------------------------------------


def test_misses_of_one_key_share_an_entry_until_it_is_dropped(make):
    table = make()
    epoch = listening(table).epoch
    first, second = table.begin("user:1", epoch), table.begin(b"user:1", epoch)
    assert first is second
    table.drop("user:1")
    third = table.begin("user:1", epoch)
    assert third is not first
    assert not first.is_alive
    assert third.is_alive
    table.end(first)
    assert not table.store(second, "old", "1")
    table.end(second)
    assert table.store(third, "new", "1")
    table.end(third)
    assert table.get("user:1") == "new"
    assert table.stats().pending == 0


class AmidInsertion(LRUCache):
    """Calls `amid` once, as another thread may, when an entry has been put into it."""

    def __setitem__(self, key, entry):
        super().__setitem__(key, entry)
        amid, self.amid = self.amid, lambda: None
        amid()


@pytest.mark.parametrize("amid", [True, False])
def test_of_those_who_share_an_entry_the_first_value_is_kept(make, amid):
    cache = AmidInsertion(10)
    table = make(cache, negative_ttl=1)
    epoch = listening(table).epoch
    entries = [table.begin("user:1", epoch) for _ in range(3)]
    others = []

    def store_others():
        others.append(table.store(entries[1], "second", "1"))
        others.append(table.store_absence(entries[2], "1"))
        assert entries[0].value == "first"

    cache.amid = store_others if amid else lambda: None
    assert table.store(entries[0], "first", "1")
    if not amid:
        store_others()
    assert others == [True, True]
    assert table.get("user:1") == "first"
    assert (table.stats().stored, table.stats().overtaken) == (3, 0)
    table.drop("user:1")
    assert not table.store(entries[1], "late", "1")
    for entry in entries:
        table.end(entry)
    table._check()


def test_an_entry_of_another_epoch_is_not_shared_and_dies(make):
    table = make()
    old, new = listening(table, "1"), listening(table, "2")
    first, second = table.begin("user:1", old.epoch), table.begin("user:1", new.epoch)
    assert first is not second
    source = listening(table, "2")
    assert not table.store(first, "of the old", "1")
    source.invalidated(["user:1"])
    assert not table.store(second, "of the new", "2")


def test_what_another_server_sent_is_not_kept(make):
    table = make()
    entry = table.begin("user:1", listening(table, "1").epoch)
    assert not table.store(entry, 1, "2")


def test_without_an_epoch_nothing_is_kept(make):
    table = make()
    assert not table.store(table.begin("user:1"), 1, "1")


def test_a_lost_connection_ends_entries_and_fetches(make):
    table = make()
    source = listening(table)
    fetched(table, source, "user:1", 1)
    entry = table.begin("user:2", source.epoch)
    source.lost()
    assert table.get("user:1") is None
    assert not table.store(entry, 2, "1")
    source.connected("1")
    heartbeat(source)
    heartbeat(source)
    assert table.get("user:1") is None
    assert not table.store(entry, 2, "1")


def test_a_null_invalidation_drops_all_and_the_connection_goes_on(make):
    table = make()
    source = listening(table)
    fetched(table, source, "user:1", 1)
    entry = table.begin("user:2", source.epoch)
    source.invalidated(None)
    assert table.get("user:1") is None
    assert not table.store(entry, 2, "1")
    assert fetched(table, source, "user:1", "new")
    assert table.get("user:1") == "new"


def test_one_server_of_several_is_flushed(make):
    table = make()
    one, other = listening(table, "1"), listening(table, "2")
    fetched(table, one, "user:1", 1)
    entry = table.begin("user:2", other.epoch)
    table.store(entry, 2, "2")
    table.end(entry)
    one.lost()
    assert (table.get("user:1"), table.get("user:2")) == (None, 2)


def test_heartbeats_are_sent_one_at_a_time(make):
    source = NearSource(make())
    with pytest.raises(RuntimeError, match="must follow"):
        source.heartbeat_sent()
    source.connected("1")
    with pytest.raises(RuntimeError, match="must follow"):
        source.connected("1")
    with pytest.raises(RuntimeError, match="must follow"):
        source.heartbeat_answered()
    source.heartbeat_sent()
    with pytest.raises(RuntimeError, match="must follow"):
        source.heartbeat_sent()


def test_an_invalidation_while_the_cache_stores(make):
    """A listener of the user's cache runs between the two steps of storing."""
    def on_evict(key, entry, reason):
        table.drop("user:2")

    table = make(LRUCache(1, on_evict=on_evict))
    source = listening(table)
    fetched(table, source, "user:1", 1)
    assert not fetched(table, source, "user:2", 2)
    assert table.get("user:2") is None
    table._check()


def test_the_cache_of_a_user_bounds_what_is_kept(make):
    table = make(LRUCache(10, getsizeof=lambda entry: len(entry.value)))
    source = listening(table)
    assert not fetched(table, source, "user:1", b"x" * 11)
    assert fetched(table, source, "user:2", b"x" * 6)
    assert fetched(table, source, "user:3", b"x" * 6)
    assert table.stats().entries == 1


def test_a_timed_cache_ends_entries_sooner(make, clock):
    table = make(TTLCache(9, 1, clock=clock), max_stale=1000)
    fetched(table, listening(table), "user:1", 1)
    clock.advance(1)
    assert table.get("user:1") is None


# ---- statistics, garbage, forks, threads ----------------------------------------------------


def test_statistics(make, clock):
    table = make(ttl=60, max_stale=1000)
    source = listening(table)
    fetched(table, source, "user:1", 1)
    clock.advance(3)
    fetched(table, source, "user:2", 2)
    clock.advance(1)
    table.get("user:1")
    table.get("user:3")
    entry = table.begin("user:4", source.epoch)
    source.invalidated(["user:4", "user:5"])
    table.store(entry, 4, "1")
    waiting = table.begin("user:6", source.epoch)
    table.count_error()
    assert table.stats() == (1, 1, 0, 2, 1, 2, 0, 1, 2, 1, 1, 4.0)
    table.end(waiting)
    source.lost()
    assert table.stats() == (1, 1, 0, 2, 1, 2, 1, 1, 0, 0, 0, 0.0)


def test_a_dead_entry_leaves_with_its_lookup(make, clock):
    cache = LRUCache(9)
    table = make(cache, ttl=1, max_stale=1000)
    fetched(table, listening(table), "user:1", 1)
    clock.advance(1)
    table.get("user:1")
    assert len(cache) == 0


def test_a_subclass_fetches_what_is_missed(twin):
    class Front(twin.near.NearTable):
        def _fetch(self, key, default):
            return key, default

    assert Front(prefixes=["user:"]).get("user:1", 5) == ("user:1", 5)


def test_a_table_is_garbage_without_users(make):
    class Value:
        pass

    table, value = make(), Value()
    value.table = table
    fetched(table, listening(table), "user:1", value)
    found = weakref.ref(value)
    del table, value
    gc.collect()
    assert found() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_a_fork_starts_empty(make):
    table = make()
    source = listening(table)
    fetched(table, source, "user:1", 1)
    entry = table.begin("user:2", source.epoch)
    pid = os.fork()
    if not pid:
        same = table.get("user:1") is None and not table.store(entry, 2, "1") and table.stats().pending == 0
        os._exit(0 if same else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert table.get("user:1") == 1


def test_threads_never_see_what_was_dropped(twin):
    """One thread raises a number and drops it before others may rely on it; they read that or a newer one."""
    table = twin.near.NearTable(prefixes=["user:"], max_stale=1000)
    source = listening(table)
    at_the_server, announced, roles = [0], [0], iter(range(4))

    def write():
        for number in range(2000):
            at_the_server[0] = number
            table.drop("user:1")
            announced[0] = number

    def read():
        for _ in range(2000):
            least, value = announced[0], table.peek("user:1")
            if value is not None:
                assert value >= least
                continue
            entry = table.begin("user:1", source.epoch)
            table.store(entry, at_the_server[0], "1")
            table.end(entry)

    assert in_threads(lambda: write() if next(roles) == 0 else read(), 4) == [None] * 4
    assert table.stats().pending == 0
    table._check()


# ---- a naive model --------------------------------------------------------------------------

KEYS = st.sampled_from(["user:1", "user:2", b"user:2"])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["begin", "drop", "get"]), KEYS),
    st.tuples(st.just("store"), st.integers(0, 3), st.integers(0, 4000)),
    st.tuples(st.sampled_from(["flush", "reconnect", "beat"])),
    st.tuples(st.just("pass"), st.integers(1, 2000)),
)


@pytest.mark.parametrize("name", twin_names())
@given(steps=st.lists(STEPS, max_size=40))
@settings(max_examples=60)
def test_a_naive_model_agrees(name, steps):
    clock = FakeClock()
    table = Twin(name).near.NearTable(prefixes=["user:"], ttl=3, max_stale=2, clock=clock)
    source = listening(table)
    fresh = sent = clock.now
    entries, begun = {}, []
    for number, (kind, *args) in enumerate(steps):
        text = args[0].decode() if args and isinstance(args[0], bytes) else args and args[0]
        if kind == "begin":
            entry = table.begin(args[0], source.epoch)
            if all(known is not entry for known, *_ in begun):
                begun.append([entry, text, clock.now, False])
        elif kind == "store" and begun:
            entry, key, since, dead = begun.pop(args[0] % len(begun))
            stored = table.store(entry, number, "1", args[1])
            assert stored == (not dead and args[1] > 0)
            if stored:
                entries[key] = number, since + min(3 * SECOND, args[1] * 10**6)
            table.end(entry)
        elif kind in ("drop", "flush", "reconnect"):
            for each in begun:
                each[3] |= kind != "drop" or each[1] == text
            if kind == "drop":
                source.invalidated(args)
                entries.pop(text, None)
            elif kind == "flush":
                source.invalidated(None)
                entries.clear()
            else:
                source.lost()
                source.connected("1")
                entries.clear()
                fresh, sent = None, None
        elif kind == "beat":
            heartbeat(source)
            fresh, sent = (fresh if sent is None else sent), clock.now
        elif kind == "pass":
            clock.now += args[0] * 10**6
        elif kind == "get":
            value, until = entries.get(text, (None, 0))
            known = until > clock.now and fresh is not None and fresh + 2 * SECOND > clock.now
            assert table.get(args[0]) == (value if known else None)
        table._check()
