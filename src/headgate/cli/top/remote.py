"""The document of a dashboard that runs elsewhere."""

import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from headgate.cli.errors import CommandError

_SCHEMA, _VERSION = "headgate.dashboard", 1
_TIMEOUT = 5.0
_LONGEST = 16 * 2**20


class _NoRedirects(HTTPRedirectHandler):
    """Fields of a request may be secrets, which are for the server that was named."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


class Remote:
    """A dashboard at a URL, asked with some header fields."""

    def __init__(self, url: str, fields: dict[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"--url must be an http URL of a dashboard, got {url!r}")
        if not parts.path.endswith(".json"):
            parts = parts._replace(path=f"{parts.path.rstrip('/')}/data.json")
        self._url = parts.geturl()
        self._fields = fields
        self._open = build_opener(_NoRedirects).open

    def read(self) -> dict[str, Any]:
        """The newest document. Raises CommandError if there is none."""
        try:
            with self._open(Request(self._url, headers=self._fields), timeout=_TIMEOUT) as response:
                content = response.read(_LONGEST + 1)
        except HTTPError as error:
            error.close()
            raise CommandError(f"{self._url}: {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            raise CommandError(f"{self._url}: {getattr(error, 'reason', error)}") from error
        return self._checked(content)

    def _checked(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content) if len(content) <= _LONGEST else None
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("schema") != _SCHEMA:
            raise CommandError(f"{self._url} is not data.json of a dashboard")
        if document.get("version") != _VERSION:
            raise CommandError(f"{self._url} has version {document.get('version')!r}, not {_VERSION}")
        return document
