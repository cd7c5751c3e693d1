"""The log of purges in Redis without Redis: followers under all losses of data, arguments and records."""

import asyncio

import pytest
import redis
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from purge_model import Followers, ModelServer

from headgate.adapters.redis import AsyncPurgeStream, _purge_stream
from headgate.adapters.redis._purge_stream import _row
from headgate.errors import StoreError
from headgate.httpcache import HTTPCache, PurgeFollower


def stream_of(server, **options):
    stream = AsyncPurgeStream(redis.Redis(), **options)
    stream._store = server
    return stream


class ModelFollowers(Followers):
    def done(self, coroutine):
        with pytest.raises(StopIteration) as end:  # the model waits for nothing
            coroutine.send(None)
        return end.value.value

    def made_server(self):
        return ModelServer()

    def made_stream(self):
        return stream_of(self.server)


def test_a_follower_knows_what_the_log_had_or_that_it_does_not(monkeypatch, exhaustive):
    monkeypatch.setattr(_purge_stream, "BATCH", 2)
    run_state_machine_as_test(ModelFollowers, settings=settings(
        max_examples=2000 if exhaustive else 200, stateful_step_count=40, deadline=None))


def test_without_tokens_a_failover_is_not_noticed(monkeypatch):
    """So the machine looks where it should."""
    monkeypatch.setattr(_purge_stream._Chain, "epoch", lambda chain, epoch, last, token, rows: epoch)
    followers = ModelFollowers()
    with pytest.raises(AssertionError):
        followers.hand_over(kept="a", lost="b", given="c")


def test_a_failover_that_gives_a_number_twice():
    async def main():
        server = ModelServer()
        stream, follower = stream_of(server), PurgeFollower(HTTPCache())
        await stream.append("/a")
        replica = server.snapshot()
        await stream.append("/b")
        follower.receive(*await stream.read(None))
        server.restore(replica)
        await stream.append("/c")
        assert follower.position[1] == 2 and follower.gaps == 0
        follower.receive(*await stream.read(follower.position))
        assert follower.position[1] == 2 and follower.gaps == 1
        follower.receive(*await stream.read(follower.position))
        assert follower.gaps == 1

    asyncio.run(main())


def test_an_epoch_that_comes_back_with_other_records():
    """Another follower of the process has seen a new epoch before the old one is restored."""
    async def main():
        server = ModelServer()
        stream, follower = stream_of(server), PurgeFollower(HTTPCache())
        follower.receive(*await stream.read(None))
        backup = server.snapshot()
        await stream.append("/a")
        follower.receive(*await stream.read(follower.position))
        server.flush()
        await stream.read(None)
        server.restore(backup)
        await stream.append("/b")
        assert follower.gaps == 0
        follower.receive(*await stream.read(follower.position))
        assert follower.gaps == 1

    asyncio.run(main())


def test_long_logs_come_in_parts():
    async def main():
        stream, follower = stream_of(ModelServer()), PurgeFollower(HTTPCache())
        for number in range(250):
            await stream.append(f"/{number}")
        counts = [follower.receive(*await stream.read(follower.position)) for _ in range(4)]
        assert counts == [100, 100, 50, 0] and follower.gaps == 0

    asyncio.run(main())


def test_purges_are_those_of_a_cache():
    async def main():
        stream = stream_of(ModelServer())
        for wanted in ({"url": "http://a/ü"}, {"tag": "ü\ud800"}, {"prefix": "/a/", "stale": True}):
            number, record = await stream.append(**wanted)
            (row,) = (await stream.read(("", number - 1)))[2]
            assert row == (number, record) and record == {**wanted, "at": record["at"]}

    asyncio.run(main())


@pytest.mark.parametrize(("purge", "error", "message"), [
    ({}, TypeError, "one of url, tag and prefix must be given"),
    ({"url": "/", "tag": "a"}, TypeError, "one of url, tag and prefix must be given"),
    ({"url": "a"}, ValueError, "url must be an absolute URL, or a path, got 'a'"),
    ({"tag": 5}, TypeError, "tag must be a str, got 5"),
    ({"tag": "a", "stale": 1}, TypeError, "stale must be a bool, got 1"),
    ({"tag": "a" * 8192}, ValueError, "a purge must have at most 8192 bytes as JSON, got 8203"),
])
def test_what_is_no_purge_is_not_added(purge, error, message):
    server = ModelServer()
    with pytest.raises(error, match=message):
        asyncio.run(stream_of(server).append(**purge))
    assert server.head is None


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"prefix": "a b"}, ValueError, "prefix must be 1 to 200 printable"),
    ({"prefix": 5}, TypeError, "prefix must be a str, got 5"),
    ({"maxlen": 0}, ValueError, "maxlen must be from 1 to 1000000, got 0"),
    ({"maxlen": "1"}, TypeError, "maxlen must be an int"),
    ({"timeout": 0}, ValueError, "timeout must be positive"),
    ({"client": 5}, TypeError, "client must be a client of redis or valkey, got 5"),
])
def test_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        AsyncPurgeStream(**{"client": redis.Redis(), **arguments})


@pytest.mark.parametrize(("wait", "error"), [
    (-1, ValueError), (3601, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_waits(wait, error):
    with pytest.raises(error, match="wait must"):
        asyncio.run(stream_of(ModelServer()).read(None, wait))


@pytest.mark.parametrize(("prefix", "key"), [("pages", b"{pages}:purges"), ("{a}pages", b"{a}pages:purges")])
def test_both_keys_have_one_slot(prefix, key):
    assert AsyncPurgeStream(redis.Redis(), prefix)._keys == [key + b":head", key]


@pytest.mark.parametrize("words", [
    [], [b"purge", b"{}"], [b"purge", b"{", b"at", b"1"], [b"purge", b"[1]", b"at", b"1"],
    [b"purge", b"{}", b"at", b"x"], [b"purge", b"\xff", b"at", b"1"], [b"other", b"5"],
    [b"purge", b"[" * 100_000, b"at", b"1"],
])
def test_a_record_of_somebody_else_is_no_purge(words):
    assert _row([b"7-1", words]) == (7, b"", b"", {})
    follower = PurgeFollower(HTTPCache())
    follower.receive("a", 7, [(7, {})])
    assert follower.gaps == 1 and follower.position == ("a", 7)


def test_no_server():
    async def main():
        async with AsyncPurgeStream(redis.Redis(port=1)) as stream:
            for call in (stream.append, stream.read):
                with pytest.raises(StoreError) as caught:
                    await call("/a") if call == stream.append else await call(None, 1.0)
                assert isinstance(caught.value.__cause__, redis.ConnectionError)
            assert stream.counters()[:2] == (2, 2)

    asyncio.run(main())
