"""Responses to requests that do not reach the application."""

from __future__ import annotations

from http import HTTPStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    Fields = list[tuple[bytes, bytes]]


def texts(fields: Fields) -> list[tuple[str, str]]:
    """Header fields as WSGI has them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def refuse(
    environ: WSGIEnvironment, start_response: StartResponse, status: int, fields: Fields, body: bytes
) -> list[bytes]:
    """Respond to a request with a status, header fields and a body, which a HEAD request does not get."""
    start_response(f"{status} {HTTPStatus(status).phrase}", texts(fields))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
