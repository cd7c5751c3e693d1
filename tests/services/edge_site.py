"""A site behind the example: origins whose responses are known, and edges in front of them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from functools import lru_cache
from http.client import HTTPConnection

import aiohttp
import edge
import yaml
from aiohttp import WSMsgType, web
from servers import Port, Workers
from watchdog import PATIENCE

MINUTE = {"Cache-Control": "max-age=60", "Content-Type": "text/plain"}
LARGE = 5_000_000


@lru_cache
def content(name, size):
    """Bytes that tell where they are from and at which place."""
    row = b"%b %%012d\n" % name.encode()
    width = len(row % 0)
    return b"".join([row % number for number in range(size // width + 1)])[:size]


class SiteOrigin:
    """An HTTP server in a thread. `requests` counts what it was asked for, `ended` are endless responses that
    have ended, ``/version`` returns `version`."""

    def __init__(self):
        self.requests = Counter()
        self.seen = []
        self.ended = set()
        self.version = 1
        self.broken = False
        self._port = Port()
        self.port = self._port.number
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *failure):
        self.kill()
        self._port.release()

    def kill(self):
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(PATIENCE)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self):
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{name:.*}", self._answer)
        runner = web.AppRunner(
            app, shutdown_timeout=0.05, handle_signals=False, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request):
        name = request.match_info["name"].partition("/")[0]
        self.requests[request.method, request.path] += 1
        self.seen.append(request)
        if self.broken:
            return web.Response(status=503, text="broken")
        return await getattr(self, f"_{name}")(request)

    async def _version(self, request):
        fields = {"Cache-Control": "max-age=600", "Cache-Tag": "news", "ETag": f'"{self.version}"'}
        return web.Response(text=str(self.version), headers=fields)

    async def _file(self, request):
        size = int(request.path.rpartition("/")[2])
        body = content("file", size)
        fields = {"ETag": f'"{size}"', "Accept-Ranges": "bytes", "Content-Type": "text/plain"}
        if "stored" in request.query_string:
            fields |= MINUTE
        response = web.Response(body=body, headers=fields)
        if "Range" in request.headers and request.http_range.start is not None:
            part = request.http_range
            stop = size if part.stop is None else part.stop
            start = part.start if part.start >= 0 else size + part.start
            response = web.Response(body=body[start:stop], status=206, headers={
                **fields, "Content-Range": f"bytes {start}-{min(stop, size) - 1}/{size}"})
        return response

    async def _chunked(self, request):
        response = web.StreamResponse(headers=MINUTE)
        response.enable_chunked_encoding()
        await response.prepare(request)
        if request.method != "HEAD":
            for number in range(20):
                await response.write(content(f"chunk {number}", 1000 + number))
        await response.write_eof()
        return response

    async def _status(self, request):
        status = int(request.path.rpartition("/")[2])
        return web.Response(status=status, text=f"status {status}", headers={"X-Of": "origin"})

    async def _cut(self, request):
        """A body that ends before its end."""
        response = web.StreamResponse(headers=MINUTE)
        if "chunked" in request.path:
            response.enable_chunked_encoding()
        else:
            response.content_length = 200_000
        await response.prepare(request)
        await response.write(bytes(100_000))
        await asyncio.sleep(0.02)
        request.transport.abort()
        return response

    async def _echo(self, request):
        return web.Response(body=await request.read())

    async def _slow(self, request):
        await asyncio.sleep(float(request.path.rpartition("/")[2]))
        return web.Response(text="slow")

    async def _endless(self, request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(2**16))
                self.requests["parts", request.path] += 1
        finally:
            self.ended.add(request.path)

    async def _fields(self, request):
        return web.json_response([[name, value] for name, value in request.headers.items()])

    async def _ws(self, request):
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data[::-1])
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket


def document(origins, redis_port, **changes):
    """A document of the example with other servers."""
    servers = [origin if isinstance(origin, str) else origin.url for origin in origins]
    made = {
        "stores": {"redis": {"url": f"redis://127.0.0.1:{redis_port}/0", "on_error": "allow"}},
        "balancers": {"origins": {"kind": "round_robin", "servers": servers, "max_failures": 2,
                                  "ejection_time": "60 s"}},
        "http": {"cache": {"maxsize": "64 MiB", "stale_if_error": 60}, "trusted": ["127.0.0.1"]},
        "x-edge": {
            "routes": [{"to": "origins", "idle": 2.0, "head": 2.0}],
            "operators": ["127.0.0.0/8"], "purges": {"store": "redis", "name": f"edge-{os.urandom(4).hex()}"},
            "token": "secret",
        },
    }
    for name, value in changes.items():
        place = made
        *parents, last = name.split("__")
        for parent in parents:
            place = place[parent.replace("x_", "x-")]
        place[last] = value
    return made


class EdgeServer(Workers):
    """A point of presence, or a parent, with a document of its own."""

    def __init__(self, folder, name, made, *options, parents=()):
        self.config = folder / f"{name}.yaml"
        self.write(made)
        command = [sys.executable, edge.__file__, "--config", str(self.config), "--pop", name, "--no-log",
                   "--head-timeout", "1", *options]
        for parent in parents:
            command += ["--parent", f"http://127.0.0.1:{parent.port}"]
        super().__init__(lambda port: [*command, "--port", str(port)])

    def write(self, made):
        """Replace the document, which its server reads again."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(made))
        fresh.replace(self.config)

    def get(self, path, method="GET", body=None, *, source=None, **fields):
        """Status, fields and body of a response; of several fields of a name the values are joined."""
        address = None if source is None else (source, 0)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE, source_address=address)
        try:
            headers = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, path, body, {"Host": "site.test", **headers})
            response = connection.getresponse()
            joined = {name.lower(): ", ".join(response.headers.get_all(name)) for name in response.headers}
            return response.status, joined, response.read()
        finally:
            connection.close()

    def worker(self):
        """The process that serves, of one worker."""
        command = ["pgrep", "-g", str(self._process.pid)]
        return max(map(int, subprocess.run(command, capture_output=True, check=True).stdout.split()))

    def end(self):
        """End it as an operator does, with its workers."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)

    def purge(self, **wanted):
        """Purge everywhere; the number of the purge."""
        status, _, body = self.get("/.edge/purges", "POST", json.dumps(wanted), Authorization="Bearer secret")
        assert status == 200, body
        return json.loads(body)["number"]

    def health(self):
        return json.loads(self.get("/.edge/health")[2])

    async def talk(self):
        """Both ways through a WebSocket of the origin's, of the subprotocol chat."""
        url, fields = f"http://127.0.0.1:{self.port}/ws", {"Host": "site.test"}
        async with aiohttp.ClientSession() as session, session.ws_connect(
                url, headers=fields, protocols=("chat",)) as socket:
            assert socket.protocol == "chat"
            await socket.send_str("headgate")
            assert (await socket.receive_str()) == "etagdaeh"
            large = content("ws", 300_000)
            await socket.send_bytes(large)
            assert (await socket.receive_bytes()) == large

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
