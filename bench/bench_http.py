"""What headgate costs in web services, beside what people use: ``python bench/bench_http.py [PART...]``.

Each figure is the CPU time of a request over that of the same application without the part, the least of many
interleaved rounds; servers are measured in turns. A part is a function in `PARTS`.
"""

import asyncio
import io
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from fastapi import Depends, FastAPI, Request, Response
from slowapi import Limiter
from slowapi import util as slowapi_util
from slowapi.middleware import SlowAPIASGIMiddleware
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate import ConcurrencyLimiter, RateLimiter, RateLimits
from headgate.adapters import wsgi
from headgate.adapters.asgi import CacheMiddleware, RateLimitMiddleware, ShedMiddleware
from headgate.adapters.fastapi import RateLimit
from headgate.adapters.keys import client, header
from headgate.cli.bench.interleave import Candidate, Comparison, clock, compare

ROUNDS, REQUESTS, SECONDS = 300, 50, 20
WINDOW, WINDOWS, CONNECTIONS = 1.0, 7, 16
PLENTY = "1000000000/min"
HEADERS = [
    (b"host", b"example.com"), (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"text/html"),
    (b"accept-encoding", b"gzip, br"), (b"accept-language", b"en"), (b"connection", b"keep-alive"),
    (b"x-forwarded-for", b"203.0.113.9"), (b"x-user", b"ann"),
]
SCOPE = {
    "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
    "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "headers": HEADERS,
    "client": ("10.0.0.1", 50000), "server": ("127.0.0.1", 80), "extensions": {},
}
ENVIRON = {
    "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "",
    "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
    "REMOTE_ADDR": "10.0.0.1", "wsgi.version": (1, 0), "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
    "wsgi.url_scheme": "http", "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
    **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in HEADERS},
}


async def hello(scope, receive, send):
    """The plainest application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def endpoint(request):
    return PlainTextResponse("hello")


def starlette():
    return Starlette(routes=[Route("/", endpoint)])


def with_slowapi():
    app = starlette()
    app.state.limiter = Limiter(slowapi_util.get_remote_address, default_limits=["1000000000/minute"],
                                headers_enabled=True)
    app.add_middleware(SlowAPIASGIMiddleware)
    return app


def limited(app, limits=PLENTY, **options):
    return RateLimitMiddleware(app, limits, **{"keys": client()} | options)


def two_levels(app):
    keys = {"ip": client(trusted=["10.0.0.0/8"]), "user": header("x-user")}
    return RateLimitMiddleware(app, RateLimits(ip=PLENTY, user=PLENTY), keys=keys)


def fastapi(*dependencies):
    app = FastAPI()

    @app.get("/", dependencies=list(dependencies))
    async def root():
        return "hello"

    return app


async def nothing(connection: HTTPConnection, response: Response):
    """What a dependency costs without any work."""


def with_slowapi_decorator():
    app = FastAPI()
    app.state.limiter = limiter = Limiter(slowapi_util.get_remote_address, headers_enabled=True)

    @app.get("/")
    @limiter.limit("1000000000/minute")
    async def root(request: Request, response: Response):
        return "hello"

    return app


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message):
    """Drop a message."""


def in_asgi(app):
    """A trial: nanoseconds for a request to an application of ASGI."""

    async def requests():
        for _ in range(REQUESTS):
            await app(SCOPE.copy(), receive, send)

    loop = asyncio.new_event_loop()

    def trial():
        start = clock()
        loop.run_until_complete(requests())
        return (clock() - start) / REQUESTS

    return trial


def in_wsgi(app, path="/"):
    """A trial: nanoseconds for a request to an application of WSGI."""
    environ = ENVIRON | {"PATH_INFO": path}

    def trial():
        start = clock()
        for _ in range(REQUESTS):
            body = app(environ.copy(), lambda *arguments: None)
            b"".join(body)
            if hasattr(body, "close"):
                body.close()
        return (clock() - start) / REQUESTS

    return trial


def report(title, bare, candidates, peer=None):
    """Print what each candidate costs over `bare`, and the ratio to `peer`, one of them."""
    trials = {"bare": bare, **candidates}
    made = [Candidate(name, "", lambda trial=trial: trial) for name, trial in trials.items()]
    base, *timings = compare(Comparison(made), ROUNDS, SECONDS)
    least = min(base.samples)
    costs = {timing.name: min(timing.samples) - least for timing in timings}
    print(f"{title}: {least / 1000:.1f} us a request without")
    for name, cost in costs.items():
        compared = peer is not None and name != peer and cost > 0
        ratio = f"   1/{costs[peer] / cost:.1f} of {peer}" if compared else ""
        print(f"    {name:44} {cost / 1000:+.1f} us{ratio}")


def limits():
    with TemporaryDirectory() as folder:
        shared = RateLimiter(PLENTY, path=f"{folder}/limit")
        report("ASGI, plain application", in_asgi(hello), {
            "by client": in_asgi(limited(hello)),
            "by client, without header fields": in_asgi(limited(hello, headers=None)),
            "by client, shared by workers": in_asgi(limited(hello, shared)),
            "client and user, behind a trusted proxy": in_asgi(two_levels(hello)),
        })
        report("Starlette", in_asgi(starlette()), {
            "by client": in_asgi(limited(starlette())),
            "client and user, behind a trusted proxy": in_asgi(two_levels(starlette())),
            "slowapi": in_asgi(with_slowapi()),
        }, "slowapi")
        report("FastAPI", in_asgi(fastapi()), {
            "RateLimitMiddleware": in_asgi(limited(fastapi())),
            "a dependency that does nothing": in_asgi(fastapi(Depends(nothing))),
            "RateLimit": in_asgi(fastapi(Depends(RateLimit(PLENTY)))),
            "slowapi's decorator": in_asgi(with_slowapi_decorator()),
        }, "slowapi's decorator")
    for name in ("plain", "Starlette", "FastAPI"):
        servers(name, [served for served in SERVED if served.startswith(name)])


async def cacheable(scope, receive, send):
    headers = [(b"content-length", b"5"), (b"cache-control", b"max-age=600")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


SERVED = {
    "plain": lambda: hello,
    "plain, by client": lambda: limited(hello),
    "plain, client and user": lambda: two_levels(hello),
    "hits of CacheMiddleware": lambda: CacheMiddleware(cacheable),
    "Starlette": starlette,
    "Starlette, by client": lambda: limited(starlette()),
    "Starlette, slowapi": with_slowapi,
    "FastAPI": fastapi,
    "FastAPI, by client": lambda: limited(fastapi()),
    "FastAPI, RateLimit": lambda: fastapi(Depends(RateLimit(PLENTY))),
    "FastAPI, slowapi's decorator": with_slowapi_decorator,
}


def served():
    """The application that a server was started for."""
    return SERVED[os.environ["HEADGATE_SERVED"]]()


class Client(asyncio.Protocol):
    """A connection that sends the next request when it has the response to the last."""

    request = b"GET / HTTP/1.1\r\n%s\r\n\r\n" % b"\r\n".join(b"%s: %s" % field for field in HEADERS)

    def __init__(self, counts):
        self._counts, self._tail = counts, b""

    def connection_made(self, transport):
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data):
        self._tail = (self._tail + data)[-6:]
        if self._tail.endswith((b"hello", b'hello"')):
            self._counts[0] += 1
            self._tail = b""
            self._transport.write(self.request)


async def requests_in_a_window(port):
    counts, loop = [0], asyncio.get_running_loop()
    connections = [(await loop.create_connection(lambda: Client(counts), "127.0.0.1", port))[0]
                   for _ in range(CONNECTIONS)]
    await asyncio.sleep(WINDOW)
    for connection in connections:
        connection.abort()
    return counts[0]


def cpu_seconds(pid):
    """The CPU time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rate(port, pid):
    """Requests that a server handles in a second of its CPU time, however busy the machine is."""
    before = cpu_seconds(pid)
    requests = asyncio.run(requests_in_a_window(port))
    return requests / (cpu_seconds(pid) - before)


def servers(title, names):
    """Print the requests a second of CPU time of some of `SERVED` under uvicorn."""
    ports, processes = [], []
    for name in names:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
        command = [sys.executable, "-m", "uvicorn", "bench_http:served", "--factory", "--log-level", "error",
                   "--no-access-log", "--app-dir", sys.path[0], "--port", str(ports[-1])]
        processes.append(subprocess.Popen(command, env=os.environ | {"HEADGATE_SERVED": name}))
    try:
        for port in ports:
            wait_for(port)
        turns = [[rate(port, process.pid) for port, process in zip(ports, processes, strict=True)]
                 for _ in range(WINDOWS)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    print(f"uvicorn, {title}: requests a second of CPU time")
    for at, name in enumerate(names):
        share = median(turn[at] / turn[0] for turn in turns)
        print(f"    {name:44} {median(turn[at] for turn in turns):,.0f}   {share:.0%}")


def wait_for(port, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def hello_wsgi(environ, start_response):
    """The plainest application of WSGI."""
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def semaphored(app, limit=100):
    """A semaphore around `app`, as one writes it by hand: it lasts as long as the call, and has no file."""
    semaphore = asyncio.Semaphore(limit)

    async def middleware(scope, receive, send):
        if semaphore.locked():
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body"})
            return
        async with semaphore:
            await app(scope, receive, send)

    return middleware


def shedding():
    shares = {"user": 1.0, "batch": 0.5}
    with TemporaryDirectory() as folder:
        shared = ConcurrencyLimiter(100, path=f"{folder}/permits")
        by_user = ShedMiddleware(hello, ConcurrencyLimiter(100, priorities=shares), priority=header("x-user"))
        full = ConcurrencyLimiter(1, algorithm="fixed")
        with full.acquire():
            report("ASGI, plain application", in_asgi(hello), {
                "private": in_asgi(ShedMiddleware(hello, ConcurrencyLimiter(100))),
                "shared by workers": in_asgi(ShedMiddleware(hello, shared)),
                "private, priority by a header": in_asgi(by_user),
                "a request that is shed": in_asgi(ShedMiddleware(hello, full)),
                "asyncio.Semaphore": in_asgi(semaphored(hello)),
            })
        report("WSGI, plain application", in_wsgi(hello_wsgi), {
            "private": in_wsgi(wsgi.ShedMiddleware(hello_wsgi, ConcurrencyLimiter(100))),
            "shared by workers": in_wsgi(wsgi.ShedMiddleware(hello_wsgi, shared)),
        })
    servers("uvicorn, requests a second", {"bare": "hello", "shedding": "uvicorn_shedding"})


uvicorn_shedding = ShedMiddleware(hello, ConcurrencyLimiter(100))

PARTS = {"limits": limits, "shedding": shedding}


def main():
    print(f"CPython {sys.version.split()[0]}")
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
