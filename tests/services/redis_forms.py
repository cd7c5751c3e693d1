"""Asynchronous limits, called like synchronous ones, each on a loop of its own."""

import asyncio
import inspect


class Synchronous:
    """An asynchronous limiter whose methods are called and return at once."""

    def __init__(self, limiter):
        self.limiter = limiter
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name):
        found = getattr(self.limiter, name)
        return self.called(found) if inspect.iscoroutinefunction(found) else found

    def called(self, function):
        def call(*args, **named):
            result = self._loop.run_until_complete(function(*args, **named))
            return Settled(self, result) if function.__name__ == "reserve" else result

        return call

    def close(self):
        self._loop.run_until_complete(self.limiter.close())
        self._loop.close()


class Settled:
    """An asynchronous reservation, settled like a synchronous one."""

    def __init__(self, limiter, reservation):
        self._limiter = limiter
        self._reservation = reservation

    def __bool__(self):
        return bool(self._reservation)

    def __getattr__(self, name):
        found = getattr(self._reservation, name)
        return self._limiter.called(found) if name in ("settle", "cancel") else found
