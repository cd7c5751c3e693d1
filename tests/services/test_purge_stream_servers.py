"""The log of purges in real servers that die, stop, forget, hand over and cut connections."""

import asyncio
import time

import pytest
import redis
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from own_time import Stopwatch
from purge_model import Followers
from redis.sentinel import Sentinel
from redis_clusters import Sentinels
from redis_servers import RedisServer
from watchdog import in_a_loop, until

from headgate.adapters.redis import AsyncPurgeStream
from headgate.errors import StoreError
from headgate.httpcache import AsyncPurges, HTTPCache

TIMEOUT, LATE = 0.25, 0.1
ENDLESS = 3600


async def eventually(condition):
    """Wait for `condition`, which is asked between turns of the loop; the loop has a deadline."""
    while not condition():
        await asyncio.sleep(0.005)


def reached(number, *points):
    """Whether all have read the log up to a number."""
    positions = [point.follower.position for point in points]
    return all(position is not None and position[1] == number for position in positions)


async def ended(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.fixture
def server(tmp_path):
    with RedisServer(tmp_path) as server:
        yield server


def blocked(server):
    """How many connections wait for news."""
    return server.client().info("clients")["blocked_clients"]


# ---- under all losses -----------------------------------------------------------------------


class RealServer:
    """A server whose data are lost, in part or whole, as the model's are."""

    def __init__(self, client, prefix):
        self._client = client
        self._stream = f"{{{prefix}}}:purges"
        self._head = f"{self._stream}:head"
        self._offset = 0.0
        self.flush()

    def time(self):
        seconds, microseconds = self._client.time()
        return seconds + microseconds / 1e6

    def flush(self):
        self._client.delete(self._stream, self._head)

    def snapshot(self):
        return {key: self._client.dump(key) for key in (self._stream, self._head)}

    def restore(self, snapshot):
        self.flush()
        for key, value in snapshot.items():
            if value is not None:
                self._client.restore(key, 0, value)

    def lose_head(self):
        self._client.delete(self._head)

    def keep(self, count):
        self._client.xtrim(self._stream, maxlen=count, approximate=False)

    def delete(self, number):
        self._client.xdel(self._stream, f"{number}-1")


def test_followers_know_what_the_log_had_or_that_they_do_not(redis_server, prefix, exhaustive):
    with asyncio.Runner() as runner:
        class RealFollowers(Followers):
            def made_server(self):
                return RealServer(redis_server.client(), prefix)

            def made_stream(self):
                return AsyncPurgeStream(redis_server.client(), prefix, timeout=30)

            def done(self, coroutine):
                return runner.run(coroutine)

            def teardown(self):
                runner.run(self.stream.close())

        run_state_machine_as_test(RealFollowers, settings=settings(
            max_examples=300 if exhaustive else 15, stateful_step_count=30, deadline=None))


# ---- what serves ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["threads", "loops", "cluster", "decoded"])
def test_clients_of_all_kinds(redis_server, redis_cluster, prefix, kind):
    client = {
        "threads": redis_server.client, "loops": lambda: redis.asyncio.Redis(port=redis_server.port),
        "cluster": redis_cluster.client, "decoded": lambda: redis_server.client(decode_responses=True),
    }[kind]()

    async def main():
        async with AsyncPurgeStream(client, prefix, timeout=30) as stream, AsyncPurgeStream(
                client, prefix, timeout=30) as other:
            assert (await stream.read(None, ENDLESS))[1:] == (0, [])
            number, record = await stream.append("http://a/ü", stale=True)
            assert number == 1 and abs(record["at"] - time.time()) < 3600
            for each in (stream, other):
                assert (await each.read(None))[1:] == (1, [(1, record)])
            epoch, last, _ = await other.read(None)
            waiting = asyncio.create_task(other.read((epoch, last), ENDLESS))
            await eventually(lambda: not other._waiters._idle and waiting.done() is False)
            added = await stream.append(tag="news")
            assert await waiting == (epoch, 2, [added])

    in_a_loop(main())
    if kind == "cluster":
        client.close()


def test_a_purge_reaches_all_who_wait(redis_server, prefix):
    async def main():
        streams = [AsyncPurgeStream(redis_server.client(), prefix, timeout=30) for _ in range(3)]
        points = [AsyncPurges(stream, HTTPCache(), every=ENDLESS) for stream in streams]
        tasks = [asyncio.create_task(point.run()) for point in points]
        await eventually(lambda: blocked(redis_server) == 3)
        for number in range(1, 21):
            assert (await points[number % 3].purge(tag=f"{number}"))[0] == number
        await eventually(lambda: reached(20, *points))
        assert [point.follower.gaps for point in points] == [0] * 3
        await ended(*tasks)
        for stream in streams:
            await stream.close()
        await eventually(lambda: blocked(redis_server) == 0)

    in_a_loop(main())


def test_purges_while_the_log_is_read_are_no_gap(redis_server, prefix):
    async def main():
        async with AsyncPurgeStream(redis_server.client(), prefix, timeout=30) as stream:
            point = AsyncPurges(stream, HTTPCache(), every=ENDLESS)
            task = asyncio.create_task(point.run())
            for batch in range(20):
                await asyncio.gather(*[point.purge(tag=f"{batch} {number}") for number in range(5)])
            await eventually(lambda: reached(100, point))
            assert point.follower.gaps == 0
            await ended(task)

    in_a_loop(main())


def test_two_caches_of_a_process_follow_one_stream(redis_server, prefix):
    async def main():
        async with AsyncPurgeStream(redis_server.client(), prefix, timeout=30) as stream:
            points = [AsyncPurges(stream, HTTPCache(), every=ENDLESS) for _ in range(2)]
            tasks = [asyncio.create_task(point.run()) for point in points]
            await eventually(lambda: blocked(redis_server) == 2)
            await points[0].purge("/a")
            await eventually(lambda: reached(1, *points))
            await ended(*tasks)

    in_a_loop(main())


def test_loops_that_share_a_stream_keep_their_connections(redis_server, prefix):
    stream = AsyncPurgeStream(redis_server.client(), prefix, timeout=30)

    async def ready():
        position = (await stream.read(None))[:2]
        await stream.read(position, 0.001)
        return dict(stream._waiters._idle)

    with asyncio.Runner() as one, asyncio.Runner() as other:
        first = one.run(ready())
        both = other.run(ready())
        assert len(first) == 1 and len(both) == 2
        for runner in (one, other, one):
            assert runner.run(ready()) == both
        for runner in (one, other):
            runner.run(stream.close())
    assert not stream._waiters._idle


def test_a_stream_in_one_loop_after_another(redis_server, prefix):
    stream = AsyncPurgeStream(redis_server.client(), prefix, timeout=30)

    async def main():
        epoch, last, _ = await stream.read(None)
        waiting = asyncio.create_task(stream.read((epoch, last), ENDLESS))
        await eventually(lambda: blocked(redis_server) == 1)
        await stream.append("/a")
        assert (await waiting)[1] == last + 1
        await stream.close()

    in_a_loop(main())
    in_a_loop(main())


def test_old_records_are_dropped(redis_server, prefix):
    async def main():
        client = redis_server.client()
        async with AsyncPurgeStream(client, prefix, timeout=30, maxlen=10) as stream:
            point = AsyncPurges(stream, HTTPCache(), every=ENDLESS)
            late = point.follower
            late.receive(*await stream.read(None))
            for number in range(400):
                await stream.append(tag=f"{number}")
            assert 10 <= client.xlen(f"{{{prefix}}}:purges") <= 200
            task = asyncio.create_task(point.run())
            await eventually(lambda: reached(400, point))
            assert late.gaps == 1
            await ended(task)

    in_a_loop(main())


# ---- failures -------------------------------------------------------------------------------


def test_a_server_that_stops(server, prefix):
    """Each call ends in time: a purge within the timeout, a reading after what it was to wait and three."""

    async def timed(call, *args, **named):
        watch = Stopwatch()
        with pytest.raises(StoreError):
            await call(*args, **named)
        return watch.seconds()

    async def main():
        async with AsyncPurgeStream(server.client(), prefix) as stream:
            epoch, last, _ = await stream.read(None)
            waiting = asyncio.create_task(timed(stream.read, (epoch, last), 0.5))
            await eventually(lambda: blocked(server) == 1)
            server.stop()
            try:
                assert await timed(stream.append, tag="a") < TIMEOUT + LATE
                assert await waiting < 0.5 + 3 * TIMEOUT + LATE
                assert await timed(stream.read, (epoch, last), 0.5) < TIMEOUT + LATE
            finally:
                server.resume()
            point = AsyncPurges(stream, HTTPCache(), every=0.1)
            task = asyncio.create_task(point.run())
            await eventually(lambda: point.error is None and point.follower.position is not None)
            while True:
                try:
                    number, _ = await point.purge(tag="b")
                    break
                except StoreError:
                    await asyncio.sleep(0.1)
            await eventually(lambda: reached(number, point))
            assert point.follower.gaps == 0
            await ended(task)

    in_a_loop(main())


def test_a_server_that_comes_back_empty(server, prefix):
    async def main():
        async with AsyncPurgeStream(server.client(), prefix, timeout=1) as stream:
            point = AsyncPurges(stream, HTTPCache(), every=0.1)
            task = asyncio.create_task(point.run())
            assert (await point.purge(tag="a"))[0] == 1
            await eventually(lambda: point.follower.position is not None)
            server.kill()
            await eventually(lambda: point.failures > 0)
            assert isinstance(point.error, StoreError)
            server.start()
            await eventually(lambda: point.error is None)
            assert point.follower.gaps == 1 and point.follower.position[1] == 0
            server.client().flushall()
            await eventually(lambda: point.follower.gaps == 2)
            await ended(task)

    in_a_loop(main())


def test_a_connection_that_is_cut_while_it_waits(redis_server, prefix):
    async def main():
        client = redis_server.client()
        mine = redis_server.client(client_name=prefix)
        async with AsyncPurgeStream(mine, prefix, timeout=30) as stream:
            position = (await stream.read(None))[:2]
            for _ in range(3):
                waiting = asyncio.create_task(stream.read(position, ENDLESS))
                await eventually(lambda: blocked(redis_server) == 1)
                for each in client.client_list():
                    if each["name"] == prefix and each["cmd"].startswith("xread"):
                        client.client_kill_filter(_id=each["id"])
                assert await waiting == (*position, [])
            assert stream.counters().failures == 0
            await eventually(
                lambda: sum(each["name"] == prefix for each in client.client_list()) == 1)

    in_a_loop(main())


def test_a_reading_that_is_cancelled_leaves_no_connection(redis_server, prefix):
    async def main():
        client = redis_server.client()
        async with AsyncPurgeStream(redis_server.client(client_name=prefix), prefix, timeout=30) as stream:
            position = (await stream.read(None))[:2]
            for turns in (0, 1, 2, 3, 5, None):
                waiting = asyncio.create_task(stream.read(position, ENDLESS))
                if turns is None:
                    await eventually(lambda: blocked(redis_server) == 1)
                for _ in range(turns or 0):
                    await asyncio.sleep(0)
                await ended(waiting)
                assert waiting.cancelled() and not stream._waiters._idle
                await eventually(lambda: blocked(redis_server) == 0)
                number, _ = await stream.append(tag="a")
                position, before = (await stream.read(position))[:2], position
                assert position == (before[0], number)
            await eventually(
                lambda: sum(each["name"] == prefix for each in client.client_list()) == 1)
            assert len(asyncio.all_tasks()) == 1

    in_a_loop(main())


def test_a_waiting_connection_is_used_again(redis_server, prefix):
    async def main():
        async with AsyncPurgeStream(redis_server.client(), prefix, timeout=30) as stream:
            position = (await stream.read(None))[:2]
            assert await stream.read(position, 0.01) == (*position, [])
            idle = dict(stream._waiters._idle)
            assert await stream.read(position, 0.01) == (*position, []) and stream._waiters._idle == idle

    in_a_loop(main())


def test_the_rights_that_are_documented_suffice(server, prefix):
    admin = server.client()
    rules = "on >pw +evalsha +eval +time +hmget +hset +del +xadd +xrange"
    client = redis.Redis(port=server.port, username="purges", password="pw")

    async def main():
        async with AsyncPurgeStream(client, prefix, timeout=30) as stream:
            position = (await stream.read(None))[:2]
            await stream.append(tag="a")
            position = (await stream.read(position))[:2]
            with pytest.raises(StoreError, match="NOPERM"):
                await stream.read(position, 0.01)
            admin.execute_command("ACL", "SETUSER", "purges", "+xread")
            assert (await stream.read(position, 0.01))[1] == 1

    admin.execute_command("ACL", "SETUSER", "purges", *rules.split(), f"~{{{prefix}}}:purges*")
    in_a_loop(main())


@pytest.mark.parametrize("part", ["", ":head"])
def test_a_key_of_somebody_else(redis_server, prefix, part):
    client, key = redis_server.client(), f"{{{prefix}}}:purges{part}"

    async def main():
        async with AsyncPurgeStream(client, prefix, timeout=30) as stream:
            await stream.append(tag="a")
            client.set(key, "x")
            for call in (lambda: stream.append(tag="b"), lambda: stream.read(None)):
                with pytest.raises(StoreError, match="WRONGTYPE"):
                    await call()
            client.delete(key)
            number, record = await stream.append(tag="c")
            assert (number, record) in (await stream.read(None))[2]

    in_a_loop(main())


def test_a_record_of_somebody_else_before_the_own_one_is_ignored(redis_server, prefix):
    async def main():
        client = redis_server.client()
        async with AsyncPurgeStream(client, prefix, timeout=30) as stream:
            point = AsyncPurges(stream, HTTPCache())
            point.follower.receive(*await stream.read(None))
            client.xadd(f"{{{prefix}}}:purges", {"a": "b"}, id="1-0")
            await stream.append(tag="a")
            point.follower.receive(*await stream.read(point.follower.position))
            assert point.follower.gaps == 0 and point.follower.position[1] == 1

    in_a_loop(main())


@pytest.mark.parametrize("name", ["*", "5-0", "2-1", "2-2"])
def test_records_behind_the_last_one_are_not_read_and_not_in_the_way(redis_server, prefix, name):
    async def main():
        client = redis_server.client()
        async with AsyncPurgeStream(client, prefix, timeout=30) as stream:
            point = AsyncPurges(stream, HTTPCache(), every=ENDLESS)
            await stream.append(tag="a")
            position = (await stream.read(None))[:2]
            point.follower.receive(*await stream.read(None))
            client.xadd(f"{{{prefix}}}:purges", {"purge": '{"tag": "z"}', "at": "1"}, id=name)
            for _ in range(3):
                assert await stream.read(position) == (*position, [])
            appended = await stream.append(tag="b")
            assert appended[0] == 2 and (await stream.read(position))[2] == [appended]
            point.follower.receive(*await stream.read(position))
            assert point.follower.gaps == 0 and point.follower.position[1] == 2

    in_a_loop(main())


def test_sentinels_name_another_master(tmp_path, prefix):
    """What was replicated is no gap, and what waits at a master that dies goes on at the other one."""
    with Sentinels(tmp_path) as sentinels:
        names = Sentinel([("127.0.0.1", sentinel.port) for sentinel in sentinels.sentinels])

        async def main():
            async with AsyncPurgeStream(names.master_for("main"), prefix) as stream:
                point = AsyncPurges(stream, HTTPCache(), every=0.2)
                task = asyncio.create_task(point.run())
                await point.purge(tag="a")
                await eventually(lambda: reached(1, point))
                sentinels.master.client().wait(1, 5000)
                sentinels.master.kill()
                while True:
                    try:
                        number, _ = await point.purge(tag="b")
                        break
                    except StoreError:
                        await asyncio.sleep(0.05)
                await eventually(lambda: reached(number, point))
                assert number >= 2 and point.follower.gaps == 0
                await ended(task)

        in_a_loop(main())


def test_a_master_that_lost_the_last_purges(tmp_path, prefix):
    """A replica takes over that never had them, and gives their numbers to others."""
    homes = [tmp_path / name for name in ("master", "replica")]
    for home in homes:
        home.mkdir()
    with RedisServer(homes[0], "--repl-diskless-sync-delay", "0") as master, RedisServer(
            homes[1], "--replicaof", "127.0.0.1", str(master.port)) as replica:
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")

        async def main():
            async with AsyncPurgeStream(master.client(), prefix, timeout=5) as stream, AsyncPurgeStream(
                    replica.client(), prefix, timeout=5) as other:
                point = AsyncPurges(stream, HTTPCache(), every=0.05)
                task = asyncio.create_task(point.run())
                await point.purge(tag="a")
                master.client().wait(1, 5000)
                replica.client().replicaof("NO", "ONE")
                await point.purge(tag="lost")
                await eventually(lambda: reached(2, point))
                assert point.follower.gaps == 0
                master.kill()
                assert (await other.append(tag="b"))[0] == 2
                stream._store = other._store  # as where sentinels name it, or an address moves
                await eventually(lambda: point.follower.gaps == 1)
                assert point.follower.position[1] == 2
                await ended(task)

        in_a_loop(main())
