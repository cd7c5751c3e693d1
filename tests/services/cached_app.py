"""A cached application, `app` for ASGI and `wsgi_app` for WSGI; its workers share HEADGATE_TEST_PATH."""

import asyncio
import os
import time

from headgate.adapters import asgi, wsgi
from headgate.httpcache import HTTPCache

PART, PARTS = b"x" * 2**16, 127  # just below 8 MiB
calls = 0
cache = HTTPCache(path=os.environ.get("HEADGATE_TEST_PATH"))


def memory():
    """The most memory that this process has had, in KiB, and the calls of the application."""
    with open("/proc/self/status", encoding="ascii") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM:"))
    return f"{peak} {calls}".encode()


async def application(scope, receive, send):
    global calls
    if scope["type"] != "http":
        return
    path = scope["path"]
    headers = [(b"cache-control", b"no-store" if path in ("/memory", "/purge") else b"max-age=60")]
    if path not in ("/memory", "/purge"):
        calls += 1
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/large":
        for _ in range(PARTS):
            await send({"type": "http.response.body", "body": PART, "more_body": True})
    elif path == "/cut":
        await send({"type": "http.response.body", "body": PART, "more_body": True})
        await asyncio.sleep(0.05)
        raise ZeroDivisionError
    elif path == "/purge":
        cache.purge("/hello")
    body = memory() if path == "/memory" else f"{os.getpid()} {calls}".encode()
    await send({"type": "http.response.body", "body": body})


def wsgi_application(environ, start_response):
    global calls
    calls += 1
    time.sleep(0.2)
    start_response("200 OK", [("Cache-Control", "max-age=60")])
    return [f"{os.getpid()} {calls}".encode()]


app = asgi.CacheMiddleware(application, cache)
wsgi_app = wsgi.CacheMiddleware(wsgi_application, cache)
