"""HTTPCache: a cache of HTTP responses, without I/O."""

from __future__ import annotations

from time import monotonic_ns, time_ns

from headgate._base.checks import checked_callable, checked_number
from headgate._base.clock import checked_clock
from headgate.cache import TinyLFUCache, TTLCache
from headgate.httpcache import _status
from headgate.httpcache._conditions import is_not_modified, is_same_for_range, not_modified_headers
from headgate.httpcache._decisions import Admission, Forwarding, Lookup
from headgate.httpcache._fills import Fills
from headgate.httpcache._freshness import directives_of
from headgate.httpcache._log import LocalLog
from headgate.httpcache._messages import combined
from headgate.httpcache._purging import (
    KEY,
    URL,
    Purge,
    invalidated_urls,
    named_url,
    purge_of,
    request_of,
    url_tag,
)
from headgate.httpcache._ranges import parse_ranges, partial
from headgate.httpcache._requests import SAFE, accepts, is_for_origin, is_unrestricted
from headgate.httpcache._requests import directives_of as request_directives
from headgate.httpcache._settings import Settings
from headgate.httpcache._stats import HTTPCacheStats
from headgate.httpcache._store import Store
from headgate.httpcache._stored import SECOND, Stored
from headgate.httpcache._storing import stored_headers, stores_cookies, updated_headers
from headgate.httpcache._terms import Terms, is_personal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike
    from typing import Any, Literal

    from headgate.httpcache._decisions import Kind
    from headgate.httpcache._fields import Directives
    from headgate.httpcache._log import ProcessLog
    from headgate.httpcache._messages import Headers, Request
    from headgate.httpcache._stored import Resource

    Body = bytes | memoryview | list[bytes | memoryview]
    Outcome = Literal["stored", "forwarded", "collapsed", "validated", "error"]

_MARKS, _MARK_SECONDS = 10_000, 10.0
_SERVER_ERRORS = frozenset((500, 502, 503, 504))


class HTTPCache:
    """A cache of HTTP responses: the rules of RFC 9111 and its companions, and a store weighed in bytes.

    It does no I/O: `lookup` says what to do with a request, `admit` whether its response may be stored, and
    `serve` makes a response from a stored one. The adapters for ASGI, WSGI and httpx send and receive.

    `maxsize` bounds the store, as bytes or such as ``"64 MiB"``; headers and what Python needs for them
    count. `policy` is the class of the cache that evicts, such as `TinyLFUCache`. A `shared` cache is used by
    many clients, else it belongs to one. `key` is called with each request and returns the primary key
    instead of the URL, or None to pass the request. Responses without explicit lifetime are fresh for a
    fraction `heuristic` of the time since Last-Modified, or for `default_ttl` seconds, unless their requests
    have cookies or credentials. `set_cookie` says when a shared cache stores a response with Set-Cookie: if
    it is ``public`` or has ``s-maxage`` (``"explicit"``), always (``"store"``), or ``"never"``. A response
    above `max_object` bytes is not stored, `max_variants` bounds the responses of one URL. Stale responses
    may be used for `stale_while_revalidate` and `stale_if_error` seconds where they do not say so themselves
    or forbid it. Tags for `purge` are taken from the fields `tag_headers`. `name` is this cache's in
    Cache-Status. `max_filling`, `wait` and `fill_timeout` are for the adapters: the bytes of all bodies under
    way, and the seconds that a client waits for another one's response and that a response may take.

    Worker processes have stores of their own. With the `path` of a file, made if it is absent and best in
    memory such as ``/dev/shm``, all that have the same path see each other's purges, and the invalidations by
    unsafe methods.

    Times are measured by `clock`, which returns nanoseconds, the monotonic clock by default, and compared
    with dates by `wall_clock`, nanoseconds since 1970.

    Raises ValueError or TypeError if an argument is out of range or of a wrong type.

    >>> from headgate.httpcache import Request
    >>> cache = HTTPCache("1 MiB", clock=lambda: 0)
    >>> request = Request("GET", "https", b"/", [(b"host", b"example.com")])
    >>> lookup = cache.lookup(request)
    >>> lookup.kind
    'miss'
    >>> admission = cache.admit(lookup, request, 200, [(b"cache-control", b"max-age=60")], cache.now())
    >>> admission.store(b"Hello")
    <Stored 200 https://example.com/, 5 bytes>
    >>> cache.serve(request, cache.lookup(request))[1][-1]
    (b'cache-status', b'headgate; hit; ttl=60')
    >>> cache.purge("https://example.com/")
    1
    """

    __slots__ = (
        "__weakref__", "_clock", "_hits", "_key", "_marks", "_misses", "_name", "_passes", "_revalidations",
        "_settings", "_stale", "_store", "_wall_clock", "fills",
    )

    def __init__(
        self,
        maxsize: int | str = "64 MiB",
        *,
        policy: Callable[..., Any] = TinyLFUCache,
        shared: bool = True,
        key: Callable[[Request], str | None] | None = None,
        default_ttl: float | None = None,
        set_cookie: Literal["explicit", "store", "never"] = "explicit",
        max_object: int | str = "8 MiB",
        max_filling: int | str = "32 MiB",
        max_variants: int = 32,
        wait: float = 5,
        fill_timeout: float = 60,
        stale_while_revalidate: float | None = None,
        stale_if_error: float | None = None,
        heuristic: float = 0.1,
        tag_headers: Iterable[str] = ("cache-tag", "surrogate-key"),
        name: str = "headgate",
        path: str | PathLike[str] | None = None,
        clock: Callable[[], int] | None = None,
        wall_clock: Callable[[], int] | None = None,
    ) -> None:
        self._settings = Settings(
            maxsize=maxsize, shared=shared, default_ttl=default_ttl, set_cookie=set_cookie,
            max_object=max_object, max_filling=max_filling, max_variants=max_variants, wait=wait,
            fill_timeout=fill_timeout, stale_while_revalidate=stale_while_revalidate,
            stale_if_error=stale_if_error, heuristic=heuristic, tag_headers=tag_headers, name=name,
        )
        settings = self._settings
        self.fills = Fills(settings.max_object, settings.max_filling, settings.wait, settings.fill_timeout)
        self._name = settings.name.encode()
        self._clock = checked_clock(clock) or monotonic_ns
        self._wall_clock = checked_clock(wall_clock) or time_ns
        self._key = checked_callable("key", key)
        self._store = Store(policy, settings, _log_at(path), self._key is not None, self._clock)
        self._marks: TTLCache[int, bool] = TTLCache(_MARKS, _MARK_SECONDS, clock=clock)
        self._hits = self._stale = self._revalidations = self._misses = self._passes = 0

    def __repr__(self) -> str:
        return f"<HTTPCache {self._store.cache.currsize} of {self._settings.maxsize} bytes>"

    @property
    def name(self) -> str:
        """The name of this cache in Cache-Status."""
        return self._settings.name

    @property
    def shared(self) -> bool:
        """Whether many clients use this cache."""
        return self._settings.shared

    @property
    def maxsize(self) -> int:
        """The bytes that the store holds at most."""
        return self._settings.maxsize

    @property
    def max_object(self) -> int:
        """The bytes of the longest body that is stored."""
        return self._settings.max_object

    @property
    def max_filling(self) -> int:
        """The bytes of all bodies that are under way at most."""
        return self._settings.max_filling

    @property
    def wait(self) -> float:
        """The seconds that a client waits at most for the response to another one."""
        return self._settings.wait

    @property
    def fill_timeout(self) -> float:
        """The seconds that a response under way may take."""
        return self._settings.fill_timeout

    def reconfigure(self, **settings: Any) -> None:
        """Sets some of the constructor's arguments anew: all but `policy`, `key`, `path` and the clocks. What
        is stored keeps its lifetime, and stays as far as it fits.

        Raises what the constructor raises, and then changes nothing. Complexity: O(responses evicted).

        >>> cache = HTTPCache("1 MiB")
        >>> cache.reconfigure(maxsize="2 MiB", default_ttl=60)
        >>> cache.maxsize
        2097152
        """
        changed = self._settings.changed(settings)
        self._settings, self._name = changed, changed.name.encode()
        self.fills.reconfigure(changed.max_object, changed.max_filling, changed.wait, changed.fill_timeout)
        self._store.reconfigure(changed)

    def now(self) -> int:
        """The time by the cache's clock, in nanoseconds: take it before a request is forwarded, for
        `admit`."""
        return self._clock()

    # ---- requests ---------------------------------------------------------------------------

    def lookup(self, request: Request) -> Lookup:
        """What to do with a request; see `Lookup`.

        Complexity: O(number of header fields).
        """
        store = self._store
        position = store.position() if store.shared else store.seen
        key = request.url if self._key is None else self._own_key(request)
        now = self._clock()
        if key is None or request.method not in ("GET", "HEAD"):
            return self._passed(request, key, position, now)
        resource = store.get(key)
        stored = None if resource is None else resource.plain or resource.select(request.fields)
        if stored is not None and now < stored.fresh_until and is_unrestricted(request.fields) and not (
                stored.guarded and is_personal(request)):
            self._hits += 1
            return Lookup("hit", key, stored, request, position, now)
        return self._decide(request, key, resource, stored, position, now)

    def _own_key(self, request: Request) -> bytes | None:
        """The primary key by the user's function."""
        key = None if self._key is None else self._key(request)
        if key is None or request.url is None:
            return None
        if not isinstance(key, str):
            raise TypeError(f"key must return a str or None, got {key!r}")
        return key.encode("utf-8", "surrogatepass")

    def _passed(self, request: Request, key: bytes | None, position: int, now: int) -> Lookup:
        """What to do with a request that no stored response can satisfy, whatever is stored."""
        self._passes += 1
        reason = b"bypass" if key is None else b"method"
        return Forwarding(
            "pass", key, None, request, position, now, reason,
            storable=request.method == "POST", unsafe=request.method not in SAFE)

    def _decide(
        self, request: Request, key: bytes, resource: Resource | None, stored: Stored | None, position: int,
        now: int,
    ) -> Lookup:
        """What to do with a GET or HEAD whose response is not simply fresh."""
        directives = request_directives(request)
        if is_for_origin(request) or b"no-store" in directives:
            self._passes += 1
            return Forwarding("pass", key, None, request, position, now, b"request")
        coalesce, reason = _mark(key, request) not in self._marks, b"request"
        if stored is not None and stored.guarded and is_personal(request):
            stored, coalesce = None, False
        elif stored is None:
            reason = b"uri-miss" if resource is None else b"vary-miss"
        elif now >= stored.fresh_until:
            reason = b"stale"
        kind = self._kind(request, directives, stored, now)
        self._count(kind)
        if kind == "hit":
            return Lookup(kind, key, stored, request, position, now)
        storable = kind not in ("pass", "refuse")
        return Forwarding(
            kind, key, stored, request, position, now, reason,
            names=() if resource is None else resource.variants[-1].names,
            storable=storable, coalesce=storable and coalesce)

    def _kind(self, request: Request, directives: Directives, stored: Stored | None, now: int) -> Kind:
        """What to do with a GET or HEAD for which a response is stored, or none."""
        if stored is not None:
            fresh = now < stored.fresh_until
            if fresh if self._settings.shared else accepts(directives, stored, now):
                return "hit"
        if b"only-if-cached" in directives:
            return "refuse"
        if request.method == "HEAD":
            return "pass"
        if stored is None:
            return "pass" if b"range" in request.fields else "miss"
        if fresh or now >= stored.stale_until or self._wants_fresh(directives):
            return "revalidate"
        return "stale"

    def _wants_fresh(self, directives: Directives) -> bool:
        """Whether the client of a private cache wants no response that is not validated."""
        return not self._settings.shared and (b"no-cache" in directives or b"max-age" in directives)

    def _count(self, kind: Kind) -> None:
        if kind == "hit":
            self._hits += 1
        elif kind == "stale":
            self._stale += 1
        elif kind == "revalidate":
            self._revalidations += 1
        elif kind == "miss":
            self._misses += 1
        else:
            self._passes += 1

    def overtaken(self, lookup: Lookup, tags: tuple[bytes, ...] = ()) -> bool:
        """Whether a purge of its URL, or of one of the `tags` of its response, came since a lookup: later
        requests must not share that response.
        """
        if lookup.key is None:
            return False
        return self._store.is_overtaken(lookup.key, lookup.request.url or b"", tags, lookup.position)

    # ---- responses --------------------------------------------------------------------------

    def admit(
        self, lookup: Lookup, request: Request, status: int, headers: Headers, requested_at: int
    ) -> Admission | None:
        """Whether a response may be stored, by its status and fields; None if not.

        `requested_at` is what ``now()`` returned before the request was forwarded. A response that may not be
        stored leaves a mark for 10 seconds, so that nobody waits for the next ones; and if it is no error, it
        removes the one that was to be revalidated.
        """
        if not lookup.storable or lookup.key is None:
            return None
        admission = self._admission(lookup, request, status, headers, requested_at)
        if admission is None and lookup.kind != "pass":
            self._marks[_mark(lookup.key, request)] = True
            if lookup.stored is not None and status < 500:
                self._store.remove(lookup.stored)
        return admission

    def _admission(
        self, lookup: Lookup, request: Request, status: int, headers: Headers, requested_at: int
    ) -> Admission | None:
        url, shared = request.url, self._settings.shared
        terms = self._terms(status, combined(headers), requested_at)
        if url is None or not terms.permit_storing(request):
            return None
        if request.method == "POST":
            location = terms.fields.get(b"content-location")
            named = location and named_url(url, location)
            if named != url or not terms.times.explicit or not 200 <= status < 300:
                return None
            lookup.position = self._store.position()
        kept = stored_headers(headers, terms.fields, terms.directives, shared)
        return Admission(self, lookup, url, kept, terms, self._own_tags(url))

    def _own_tags(self, url: bytes) -> tuple[bytes, ...]:
        """The tags of a response for a URL that are not from its fields: see `Store`."""
        return () if self._key is None else (url_tag(url),)

    def _terms(self, status: int, fields: dict[bytes, bytes], requested_at: int) -> Terms:
        """The terms of a response that was received now."""
        return Terms(
            status, fields, self._settings,
            requested_at=requested_at, now=self._clock(), received=self._wall_clock() / SECOND)

    def _store_admitted(self, admission: Admission, body: bytes) -> Stored | None:
        length = admission.terms.length
        if len(body) > self._settings.max_object or (length is not None and length != len(body)):
            return None
        stored = admission.stored(body)
        if not self._store.put(stored, admission.lookup.position):
            return None
        self._marks.pop(_mark(stored.key, admission.lookup.request), None)
        return stored

    def validated(self, lookup: Lookup, request: Request, headers: Headers, requested_at: int) -> Stored:
        """The stored response after a 304 with these fields: updated, and fresh anew (RFC 9111 4.3.4).

        It can be served in any case. It is stored again unless a purge overtook it, or the 304 forbids it:
        then it is `private`, and nobody else's. A Set-Cookie that may not be stored is for the client of the
        lookup only.
        """
        old, shared = lookup.stored, self._settings.shared
        if old is None:
            raise ValueError(f"lookup must have a stored response, got {lookup!r}")
        received = combined(headers)
        directives, _ = directives_of(received, shared)
        merged = updated_headers(old.headers, stored_headers(headers, received, directives, shared))
        fields = combined(merged)
        if b"set-cookie" in received and not stores_cookies(directives_of(fields, shared)[0], self._settings):
            cookies = [field for field in headers if field[0] == b"set-cookie"]
            merged = [field for field in merged if field[0] != b"set-cookie"]
            fields.pop(b"set-cookie", None)
        else:
            cookies = []
        for name in (b"age", b"date"):
            fields.pop(name, None)
            if name in received:
                fields[name] = received[name]
        terms = self._terms(old.status, fields, requested_at)
        stored = Admission(self, lookup, old.url, merged, terms, self._own_tags(old.url)).stored(old.body)
        stored.private = not terms.permit_storing(request)
        lookup.cookies = cookies
        if stored.private or not self._store.put(stored, lookup.position):
            self._store.remove(old)
        return stored

    def on_error(self, lookup: Lookup, status: int | None = None) -> Stored | None:
        """The stale response to serve instead of an error, if it allows that (RFC 5861 4).

        The error is a status, 500, 502, 503 or 504, or an exception for None.
        """
        stored = lookup.stored
        if stored is None or (status is not None and status not in _SERVER_ERRORS):
            return None
        return stored if self._clock() < stored.error_until else None

    # ---- what is sent -----------------------------------------------------------------------

    def serve(
        self, request: Request, lookup: Lookup, stored: Stored | None = None, *,
        outcome: Outcome | None = None,
    ) -> tuple[int, Headers, Body]:
        """Status, fields and body of the response to a request from a stored one, by default its lookup's.

        Preconditions and ranges are evaluated, Age and Cache-Status added. `outcome` is None for a hit, and
        otherwise ``"stored"`` or ``"forwarded"`` (fetched for this request, and stored or not),
        ``"collapsed"`` (fetched for another one), ``"validated"``, or ``"error"`` (served instead of one).
        The list of fields is the caller's own.
        """
        found = lookup.stored if stored is None else stored
        if found is None:
            raise ValueError(f"lookup must have a stored response, got {lookup!r}")
        if outcome is None:
            now = lookup.now
            age = (now - found.born) // SECOND
            ready = found.ready
            if ready is None or ready[0] != age:
                ready = found.ready = (age, [
                    *found.headers,
                    (b"age", b"%d" % max(0, age)),
                    _status.hit(self._name, (found.fresh_until - now) // SECOND, self._said(found.generated)),
                ])
            headers = ready[1].copy()
        else:
            headers = self._forwarded_headers(lookup, found, outcome)
        if not self.evaluates(request) or (found.status != 200 and request.method == "GET"):
            return found.status, headers, found.body
        return _evaluated(request, found, headers)

    def evaluates(self, request: Request) -> bool:
        """Whether `serve` has preconditions or a range to evaluate, or sends no body."""
        fields = request.fields
        return (b"if-none-match" in fields or b"if-modified-since" in fields or b"range" in fields
                or request.method == "HEAD")

    def _forwarded_headers(self, lookup: Lookup, stored: Stored, outcome: Outcome) -> Headers:
        age = max(0, (self._clock() - stored.born) // SECOND)
        headers = list(stored.headers)
        is_aged = age or stored.relayed or outcome in ("collapsed", "error")  # not generated for this request
        if is_aged:
            headers.append((b"age", b"%d" % age))
        if outcome == "validated" and lookup.cookies:
            headers += lookup.cookies
        headers.append(_status.forwarded(
            self._name, lookup.reason, 304 if outcome == "validated" else None,
            stored=outcome == "stored" or (outcome == "validated" and not stored.private),
            collapsed=outcome == "collapsed",
            detail=b"stale-if-error" if outcome == "error" else None,
            generated=self._said(stored.generated) if is_aged else 0,
        ))
        return headers

    def _said(self, generated: int) -> int:
        """What Cache-Status says of when a response was generated: nothing while no purge has a time."""
        return generated if self._store.is_dated else 0

    def pass_headers(
        self, lookup: Lookup, headers: Headers, status: int, *, stored: bool = False, collapsed: bool = False,
        generated: int = 0,
    ) -> Headers:
        """The fields of a forwarded response, with Cache-Status added, as a new list. `generated` is for one
        that was fetched for another request."""
        return [*headers, _status.forwarded(
            self._name, lookup.reason, status, stored=stored, collapsed=collapsed,
            generated=self._said(generated))]

    def refusal(self, lookup: Lookup) -> tuple[int, Headers, bytes]:
        """The 504 for a client that wants a stored response only, where there is none."""
        body = b"" if lookup.request.method == "HEAD" else b"There is no stored response.\n"
        return 504, [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (_status.FIELD, self._name + b"; detail=only-if-cached"),
        ], body

    # ---- purges -----------------------------------------------------------------------------

    def invalidate(self, request: Request, status: int, headers: Headers) -> None:
        """Removes what an unsafe request has changed, if its response is no error (RFC 9111 4.4)."""
        url = request.url
        if url is None or not 200 <= status < 400:
            return
        purges = [Purge(URL, changed) for changed in invalidated_urls(url, headers)]
        self._store.purge(*purges, *self._key_purges(request))

    def purge(
        self, url: str | None = None, *, tag: str | None = None, prefix: str | None = None,
        stale: bool = False, at: float | None = None,
    ) -> int:
        """Removes the stored responses of a URL, of a tag, or of all URLs with a prefix; how many.

        A URL or prefix is absolute, or a path for all hosts; a query belongs to it. With `stale` they become
        stale instead: they are revalidated, or served where stale ones may be. What is being fetched or
        revalidated meanwhile is not stored.

        With a time `at`, in seconds since 1970, it concerns what was generated before: nothing that was is
        stored later either, as when the responses come from another cache that this purge has not reached
        yet. When a response was generated is known by the time of its request or, if another cache had it, by
        what that one says, or its Age to a second; the clocks of all machines must agree. Of 4,096 such
        purges the latest times are kept, and beyond that what is older than a forgotten one is not stored.

        Raises TypeError unless exactly one of `url`, `tag` and `prefix` is given, and ValueError for no URL
        or a time that is out of range.

        Complexity: O(1) for an absolute URL, O(responses of the tag), O(n) for a path or prefix.
        """
        time = 0 if at is None else _nanoseconds("at", at)
        purge = purge_of(url, tag, prefix, stale, time)
        if purge.kind != URL:
            return self._store.purge(purge)
        return self._store.purge(purge, *self._key_purges(request_of(purge.value), stale, time))

    def _key_purges(self, request: Request, soft: bool = False, at: int = 0) -> list[Purge]:
        """The purge of what has the user's key of a request; none where keys are URLs."""
        key = None if self._key is None else self._own_key(request)
        return [] if key is None else [Purge(KEY, key, soft, at)]

    def stats(self) -> HTTPCacheStats:
        """The counters and sizes."""
        store = self._store
        return HTTPCacheStats(
            self._hits, self._stale, self._revalidations, self._misses, self._passes, store.stored,
            store.evictions, store.purged, len(store.cache), store.cache.currsize, self._settings.maxsize)

    def _check(self) -> None:
        """Raises AssertionError unless the store is whole."""
        self._store._check()


def _log_at(path: str | PathLike[str] | None) -> ProcessLog:
    """The log of purges of the processes that share a file, or of this one."""
    if path is None:
        return LocalLog()
    from headgate.httpcache._purges import SharedLog

    return SharedLog(path)


def _nanoseconds(name: str, seconds: float) -> int:
    """A time since 1970 in nanoseconds: the next millisecond, in which caches tell each other times, after a
    microsecond, as floats are rounded by a quarter of one."""
    if not 0 <= checked_number(name, seconds) < 2**33:
        raise ValueError(f"{name} must be seconds since 1970, got {seconds!r}")
    unit = _status.MILLISECOND
    return -(-(round(seconds * SECOND) + 1000) // unit) * unit


def _mark(key: bytes, request: Request) -> int:
    """A number for a key under which nobody waits; requests with cookies or credentials have their own."""
    return hash((key, is_personal(request)))


def _evaluated(request: Request, stored: Stored, headers: Headers) -> tuple[int, Headers, Body]:
    """The response after the preconditions and the range of a request: RFC 9110 13.2.2."""
    fields, status = request.fields, stored.status
    if status == 200 and is_not_modified(fields, stored.etag, stored.last_modified, stored.made):
        return 304, not_modified_headers(headers), b""
    if request.method == "HEAD":
        return status, headers, b""
    if status == 200 and b"range" in fields and is_same_for_range(
            fields.get(b"if-range"), stored.etag, stored.last_modified, stored.made):
        ranges = parse_ranges(fields[b"range"], len(stored.body))
        if ranges is not None:
            return partial(ranges, headers, stored.body)
    return status, headers, stored.body
