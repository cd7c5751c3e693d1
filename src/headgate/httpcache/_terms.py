"""All that the fields of one response say of storing and reusing it."""

from __future__ import annotations

from headgate.httpcache._fields import parse_age, parse_date, parse_length
from headgate.httpcache._freshness import HEURISTIC, directives_of, freshness
from headgate.httpcache._selecting import secondary_key, selecting_names
from headgate.httpcache._status import FIELD, generated_of
from headgate.httpcache._storing import is_storable, tags_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from headgate.httpcache._messages import Request
    from headgate.httpcache._settings import Settings

SECOND = 1_000_000_000


class Terms:
    """The terms of a response with these combined `fields`, received at the time `now` of the cache's clock.

    `received` is the same time in seconds since 1970, `requested_at` when its request was forwarded by the
    cache's clock. `made` is when it was made in seconds since 1970, `born` by the cache's clock. `names` are
    its selecting fields and `tags` its tags, each None if they forbid storing. `guarded` is set where the
    cache guessed the lifetime. `relayed` is whether another cache had the response, and `generated` the
    nanoseconds since 1970 before which it was not generated: for a relayed one as that cache says, or else by
    its Age, whose seconds are rounded down, and otherwise by its request.
    """

    __slots__ = (
        "born", "directives", "fields", "generated", "guarded", "length", "made", "names", "relayed",
        "settings", "status", "tags", "times",
    )

    def __init__(
        self,
        status: int,
        fields: dict[bytes, bytes],
        settings: Settings,
        *,
        requested_at: int,
        now: int,
        received: float,
    ) -> None:
        self.status = status
        self.fields = fields
        self.settings = settings
        self.directives, targeted = directives_of(fields, settings.shared)
        self.names = selecting_names(fields.get(b"vary"))
        self.tags = tags_of(fields, settings.tag_headers)
        self.length = parse_length(fields.get(b"content-length"))
        delay = max(0, now - requested_at)
        self.times = freshness(
            status, fields, self.directives, targeted, settings, received=received, delay=delay / SECOND)
        self.relayed = b"age" in fields
        self.generated = round(received * SECOND) - delay
        if self.relayed:
            self.generated = self._relayed_at(self.generated, round(received * SECOND))
        date = parse_date(fields.get(b"date"), received)
        self.made = received if date is None else float(date)
        self.born = now - round(self.times.age * SECOND)
        self.guarded = settings.shared and not self.times.explicit

    def _relayed_at(self, requested: int, received: int) -> int:
        """When a response was generated that another cache had: as that one says, unless it is in the future,
        or by its Age, which may be more than the truth if the origin's clock is behind."""
        said = generated_of(self.fields.get(FIELD, b""))
        if said is not None and said <= received + SECOND:
            return said
        return requested - (parse_age(self.fields[b"age"]) + 1) * SECOND

    def permit_storing(self, request: Request) -> bool:
        """Whether the response may be stored after that request, and is of any use later."""
        if self.names is None or self.tags is None or (self.length or 0) > self.settings.max_object:
            return False
        authorized = b"authorization" in request.fields
        if not is_storable(self.status, self.fields, self.directives, self.settings, authorized=authorized):
            return False
        times = self.times
        if not times.explicit and not self._may_be_guessed(request):
            return False
        if b"etag" in self.fields or b"last-modified" in self.fields:
            return True
        return times.lifetime + max(times.while_revalidate, times.if_error) > times.age

    def _may_be_guessed(self, request: Request) -> bool:
        """Whether a response without explicit lifetime may be stored: RFC 9111 3, and for everybody."""
        if self.settings.shared and is_personal(request):
            return False
        return self.status in HEURISTIC or b"public" in self.directives


def is_for(request: Request, names: tuple[bytes, ...], secondary: bytes, guarded: bool) -> bool:
    """Whether a request may have a response with these selecting fields, fetched for another one."""
    if guarded and is_personal(request):
        return False
    return not names or secondary_key(request.fields, names) == secondary


def is_personal(request: Request) -> bool:
    """Whether a request has cookies or credentials."""
    return b"cookie" in request.fields or b"authorization" in request.fields
