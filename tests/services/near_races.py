"""Races of reads and writes through a near cache with those of others: how many keys are stale after them.

Run by hand it does the same to the client-side cache of cashews:
``PYTHONPATH=src:tests/_support python tests/services/near_races.py``.
"""

import asyncio
import random
import sys
import tempfile
from pathlib import Path

from redis_servers import Proxy, RedisServer

BATCH = 50
SETTLED = 0.1
KINDS = ("overtaken miss", "own beside foreign write", "own write, then a foreign one", "cut connection")


class Races:
    """`near` has coroutines ``get(key)`` and ``set(key, value)``; `foreign` is an asynchronous client."""

    def __init__(self, near, foreign, cut, seed):
        self._near, self._foreign, self._cut = near, foreign, cut
        self._random = random.Random(seed)
        self.stale = dict.fromkeys(KINDS, 0)
        self._number = 0

    async def run(self, batches):
        """Runs so many batches of each kind, and counts the stale keys."""
        for kind in [kind for kind in KINDS for _ in range(batches)]:
            keys = [f"user:{self._number + number}" for number in range(BATCH)]
            self._number += BATCH
            await asyncio.gather(*[self._foreign.set(key, b"old") for key in keys])
            if kind == "cut connection":
                await asyncio.gather(*[self._near.get(key) for key in keys])
                asyncio.get_running_loop().call_later(0.001, self._cut)
            await asyncio.gather(*[self._race(kind, key) for key in keys])
            await asyncio.sleep(SETTLED)
            for key in keys:
                self.stale[kind] += await self._near.get(key) != await self._foreign.get(key)

    async def _race(self, kind, key):
        if kind == "overtaken miss":
            await asyncio.gather(self._late(self._near.get, key), self._late(self._foreign.set, key, b"new"))
        elif kind == "own beside foreign write":
            await asyncio.gather(self._late(self._near.set, key, b"own"), self._late(self._near.get, key),
                                 self._late(self._foreign.set, key, b"new"))
        elif kind == "cut connection":
            await self._late(self._foreign.set, key, b"new")
        else:
            await self._near.set(key, b"own")
            await self._near.get(key)
            await self._foreign.set(key, b"new")

    async def _late(self, call, *args):
        await asyncio.sleep(self._random.random() * 0.003)
        await call(*args)


class Threads:
    """A synchronous near cache as `Races` needs it."""

    def __init__(self, near):
        self._near = near

    async def get(self, key):
        return await asyncio.to_thread(self._near.get, key)

    async def set(self, key, value):
        return await asyncio.to_thread(self._near.set, key, value)


def delays(seed):
    """Each packet is late by up to two milliseconds."""
    drawn = random.Random(seed)
    return lambda: drawn.random() * 0.002


class Prefixed:
    """A cache of cashews without a local part, as `Races` needs a foreign client."""

    def __init__(self, cache):
        self._cache = cache

    async def get(self, key):
        return await self._cache.get(f"cashews:{key}")

    async def set(self, key, value):
        await self._cache.set(f"cashews:{key}", value)


async def races_of_cashews(server, proxy, batches):
    from cashews import Cache

    near, other = Cache(), Cache()
    near.setup(f"redis://127.0.0.1:{proxy.port}", client_side=True, protocol=2)  # it fails to listen by RESP3
    other.setup(f"redis://127.0.0.1:{server.port}", protocol=2)
    await near.init()
    await other.init()
    races = Races(near, Prefixed(other), proxy.cut, 1)
    await races.run(batches)
    await near.close()
    await other.close()
    return races.stale


def main():
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with (tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server,
          Proxy(server.port) as proxy):
        proxy.delay = delays(1)
        stale = asyncio.run(races_of_cashews(server, proxy, batches))
    for kind, count in stale.items():
        print(f"{kind}: {count} of {batches * BATCH} keys are stale {SETTLED} s later")


if __name__ == "__main__":
    main()
