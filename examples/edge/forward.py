"""A forward proxy: absolute-form requests and CONNECT, to the hosts and ports of an allow-list.

    python examples/edge/forward.py --allow example.com:443 --allow '*.example.org:80,443' --port 3128

Each connection carries one request, so nothing that a client sends can be taken for a second one. The proxy
connects to the very address that it has resolved and checked: no name leads to the inside.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import re
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import yaml
from heads import BadMessage, Head, authority, passed_on, read_chunks
from names import Names

from headgate import LRUCache, RateLimiter, TokenBucket, address_prefix

MOST_HEAD = 16 * 1024
MOST_REFUSED = 100
PIECE = 64 * 1024
NAT64, COMPATIBLE = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96")
UNICAST6 = ipaddress.ip_network("2000::/3")
SPECIAL = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")]
"""Networks of the registries of IANA that not every version of ipaddress knows."""
STATUSES = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass
class Settings:
    """Names to allow, as ``host:port,port`` with ``*.`` for subdomains; times in seconds.

    `inside` are networks that may be connected to although they are not public. Each client, a network of
    `client_bits`, may send requests at `rate` and hold `connections`, and all its connections together pass
    `bytes_per_second`. `mask` are the bits of addresses of clients in the audit log.
    """

    allow: list[str]
    inside: list[str] = field(default_factory=list)
    rate: str = "20/s; 300/min"
    connections: int = 50
    most_connections: int = 1000
    bytes_per_second: int = 50_000_000
    client_bits: tuple[int, int] = (32, 64)
    head_timeout: float = 10.0
    connect_timeout: float = 5.0
    idle_timeout: float = 30.0
    total_timeout: float = 600.0
    mask: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        lists = self.allow, self.inside
        if not all(isinstance(each, list) for each in lists):
            raise ValueError(f"x-forward: allow and inside must be lists, got {lists}")
        numbers = (
            self.connections, self.most_connections, self.bytes_per_second, self.head_timeout,
            self.connect_timeout, self.idle_timeout, self.total_timeout,
        )
        if not all(isinstance(number, (int, float)) and number > 0 for number in numbers):
            raise ValueError(f"x-forward: times, rates and counts must be positive numbers, got {numbers}")
        for bits in (self.client_bits, self.mask):
            if bits is not None:
                v4, v6 = bits
                address_prefix("192.0.2.1", v4, v6)

    @classmethod
    def parse(cls, text: str | bytes) -> Settings:
        """The part ``x-forward`` of a document. Raises ValueError or TypeError."""
        try:
            return cls(**yaml.safe_load(text)["x-forward"])
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise ValueError(f"x-forward: {error}") from None


class Refused(Exception):
    """A request that gets a status instead, with its error of RFC 9209."""

    def __init__(self, status: int, error: str, retry_after: float | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.retry_after = status, error, retry_after


class AllowList:
    """Hosts by name, each with ports."""

    def __init__(self, entries: list[str]) -> None:
        self._ports: dict[str, frozenset[int]] = {}
        for entry in entries:
            host, _, ports = entry.rpartition(":") if re.search(r":[\d,]+$", entry) else (entry, "", "80,443")
            self._ports[host.lower().strip("[]")] = frozenset(map(int, ports.split(",")))

    def permits(self, host: str, port: int) -> bool:
        """Whether the host, or a ``*.`` above it, is allowed at that port."""
        labels = host.split(".")
        names = [host, *("*." + ".".join(labels[at:]) for at in range(1, len(labels)))]
        return any(port in self._ports.get(name, ()) for name in names)


def embedded(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address stands for, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and (address in NAT64 or (address in COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    return inner or address


def is_public(text: str) -> bool:
    """Whether an address belongs to a host of the internet, and to no special network.

    >>> [is_public(text) for text in ("192.0.2.1", "::ffff:127.0.0.1", "169.254.169.254", "1.1.1.1")]
    [False, False, False, True]
    """
    address = embedded(ipaddress.ip_address(text.partition("%")[0]))
    if address.version == 6 and address not in UNICAST6:
        return False
    if any(address in network for network in SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class Exchange:
    """One connection of a client, with what the audit log says of it."""

    def __init__(self, client: str) -> None:
        self.client, self.began = client, time.time()
        self.method = self.host = self.address = ""
        self.port = self.status = self.up = self.down = 0
        self.reason = ""


class ForwardProxy:
    """The server. Its counters are in `counts`; `audit` gets a line of JSON for each connection."""

    def __init__(self, settings: Settings, names: Names, audit: TextIO | None = None) -> None:
        self.counts = Counter[str]()
        self._names, self._audit = names, audit
        self._requests = RateLimiter(settings.rate, max_keys=100_000)
        self.change(settings)
        self._buckets: LRUCache[str, TokenBucket] = LRUCache(10_000)
        self._open = Counter[str]()
        self._refused = 0

    def change(self, settings: Settings) -> None:
        """Take other settings, for connections to come; what clients owe stays. Raises ValueError."""
        allow = AllowList(settings.allow)
        inside = [ipaddress.ip_network(network) for network in settings.inside]
        self._requests.reconfigure(settings.rate)
        self.settings, self._allow, self._inside = settings, allow, inside

    async def follow(self, path: Path) -> None:
        """Change as the part ``x-forward`` of a document does; one that is not valid is only reported."""
        text = path.read_bytes()
        while True:
            await asyncio.sleep(0.5)
            with suppress(OSError):
                before, text = text, await asyncio.to_thread(path.read_bytes)
                if text != before:
                    try:
                        self.change(Settings.parse(text))
                    except (ValueError, TypeError) as error:
                        print(json.dumps({"error": str(error)}), file=self._audit or sys.stderr, flush=True)

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen; the server is returned."""
        return await asyncio.start_server(self._accept, host, port, limit=MOST_HEAD)

    @property
    def open(self) -> int:
        """The connections of clients that are open, also those that are being refused."""
        return self._open.total() + self._refused

    def _client(self, writer: asyncio.StreamWriter) -> str:
        return address_prefix(writer.get_extra_info("peername")[0], *self.settings.client_bits)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, and close it whatever happens."""
        exchange = Exchange(self._client(writer))
        if self._is_full(exchange.client):
            await self._turn_away(reader, writer, exchange)
            return
        self._open[exchange.client] += 1
        try:
            async with asyncio.timeout(self.settings.total_timeout):
                await self._serve(reader, writer, exchange)
            await self._close(writer)
        except Refused as refusal:
            exchange.status, exchange.reason = refusal.status, refusal.error
            await refuse(reader, writer, refusal)
        except (TimeoutError, OSError, BadMessage, asyncio.IncompleteReadError) as error:
            exchange.reason = exchange.reason or str(error) or type(error).__name__
        finally:
            writer.transport.abort()
            self._open[exchange.client] -= 1
            if not self._open[exchange.client]:
                del self._open[exchange.client]
            self._log(exchange)

    async def _turn_away(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: Exchange
    ) -> None:
        """Refuse a connection, which is not counted: a client with too many would take those of others."""
        refusal = Refused(503, "connection_limit_reached", 1.0)
        exchange.status, exchange.reason = refusal.status, refusal.error
        self._refused += 1
        try:
            if self._refused <= MOST_REFUSED:
                await refuse(reader, writer, refusal)
        finally:
            writer.transport.abort()
            self._refused -= 1
            self._log(exchange)

    async def _close(self, writer: asyncio.StreamWriter) -> None:
        """Let the client read the rest, for as long as it may be idle."""
        async with asyncio.timeout(self.settings.idle_timeout):
            writer.close()
            await writer.wait_closed()

    def _log(self, exchange: Exchange) -> None:
        self.counts[str(exchange.status or "aborted")] += 1
        if self._audit is None:
            return
        client = exchange.client.partition("/")[0]
        if self.settings.mask is not None:
            client = address_prefix(client, *self.settings.mask)
        record = {**vars(exchange), "client": client, "seconds": round(time.time() - exchange.began, 3)}
        print(json.dumps(record), file=self._audit, flush=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: Exchange
    ) -> None:
        head = await self._read_head(reader)
        decision = self._requests.decide(exchange.client)
        if not decision:
            raise Refused(429, "http_request_denied", decision.retry_after)
        exchange.method = head.method
        try:
            exchange.host, exchange.port, target = destination(head)
            length = head.body_length()
        except BadMessage as error:
            raise Refused(400, "http_request_error") from error
        if not self._allow.permits(exchange.host, exchange.port):
            raise Refused(403, "http_request_denied")
        if head.method == "TRACE":
            raise Refused(501, "http_request_denied")
        if head.method == "OPTIONS" and head.forwards_left() == 0:
            exchange.status = 204
            writer.write(Head.bytes_of("HTTP/1.1 204 No Content", own_fields(head)))
            return
        origin = await self._connect(exchange)
        try:
            async with asyncio.timeout(self.settings.idle_timeout) as idle:
                relay = Relay(self._bucket(exchange.client), idle, self.settings.idle_timeout, exchange)
                if head.method == "CONNECT":
                    await relay.tunnel((reader, writer), origin)
                else:
                    await relay.request(head, target, length, (reader, writer), origin)
        except TimeoutError as error:
            if exchange.status:
                raise
            raise Refused(504, "http_response_timeout") from error
        finally:
            origin[1].transport.abort()

    def _is_full(self, client: str) -> bool:
        settings = self.settings
        return self._open[client] >= settings.connections or self._open.total() >= settings.most_connections

    async def _read_head(self, reader: asyncio.StreamReader) -> Head:
        try:
            async with asyncio.timeout(self.settings.head_timeout):
                return Head.request(await reader.readuntil(b"\r\n\r\n"))
        except BadMessage as error:
            raise Refused(400, "http_request_error") from error
        except asyncio.LimitOverrunError as error:
            raise Refused(431, "http_request_error") from error
        except TimeoutError as error:
            raise Refused(408, "http_request_error") from error

    def _bucket(self, client: str) -> TokenBucket:
        rate = self.settings.bytes_per_second
        bucket = self._buckets.get_or_load(client, lambda _: TokenBucket(max(rate, PIECE), rate))
        if bucket.refill_rate != rate:
            bucket.reconfigure(max(rate, PIECE), rate)
        return bucket

    async def _connect(self, exchange: Exchange) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to one of the addresses of the host, each checked before it is used."""
        loop, refusal, late = asyncio.get_running_loop(), Refused(502, "dns_error"), "dns_timeout"
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                found = await self._names.addresses(exchange.host, exchange.port)
                late = "connection_timeout"
                for family, address in found:
                    if not self._may_reach(address[0]):
                        refusal = Refused(403, "destination_ip_prohibited")
                        continue
                    connection = socket.socket(family, socket.SOCK_STREAM)
                    connection.setblocking(False)
                    try:
                        await loop.sock_connect(connection, address)
                    except OSError:
                        connection.close()
                        refusal = Refused(502, "connection_refused")
                    except BaseException:
                        connection.close()
                        raise
                    else:
                        exchange.address = address[0]
                        return await asyncio.open_connection(sock=connection, limit=MOST_HEAD)
        except TimeoutError as error:
            raise Refused(504, late) from error
        except (OSError, UnicodeError) as error:
            raise Refused(502, "dns_error") from error
        raise refusal

    def _may_reach(self, address: str) -> bool:
        inner = embedded(ipaddress.ip_address(address.partition("%")[0]))
        return is_public(address) or any(inner in network for network in self._inside)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """What passes between a client and an origin, at the rate of the client's bucket."""

    def __init__(
        self, bucket: TokenBucket, idle: asyncio.Timeout, seconds: float, exchange: Exchange
    ) -> None:
        self._bucket, self._idle, self._seconds, self._exchange = bucket, idle, seconds, exchange
        self._delayed = 0

    def _moved(self) -> None:
        """Begin the idle time anew; there is none while data waits for the bucket."""
        if not self._idle.expired():
            ends = asyncio.get_running_loop().time() + self._seconds
            self._idle.reschedule(None if self._delayed else ends)

    async def _shaped(self, data: bytes) -> None:
        self._delayed += 1
        self._moved()
        try:
            await self._bucket.acquire_async(len(data))
        finally:
            self._delayed -= 1
        self._moved()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        await self._shaped(data)
        writer.write(data)
        await writer.drain()
        self._moved()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        counter: str,
        most: int | None = None,
    ) -> None:
        """Pass on what comes until the end, or `most` bytes, fewer of which are an error."""
        left = most
        while left is None or left:
            data = await reader.read(PIECE if left is None else min(PIECE, left))
            if not data:
                if left is not None:
                    raise BadMessage("the body ended before its length")
                return
            setattr(self._exchange, counter, getattr(self._exchange, counter) + len(data))
            await self._send(writer, data)
            left = None if left is None else left - len(data)

    async def tunnel(self, client: Streams, origin: Streams) -> None:
        """Bytes in both directions, each until its own end."""
        self._exchange.status = 200
        await self._send(client[1], b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with asyncio.TaskGroup() as both:
            both.create_task(self._half(client[0], origin[1], "up"))
            both.create_task(self._half(origin[0], client[1], "down"))

    async def _half(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        try:
            await self._pump(reader, writer, counter)
            writer.write_eof()
        except OSError:
            writer.transport.abort()  # which ends the other direction

    async def request(
        self, head: Head, target: str, length: int | None, client: Streams, origin: Streams
    ) -> None:
        """One request and its response. The origin's connection ends with it, as it is told."""
        fields = [("Host", head.one("host")), *passed_on(head), *own_fields(head)]
        if length is None:
            fields.append(("Transfer-Encoding", "chunked"))
        await self._send(origin[1], Head.bytes_of(f"{head.method} {target} HTTP/1.1", fields))
        upload = asyncio.create_task(self._upload(client[0], origin[1], length))
        try:
            await self._download(head, origin[0], client[1])
        finally:
            upload.cancel()
            await asyncio.wait([upload])

    async def _upload(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None
    ) -> None:
        """The body of a request. One that is cut or malformed ends the connection to the origin."""
        try:
            if length is not None:
                await self._pump(reader, writer, "up", length)
                return
            async for data in read_chunks(reader):
                self._exchange.up += len(data)
                await self._send(writer, b"%x\r\n%b\r\n" % (len(data), data))
            await self._send(writer, b"0\r\n\r\n")
        except (BadMessage, OSError, asyncio.IncompleteReadError, ValueError) as error:
            if isinstance(error, OSError) and reader.exception() is None:
                return  # the origin reads no more, and may have responded
            self._exchange.reason = f"body of the request: {error}"
            writer.transport.abort()

    async def _download(
        self, request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The response; a client of HTTP/1.0 gets no interim ones and no chunks (RFC 9110 15.2, 9112 6.1)."""
        while True:
            try:
                head = Head.response(await reader.readuntil(b"\r\n\r\n"))
                length = head.body_length()
            except (BadMessage, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise Refused(400 if self._exchange.reason else 502, "http_protocol_error") from error
            if not 100 <= head.status < 200 or head.status == 101:
                break
            if request.minor:
                line = f"HTTP/1.1 {head.status} {head.reason}"
                await self._send(writer, Head.bytes_of(line, passed_on(head)))
        if head.status == 101:
            raise Refused(502, "http_upgrade_failed")
        self._exchange.status = head.status
        fields = [*passed_on(head), *own_fields(head)]
        if head.has("transfer-encoding") and request.minor:
            fields.append(("Transfer-Encoding", "chunked"))
        await self._send(writer, Head.bytes_of(f"HTTP/1.1 {head.status} {head.reason}", fields))
        if request.method == "HEAD" or head.status in (204, 304):
            return
        chunked = head.has("transfer-encoding")
        if not chunked:
            await self._pump(reader, writer, "down", length if head.has("content-length") else None)
            return
        async for data in read_chunks(reader):
            self._exchange.down += len(data)
            await self._send(writer, b"%x\r\n%b\r\n" % (len(data), data) if request.minor else data)
        if request.minor:
            await self._send(writer, b"0\r\n\r\n")


def own_fields(head: Head) -> list[tuple[str, str]]:
    """What this proxy adds to a message."""
    return [("Via", f"1.{head.minor} forward"), ("Connection", "close")]


def destination(head: Head) -> tuple[str, int, str]:
    """Host, port and target of a request. Raises BadMessage for other forms, or for a Host that differs."""
    if head.method == "CONNECT":
        host, port = authority(head.target)
        if port is None:
            raise BadMessage("CONNECT needs a port")
        named = head.target
    else:
        scheme, separator, rest = head.target.partition("://")
        if scheme.lower() != "http" or not separator:
            raise BadMessage("the target must be absolute")
        end = re.search(r"[/?#]|$", rest).start()
        named, path = rest[:end], rest[end:]
        host, port = authority(named)
    wanted = authority(head.one("host"))
    if (wanted[0], wanted[1] or port or 80) != (host, port or 80):
        raise BadMessage("Host must be that of the target")
    if head.method == "CONNECT":
        return host, port, ""
    if "#" in path:
        raise BadMessage("a target has no fragment")
    return host, port or 80, path if path.startswith("/") else f"/{path}"


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, refusal: Refused) -> None:
    """Send a status, and let the client read it although it may not have been read itself."""
    body = f"{refusal.error}\n".encode()
    fields = [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body))),
        ("Proxy-Status", f"forward; error={refusal.error}"),
        ("Connection", "close"),
    ]
    if refusal.retry_after is not None:
        fields.append(("Retry-After", str(int(refusal.retry_after) + 1)))
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            line = f"HTTP/1.1 {refusal.status} {STATUSES[refusal.status]}"
            writer.write(Head.bytes_of(line, fields) + body)
            await writer.drain()
            writer.write_eof()
            for _ in range(64):
                if not await reader.read(PIECE):
                    break


async def main(
    settings: Settings, host: str, port: int, config: str | None, name_servers: list[str]
) -> None:
    """Serve until cancelled."""
    proxy = ForwardProxy(settings, Names(name_servers), sys.stdout)
    async with await proxy.start(host, port) as server, asyncio.TaskGroup() as both:
        both.create_task(server.serve_forever())
        if config is not None:
            both.create_task(proxy.follow(Path(config)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", metavar="FILE", help="a document with x-forward, instead of what follows")
    parser.add_argument("--allow", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--inside", action="append", default=[], metavar="NETWORK")
    parser.add_argument("--name-server", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--rate", default=Settings.rate)
    parser.add_argument("--bytes-per-second", type=int, default=Settings.bytes_per_second)
    parser.add_argument("--mask", action="store_true", help="log the networks of clients, /24 and /48, only")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3128)
    options = parser.parse_args()
    if options.config is not None:
        chosen = Settings.parse(Path(options.config).read_text())
    else:
        chosen = Settings(
            options.allow,
            options.inside,
            options.rate,
            bytes_per_second=options.bytes_per_second,
            mask=(24, 48) if options.mask else None,
        )
    with suppress(KeyboardInterrupt):
        asyncio.run(main(chosen, options.host, options.port, options.config, options.name_server))
