"""Stored responses, and those of one primary key together."""

from __future__ import annotations

from headgate.httpcache._selecting import language_key, secondary_key
from headgate.httpcache._terms import is_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._messages import Headers, Request

SECOND = 1_000_000_000

# Bytes beyond the text itself, as CPython 3.11 to 3.14 allocate them.
_RESPONSE = 700
_FIELD = 144
_TAG = 400
_RESOURCE = 300


class Stored:
    """A stored response.

    `status`, `headers` and `body` are those to send, without fields that a cache may not store. `url` and
    `key` say what it was fetched for, `names` and `secondary` under which selecting fields, `tags` by which
    it is purged. Times are nanoseconds of the cache's clock: `born` is when its age was 0, `fresh_until`,
    `stale_until` (while it is revalidated) and `error_until` (if that fails) are when its uses end. `made` is
    when it was made in seconds since 1970; `generated` and `relayed` are as in `Terms`. `guarded` ones, whose
    freshness the origin did not give, are not for requests with cookies or credentials. A `private` one is
    for the client whose validation made it, and not stored.
    """

    __slots__ = (
        "body", "born", "error_until", "etag", "fresh_until", "generated", "guarded", "headers", "immutable",
        "key", "language", "last_modified", "made", "names", "private", "ready", "relayed", "secondary",
        "stale_until", "status", "tags", "url", "used", "weight",
    )

    def __init__(
        self,
        *,
        key: bytes,
        url: bytes,
        status: int,
        headers: Headers,
        body: bytes,
        names: tuple[bytes, ...],
        secondary: bytes,
        language: bytes | None,
        tags: tuple[bytes, ...],
        made: float,
        born: int,
        fresh_until: int,
        stale_until: int,
        error_until: int,
        guarded: bool,
        immutable: bool,
        generated: int,
        relayed: bool,
    ) -> None:
        self.key = key
        self.url = url
        self.status = status
        self.headers = headers
        self.body = body
        self.names = names
        self.secondary = secondary
        self.language = language
        self.tags = tags
        self.made = made
        self.born = born
        self.fresh_until = fresh_until
        self.stale_until = stale_until
        self.error_until = error_until
        self.guarded = guarded
        self.immutable = immutable
        self.generated = generated
        self.relayed = relayed
        self.etag = _first(headers, b"etag")
        self.last_modified = _first(headers, b"last-modified")
        self.private = False
        self.used = False
        self.ready: tuple[int, Headers] | None = None
        self.weight = self._weighed()

    def __repr__(self) -> str:
        return f"<Stored {self.status} {self.url.decode('latin-1')}, {len(self.body)} bytes>"

    def matches(self, request: Request) -> bool:
        """Whether another request with the same key may have this response."""
        return is_for(request, self.names, self.secondary, self.guarded)

    def _weighed(self) -> int:
        fields = sum([len(name) + len(value) for name, value in self.headers])
        tags = sum(map(len, self.tags)) + _TAG * len(self.tags)
        selecting = len(self.secondary) + len(self.language or b"")
        return _RESPONSE + len(self.body) + fields + _FIELD * len(self.headers) + tags + selecting

    def expired(self, now: int) -> Stored:
        """The same response, stale from now on."""
        made = Stored.__new__(Stored)
        for name in Stored.__slots__:
            setattr(made, name, getattr(self, name))
        made.ready = None
        made.stale_until = min(self.stale_until, now + max(0, self.stale_until - self.fresh_until))
        made.error_until = min(self.error_until, now + max(0, self.error_until - self.fresh_until))
        made.fresh_until = min(self.fresh_until, now)
        return made


def _first(headers: Headers, name: bytes) -> bytes | None:
    for field, value in headers:
        if field == name:
            return value
    return None


class Resource:
    """The stored responses of one primary key, of which `select` finds the one for a request. Immutable.

    `plain` is the only response, if its origin does not vary it.
    """

    __slots__ = ("_groups", "key", "plain", "url", "variants", "weight")

    def __init__(self, key: bytes, url: bytes, variants: tuple[Stored, ...]) -> None:
        self.key = key
        self.url = url
        self.variants = variants
        self.plain = variants[0] if len(variants) == 1 and not variants[0].names else None
        groups: dict[tuple[bytes, ...], dict[bytes, Stored]] = {}
        if self.plain is None:
            for stored in variants:
                group = groups.setdefault(stored.names, {})
                group[stored.secondary] = stored
                if stored.language is not None:
                    group[stored.language] = stored
        self._groups = tuple(groups.items())
        self.weight = _RESOURCE + len(key) + len(url) + sum([stored.weight for stored in variants])

    def select(self, fields: dict[bytes, bytes]) -> Stored | None:
        """The most recent response that fits a request with these combined fields.

        Complexity: O(number of fields x sets of selecting fields).
        """
        if self.plain is not None:
            return self.plain
        best: Stored | None = None
        for names, group in self._groups:
            stored = group.get(secondary_key(fields, names))
            if stored is None and (language := language_key(fields, names)) is not None:
                stored = group.get(language)
            if stored is not None and (best is None or stored.born > best.born):
                best = stored
        if best is not None:
            best.used = True
        return best

    def with_variant(self, stored: Stored, most: int, most_weight: int) -> Resource:
        """These responses and one more, without the one that it replaces and without those beyond the bounds.

        Those that were not used since the last time leave first, the oldest before the others.
        """
        kept = [other for other in self.variants
                if (other.names, other.secondary) != (stored.names, stored.secondary)]
        weight = stored.weight + sum([other.weight for other in kept])
        while kept and (len(kept) >= most or weight > most_weight):
            victim = next((other for other in kept if not other.used), None)
            if victim is None:
                for other in kept:
                    other.used = False
                victim = kept[0]
            kept.remove(victim)
            weight -= victim.weight
        return Resource(self.key, self.url, (*kept, stored))

    def tags(self) -> set[bytes]:
        """The tags of all responses."""
        return {tag for stored in self.variants for tag in stored.tags}


