"""CacheMiddleware for WSGI applications."""

from __future__ import annotations

import re
from functools import lru_cache
from http.client import responses
from io import BytesIO
from threading import Thread
from time import monotonic
from urllib.parse import quote

from headgate.adapters._caching import CACHES, ROUNDS, Filling, Passing, Shared, slices
from headgate.adapters._exempt import exempting, is_exempt
from headgate.adapters.wsgi._refusal import texts
from headgate.adapters.wsgi._request import WSGIRequest, variable
from headgate.cache._listeners import report
from headgate.httpcache import HTTPCache, Request
from headgate.httpcache._fills import (
    DETACHED,
    HEADLESS,
    PENDING,
    RELEASED,
    SETTLED,
    SLICE,
    STORABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeAlias
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from headgate.adapters._exempt import Exempt
    from headgate.httpcache import Lookup, Stored
    from headgate.httpcache._cache import Body
    from headgate.httpcache._fills import Fill, Reader
    from headgate.httpcache._messages import Headers

    Fields: TypeAlias = list[tuple[str, str]]
    Write: TypeAlias = Callable[[bytes], object]

_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_CONDITIONS = (
    "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE",
    "HTTP_RANGE", "HTTP_IF_RANGE",
)
_OTHER_FIELDS = {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}
_IS_PLAIN = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=~._-]*").fullmatch
_MOST_REFRESHES = 8


@lru_cache(maxsize=1024)
def _field(name: str) -> bytes | None:
    """The name of a field by that of its variable; None if that is no field."""
    if name.startswith("HTTP_"):
        return name[5:].replace("_", "-").lower().encode("latin-1", "replace")
    return _OTHER_FIELDS.get(name)


def cached_request(environ: WSGIEnvironment) -> Request:
    """The request of an environ, as the cache sees it.

    >>> request = cached_request({"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": "/a b",
    ...                           "QUERY_STRING": "c", "HTTP_HOST": "example.com"})
    >>> request.target, request.headers
    (b'/a%20b?c', [(b'host', b'example.com')])
    """
    headers = []
    for name, value in environ.items():
        field = _field(name)
        if field is not None and (value or name not in _OTHER_FIELDS):
            headers.append((field, value.encode("latin-1", "replace")))
    if "HTTP_HOST" not in environ and "SERVER_NAME" in environ:
        host = f"{environ['SERVER_NAME']}:{environ.get('SERVER_PORT', '')}"
        headers.append((b"host", host.rstrip(":").encode("latin-1", "replace")))
    target = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") or "/"
    if _IS_PLAIN(target) is None:
        target = quote(target.encode("latin-1", "replace"), safe=_PATH_SAFE)
    query = environ.get("QUERY_STRING")
    if query:
        target = f"{target}?{query}"
    scheme = environ.get("wsgi.url_scheme", "http")
    return Request(environ["REQUEST_METHOD"], scheme, target.encode("latin-1", "replace"), headers)


class CacheMiddleware:
    """A cache of responses in front of a WSGI application, by the rules of RFC 9111.

    `cache` is an `HTTPCache`, by default a new one; several middlewares may share it. Requests whose paths
    match a pattern of `exempt`, or for which that callable returns true, are left alone.

    Threads that request a response at the same time share one call of the application. The thread that calls
    it reads the body to its end before it sends, up to the cache's ``max_object``, so that a slow client
    slows no other; if that client leaves during a larger body, the rest is still read for the others. What
    the application returns reaches the server as it is, a ``wsgi.file_wrapper`` too, unless it is stored.
    Stale responses are refreshed by at most eight threads at a time. If the application fails within a
    response, its iterations raise, which makes servers close the connections.

    Every response gets a Cache-Status field (RFC 9211).

    >>> def app(environ, start_response):
    ...     print("called")
    ...     start_response("200 OK", [("Cache-Control", "max-age=60")])
    ...     return [b"Hello"]
    >>> cached = CacheMiddleware(app)
    >>> def get(path):
    ...     environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "HTTP_HOST": "example.com"}
    ...     return b"".join(cached(environ, lambda status, headers: print(status, headers[-1][1][:12])))
    >>> get("/"), get("/")
    called
    200 OK headgate; fw
    200 OK headgate; hi
    (b'Hello', b'Hello')
    """

    __slots__ = ("_exempt", "_fills", "_refreshes", "app", "cache")

    def __init__(self, app: WSGIApplication, cache: HTTPCache | None = None, *, exempt: Exempt = ()) -> None:
        if cache is not None and not isinstance(cache, HTTPCache):
            raise TypeError(f"cache must be an HTTPCache or None, got {cache!r}")
        self.app = app
        self.cache = HTTPCache() if cache is None else cache
        self._fills = self.cache.fills
        self._exempt = exempting(exempt)
        self._refreshes: list[Thread] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._exempt is not None and is_exempt(self._exempt, WSGIRequest(environ)):
            return self.app(environ, start_response)
        cache, completed = self.cache, self._fills.completed
        lookup = cache.lookup(cached_request(environ))
        key, end = lookup.fill_key, monotonic() + self._fills.wait
        for turn in range(ROUNDS + 1):
            if lookup.kind == "hit":
                return _respond(start_response, *cache.serve(lookup.request, lookup))
            if cache in environ.get(CACHES, ()):
                return self.app(environ, start_response)
            if lookup.kind == "stale":
                self._refresh(environ, lookup)
                return _respond(start_response, *cache.serve(lookup.request, lookup))
            if lookup.kind == "refuse":
                return _respond(start_response, *cache.refusal(lookup))
            if lookup.kind == "pass" or not lookup.coalesce or (
                    turn and (turn == ROUNDS or monotonic() >= end)):
                break
            shared = Shared(cache, lookup, self._fills.join(key, lookup))
            body, own_key = self._share(environ, start_response, shared, completed, end)
            if body is not None:
                return body
            completed = self._fills.completed
            lookup = cache.lookup(lookup.request)
            key = lookup.fill_key if own_key is None else own_key
        if lookup.kind != "pass":  # a body that nothing announced must not change what others get
            environ = {**environ, "wsgi.input": BytesIO()}
        return _Pass(cache, lookup, start_response).respond(self.app, environ)

    def _share(
        self, environ: WSGIEnvironment, start_response: StartResponse, shared: Shared, completed: int,
        end: float,
    ) -> tuple[Iterable[bytes] | None, Any]:
        """The response from a fill, or None, and the key of this client's own variant if it has one."""
        reader, fill = shared.reader, shared.reader.fill
        try:
            if reader.leads and shared.may_lead(completed):
                filling = Filling(self.cache, shared.lookup, fill)
                forwarded = _forwarded(environ, shared.lookup, self.cache)
                lead = _Lead(self.app, forwarded, filling, start_response, shared)
                return lead.respond(shared), None
            if not reader.leads and self.cache.overtaken(fill.lookup):
                self._fills.retire(fill)
            elif not reader.leads:
                follow = _Follow(shared, start_response)
                return follow.respond(end, self._fills.timeout), follow.own_key
        except BaseException:
            reader.leave()
            raise
        reader.leave()
        return None, None

    def _refresh(self, environ: WSGIEnvironment, lookup: Lookup) -> None:
        """Fetch a stale response again in a thread, unless that is under way or too many are."""
        self._refreshes = [thread for thread in self._refreshes if thread.is_alive()]
        if len(self._refreshes) >= _MOST_REFRESHES:
            return
        fill = self._fills.refresh(lookup.fill_key, lookup)
        if fill is None:
            return
        thread = Thread(target=self._fetch, args=(_forwarded(environ, lookup, self.cache), fill), daemon=True)
        self._refreshes.append(thread)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            fill.fail(error)

    def _fetch(self, environ: WSGIEnvironment, fill: Fill) -> None:
        try:
            lead = _Lead(self.app, environ, Filling(self.cache, fill.lookup, fill), _nowhere)
            lead.drain()
            lead.close()
        except Exception as error:
            report(error)


class _Call:
    """A call of the application. `begin` is called with the head of the response when that is final, and
    again if the application replaces it with an ``exc_info``; `write` with what it writes imperatively.
    """

    __slots__ = ("_begin_with", "_first", "_has_begun", "_head", "_parts", "_result", "_write_to")

    def __init__(self, begin: Callable[[str, Fields, Any], object], write: Callable[[bytes], object]) -> None:
        self._begin_with = begin
        self._write_to = write
        self._head: tuple[str, Fields] | None = None
        self._has_begun = False
        self._first = b""
        self._result: Iterable[bytes] = ()
        self._parts: Iterator[bytes] | None = None

    def run(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        """Call the application, up to the head of its response."""
        self._result = app(environ, self._start_response)
        if self._head is None:  # a generator calls start_response before its first part
            self._parts = iter(self._result)
            self._first = next(self._parts, b"")
        self._begin()

    def _start_response(self, status: str, headers: Fields, exc_info: Any = None) -> Write:
        if exc_info is None and self._head is not None:
            raise RuntimeError("start_response was called again, without exc_info")
        self._head = status, headers
        if self._has_begun:
            self._begin_with(status, headers, exc_info)
        return self._write

    def _write(self, data: bytes) -> None:
        self._begin()
        self._write_to(data)

    def _begin(self) -> None:
        if self._has_begun:
            return
        if self._head is None:
            raise RuntimeError("the application did not call start_response")
        self._has_begun = True
        self._begin_with(*self._head, None)

    def untouched(self) -> Iterable[bytes]:
        """What the application returned; its parts, if one of them was taken."""
        return self._result if self._parts is None else _Parts(self.parts(), self.close)

    def parts(self) -> Iterator[bytes]:
        """The parts of the body that are not empty."""
        if self._parts is None:
            self._parts = iter(self._result)
        first, self._first = self._first, b""
        if first:
            yield first
        for part in self._parts:
            if part:
                yield part

    def close(self) -> None:
        """Close what the application returned, once."""
        result, self._result = self._result, ()
        close = getattr(result, "close", None)
        if close is not None:
            close()


class _Lead:
    """The leader of a fill: it calls the application and writes what that returns into the fill."""

    __slots__ = ("_app", "_call", "_environ", "_filling", "_parts", "_shared", "_start_response",
                 "_write_to_server")

    def __init__(
        self, app: WSGIApplication, environ: WSGIEnvironment, filling: Filling,
        start_response: StartResponse, shared: Shared | None = None,
    ) -> None:
        self._app = app
        self._environ = environ
        self._filling = filling
        self._start_response = start_response
        self._shared = shared
        self._call = _Call(self._begin, self._write)
        self._parts: Iterator[bytes] = iter(())
        self._write_to_server: Write | None = None

    def _begin(self, status: str, headers: Fields, exc_info: Any) -> None:
        filling = self._filling
        if exc_info is None:
            fields = filling.start(int(status[:3]), encoded(headers))
        elif filling.way == "direct":
            fields = filling.pass_headers(int(status[:3]), encoded(headers))
        else:
            raise exc_info[1].with_traceback(exc_info[2])
        if filling.way == "direct":
            self._write_to_server = _start(self._start_response, status, fields, exc_info)

    def _write(self, data: bytes) -> None:
        if self._filling.way == "direct" and self._write_to_server is not None:
            self._write_to_server(data)
            return
        self._filling.write(data)
        if self._shared is not None and self._filling.fill.state == DETACHED:
            self._write_detached(self._shared)

    def _write_detached(self, shared: Shared) -> None:
        """Send what is there to the leader's client, since the application does not return yet."""
        if self._write_to_server is None:
            self._begin_detached(shared)
        while self._write_to_server is not None and (taken := shared.reader.take()) is not None:
            self._write_to_server(taken[0])
        shared.reader.fill.wait_for_space()

    def _begin_detached(self, shared: Shared) -> None:
        status, fields = shared.head()
        self._write_to_server = _start(self._start_response, phrase(status), fields, None)

    def respond(self, shared: Shared) -> Iterable[bytes]:
        """The response to the leader's client."""
        fill = shared.reader.fill
        self.drain(stops_detached=True)
        if self._filling.way == "direct":
            shared.reader.leave()
            return self._call.untouched()
        if fill.outcome is not None:
            shared.reader.leave()
            self._call.close()
            return _respond(self._start_response, *shared.result())
        if self._write_to_server is None:
            self._begin_detached(shared)
        return _Parts(self._pump(shared.reader), self._close)

    def drain(self, stops_detached: bool = False) -> None:
        """Write the whole body; up to where the fill is detached, if it `stops_detached`."""
        filling = self._filling
        try:
            self._call.run(self._app, self._environ)
            if filling.way == "direct":
                return
            self._parts = self._call.parts()
            for part in self._parts:
                has_space = filling.write(part)
                if stops_detached and filling.fill.state == DETACHED:
                    return
                if not has_space:
                    filling.fill.wait_for_space()
            filling.finish()
        except BaseException as error:
            self._call.close()
            if not filling.failed(error):
                raise
            report(error)

    def _step(self) -> None:
        """Write the next part of the body."""
        try:
            self._filling.fill.wait_for_space()
            part = next(self._parts, None)
            if part is None:
                self._filling.finish()
            else:
                self._filling.write(part)
        except BaseException as error:
            self._filling.failed(error)
            raise

    def _pump(self, reader: Reader) -> Iterator[bytes]:
        """The rest of the body of a detached fill, for the leader's client."""
        more = True
        while more:
            taken = reader.take()
            if taken is None:
                self._step()
            else:
                part, more = taken
                yield part

    def _close(self) -> None:
        """The leader's client has all, or has left: the rest is read for the others."""
        fill = self._filling.fill
        if self._shared is not None:
            self._shared.reader.leave()
        try:
            while fill.state == DETACHED and fill.is_read():
                self._step()
        finally:
            self._call.close()

    def close(self) -> None:
        """Close what the application returned."""
        self._call.close()


class _Follow:
    """A client that gets the response to the request of another one. `own_key` is the key of its own variant,
    if it cannot have that response."""

    __slots__ = ("_shared", "_start_response", "own_key")

    def __init__(self, shared: Shared, start_response: StartResponse) -> None:
        self._shared = shared
        self._start_response = start_response
        self.own_key: Any = None

    def respond(self, end: float, timeout: float) -> Iterable[bytes] | None:
        """The response; None if the client must look again, or is on its own after `end`."""
        shared, reader = self._shared, self._shared.reader
        state = reader.wait_past(HEADLESS, end - monotonic())
        if state in (PENDING, RELEASED) or shared.is_outdated() or (
                state == SETTLED and not shared.agrees()):
            reader.leave()
            return None
        if state != SETTLED and not shared.matches():
            self.own_key = shared.own_key()
            reader.leave()
            return None
        if shared.evaluates():
            reader.wait_past(STORABLE, timeout)
        if reader.fill.outcome is not None:
            reader.leave()
            return _respond(self._start_response, *shared.result())
        status, fields = shared.head()
        _start(self._start_response, phrase(status), fields, None)
        return _Parts(_read(reader, timeout), reader.leave)


class _Pass:
    """A call of the application for one client alone."""

    __slots__ = ("_cache", "_call", "_has_started", "_lookup", "_passing", "_start_response", "_stored",
                 "_write_to_server")

    def __init__(self, cache: HTTPCache, lookup: Lookup, start_response: StartResponse) -> None:
        self._cache = cache
        self._lookup = lookup
        self._start_response = start_response
        self._passing = Passing(cache, lookup)
        self._call = _Call(self._begin, self._write)
        self._stored: Stored | None = None
        self._has_started = False
        self._write_to_server: Write | None = None

    def respond(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """The response, or a stale one instead of an error."""
        try:
            self._call.run(app, environ)
        except Exception as error:
            self._call.close()
            if not self._has_started:
                self._stored = self._passing.instead_of(None)
            if self._stored is None:
                raise
            report(error)
        if self._stored is not None:
            self._call.close()
            served = self._cache.serve(self._lookup.request, self._lookup, self._stored, outcome="error")
            return _respond(self._start_response, *served)
        if not self._passing.records:
            return self._call.untouched()
        return _Parts(self._recorded(), self._close)

    def _begin(self, status: str, headers: Fields, exc_info: Any) -> None:
        code = int(status[:3])
        if exc_info is not None:
            self._passing.drop()
            fields = self._cache.pass_headers(self._lookup, encoded(headers), code)
        else:
            self._stored = self._passing.instead_of(code)
            if self._stored is not None:
                return
            self._has_started = True
            fields = self._passing.start(code, encoded(headers))
        self._write_to_server = _start(self._start_response, status, fields, exc_info)

    def _write(self, data: bytes) -> None:
        if self._write_to_server is not None:
            self._passing.add(data, True)
            self._write_to_server(data)

    def _recorded(self) -> Iterator[bytes]:
        for part in self._call.parts():
            self._passing.add(part, True)
            yield part
        self._passing.add(b"", False)

    def _close(self) -> None:
        self._passing.drop()
        self._call.close()


class _Parts:
    """The parts of a body, with what to do when the server closes it."""

    __slots__ = ("_on_close", "_parts")

    def __init__(self, parts: Iterator[bytes], on_close: Callable[[], object]) -> None:
        self._parts = parts
        self._on_close = on_close

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        on_close, self._on_close = self._on_close, tuple
        on_close()


def _read(reader: Reader, timeout: float) -> Iterator[bytes]:
    more = True
    while more:
        part, more = reader.read(timeout)
        if part:
            yield part


def _respond(start_response: StartResponse, status: int, fields: Headers, body: Body) -> Iterable[bytes]:
    """Respond with a whole body."""
    _start(start_response, phrase(status), fields, None)
    if type(body) is bytes and len(body) <= SLICE:
        return [body] if body else []
    return slices(body)


def _start(start_response: StartResponse, status: str, fields: Headers, exc_info: Any) -> Write:
    try:
        if exc_info is None:
            return start_response(status, texts(fields))
        return start_response(status, texts(fields), exc_info)
    finally:
        exc_info = None  # no circle of traceback and frame


def _nowhere(status: str, headers: Fields, exc_info: Any = None, /) -> Write:
    """The start_response of a client that is not there."""
    return _discard


def _discard(data: bytes) -> None:
    pass


def encoded(headers: Fields) -> Headers:
    """Header fields as the cache has them.

    >>> encoded([("Content-Type", "text/plain")])
    [(b'content-type', b'text/plain')]
    """
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def phrase(status: int) -> str:
    """A status line.

    >>> phrase(304), phrase(299)
    ('304 Not Modified', '299 Unknown')
    """
    return f"{status} {responses.get(status, 'Unknown')}"


def _forwarded(environ: WSGIEnvironment, lookup: Lookup, cache: HTTPCache) -> WSGIEnvironment:
    """The environ of a call for a fill, without a body, and with the preconditions of the cache."""
    forwarded = dict(environ)
    for name in _CONDITIONS:
        forwarded.pop(name, None)
    for field, value in lookup.forward_headers:
        name = variable(field.decode("latin-1"))
        if name in _CONDITIONS:
            forwarded[name] = value.decode("latin-1")
    forwarded["wsgi.input"] = BytesIO()
    forwarded[CACHES] = *environ.get(CACHES, ()), cache
    return forwarded
