"""What ``await cache.get(key)`` awaits: a coroutine in all that can be seen, of which a hit costs little."""

import asyncio
import collections.abc
import contextvars
import gc
import inspect
import weakref

import pytest

from headgate.near import NearSource

WAIT = object()


@pytest.fixture
def table(twin):
    return table_of(twin)


def table_of(twin):
    """A table of coroutines, with one fresh entry, whose misses wait once for WAIT."""

    class Suspended:
        def __await__(self):
            return (yield WAIT)

    class Table(twin.near.NearTable):
        fetched = 0
        get = twin.near.NearTable._aget

        async def _afetch(self, key, default):
            self.fetched += 1
            if key == "user:error":
                raise KeyError(key)
            if key == "user:late":
                return await Suspended()
            if key == "user:slow":
                await asyncio.sleep(0.001)
            return default

    made = Table(prefixes=["user:"], ttl=3600, max_stale=3600)
    source = NearSource(made)
    source.connected("run")
    for _ in range(2):
        source.heartbeat_sent()
        source.heartbeat_answered()
    made.source = source
    keep(made, "user:1", b"Ann")
    return made


def keep(table, key, value):
    entry = table.begin(key, table.source.epoch)
    assert table.store(entry, value, "run")
    table.end(entry)


def finished(coroutine):
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


@pytest.mark.parametrize("value", [b"Ann", None, (1, 2), (), StopIteration(5), ValueError("x"), [None]])
def test_any_value_is_returned(table, value):
    keep(table, "user:2", value)

    async def main():
        return await table.get("user:2"), await asyncio.create_task(table.get("user:2"))

    assert asyncio.run(main()) == (value, value)
    assert finished(table.get("user:2")) == value
    assert table.fetched == 0


def test_it_serves_all_that_takes_coroutines(table):
    async def main():
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            grouped = group.create_task(table.get("user:1"), name="named", context=contextvars.copy_context())
        found = [
            await table.get("user:1"),
            await asyncio.wait_for(table.get("user:1"), 10),
            *await asyncio.gather(table.get("user:1"), table.get("user:slow", "none")),
            await asyncio.shield(table.get("user:slow", "none")),
            await asyncio.ensure_future(table.get("user:1")),
            await loop.create_task(table.get("user:slow", "none")),
            grouped.result(),
        ]
        threaded = asyncio.run_coroutine_threadsafe(table.get("user:1"), loop)
        return [*found, await asyncio.wrap_future(threaded)]

    assert asyncio.run(main(), debug=True) == [b"Ann", b"Ann", b"Ann", "none", "none", b"Ann", "none", b"Ann",
                                               b"Ann"]
    assert asyncio.run(table.get("user:1")) == b"Ann"
    made = table.get("user:1")
    assert made.__qualname__.endswith("get")
    assert inspect.isawaitable(made)
    assert asyncio.iscoroutine(made)
    assert isinstance(made, collections.abc.Coroutine)
    made.close()


def test_it_looks_when_it_is_awaited(table):
    before = table.get("user:1"), table.get("user:2", "nothing")
    table.drop("user:1")
    keep(table, "user:2", b"Bob")
    assert [asyncio.run(each) for each in before] == [None, b"Bob"]
    assert table.fetched == 1


@pytest.mark.parametrize("key", ["user:1", "user:2"])
def test_it_is_awaited_once(table, key):
    made = table.get(key)
    finished(made)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        made.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        asyncio.run(made)


def test_what_it_waits_for_is_passed_through(table):
    made = table.get("user:late")
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        made.send(1)
    assert made.send(None) is WAIT
    with pytest.raises(StopIteration) as caught:
        made.send("sent")
    assert caught.value.value == "sent"
    made = table.get("user:late")
    assert made.send(None) is WAIT
    with pytest.raises(KeyError):
        made.throw(KeyError("thrown"))
    made = table.get("user:late")
    assert made.send(None) is WAIT
    made.close()
    with pytest.raises(RuntimeError):
        made.send(None)


def test_it_may_be_ended_before_it_begins(table):
    made = table.get("user:1")
    made.close()
    with pytest.raises(RuntimeError):
        made.send(None)
    made = table.get("user:1")
    with pytest.raises(KeyError):
        made.throw(KeyError("thrown"))
    with pytest.raises(RuntimeError):
        made.send(None)
    assert table.stats().hits == 0


def test_errors_come_out(table):
    with pytest.raises(KeyError):
        asyncio.run(table.get("user:error"))
    made = table.get(5)
    with pytest.raises(TypeError, match="key must be str or bytes, got 5"):
        asyncio.run(made)


def test_a_cancelled_task_is_cancelled(table):
    async def main():
        tasks = [asyncio.create_task(table.get(key)) for key in ("user:1", "user:slow")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        unbegun = asyncio.create_task(table.get("user:1"))
        unbegun.cancel()
        await asyncio.wait([unbegun])
        return tasks[0].result(), tasks[1].cancelled(), unbegun.cancelled()

    assert asyncio.run(main()) == (b"Ann", True, True)


def test_a_cycle_through_it_is_collected(twin):
    made = table_of(twin)
    found = weakref.ref(made)
    made.pending_lookups = [made.get("user:1"), made.get("user:late")]
    made.pending_lookups[1].send(None)
    for each in made.pending_lookups:
        each.close()
    del made, each
    gc.collect()
    assert found() is None
