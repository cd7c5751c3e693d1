"""The dashboard for WSGI."""

from __future__ import annotations

from time import monotonic

from headgate.adapters._exempt import is_exempt
from headgate.adapters.dashboard._access import checked_allow
from headgate.adapters.dashboard._feed import event
from headgate.adapters.dashboard._pages import (
    COMMENT,
    EVENTS,
    LONGEST,
    PATIENCE,
    Pages,
    busy,
    forbidden,
    stream_fields,
)
from headgate.adapters.wsgi._refusal import refuse, texts
from headgate.adapters.wsgi._request import WSGIRequest, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

    from headgate.adapters.dashboard._access import Allow
    from headgate.adapters.dashboard._masking import Mask


class WSGIDashboard:
    """The dashboard as a WSGI application: see ``headgate.adapters.dashboard.wsgi``."""

    __slots__ = ("_allow", "_pages")

    def __init__(self, source: Any, *, allow: Allow, trusted: Iterable[object] | int, mask: Mask,
                 every: float, viewers: int) -> None:
        self._allow = checked_allow(allow, trusted, False)
        self._pages = Pages(source, mask, every, viewers)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not is_exempt(self._allow, WSGIRequest(environ), "allow"):
            return refuse(environ, start_response, *forbidden())
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if path == EVENTS and method == "GET":
            return self._stream(environ, start_response)
        response = self._pages.respond(method, path, decoded(environ.get("SCRIPT_NAME", "")))
        return refuse(environ, start_response, *response)

    def _stream(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Each viewer takes a thread of the server, so those that have but one let the page poll."""
        if not environ.get("wsgi.multithread") or not self._pages.feed.enter():
            return refuse(environ, start_response, *busy())
        stream = _Stream(self._pages)
        try:
            start_response("200 OK", texts(stream_fields()))
        except BaseException:
            stream.close()
            raise
        return stream


class _Stream:
    """The parts of a stream, each when there is news; the place of the viewer is freed by ``close``."""

    __slots__ = ("_end", "_feed", "_is_open", "_pages", "_seen")

    def __init__(self, pages: Pages) -> None:
        self._pages, self._feed = pages, pages.feed
        self._end = monotonic() + LONGEST
        self._seen: int | None = None
        self._is_open = True

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> bytes:
        if not self._is_open or monotonic() >= self._end:
            raise StopIteration
        changes = self._feed.changes
        if self._seen is None:
            part = self._pages.opening()
            self._seen = changes.number
            return part
        changed = changes.wait(self._seen, PATIENCE)
        self._seen = changes.number
        return event(self._feed.latest()) if changed else COMMENT

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._feed.leave()

    def __del__(self) -> None:
        self.close()
