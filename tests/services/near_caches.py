"""Both forms of the near cache behind one set of methods that block, for tests with real servers."""

import asyncio
import threading
from inspect import iscoroutinefunction

from watchdog import PATIENCE, until

from headgate.adapters.redis import AsyncNearCache, NearCache


class LoopThread:
    """An event loop that runs in a thread until it is closed."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()


class Blocking:
    """An `AsyncNearCache` whose methods wait for their results."""

    def __init__(self, *args, **options):
        self._thread = LoopThread()
        self.near = AsyncNearCache(*args, **options)

    def __getattr__(self, name):
        member = getattr(self.near, name)
        if not (iscoroutinefunction(member) or name == "get"):
            return member
        return lambda *args, **options: self._thread.run(member(*args, **options))

    def close(self):
        if not self._thread.loop.is_closed():
            self._thread.run(self.near.close())
            self._thread.close()


FORMS = {"sync": NearCache, "async": Blocking}


def until_kept(near, *keys):
    """Fetch keys until they are here: the first misses only start to listen."""
    def are_kept():
        for key in keys:
            near.get(key)
        return all(near.peek(key) is not None for key in keys)

    until(are_kept)
