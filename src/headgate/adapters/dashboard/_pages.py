"""What the paths of the dashboard are, for all hosts."""

from __future__ import annotations

from collections import namedtuple
from pkgutil import get_data
from urllib.parse import quote

from headgate._base.checks import checked_int, checked_number
from headgate.adapters.dashboard._documents import Documents
from headgate.adapters.dashboard._feed import Feed, event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from headgate.adapters.dashboard._masking import Mask

    Fields = list[tuple[bytes, bytes]]

    class Response(NamedTuple):
        status: int
        fields: Fields
        body: bytes
else:
    Response = namedtuple("Response", "status fields body")

EVENTS, DATA = "/events", "/data.json"
LONGEST = 600.0
"""After how many seconds a stream ends, so that the browser asks again, and is admitted again or not."""
PATIENCE = 5.0
"""How many seconds a stream waits for a document before it sends a comment, by which a lost client shows."""
COMMENT = b": no news\n\n"
_LEAST_INTERVAL, _MOST_INTERVAL, _MOST_VIEWERS = 0.1, 60.0, 10_000
_KINDS = {
    "/": ("page.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", b"image/svg+xml"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}
_SECURITY: Fields = [
    (b"cache-control", b"no-store, no-transform"),
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
     b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class Pages:
    """The dashboard without its host: checked arguments, the paths, and the feed of all viewers."""

    __slots__ = ("_files", "feed")

    def __init__(self, source: Any, mask: Mask, every: float, viewers: int) -> None:
        seconds = float(checked_number("every", every))
        if not _LEAST_INTERVAL <= seconds <= _MOST_INTERVAL:
            raise ValueError(f"every must be in [{_LEAST_INTERVAL}, {_MOST_INTERVAL}] seconds, got {every!r}")
        if not 0 <= checked_int("viewers", viewers) <= _MOST_VIEWERS:
            raise ValueError(f"viewers must be in [0, {_MOST_VIEWERS}], got {viewers!r}")
        self.feed = Feed(Documents(source, mask, seconds).take, seconds, viewers)
        self._files = {path: _file(name, kind) for path, (name, kind) in _KINDS.items()}

    def respond(self, method: str, path: str, mount: str) -> Response:
        """The response to a request for anything but a stream; `path` is relative to the `mount`."""
        if method not in ("GET", "HEAD"):
            return _text(405, b"Only GET and HEAD are allowed.", (b"allow", b"GET, HEAD"))
        if not path:
            return _text(308, b"", (b"location", _with_slash(mount)))
        if path == DATA:
            return _response(200, b"application/json", self.feed.current())
        if path == EVENTS:
            return Response(200, stream_fields(), b"")
        return self._files.get(path) or _text(404, b"Not found.")

    def opening(self) -> bytes:
        """What a stream begins with."""
        document = self.feed.current()
        return b"retry: 2000\n\n" + event(self.feed.past(), "past") + event(document)


def forbidden() -> Response:
    """The response to those who may not look."""
    return _text(403, b"Forbidden. Who may look is what the argument allow= says.")


def busy() -> Response:
    """The response to a viewer who is one too many; the page polls then."""
    return _text(503, b"Too many viewers.", (b"retry-after", b"30"))


def stream_fields() -> Fields:
    """The header fields of a stream, which nothing on the way is to hold back."""
    return [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"), *_SECURITY]


def relative(path: str, mount: str) -> str:
    """A path within a mount, whether or not the host has left the mount in it.

    >>> relative("/ops/data.json", "/ops"), relative("/data.json", "/ops"), relative("/opsdata", "/ops")
    ('/data.json', '/data.json', '/opsdata')
    >>> relative("/ops", "/ops"), relative("/", "")
    ('', '/')
    """
    mount = mount.rstrip("/")
    if mount and (path == mount or path.startswith(f"{mount}/")):
        return path[len(mount):]
    return path


def _with_slash(mount: str) -> bytes:
    """The mount with a slash after it, relative to itself, wherever a proxy may have put it."""
    return f"./{quote(mount.rstrip('/').rpartition('/')[2], safe='')}/".encode()


def _file(name: str, kind: bytes) -> Response:
    content = get_data(__package__, name)
    if content is None:
        raise FileNotFoundError(f"{name} is missing beside {__file__}")
    return _response(200, kind, content)


def _text(status: int, body: bytes, *fields: tuple[bytes, bytes]) -> Response:
    return _response(status, b"text/plain; charset=utf-8", body, *fields)


def _response(status: int, kind: bytes, body: bytes, *fields: tuple[bytes, bytes]) -> Response:
    length = b"%d" % len(body)
    return Response(
        status, [(b"content-type", kind), (b"content-length", length), *fields, *_SECURITY], body)
