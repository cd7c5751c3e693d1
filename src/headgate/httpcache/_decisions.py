"""What HTTPCache decides of a request and of a response."""

from __future__ import annotations

from headgate.httpcache._conditions import validating_headers, without_conditions
from headgate.httpcache._selecting import language_key, secondary_key
from headgate.httpcache._stored import SECOND, Stored
from headgate.httpcache._terms import is_for, is_personal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from headgate.httpcache._cache import HTTPCache
    from headgate.httpcache._messages import Headers, Request
    from headgate.httpcache._terms import Terms

    FillKey: TypeAlias = bytes | tuple[bytes, bytes]
    Kind = Literal["hit", "stale", "revalidate", "miss", "pass", "refuse"]


class Lookup:
    """What to do with a request.

    `kind` is ``"hit"`` (serve `stored`), ``"stale"`` (serve it now, refresh it in the background),
    ``"revalidate"`` (forward, with validators where it has any), ``"miss"`` (forward), ``"pass"`` (forward
    unchanged, without waiting) or ``"refuse"`` (504, since the client wants no forwarding). Requests with the
    same `key` may wait for one response if `coalesce` is true. `unsafe` requests invalidate; `storable` says
    whether the response may be stored. `reason` is why the request is forwarded, as RFC 9211 names it,
    `names` by which fields the responses for the key are known to vary. `cookies` are the Set-Cookie fields
    of a 304, for the client of this request only.
    """

    __slots__ = ("cookies", "key", "kind", "now", "position", "request", "stored")

    reason = b""
    names: tuple[bytes, ...] = ()
    storable = True
    coalesce = True
    unsafe = False

    def __init__(
        self, kind: Kind, key: bytes | None, stored: Stored | None, request: Request, position: int, now: int
    ) -> None:
        self.kind = kind
        self.key = key
        self.stored = stored
        self.request = request
        self.position = position
        self.now = now
        self.cookies: Headers | None = None

    def __repr__(self) -> str:
        return f"<Lookup {self.kind} {self.key!r} {self.stored!r}>"

    @property
    def fill_key(self) -> FillKey | None:
        """What requests have in common that may get one response, as far as that is known before it comes."""
        if self.key is None or not self.names:
            return self.key
        return self.key, secondary_key(self.request.fields, self.names)

    @property
    def forward_headers(self) -> Headers:
        """The fields of the request to forward: without preconditions, with validators of `stored`, or as
        they are where nothing is to be stored."""
        if self.kind in ("pass", "refuse"):
            return self.request.headers
        stored = self.stored
        if stored is None:
            return without_conditions(self.request.headers)
        return validating_headers(self.request.headers, stored.etag, stored.last_modified)


class Forwarding(Lookup):
    """A lookup whose request is forwarded."""

    __slots__ = ("coalesce", "names", "reason", "storable", "unsafe")

    def __init__(
        self,
        kind: Kind,
        key: bytes | None,
        stored: Stored | None,
        request: Request,
        position: int,
        now: int,
        reason: bytes,
        *,
        names: tuple[bytes, ...] = (),
        storable: bool = False,
        coalesce: bool = False,
        unsafe: bool = False,
    ) -> None:
        super().__init__(kind, key, stored, request, position, now)
        self.reason = reason
        self.names = names
        self.storable = storable
        self.coalesce = coalesce
        self.unsafe = unsafe


def _selecting_names(cache: HTTPCache, terms: Terms) -> tuple[bytes, ...]:
    """The selecting fields of a response. In a private cache all but public ones are for the same credentials
    only, since programs act for several users with one client."""
    names = terms.names or ()
    if cache.shared or b"public" in terms.directives:
        return names
    return tuple(sorted({*names, b"authorization"}))


class Admission:
    """A response that may be stored as soon as its body is complete: its URL, `headers` and `terms`."""

    __slots__ = ("_cache", "headers", "lookup", "names", "secondary", "tags", "terms", "url")

    def __init__(
        self, cache: HTTPCache, lookup: Lookup, url: bytes, headers: Headers, terms: Terms,
        own_tags: tuple[bytes, ...],
    ) -> None:
        self._cache = cache
        self.lookup = lookup
        self.url = url
        self.headers = headers
        self.terms = terms
        self.names = _selecting_names(cache, terms)
        self.tags = (terms.tags or ()) + own_tags
        self.secondary = secondary_key(lookup.request.fields, self.names)

    def __repr__(self) -> str:
        return f"<Admission {self.terms.status} {self.url.decode('latin-1')}>"

    def matches(self, request: Request) -> bool:
        """Whether another request with the same key may have this response."""
        return is_for(request, self.names, self.secondary, self.terms.guarded)

    def aged_headers(self) -> Headers:
        """The fields for other requests than the one that it was fetched for: with Age (RFC 9111 5.1)."""
        age = (self._cache.now() - self.terms.born) // SECOND
        return [*self.headers, (b"age", b"%d" % max(0, age))]

    def variant(self, request: Request) -> bytes:
        """What distinguishes requests with the same key that cannot have the same response."""
        secondary = secondary_key(request.fields, self.names)
        return b"\0" + secondary if self.terms.guarded and is_personal(request) else secondary

    def store(self, body: bytes) -> Stored | None:
        """Stores the response with its complete body.

        None if it is longer than the bound or shorter than its Content-Length, or if a purge overtook it.
        """
        return self._cache._store_admitted(self, body)

    def stored(self, body: bytes) -> Stored:
        """The response with its complete body, as `store` would store it: to serve it after a purge too."""
        terms, times, headers = self.terms, self.terms.times, self.headers
        if b"content-length" not in terms.fields and terms.status != 204:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        fresh_until = terms.born + round(times.lifetime * SECOND)
        language = terms.fields.get(b"content-language")
        if language is not None:
            language = language_key(self.lookup.request.fields, self.names, language)
        return Stored(
            key=self.lookup.key or b"", url=self.url, status=terms.status, headers=headers, body=body,
            names=self.names, secondary=self.secondary, language=language, tags=self.tags,
            made=terms.made, born=terms.born, fresh_until=fresh_until,
            stale_until=fresh_until + round(times.while_revalidate * SECOND),
            error_until=fresh_until + round(times.if_error * SECOND),
            guarded=terms.guarded, immutable=b"immutable" in terms.directives,
            generated=terms.generated, relayed=terms.relayed,
        )
