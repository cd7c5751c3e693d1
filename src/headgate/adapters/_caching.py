"""The response cache in front of an application, whatever the host.

    shared:  application -> Filling -> Fill -> each client, and the store
    passed:  application -> Passing -> its client, and the store if it may go there
"""

from __future__ import annotations

from headgate.httpcache._fills import SLICE, IncompleteResponseError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypeAlias

    from headgate.httpcache import Admission, HTTPCache, Lookup, Stored
    from headgate.httpcache._cache import Body, Outcome
    from headgate.httpcache._decisions import FillKey
    from headgate.httpcache._fills import Fill, Fills, Reader
    from headgate.httpcache._messages import Headers

    Way: TypeAlias = Literal["fill", "direct", "discard"]

CACHES = "headgate.caches"
"""Where a scope or an environ has the caches whose fills the call is for. A middleware further in with one of
them leaves it alone, or it would wait for itself."""

ROUNDS = 3
"""How often a client that cannot have the response of another one looks again, before it is on its own."""


def slices(body: Body) -> Iterator[bytes]:
    """A body in parts of at most 64 KiB; one empty part if it is empty.

    >>> [len(part) for part in slices(bytes(100_000))], list(slices([b"a", b"b"]))
    ([65536, 34464], [b'a', b'b'])
    """
    if isinstance(body, list):
        for part in body:
            yield from slices(part)
        return
    if len(body) <= SLICE:
        yield bytes(body)
        return
    for start in range(0, len(body), SLICE):
        yield bytes(body[start : start + SLICE])


class Filling:
    """The response of the application on its way into a fill.

    `way` says where the response goes once it has started: into the ``"fill"``, ``"direct"`` to the leader's
    client since it will not be stored, or nowhere, ``"discard"``, since clients get a stored one.
    """

    __slots__ = ("_cache", "_lookup", "_requested_at", "fill", "way")

    def __init__(self, cache: HTTPCache, lookup: Lookup, fill: Fill) -> None:
        self._cache = cache
        self._lookup = lookup
        self._requested_at = cache.now()
        self.fill = fill
        self.way: Way | None = None

    def start(self, status: int, headers: Headers) -> Headers:
        """Decide about a response by its head. Returns the fields for the way ``"direct"``."""
        cache, lookup = self._cache, self._lookup
        stored = None
        if lookup.stored is not None and status == 304:
            stored = cache.validated(lookup, lookup.request, headers, self._requested_at)
            self._settle(stored, "validated")
        elif lookup.stored is not None and (stored := cache.on_error(lookup, status)) is not None:
            self._settle(stored, "error")
        if stored is not None:
            return headers
        admission = cache.admit(lookup, lookup.request, status, headers, self._requested_at)
        if admission is None:
            self.fill.release()
            self.way = "direct"
        else:
            opened = self.fill.open((status, headers, admission), admission.terms.length)
            self.way = "fill" if opened else "direct"
        return cache.pass_headers(lookup, headers, status)

    def pass_headers(self, status: int, headers: Headers) -> Headers:
        """The fields of a response that replaces one on the way ``"direct"``."""
        return self._cache.pass_headers(self._lookup, headers, status)

    def release(self) -> None:
        """The response cannot be stored, for reasons of the host."""
        self.fill.release()
        self.way = "direct"

    def _settle(self, stored: Stored, outcome: Outcome) -> None:
        self.fill.settle((stored, outcome))
        self.way = "discard"

    def write(self, data: bytes) -> bool:
        """Add a part of the body; False if the window is full."""
        return self.way == "discard" or self.fill.write(data)

    def finish(self, data: bytes = b"") -> None:
        """Add the last part of the body."""
        if self.way == "fill":
            self.fill.finish(data, self._store)

    def _store(self, body: bytes) -> tuple[Stored, Outcome]:
        admission: Admission = self.fill.head[2]
        stored = admission.store(body)
        if stored is None:
            return admission.stored(body), "forwarded"
        return stored, "stored"

    def failed(self, error: BaseException) -> bool:
        """The application raised an error; whether clients get a stored response instead of it."""
        lookup = self._lookup
        if self.way is None and lookup.stored is not None and isinstance(error, Exception):
            stored = self._cache.on_error(lookup)
            if stored is not None:
                self._settle(stored, "error")
        if self.way == "discard":
            return True
        self.fill.fail(error)
        return False

    def returned(self) -> None:
        """The application has returned; a response without an end fails."""
        if self.way != "discard":
            self.fill.fail(IncompleteResponseError("the application returned before its response ended"))


class Shared:
    """A client's part of a fill: what it gets once the state of the fill is known."""

    __slots__ = ("_cache", "lookup", "reader")

    def __init__(self, cache: HTTPCache, lookup: Lookup, reader: Reader) -> None:
        self._cache = cache
        self.lookup = lookup
        self.reader = reader

    def may_lead(self, completed: int) -> bool:
        """Whether the response is still missing now that this client leads its fill, released if not.

        Between the lookup and joining it may have been stored, if the number of fills was `completed` then
        and is another one now. While this client leads, nobody else stores it.
        """
        cache = self._cache
        if cache.fills.completed == completed:
            return True
        lookup = cache.lookup(self.lookup.request)
        if lookup.kind not in ("miss", "revalidate") or not lookup.coalesce:
            self.reader.fill.release()
            return False
        self.lookup = self.reader.fill.lookup = lookup
        return True

    def matches(self) -> bool:
        """Whether this client may have the response of an open or complete fill."""
        admission: Admission = self.reader.fill.head[2]
        return self.reader.leads or admission.matches(self.lookup.request)

    def own_key(self) -> FillKey:
        """The key of the fill of this client's variant, as lookups have it once the response is stored."""
        admission: Admission = self.reader.fill.head[2]
        return self.lookup.key or b"", admission.variant(self.lookup.request)

    def is_outdated(self) -> bool:
        """Whether this client asked after a purge of the response, which then is for nobody else. Purges by
        tag are not known to concern it before the head is there."""
        fill, cache = self.reader.fill, self._cache
        if self.lookup.position == fill.lookup.position:
            return False
        tags = fill.outcome[0].tags if fill.head is None else fill.head[2].tags
        if not cache.overtaken(fill.lookup, tags):
            return False
        cache.fills.retire(fill)
        return True

    def agrees(self) -> bool:
        """Whether this client may have the stored response that settled the fill."""
        fill = self.reader.fill
        if self.reader.leads or self.lookup.stored is not fill.lookup.stored:
            return self.reader.leads
        stored, outcome = fill.outcome
        return outcome == "error" or (not stored.private and stored.matches(self.lookup.request))

    def evaluates(self) -> bool:
        """Whether this client gets another response than the application sends, by preconditions or a range,
        for which the whole must be there."""
        return self._cache.evaluates(self.lookup.request)

    def head(self) -> tuple[int, Headers]:
        """Status and fields for the body of the fill. The leader's are those that the application sent, which
        may have some that are for its client only."""
        status, headers, admission = self.reader.fill.head
        if self.reader.leads:
            stored = self.reader.fill.outcome is None or self.reader.fill.outcome[1] == "stored"
            return status, self._cache.pass_headers(self.lookup, headers, status, stored=stored)
        return status, self._cache.pass_headers(
            self.lookup, admission.aged_headers(), status, collapsed=True,
            generated=admission.terms.generated)

    def result(self) -> tuple[int, Headers, Body]:
        """The response of a complete or settled fill."""
        stored, outcome = self.reader.fill.outcome
        if self.reader.leads and outcome in ("stored", "forwarded") and not self.evaluates():
            return *self.head(), stored.body
        if not self.reader.leads and outcome != "error":
            outcome = "collapsed"
        return self._cache.serve(self.lookup.request, self.lookup, stored, outcome=outcome)


class Recording:
    """A body that is kept for the store while it passes, unless that takes too many bytes."""

    __slots__ = ("_admission", "_fills", "_held", "_parts")

    def __init__(self, fills: Fills, admission: Admission) -> None:
        self._fills = fills
        self._parts: bytearray | None = bytearray()
        self._admission = admission
        self._held = 0

    def add(self, data: bytes) -> None:
        """Keep a part of the body."""
        if self._parts is None or not data:
            return
        if len(self._parts) + len(data) > self._fills.max_object or not self._fills.hold(len(data)):
            self.drop()
            return
        self._held += len(data)
        self._parts += data

    def finish(self) -> None:
        """Store the response, whose body is complete."""
        parts = self._parts
        self.drop()
        if parts is not None:
            self._admission.store(bytes(parts))

    def drop(self) -> None:
        """Forget the body, which will not be complete."""
        held, self._held, self._parts = self._held, 0, None
        self._fills.give_back(held)

    def __del__(self) -> None:
        if self._held:
            self.drop()


class Passing:
    """A response that passes from the application to the only client that it is for."""

    __slots__ = ("_cache", "_lookup", "_recording", "_requested_at")

    def __init__(self, cache: HTTPCache, lookup: Lookup) -> None:
        self._cache = cache
        self._lookup = lookup
        self._requested_at = cache.now()
        self._recording: Recording | None = None

    def instead_of(self, status: int | None) -> Stored | None:
        """The stale response that the client gets instead of an error, a status or an exception."""
        lookup = self._lookup
        return None if lookup.stored is None else self._cache.on_error(lookup, status)

    def start(self, status: int, headers: Headers) -> Headers:
        """The fields for the client."""
        cache, lookup = self._cache, self._lookup
        if lookup.unsafe:
            cache.invalidate(lookup.request, status, headers)
        if lookup.storable and lookup.key is not None and status != 304:
            admission = cache.admit(lookup, lookup.request, status, headers, self._requested_at)
            if admission is not None:
                self._recording = Recording(cache.fills, admission)
        return cache.pass_headers(lookup, headers, status, stored=self._recording is not None)

    @property
    def records(self) -> bool:
        """Whether the body is kept for the store."""
        return self._recording is not None

    def add(self, data: bytes, more: bool) -> None:
        """A part of the body passes."""
        recording = self._recording
        if recording is not None:
            recording.add(data)
            if not more:
                self._recording = None
                recording.finish()

    def drop(self) -> None:
        """The body is not to be stored."""
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.drop()
