"""NearCache and AsyncNearCache on a real server: what is kept, what drops it, and what happens on failure."""

import asyncio
import gc
import os
import pickle
import threading
import time
import weakref
from contextlib import ExitStack

import pytest
import redis
from faked_time import faked_time
from near_caches import FORMS, Blocking, LoopThread, until_kept
from own_time import Stopwatch
from redis_servers import NEWER, Proxy, RedisServer, server_program
from watchdog import in_threads, until

from headgate import LRUCache
from headgate.adapters.redis import AsyncNearCache, NearCache
from headgate.errors import StoreError

TIMEOUT = 0.25
LATE = 0.05


@pytest.fixture(scope="module", params=[None, NEWER])
def server(request, tmp_path_factory):
    path = server_program(request.param)
    with RedisServer(tmp_path_factory.mktemp("redis"), path=path) as started:
        yield started


@pytest.fixture
def redis_client(server):
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


@pytest.fixture(params=FORMS)
def make(request, server):
    """Makes near caches of either form, which are closed after the test."""
    made = []

    def near_cache(client=None, **options):
        client = server.client() if client is None else client
        made.append(FORMS[request.param](client, **{"prefixes": ["user:"]} | options))
        return made[-1]

    yield near_cache
    for near in made:
        near.close()


# ---- hits, misses and changes ---------------------------------------------------------------


def test_a_hit_asks_nobody(make, redis_client):
    near = make()
    redis_client.set("user:1", "Ann")
    until_kept(near, "user:1")
    before = redis_client.info("commandstats")["cmdstat_get"]["calls"]
    assert [near.get(key) for key in ("user:1", b"user:1")] == [b"Ann", b"Ann"]
    assert redis_client.info("commandstats")["cmdstat_get"]["calls"] == before


def test_a_change_is_seen(make, redis_client):
    near = make()
    changes = {
        "set": lambda: redis_client.set("user:1", "new"),
        "append": lambda: redis_client.append("user:1", "new"),
        "delete": lambda: redis_client.delete("user:1"),
        "expire": lambda: redis_client.pexpire("user:1", 10**6),
        "rename": lambda: redis_client.rename("user:1", "other"), "flush": redis_client.flushall,
        "rename to it": lambda: redis_client.rename("other", "user:1"),
        "copy": lambda: redis_client.copy("other", "user:1", replace=True),
        "unlink": lambda: redis_client.unlink("user:1"),
        "script": lambda: redis_client.eval("redis.call('SET', 'user:1', 'new')", 0),
        "transaction": lambda: redis_client.pipeline().set("user:1", "new").delete("user:1").execute(),
        "restore": lambda: redis_client.restore("user:1", 0, redis_client.dump("other"), replace=True),
        "flush of the database": redis_client.flushdb,
    }
    for name, change in changes.items():
        redis_client.mset({"user:1": "old", "other": "new"})
        until_kept(near, "user:1")
        change()
        until(lambda: near.peek("user:1") is None)
        assert near.get("user:1") == redis_client.get("user:1"), name


def test_own_writes_are_read(make, redis_client):
    near = make()
    assert near.get("user:1") is None
    for number in range(100):
        value = b"%d" % number
        assert near.set("user:1", value)
        assert near.get("user:1") == value
    assert near.delete("user:1")
    assert near.get("user:1") is None
    assert not near.delete("user:1")


def test_a_value_expires_with_the_key(make, redis_client):
    """Redis need not announce an expiry."""
    near = make()
    near.set("user:1", b"Ann", ttl=0.3)
    until_kept(near, "user:1")
    until(lambda: near.get("user:1") is None)
    near.set("user:1", b"Ann", ttl=1e-9)
    until(lambda: near.get("user:1") is None)


def test_absent_keys_are_remembered_if_wished(make, redis_client):
    near = make(negative_ttl=60)
    until(lambda: near.get("user:1", "nothing") == "nothing" and near.stats().negative_hits)
    redis_client.set("user:1", "Ann")
    until(lambda: near.get("user:1") == b"Ann")
    assert "user:2" not in near.get_many(["user:2"])


def test_keys_outside_the_prefixes_pass_through(make, redis_client):
    near = make()
    redis_client.set("page:1", "one")
    for _ in range(3):
        assert near.get("page:1") == b"one"
    assert near.stats().entries == 0
    assert near.set("page:1", b"two")
    assert near.get("page:1") == b"two"


def test_many_in_one_round_trip(make, redis_client):
    near = make()
    redis_client.mset({f"user:{number}": number for number in range(100)})
    until_kept(near, "user:1")
    before = redis_client.info("commandstats")["cmdstat_info"]["calls"]
    keys = [f"user:{number}" for number in range(101)]
    expected = {f"user:{number}": b"%d" % number for number in range(100)}
    assert near.get_many(keys) == expected
    after = redis_client.info("commandstats")["cmdstat_info"]["calls"]
    assert after == before + 2, "one for all keys, and that of this test"
    assert near.get_many(keys) == expected
    assert near.stats().entries == 100
    assert near.get_many([b"user:1", "user:1"]) == {"user:1": b"1"}


def test_many_of_which_one_is_no_key_leave_nothing_pending(make, redis_client):
    near = make()
    with pytest.raises(UnicodeEncodeError, match="key must have no surrogates"):
        near.get_many(["user:1", "user:\ud800"])
    assert near.stats().pending == 0


def test_a_key_of_another_type_is_an_error_of_the_server(make, redis_client):
    redis_client.lpush("user:1", "x")
    assert make().get("user:1", "nothing") == "nothing"
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        make(on_error="raise").get("user:1")
    assert isinstance(caught.value.__cause__, redis.ResponseError)


# ---- loaders and serializers ----------------------------------------------------------------


def test_a_loader_is_called_once(make, redis_client):
    near = make()
    calls, loading = [], threading.Event()

    def load(key):
        calls.append(key)
        loading.wait(10)
        return b"loaded"

    timer = threading.Timer(0.1, loading.set)
    timer.start()
    if isinstance(near, Blocking):
        async def load_slowly(key):
            calls.append(key)
            await asyncio.sleep(0.1)
            return b"loaded"

        load = load_slowly
    assert in_threads(lambda: near.get_or_load("user:1", load), 5) == [b"loaded"] * 5
    timer.join()
    assert calls == ["user:1"]
    assert redis_client.get("user:1") == b"loaded"
    assert near.get_or_load("user:1", None) == b"loaded"


def test_a_loaded_value_does_not_replace_what_was_written_meanwhile(make, redis_client):
    near = make()
    near.get("user:1")
    until(lambda: near.stats().fresh)

    def load(key):
        redis_client.set("user:1", "newer")
        return b"older"

    assert near.get_or_load("user:1", load) == b"older"
    assert redis_client.get("user:1") == b"newer"

    def load_and_delete(key):
        invalidations = near.stats().invalidations
        redis_client.set("user:2", "newer")
        redis_client.delete("user:2")
        if not isinstance(near, Blocking):
            until(lambda: near.stats().invalidations > invalidations)
        return b"older"

    near.get_or_load("user:2", load_and_delete)
    if not isinstance(near, Blocking):  # the loop of an asynchronous one was blocked: it has heard of nothing
        assert redis_client.get("user:2") is None


def test_a_loader_that_fails(make, redis_client):
    def load(key):
        raise KeyError(key)

    with pytest.raises(KeyError):
        make().get_or_load("user:1", load)
    assert redis_client.get("user:1") is None


def test_a_loader_is_not_called_for_a_wrong_life(make, redis_client):
    near, calls = make(), []
    for ttl in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="ttl must be positive"):
            near.get_or_load("user:9", calls.append, ttl=ttl)
        with pytest.raises(ValueError, match="ttl must be positive"):
            near.set("user:9", b"Ann", ttl=ttl)
    assert calls == []
    assert redis_client.get("user:9") is None


def test_values_are_bytes_unless_a_serializer_is_given(make, redis_client):
    near = make()
    for value in ("text", 1, None, bytearray(b"x")):
        with pytest.raises(TypeError, match=r"^value must be bytes, or dumps and loads must be given, got "):
            near.set("user:1", value)
    near = make(dumps=pickle.dumps, loads=pickle.loads)
    near.set("user:1", {"name": "Ann"})
    until_kept(near, "user:1")
    assert near.get("user:1") == {"name": "Ann"}
    assert near.get("user:1") is near.get("user:1")


def test_a_serializer_that_fails(make, redis_client):
    near = make(dumps=lambda value: b"x", loads=int)
    near.set("user:1", 1)
    with pytest.raises(ValueError, match="invalid literal"):
        near.get("user:1")
    assert near.stats().pending == 0


# ---- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    ({"prefixes": []}, "prefixes must name at least one"),
    ({"prefixes": ["a:", "a:b"]}, "prefixes must be disjoint"),
    ({"heartbeat": 1.0}, "heartbeat must be less than half of max_stale, got 1.0"),
    ({"heartbeat": 0}, "heartbeat must be positive"),
    ({"max_stale": -1}, "max_stale must be positive"),
    ({"ttl": 0}, "ttl must be positive"),
    ({"timeout": 0}, "timeout must be positive"),
    ({"on_error": "allow"}, 'on_error must be "bypass" or "raise", got \'allow\''),
])
@pytest.mark.parametrize("form", [NearCache, AsyncNearCache])
def test_bad_values(form, options, message):
    with pytest.raises(ValueError) as caught:
        form(redis.Redis(), **{"prefixes": ["user:"]} | options)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [
    {"prefixes": "user:"}, {"cache": {}}, {"heartbeat": "x"}, {"dumps": pickle.dumps},
    {"loads": 5, "dumps": 5},
])
@pytest.mark.parametrize("form", [NearCache, AsyncNearCache])
def test_bad_types(form, options):
    with pytest.raises(TypeError):
        form(redis.Redis(), **{"prefixes": ["user:"]} | options)


def test_the_cache_of_a_user(make, redis_client):
    near = make(cache=LRUCache(10, getsizeof=lambda entry: len(entry.value or b"")))
    redis_client.mset({"user:1": "x" * 8, "user:2": "y" * 8})
    until_kept(near, "user:1")
    near.get("user:2")
    assert near.stats().entries == 1


# ---- garbage, threads, forks ----------------------------------------------------------------


def until_it_listens(near):
    """Look for a key until the server is listened to."""
    near.get("user:1")
    until(lambda: near.stats().fresh)


def threads_of_near_caches():
    return [thread for thread in threading.enumerate() if thread.name.startswith("headgate near")]


def test_close_ends_the_thread_and_nothing_is_kept(server, redis_client):
    near = NearCache(server.client(), prefixes=["user:"])
    redis_client.set("user:1", "Ann")
    until_kept(near, "user:1")
    assert len(threads_of_near_caches()) == 1
    near.close()
    assert threads_of_near_caches() == []
    assert [near.get("user:1") for _ in range(3)] == [b"Ann"] * 3
    assert near.stats().entries == 0
    assert threads_of_near_caches() == []
    near.close()


def test_a_near_cache_without_users_is_collected_and_ends_its_thread(server, redis_client):
    near = NearCache(server.client(), prefixes=["user:"])
    until_it_listens(near)
    found = weakref.ref(near)
    del near
    gc.collect()
    assert found() is None
    until(lambda: not threads_of_near_caches())


def test_connections_end_with_close(make, redis_client):
    before = len(redis_client.client_list())
    near = make()
    until_it_listens(near)
    assert len(redis_client.client_list()) == before + 2
    near.close()
    until(lambda: len(redis_client.client_list()) == before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_of_a_fork_starts_empty_and_listens_itself(server, redis_client):
    near = NearCache(server.client(), prefixes=["user:"])
    redis_client.set("user:1", "Ann")
    until_kept(near, "user:1")
    pid = os.fork()
    if not pid:
        try:
            assert near.peek("user:1") is None
            until_kept(near, "user:1")
            assert near.set("user:1", b"by the child")
            assert near.get("user:1") == b"by the child"
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    until(lambda: near.get("user:1") == b"by the child")
    near.close()


def test_ten_thousand_calls_that_are_cancelled_leave_nothing(server, redis_client):
    async def main():
        async with AsyncNearCache(server.client(), prefixes=["user:"], timeout=10) as near:
            await near.get("user:0")
            for batch in range(20):
                tasks = [asyncio.ensure_future(near.get(f"user:{batch}-{number}")) for number in range(500)]
                for _ in range(batch % 5):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            near._check()
            assert near.stats().pending == 0
            assert not any(near._fetches.current.registries())
            assert len(redis_client.client_list()) <= before + 2
            assert await near.set("user:1", b"Ann")
            assert await near.get("user:1") == b"Ann"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    before, threads = len(redis_client.client_list()), threading.active_count()
    asyncio.run(main())
    until(lambda: len(redis_client.client_list()) == before)
    assert threading.active_count() == threads


def test_a_server_whose_clock_is_stepped(form, tmp_path):
    """By an hour forward, when a key expires unannounced, so that only the ttl bounds it; and back."""
    before, offset = faked_time(tmp_path, "+0")
    with RedisServer(tmp_path, path=server_program(NEWER), before=before) as server, ExitStack() as stack:
        stack.callback(server.end)
        client = server.client()
        client.set("user:1", "Ann", ex=600)
        client.set("user:2", "Bob")
        near = form(client, prefixes=["user:"], ttl=0.5, timeout=5)
        until_kept(near, "user:1", "user:2")
        offset.write_text("+3600")
        until(lambda: near.get("user:1") is None)
        assert near.get("user:2") == b"Bob"
        offset.write_text("-3600")
        client.set("user:2", "Eve")
        until(lambda: near.get("user:2") == b"Eve")
        until_kept(near, "user:2")
        near.close()


def test_an_asynchronous_one_in_a_second_loop(server, redis_client):
    near = AsyncNearCache(server.client(), prefixes=["user:"])
    redis_client.set("user:1", "Ann")

    async def use():
        async with asyncio.timeout(10):
            while near.peek("user:1") is None:
                assert await near.get("user:1") == b"Ann"
        await near._trackers[next(iter(near._trackers))].end()
        await near.store_of_calls.close()

    asyncio.run(use())
    redis_client.set("user:1", "Ann")
    asyncio.run(use())


def test_an_asynchronous_one_in_two_loops_that_both_run(server, redis_client):
    """The one that asks listens; the other one's task ends in peace."""
    near = AsyncNearCache(server.client(), prefixes=["user:"], heartbeat=0.02)
    threads, problems = [LoopThread(), LoopThread()], []
    for thread in threads:
        thread.loop.set_exception_handler(lambda _, context: problems.append(context))

    async def tasks():
        return len([task for task in asyncio.all_tasks() if "near" in task.get_name()])

    def listens_in(here, other, value):
        redis_client.set("user:1", value)
        until(lambda: here.run(near.get("user:1")) == value and near.peek("user:1") == value)
        until(lambda: other.run(tasks()) == 0)
        assert here.run(tasks()) == 1

    for number in range(6):
        listens_in(threads[number % 2], threads[1 - number % 2], b"%d" % number)
    threads[0].run(near.store_of_calls.close())
    threads[1].run(near.close())
    for thread in threads:
        thread.close()
    gc.collect()
    assert problems == []


def test_an_asynchronous_one_that_another_loop_closes(server, redis_client):
    """The task of the loop that listened ends, and nothing is kept."""
    near = AsyncNearCache(server.client(), prefixes=["user:"], heartbeat=0.02)
    redis_client.set("user:1", b"Ann")
    thread = LoopThread()

    async def tasks():
        return len([task for task in asyncio.all_tasks() if "near" in task.get_name()])

    until(lambda: thread.run(near.get("user:1")) == b"Ann" and near.peek("user:1") == b"Ann")
    asyncio.run(near.close())
    assert near.peek("user:1") is None
    until(lambda: thread.run(tasks()) == 0)
    thread.run(near.close())
    thread.close()


# ---- failures -------------------------------------------------------------------------------


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.fixture
def own_server(tmp_path):
    with RedisServer(tmp_path) as started:
        yield started


def test_a_server_that_dies_and_comes_back_with_other_data(form, own_server):
    near = form(own_server.client(), prefixes=["user:"], timeout=TIMEOUT)
    client = own_server.client()
    client.set("user:1", "old")
    until_kept(near, "user:1")
    own_server.kill()
    until(lambda: near.peek("user:1") is None)
    assert near.get("user:1", "nothing") == "nothing"
    assert near.get_or_load("user:1", lambda key: b"loaded") == b"loaded"
    assert not near.set("user:1", b"lost")
    assert near.get_many(["user:1"]) == {}
    assert near.stats().errors >= 4
    own_server.start()
    client.set("user:1", "new")
    until(lambda: near.get("user:1") == b"new")
    until_kept(near, "user:1")
    near.close()


def test_a_server_that_stops(form, own_server):
    """A hit is served for max_stale at most, and no call lasts longer than its timeout."""
    near = form(own_server.client(), prefixes=["user:"], timeout=TIMEOUT, max_stale=0.5, heartbeat=0.1)
    own_server.client().set("user:1", "old")
    until_kept(near, "user:1")
    own_server.stop()
    stopped = begun = served = time.monotonic()
    try:
        while near.peek("user:1") is not None:
            served, begun = begun, time.monotonic()
            time.sleep(0.001)
        assert begun - stopped > 0.1
        assert served - stopped < 0.5
        waits = []
        for _ in range(4):
            watch = Stopwatch()
            assert near.get("user:1", "nothing") == "nothing"
            waits.append(watch.seconds())
        assert max(waits) < TIMEOUT + LATE
    finally:
        own_server.resume()
    until_kept(near, "user:1")
    near.close()


def test_errors_can_be_raised(form, own_server):
    near = form(own_server.client(), prefixes=["user:"], on_error="raise", timeout=TIMEOUT)
    own_server.kill()
    for call in (lambda: near.get("user:1"), lambda: near.set("user:1", b"x"), lambda: near.delete("user:1"),
                 lambda: near.get_many(["user:1"]), lambda: near.get_or_load("user:1", lambda key: b"x")):
        with pytest.raises(StoreError):
            call()
    near.close()


def test_a_cut_connection_drops_everything(form, own_server):
    """What is written while nobody listens is not announced."""
    client = own_server.client()
    with Proxy(own_server.port) as proxy:
        near = form(proxy.client(), prefixes=["user:"], timeout=TIMEOUT)
        for number in range(3):
            client.set("user:1", number)
            until_kept(near, "user:1")
            flushes = near.stats().flushes
            proxy.cut()
            client.set("user:1", b"%d again" % number)
            until(lambda flushes=flushes: near.stats().flushes > flushes)
            until(lambda number=number: near.get("user:1") == b"%d again" % number)
        near.close()


def test_a_replica_is_no_source_and_a_demoted_master_no_longer_one(form, own_server, tmp_path):
    (tmp_path / "other").mkdir()
    with RedisServer(tmp_path / "other", "--repl-diskless-sync-delay", "0") as other:
        client = own_server.client()
        client.set("user:1", "Ann")
        near = form(own_server.client(), prefixes=["user:"], heartbeat=0.05)
        until_kept(near, "user:1")
        client.replicaof("127.0.0.1", other.port)
        until(lambda: near.stats().fresh == 0)
        assert near.peek("user:1") is None
        until(lambda: client.info("replication")["master_link_status"] == "up")
        other.client().set("user:1", "Bob")
        until(lambda: near.get("user:1") == b"Bob")
        assert near.peek("user:1") is None
        client.replicaof("no", "one")
        until_kept(near, "user:1")
        near.close()


def test_a_user_with_few_rights_and_a_socket(form, tmp_path):
    """The commands that the page names are enough."""
    path = tmp_path / "socket"
    with RedisServer(tmp_path, "--unixsocket", str(path)) as server:
        server.client().execute_command(
            "ACL", "SETUSER", "near", "on", ">secret", "~user:*",
            "+get", "+pttl", "+set", "+del", "+info", "+role", "+client|tracking")
        client = redis.Redis(unix_socket_path=str(path), username="near", password="secret")
        near = form(client, prefixes=["user:"], on_error="raise")
        assert near.set("user:1", b"Ann")
        until_kept(near, "user:1")
        server.client().set("user:1", "Bob")
        until(lambda: near.get("user:1") == b"Bob")
        with pytest.raises(StoreError, match="NOPERM"):
            near.get("page:1")
        near.close()
        client.close()


def test_a_task_ends_with_its_cache(own_server):
    async def main():
        near = AsyncNearCache(own_server.client(), prefixes=["user:"])
        await near.get("user:1")
        store = near.store_of_calls
        del near
        gc.collect()
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
        await store.close()

    asyncio.run(main())
