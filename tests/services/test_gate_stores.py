"""A gate with a real store: limits in both forms, live, and a channel that wakes its watcher."""

import asyncio
import os
import threading

import pytest
import redis
from redis_servers import RedisServer
from watchdog import PATIENCE, until

from headgate.config import load


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def document(server):
    with redis.Redis(port=server.port) as client:
        client.flushall()
    return {
        "stores": {"shared": {"url": f"redis://127.0.0.1:{server.port}", "timeout": 5}},
        "limits": {"fleet": {"rate": "4/h", "store": "shared"}},
        "levels": {"hosts": {"user": "2/h", "store": "shared"}},
        "near": {"users": {"store": "shared", "prefixes": "user:", "maxsize": 9}},
    }


def changed(document, rate, maxsize):
    return {**document, "limits": {"fleet": {"rate": rate, "store": "shared"}},
            "levels": {"hosts": {"user": rate, "store": "shared"}},
            "near": {"users": {"store": "shared", "prefixes": "user:", "maxsize": maxsize}}}


def test_both_forms_are_one_limit_and_change_live(document):
    async def main():
        async with load(document) as gate:
            fleet, hosts = gate.limits["fleet"], gate.async_levels["hosts"]
            assert fleet.allow("ann", 3) and await gate.async_limits["fleet"].allow("ann")
            assert not fleet.allow("ann") and not await gate.async_limits["fleet"].allow("ann")
            assert await hosts.allow(user="ann", cost=2) and not gate.levels["hosts"].allow(user="ann")
            near = gate.near["users"]
            near.set("user:1", b"1")
            assert near.get("user:1") == b"1" == await gate.async_near["users"].get("user:1")
            assert len(gate.apply(changed(document, "6/h", 50))) == 3
            assert gate.limits["fleet"] is fleet and gate.async_levels["hosts"] is hosts
            assert fleet.allow("ann") and await gate.async_limits["fleet"].allow("ann")
            assert not fleet.allow("ann")
            assert await hosts.allow(user="ann", cost=4) and not gate.levels["hosts"].allow(user="ann")
            assert near.get("user:1") == b"1" and gate.near["users"] is near

    asyncio.run(main())


def test_clients_can_be_used(document):
    async def main():
        async with load(document) as gate:
            gate.stores["shared"].client.set("key", b"1")
            assert await gate.stores["shared"].async_client.get("key") == b"1"

    asyncio.run(main())


def test_a_channel_wakes_the_watcher(document, server, tmp_path):
    path, new = tmp_path / "gate.json", tmp_path / "new"
    path.write_text('{"hotkeys": {"h": {"k": 1}}}')

    def replace(name):
        new.write_text(f'{{"hotkeys": {{"{name}": {{"k": 1}}}}}}')
        os.replace(new, path)

    with load(path, document) as gate, redis.Redis(port=server.port) as client:
        applied = threading.Event()
        gate.watch(every=1000, how="stream", channel="config", on_change=lambda changes: applied.set())
        until(lambda: client.pubsub_numsub("config")[0][1] == 1)
        for name in ("a", "b"):
            applied.clear()
            replace(name)
            client.publish("config", b"")
            assert applied.wait(PATIENCE) and list(gate.hotkeys) == [name]
        applied.clear()
        server.kill()
        replace("c")
        server.start()
        assert applied.wait(PATIENCE), "a connection that is made again wakes too"
