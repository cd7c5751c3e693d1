"""Active health checks by aiohttp: one task a server probes it, another one follows the servers.

    sleep -> probe -> a success, a failure, or an error that says nothing of the server
      ^                  |
      +------------------+--> `rise` or `fall` in a row: mark_up or mark_down
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections import namedtuple
from contextlib import AsyncExitStack, suppress
from functools import partial
from inspect import isawaitable
from random import random

from headgate._base.checks import checked_int, checked_number
from headgate.adapters._extras import extra
from headgate.adapters._http import (
    BalancerEvent,
    _checked_balancer,
    _checked_callback,
    _checked_statuses,
    origin,
)
from headgate.cache._listeners import report

with extra("aiohttp"):
    import aiohttp
    from yarl import URL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from typing import Any, NamedTuple, Protocol, Self

    from headgate.adapters._http import Balancer

    class Marked(Balancer, Protocol):
        def mark_down(self, server: Any) -> None: ...
        def mark_up(self, server: Any) -> None: ...

    class _Fields(NamedTuple):
        server: Any
        up: bool | None
        probes: int
        failures: int
        errors: int
        last: Any
else:
    _Fields = namedtuple("_Fields", "server up probes failures errors last")

__all__ = ["HealthChecks", "HealthRecord"]

_JITTER = 0.1
_FAILURES = aiohttp.ClientError, TimeoutError, OSError


class HealthRecord(_Fields):
    """What `HealthChecks` know of a server: whether it is `up`, None before the first verdict; how many
    `probes` have ended, how many of them were `failures`, and how many `errors` that say nothing of it; and
    the status or the exception of the `last` one.
    """

    __slots__ = ()


class _Watched:
    """A server that is probed, and the task that does it."""

    __slots__ = ("errors", "failures", "last", "probes", "server", "streak", "successes", "task", "up")

    def __init__(self, server: Any) -> None:
        self.server = server
        self.up: bool | None = None
        self.probes = self.failures = self.errors = self.streak = 0
        self.successes = True
        self.last: Any = None
        self.task: asyncio.Task[None] | None = None

    def add(self, ok: bool) -> None:
        """Count a result; `streak` is the number of equal ones in a row."""
        self.streak = self.streak + 1 if ok == self.successes else 1
        self.successes = ok
        self.failures += not ok


class HealthChecks:
    """Probes each server of `balancer`, and marks those that fail as down until they succeed again.

    Every `every` seconds, give or take a tenth, each server gets a ``GET`` of `path`, at most `concurrency`
    of them at a time; servers are origins as for `BalancedMiddleware`, and those that are added or removed
    later are followed. A probe fails if there is no response within `timeout` seconds or not an expected one:
    `expect` is a collection of statuses, or a function of the ClientResponse, which may be a coroutine
    function; by default statuses from 200 to 399 are. Redirects are not followed. After `fall` failures in a
    row a server is marked down, after `rise` successes up. If all fail, perhaps because the checks themselves
    are cut off, the balancer is in panic and uses all servers.

    Run it by ``async with``, or ``await checks.run()``, which ends only by cancellation. At the end no task
    is left, servers that it had marked down are up, and the session is closed, unless it was given as
    `session`. `on_event` is called with a BalancerEvent, of the kind ``"down"`` or ``"up"``, when a server
    changes. Errors of `expect` and of the session itself are passed to `sys.unraisablehook`, and say nothing
    of the server; an OSError, TimeoutError or ClientError is a failure of it there too, as when `expect`
    reads the body. A balancer takes one HealthChecks: each of several would undo what the others mark.

    Raises TypeError or ValueError if an argument has the wrong type or is out of range.

    >>> from headgate import RoundRobin
    >>> servers = RoundRobin(["http://10.0.0.1:8080", "http://10.0.0.2:8080"])
    >>> async def serve(until):
    ...     async with HealthChecks(servers, path="/health", every=2.0, on_event=print):
    ...         await until.wait()
    """

    def __init__(self, balancer: Marked, session: aiohttp.ClientSession | None = None, *, path: str = "/",
                 every: float = 5.0, timeout: float = 1.0, rise: int = 2, fall: int = 3,
                 expect: Collection[int] | Callable[[aiohttp.ClientResponse], Awaitable[object] | object]
                 | None = None,
                 concurrency: int = 16, on_event: Callable[[BalancerEvent], object] | None = None) -> None:
        self._balancer = _checked_balancer(balancer)
        if not callable(getattr(balancer, "mark_down", None)):
            raise TypeError(f"balancer must have mark_down and mark_up, got {balancer!r}")
        if not isinstance(path, str):
            raise TypeError(f"path must be a str, got {path!r}")
        if not path.startswith("/"):
            raise ValueError(f"path must begin with '/', got {path!r}")
        if not (path.isascii() and path.isprintable()) or " " in path:
            raise ValueError(f"path must be of printable ASCII without spaces, got {path!r}")
        self._session, self._path = session, path
        self._every, self._timeout = _positive("every", every), _positive("timeout", timeout)
        self._rise, self._fall = _count("rise", rise), _count("fall", fall)
        self._expect = expect if expect is None or callable(expect) else _checked_statuses(expect)
        self._concurrency = _count("concurrency", concurrency)
        self._on_event = _checked_callback("on_event", on_event)
        self._watched: dict[Any, _Watched] = {}
        self._running = False
        self._task: asyncio.Task[None] | None = None

    @property
    def records(self) -> list[HealthRecord]:
        """A list of `HealthRecord`, one for each server that is probed."""
        return [HealthRecord(each.server, each.up, each.probes, each.failures, each.errors, each.last)
                for each in self._watched.values()]

    # ---- running ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("these checks are running already")
        self._task = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()

    async def run(self) -> None:
        """Probe until the task is cancelled. Raises RuntimeError if it runs already."""
        if self._running:
            raise RuntimeError("these checks are running already")
        self._running = True
        try:
            async with AsyncExitStack() as stack:
                session = self._session
                if session is None:
                    session = await stack.enter_async_context(_new_session())
                async with asyncio.TaskGroup() as group:
                    await self._follow(group, session, asyncio.Semaphore(self._concurrency))
        finally:
            self._running = False
            for server in list(self._watched):
                self._forget(server)

    async def _follow(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession,
                      bound: asyncio.Semaphore) -> None:
        """Have a task for each server that there is."""
        while True:
            servers = dict.fromkeys(self._balancer.servers)
            for server in self._watched.keys() - servers.keys():
                self._forget(server)
            for server in servers:
                if server not in self._watched:
                    watched = self._watched[server] = _Watched(server)
                    watched.task = group.create_task(self._watch(watched, session, bound))
            await asyncio.sleep(self._every)

    def _forget(self, server: Any) -> None:
        """End the probes of a server. Nobody would mark it up again."""
        watched = self._watched.pop(server)
        if watched.task is not None:
            watched.task.cancel()
        if watched.up is False:
            self._guard(watched, partial(self._mark, up=True))

    async def _watch(self, watched: _Watched, session: aiohttp.ClientSession,
                     bound: asyncio.Semaphore) -> None:
        while True:
            async with bound:
                ok = await self._probed(watched, session)
            if _is_cancelled():  # which `expect` may have suppressed
                return
            watched.probes += 1
            if ok is not None:
                watched.add(ok)
                self._guard(watched, self._decide)
            await asyncio.sleep(self._every * (1 + _JITTER * (2 * random() - 1)))

    # ---- probes -----------------------------------------------------------------------------

    async def _probed(self, watched: _Watched, session: aiohttp.ClientSession) -> bool | None:
        """Whether a probe succeeds; None if there is an error that says nothing of the server."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._probe(watched, session)
        except _FAILURES as error:
            watched.last = error
            return False
        except (Exception, asyncio.CancelledError) as error:  # the latter perhaps of what foreign code awaits
            if not _is_cancelled():
                watched.last = error
                watched.errors += 1
                report(error)
            return None

    async def _probe(self, watched: _Watched, session: aiohttp.ClientSession) -> bool:
        base = origin(watched.server)
        url, headers = URL(f"{base.scheme}://{base.netloc}{base.path}{self._path}", encoded=True), {}
        if base.authorization is not None and getattr(session, "auth", None) is not None:
            url = _with_credentials(url, base.authorization)
        elif base.authorization is not None:
            headers = {"Authorization": base.authorization}
        async with session.get(
                url, headers=headers, allow_redirects=False, raise_for_status=False) as response:
            watched.last = response.status
            return await self._is_expected(response)

    async def _is_expected(self, response: aiohttp.ClientResponse) -> bool:
        if self._expect is None:
            return 200 <= response.status < 400
        if isinstance(self._expect, frozenset):
            return response.status in self._expect
        found = self._expect(response)
        return bool(await found if isawaitable(found) else found)

    def _decide(self, watched: _Watched) -> None:
        """Mark a server; again with each probe, as it may have been removed and added meanwhile."""
        if watched.streak < (self._rise if watched.successes else self._fall):
            return
        before, up = watched.up, watched.successes
        self._mark(watched, up)
        watched.up = up
        if self._on_event is not None and up is not before and not (before is None and up):
            kind = "up" if up else "down"
            self._on_event(BalancerEvent(kind, watched.server, watched.streak, watched.last))

    def _mark(self, watched: _Watched, up: bool) -> None:
        with suppress(KeyError):  # removed meanwhile
            (self._balancer.mark_up if up else self._balancer.mark_down)(watched.server)

    def _guard(self, watched: _Watched, call: Callable[[_Watched], None]) -> None:
        """Call what runs foreign code, whose errors are counted and reported, not raised."""
        try:
            call(watched)
        except Exception as error:
            watched.errors += 1
            report(error)


def _is_cancelled() -> bool:
    """Whether the current task is to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _with_credentials(url: URL, basic: str) -> URL:
    """The URL with the user and the password of a Basic Authorization.

    For a session with an ``auth``, instead of which aiohttp takes those of a URL, but no Authorization field.
    """
    user, _, password = b64decode(basic.removeprefix("Basic ")).decode("latin-1").partition(":")
    return url.with_user(user).with_password(password)


def _new_session() -> aiohttp.ClientSession:
    """A session in which each probe makes a connection of its own."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _positive(name: str, value: float) -> float:
    seconds = float(checked_number(name, value))
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return seconds


def _count(name: str, value: int) -> int:
    number = checked_int(name, value)
    if number < 1:
        raise ValueError(f"{name} must be positive, got {value!r}")
    return number
