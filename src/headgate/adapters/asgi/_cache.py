"""CacheMiddleware for ASGI applications."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from urllib.parse import quote

from headgate.adapters._caching import CACHES, ROUNDS, Filling, Passing, Shared, slices
from headgate.adapters._exempt import exempting
from headgate.adapters.asgi._request import ASGIRequest
from headgate.cache._listeners import report
from headgate.httpcache import HTTPCache, Request
from headgate.httpcache._fills import (
    COMPLETE,
    FAILED,
    HEADLESS,
    PENDING,
    RELEASED,
    SETTLED,
    SLICE,
    STORABLE,
    IncompleteResponseError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any

    from headgate.adapters._exempt import Exempt
    from headgate.adapters.asgi._types import App, Fields, Message, Receive, Scope, Send
    from headgate.httpcache import Lookup
    from headgate.httpcache._cache import Body
    from headgate.httpcache._fills import Fill, Reader

_START, _BODY = "http.response.start", "http.response.body"
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_ENDED = COMPLETE, SETTLED, FAILED
_DONE = object()


def cached_request(scope: Scope) -> Request:
    """The request of a scope, as the cache sees it.

    >>> cached_request({"method": "GET", "path": "/a b", "query_string": b"c", "headers": []}).target
    b'/a%20b?c'
    """
    target = scope.get("raw_path")
    if target is None:
        target = quote(scope["path"], safe=_PATH_SAFE).encode()
    query = scope.get("query_string")
    if query:
        target = b"%b?%b" % (target, query)
    return Request(scope["method"], scope.get("scheme", "http"), target, scope["headers"])


class CacheMiddleware:
    """A cache of responses in front of an ASGI application, by the rules of RFC 9111.

    `cache` is an `HTTPCache`, by default a new one; several middlewares may share it, in threads and event
    loops of their own. Requests whose paths match a pattern of `exempt`, or for which that callable returns
    true, are left alone, as are WebSockets and lifespans.

    Clients that request a response at the same time share one call of the application, and get its parts as
    they come. That call has a task of its own: no client that leaves or is slow changes it for the others,
    and if all have left, it ends with ``http.disconnect``, unless the response will be stored. The call with
    which it began returns after it has. Responses of private use are neither stored nor waited for. If the
    application fails within a response, its connections are closed without a proper end.

    Every response gets a Cache-Status field (RFC 9211).

    >>> import asyncio
    >>> async def app(scope, receive, send):
    ...     print("called")
    ...     headers = [(b"cache-control", b"max-age=60")]
    ...     await send({"type": "http.response.start", "status": 200, "headers": headers})
    ...     await send({"type": "http.response.body", "body": b"Hello"})
    >>> cached = CacheMiddleware(app)
    >>> async def get(path):
    ...     sent = []
    ...     async def send(message):
    ...         sent.append(message)
    ...     scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"a")]}
    ...     await cached(scope, asyncio.Event().wait, send)
    ...     return sent[0]["headers"][-1][1][:13], sent[1]["body"]
    >>> async def main():
    ...     return await get("/"), await get("/")
    >>> asyncio.run(main())
    called
    ((b'headgate; fwd', b'Hello'), (b'headgate; hit', b'Hello'))
    """

    __slots__ = ("_app", "_exempt", "_fills", "_tasks", "cache")

    def __init__(self, app: App, cache: HTTPCache | None = None, *, exempt: Exempt = ()) -> None:
        if cache is not None and not isinstance(cache, HTTPCache):
            raise TypeError(f"cache must be an HTTPCache or None, got {cache!r}")
        self._app = app
        self.cache = HTTPCache() if cache is None else cache
        self._fills = self.cache.fills
        self._exempt = exempting(exempt)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (self._exempt is not None and await self._is_exempt(scope)):
            await self._app(scope, receive, send)
            return
        completed = self._fills.completed
        cache, request = self.cache, cached_request(scope)
        lookup = cache.lookup(request)
        if lookup.kind == "hit":
            await _send(send, *cache.serve(request, lookup))
        else:
            await self._forward(scope, receive, send, lookup, completed)

    async def _is_exempt(self, scope: Scope) -> bool:
        exempt: Any = self._exempt(ASGIRequest(scope)) if self._exempt is not None else False
        return bool(await exempt if hasattr(exempt, "__await__") else exempt)

    async def _forward(
        self, scope: Scope, receive: Receive, send: Send, lookup: Lookup, completed: int
    ) -> None:
        """Respond to a request for which there is no fresh response."""
        cache, key, end = self.cache, lookup.fill_key, monotonic() + self._fills.wait
        if cache in scope.get(CACHES, ()):
            await self._app(scope, receive, send)
            return
        call = _Call(self, scope, receive, send)
        for turn in range(ROUNDS + 1):
            if lookup.kind in ("hit", "stale"):
                await _send(send, *cache.serve(lookup.request, lookup))
                if lookup.kind == "stale":
                    await self._refresh(scope, lookup)
                return
            if lookup.kind == "refuse":
                await _send(send, *cache.refusal(lookup))
                return
            if lookup.kind == "pass" or not lookup.coalesce or (
                    turn and (turn == ROUNDS or monotonic() >= end)):
                break
            found = await call.share(self._fills.join(key, lookup), lookup, completed, end)
            if found is _DONE:
                return
            completed = self._fills.completed
            lookup = cache.lookup(lookup.request)
            key = lookup.fill_key if found is None else found
        await self._pass(scope, call.receive if lookup.kind == "pass" else call.receive_empty, send, lookup)

    async def _refresh(self, scope: Scope, lookup: Lookup) -> None:
        """Fetch a stale response again, after it was sent, unless that is under way."""
        fill = self._fills.refresh(lookup.fill_key, lookup)
        if fill is None:
            return
        task = self.start(scope, fill, _nowhere, self._fills.timeout)
        await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TimeoutError):
            report(error)

    def start(
        self, scope: Scope, fill: Fill, send: Send, timeout: float | None = None
    ) -> asyncio.Task[None]:
        """The task of the application's call for a fill, which is cancelled after `timeout` seconds."""
        sink = _Sink(Filling(self.cache, fill.lookup, fill), send)
        call = sink.run(self._app, _forwarded(scope, fill.lookup, self.cache))
        task = asyncio.create_task(call if timeout is None else _within(timeout, call))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # clients get it from the fill

    async def _pass(self, scope: Scope, receive: Receive, send: Send, lookup: Lookup) -> None:
        """Call the application for this client alone."""
        passed = _Passed(self.cache, lookup, send)
        try:
            await self._app(scope, receive, passed.send)
        except Exception as error:
            if not await passed.replaces(error):
                raise


class _Call:
    """A request that may share the response to another one."""

    __slots__ = ("_cache", "_is_read", "_middleware", "_receive", "_scope", "_send")

    def __init__(self, middleware: CacheMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._cache = middleware.cache
        self._middleware = middleware
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_read = False

    async def receive(self) -> Message:
        """What the application receives if it is called for this client alone after all."""
        if self._is_read:
            self._is_read = False
            return _no_body()
        return await self._receive()

    async def receive_empty(self) -> Message:
        """`receive` for a request whose response may be stored: a body that nothing announced, as HTTP/2 has
        them, must not change what others get."""
        message = await self.receive()
        return {**message, "body": b""} if message.get("body") else message

    async def share(self, reader: Reader, lookup: Lookup, completed: int, end: float) -> Any:
        """Respond from a fill: `_DONE`, or else the key of this client's own variant, or None to look again.

        A follower waits for the head until `end`.
        """
        fills, shared = self._cache.fills, Shared(self._cache, lookup, reader)
        with reader:
            if not reader.leads:
                if self._cache.overtaken(reader.fill.lookup):
                    fills.retire(reader.fill)
                    return None
                return await self._until_left(reader, self._follow(shared, end))
            if not shared.may_lead(completed):
                return None
            await self._lead(shared)
            return _DONE

    async def _until_left(self, reader: Reader, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of `work`, which ends early if the client leaves or is cut."""
        limit, loop = asyncio.timeout(None), asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch(limit))
        reader.on_cut = lambda: _call_in(loop, _expire, limit)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            if reader.is_cut:
                raise IncompleteResponseError("the client took nothing while others waited") from None
            return _DONE
        finally:
            reader.on_cut = None
            watch.cancel()

    async def _watch(self, limit: asyncio.Timeout) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            if self._is_read:
                return  # a server that repeats itself
            self._is_read = True
        _expire(limit)

    async def _lead(self, shared: Shared) -> None:
        """Return when the call of the application has ended, and the client has its response."""
        reader = shared.reader
        fill = reader.fill
        task = self._middleware.start(self._scope, fill, self._send)
        try:
            await self._until_left(reader, self._lead_until_sent(shared, task))
            reader.leave()
            await asyncio.wait([task])
        except asyncio.CancelledError:
            reader.leave()
            if fill.is_abandoned:
                task.cancel()
                await asyncio.wait([task])
            raise
        except Exception:
            reader.leave()
            await asyncio.wait([task])
            raise
        if not fill.is_abandoned:
            task.result()

    async def _lead_until_sent(self, shared: Shared, task: asyncio.Task[None]) -> None:
        state = await shared.reader.wait_past_async(HEADLESS, None)
        if state == RELEASED:
            await asyncio.wait([task])
        elif state == SETTLED:
            await _send(self._send, *shared.result())
        else:
            await self._stream(shared, None)

    async def _follow(self, shared: Shared, end: float) -> Any:
        state = await shared.reader.wait_past_async(HEADLESS, end - monotonic())
        if state in (PENDING, RELEASED) or shared.is_outdated() or (
                state == SETTLED and not shared.agrees()):
            return None
        if state == SETTLED:
            await _send(self._send, *shared.result())
        elif shared.matches():
            await self._stream(shared, self._cache.fills.timeout)
        else:
            return shared.own_key()
        return _DONE

    async def _stream(self, shared: Shared, timeout: float | None) -> None:
        """Send the response of an open or complete fill, waiting `timeout` seconds for each part."""
        reader, send = shared.reader, self._send
        if shared.evaluates():
            await reader.wait_past_async(STORABLE, timeout)
        if reader.fill.outcome is not None:
            await _send(send, *shared.result())
            return
        status, headers = shared.head()
        await send({"type": _START, "status": status, "headers": headers})
        more = True
        while more:
            part, more = await reader.read_async(timeout)
            await send({"type": _BODY, "body": part, "more_body": more})


class _Sink:
    """What the application's call for a fill receives and sends."""

    __slots__ = ("_filling", "_has_received", "_send")

    def __init__(self, filling: Filling, send: Send) -> None:
        self._filling = filling
        self._send = send
        self._has_received = False

    async def run(self, app: App, scope: Scope) -> None:
        """Call the application; its error is raised unless clients get a stored response instead."""
        filling = self._filling
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            if not filling.failed(error):
                raise
            if not filling.fill.is_abandoned:
                report(error)
        else:
            filling.returned()

    async def receive(self) -> Message:
        fill = self._filling.fill
        if not self._has_received:
            self._has_received = True
            return _no_body()
        while not fill.is_abandoned and fill.state not in _ENDED:
            seen = fill.changes.number
            if not fill.is_abandoned and fill.state not in _ENDED:
                await fill.changes.wait_async(seen, fill.time_left())
                fill.expire()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        filling, kind = self._filling, message["type"]
        if filling.way is None:
            await self._start(message)
        elif filling.way == "direct":
            await self._send(message)
        elif kind == _BODY:
            await self._write(message.get("body", b""), message.get("more_body", False))

    async def _start(self, message: Message) -> None:
        filling = self._filling
        if message["type"] != _START or message.get("trailers"):
            filling.release()
        else:
            headers = filling.start(message["status"], _lowered(message.get("headers", ())))
            message = {**message, "headers": headers}
        if filling.way == "direct":
            await self._send(message)

    async def _write(self, data: bytes, more: bool) -> None:
        filling = self._filling
        if not more:
            filling.finish(data)
            return
        if filling.fill.is_abandoned:
            raise OSError("all clients have left")
        if not filling.write(data):
            await filling.fill.wait_for_space_async()
        elif filling.fill.is_read():
            await asyncio.sleep(0)  # clients get this part before the application computes the next one


class _Passed:
    """The response of the application to one client."""

    __slots__ = ("_cache", "_is_replaced", "_lookup", "_passing", "_send", "_started")

    def __init__(self, cache: HTTPCache, lookup: Lookup, send: Send) -> None:
        self._cache = cache
        self._lookup = lookup
        self._send = send
        self._passing = Passing(cache, lookup)
        self._started = self._is_replaced = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._is_replaced:
            return
        if kind == _START and not self._started:
            message = await self._start(message)
            if self._is_replaced:
                return
        elif kind == _BODY:
            self._passing.add(message.get("body", b""), message.get("more_body", False))
        else:
            self._passing.drop()
        await self._send(message)

    async def _start(self, message: Message) -> Message:
        self._started = True
        status = message["status"]
        if await self._replace(status):
            return message
        headers = self._passing.start(status, _lowered(message.get("headers", ())))
        if message.get("trailers"):
            self._passing.drop()
        return {**message, "headers": headers}

    async def _replace(self, status: int | None) -> bool:
        stored = self._passing.instead_of(status)
        if stored is None:
            return False
        self._is_replaced = True
        served = self._cache.serve(self._lookup.request, self._lookup, stored, outcome="error")
        await _send(self._send, *served)
        return True

    async def replaces(self, error: Exception) -> bool:
        """Whether the client gets a stale response instead of an error."""
        self._passing.drop()
        replaced = not self._started and await self._replace(None)
        if replaced:
            report(error)
        return replaced


async def _send(send: Send, status: int, headers: Fields, body: Body) -> None:
    """Send a whole response, its body in slices."""
    await send({"type": _START, "status": status, "headers": headers})
    if type(body) is bytes and len(body) <= SLICE:
        await send({"type": _BODY, "body": body})
        return
    for part in slices(body):
        await send({"type": _BODY, "body": part, "more_body": True})
    await send({"type": _BODY, "body": b""})


async def _within(timeout: float, call: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(timeout):
        await call


async def _nowhere(message: Message) -> None:
    """A client that is not there."""


def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _lowered(headers: Iterable[Any]) -> Fields:
    return [(bytes(name).lower(), bytes(value)) for name, value in headers]


def _forwarded(scope: Scope, lookup: Lookup, cache: HTTPCache) -> Scope:
    """The scope of a call for a fill: extensions belong to one client only."""
    forwarded = dict(scope)
    forwarded.pop("extensions", None)
    forwarded["headers"] = lookup.forward_headers
    forwarded[CACHES] = *scope.get(CACHES, ()), cache
    return forwarded


def _expire(limit: asyncio.Timeout) -> None:
    """End what runs within `limit` now, if anything does."""
    with suppress(RuntimeError):  # it has ended
        limit.reschedule(asyncio.get_running_loop().time())


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(function, *args)
