"""The log of purges of another process, which has a `PurgeLog`, by HTTP: read every few seconds."""

from __future__ import annotations

import json
from typing import Any


class PolledLog:
    """What `AsyncPurges` follows. `url` is the page ``/.edge/purges`` of the process that has the log."""

    def __init__(self, session: Any, url: str, token: str) -> None:
        self._session, self._url = session, url
        self._headers = {"Authorization": f"Bearer {token}"}

    async def append(self, url: str | None = None, **purge: Any) -> tuple[int, dict[str, Any]]:
        """Add a purge there."""
        wanted = {name: value for name, value in {"url": url, **purge}.items() if value is not None}
        added = await self._json("POST", json=wanted)
        return added["number"], added["record"]

    async def read(
        self, position: tuple[str, int] | None, wait: float = 0.0
    ) -> tuple[str, int, list[tuple[int, dict[str, Any]]]]:
        """What came after a position."""
        epoch, after = position or ("", 0)
        epoch, last, records = await self._json("GET", params={"epoch": epoch, "after": after})
        return epoch, last, [(number, record) for number, record in records]

    async def _json(self, method: str, **options: Any) -> Any:
        async with self._session.request(
            method, self._url, headers=self._headers, raise_for_status=True, **options
        ) as reply:
            return json.loads(await reply.text())
