"""A load on the edge: browsers that follow Zipf's law, check each byte, and go elsewhere when a point fails.

    python examples/edge/browse.py --seconds 30 --file CLASSES.json http://127.0.0.1:8081

Prints one JSON document. Each browser has an address of its own, 127.0.1.x or 127.0.2.x.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from bisect import bisect
from collections import Counter
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

URLS, ALPHA, POSTS = 20_000, 0.9, 0.02
PATIENCE = 10.0
POST = "post"


class Pages:
    """The URLs, by popularity, and what each must contain."""

    def __init__(self, files: list[str], seed: int) -> None:
        self._random = random.Random(seed)
        self._sums = list(accumulate((rank + 1) ** -ALPHA for rank in range(URLS)))
        self._classes = [self._random.randrange(len(files)) for _ in range(URLS)]
        self._bodies = [Path(file).read_bytes() for file in files]

    def next(self) -> tuple[str, bytes]:
        """The path of a page, and its bytes."""
        number = bisect(self._sums, self._random.random() * self._sums[-1])
        kind = self._classes[number]
        return f"/page/{number}/{kind}", self._bodies[kind]


class Connection:
    """One connection of a browser to a point of presence, kept alive."""

    def __init__(self, url: str, source: str) -> None:
        parts = urlsplit(url)
        self._address, self._source = (parts.hostname, parts.port), source
        self._streams: Any = None

    async def request(self, method: str, path: str) -> tuple[int, dict[str, list[str]], bytes]:
        """Status, fields and body. Any failure closes the connection and raises OSError or EOFError."""
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(
                        *self._address, local_addr=(self._source, 0), limit=2**21
                    )
                reader, writer = self._streams
                length = "Content-Length: 2\r\n\r\n{}" if method == "POST" else "\r\n"
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: shop.test\r\n{length}".encode())
                return await self._response(reader)
        except BaseException:
            self.close()
            raise

    async def _response(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, list[str]], bytes]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields: dict[str, list[str]] = {}
        for line in filter(None, lines):
            name, _, value = line.partition(":")
            fields.setdefault(name.lower(), []).append(value.strip())
        if "transfer-encoding" in fields:
            body = await self._chunks(reader)
        else:
            body = await reader.readexactly(int(fields.get("content-length", ["0"])[0]))
        if "close" in fields.get("connection", ()):
            self.close()
        return int(first.split()[1]), fields, body

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readuntil(b"\r\n")
        return b"".join(parts)

    def close(self) -> None:
        """Forget the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """What all browsers have seen: a row (seconds, latency, status, tries, place of the hit) a request."""

    def __init__(self, urls: list[str], pages: Pages, seconds: float, requests: int) -> None:
        self._urls, self._pages, self._left = urls, pages, requests
        self.began = time.monotonic()
        self._end = self.began + seconds
        self.rows: list[tuple[float, float, int, int, str]] = []
        self.wrong = self.bytes = 0

    async def browse(self, number: int, pause: float) -> None:
        """One browser, whose nearest point is that of its number, with `pause` seconds between requests."""
        source = f"127.0.{1 + number % 2}.{1 + number // 2}"
        first = number % len(self._urls)
        order = [Connection(url, source) for url in self._urls[first:] + self._urls[:first]]
        while (now := time.monotonic()) < self._end and self._left > 0:
            self._left -= 1
            await self._request(order, now)
            if pause:
                await asyncio.sleep(random.expovariate(1 / pause))
        for connection in order:
            connection.close()

    async def _request(self, order: list[Connection], began: float) -> None:
        path, body = self._pages.next()
        method = "POST" if random.random() < POSTS else "GET"
        status, tries, place = 0, 0, POST if method == "POST" else ""
        for connection in order:
            tries += 1
            with suppress(OSError, EOFError, TimeoutError):
                status, fields, found = await connection.request(
                    method, path if method == "GET" else "/orders"
                )
                place = place or place_of(fields)
                self.wrong += status == 200 and method == "GET" and found != body
                self.bytes += len(found)
                break
        self.rows.append((began - self.began, time.monotonic() - began, status, tries, place))
        if tries > 1:
            order.append(order.pop(0))  # the one that failed is asked last from now on


def place_of(fields: dict[str, list[str]]) -> str:
    """Which cache had a response: ``pop``, ``parent`` or none, by its Cache-Status."""
    hops = ", ".join(fields.get("cache-status", [])).split(", ")
    hits = [index for index, hop in enumerate(reversed(hops)) if "; hit" in hop]
    return ("pop", "parent")[min(hits[0], 1)] if hits else "origin"


def quantile(values: list[float], share: float) -> float:
    """Of a list that is sorted."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def summary(load: Load) -> dict[str, Any]:
    """The figures of a run."""
    rows = load.rows
    taken = sorted(row[1] for row in rows)
    per_second = []
    for second in range(int(max((row[0] for row in rows), default=0)) + 1):
        part = [row for row in rows if second <= row[0] < second + 1]
        per_second.append(
            {
                "requests": len(part),
                "failed": sum(is_failed(row) for row in part),
                "retried": sum(row[3] > 1 for row in part),
                "p99_ms": round(1000 * quantile(sorted(row[1] for row in part), 0.99), 1),
            }
        )
    return {
        "requests": len(rows),
        "seconds": round(time.monotonic() - load.began, 2),
        "bytes": load.bytes,
        "wrong_bodies": load.wrong,
        "statuses": Counter(str(row[2]) for row in rows),
        "failed": sum(map(is_failed, rows)),
        "failed_posts": sum(is_failed(row) and row[4] == POST for row in rows),
        "retried": sum(row[3] > 1 for row in rows),
        "places": Counter(row[4] for row in rows if row[2] == 200 and row[4] != POST),
        "p50_ms": round(1000 * quantile(taken, 0.5), 2),
        "p99_ms": round(1000 * quantile(taken, 0.99), 2),
        "per_second": per_second,
    }


def is_failed(row: tuple[float, float, int, int, str]) -> bool:
    """Whether a client did not get what it wanted, a limit apart."""
    return row[2] == 0 or row[2] >= 500


async def main(options: argparse.Namespace) -> None:
    """Run all browsers."""
    pages = Pages(json.loads(Path(options.file).read_text()), options.seed)
    load = Load(options.url, pages, options.seconds, options.requests)
    await asyncio.gather(
        *(load.browse(number, options.pause) for number in range(options.browsers)),
        *(load.browse(200 + number, 0.0) for number in range(options.greedy)),
    )
    print(json.dumps(summary(load)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="+")
    parser.add_argument("--file", required=True, help="a JSON list of the files that pages consist of")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--requests", type=int, default=10**9, help="or less, after so many")
    parser.add_argument("--browsers", type=int, default=40)
    parser.add_argument("--greedy", type=int, default=0, help="how many more never pause")
    parser.add_argument("--pause", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
