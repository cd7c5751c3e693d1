"""The section of the middlewares of an application."""

from __future__ import annotations

from headgate.config.fields._caching import HTTP_CACHE
from headgate.config.fields._compounds import Either, Extractor, ListOf, MapOf
from headgate.config.fields._field import Field, Record
from headgate.config.fields._kinds import Choice, Flag, Name, Number, Text, Whole, Wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from headgate.config.fields._field import Found


class _Pattern(Text):
    """A path, or a pattern of paths."""

    def convert(self, value: Any) -> str:
        if isinstance(value, str) and value.startswith(("/", "*")):
            return value
        raise Wrong(f"expected {self.text}", 'write for example "/healthz" or "/static/*"')


_PATTERNS = ListOf(_Pattern("a path or a pattern of paths"))


def _limit(fields: Mapping[str, Any]) -> Found:
    if fields["limit"] is None and fields["keys"] is not None:
        yield "keys", "not without a limit", "write limit: and a name"
    if fields["limit"] is not None and fields["keys"] is None:
        yield "limit", "needs keys", "write for example keys: client"


_FIELDS = (
    Field("limit", Name("levels", "limits"), "the limit of requests"),
    Field("keys", Either(Extractor(), mapping=MapOf(Extractor())),
          "the key of a request, or one for each level"),
    Field("trusted", Either(Whole(0, 1000), ListOf(Text("an address or a network"))),
          "the proxies, for client: addresses and networks, or how many there are", ()),
    Field("client_header", Text("the name of a field"), "the field that they write", "X-Forwarded-For"),
    Field("v4", Whole(0, 32), "the bits of IPv4 by which client tells clients apart", 32),
    Field("v6", Whole(0, 128), "the bits of IPv6 by which client tells clients apart", 64),
    Field("cost", Number(0), "the cost of a request", 1),
    Field("exempt", _PATTERNS, "the paths that are not limited; * is any text", ()),
    Field("headers", Choice("draft", "legacy", "both", meaning={"none": None}), "the fields of a response",
          "draft"),
    Field("dry_run", Flag(), "whether denials are only counted", False),
    Field("shed", Name("concurrency"), "the limit of requests in flight"),
    Field("priority", Extractor(), "the priority of a request"),
    Field("shed_exempt", _PATTERNS, "the paths that are not shed", ()),
    Field("retry_after", Whole(0, 10**9), "the seconds after which a shed client may try again", 1),
    Field("websockets", Flag(), "whether WebSockets are shed too", False),
    Field("cache", Either(Name("http_caches"), mapping=HTTP_CACHE),
          "the cache of responses: a name in http_caches, or fields as there"),
    Field("cache_exempt", _PATTERNS, "the paths that are not cached", ()),
)
HTTP = Record("http", *[field._replace(live=True) for field in _FIELDS], checks=(_limit,))
