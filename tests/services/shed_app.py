"""Applications whose workers share the permits in the file HEADGATE_TEST_PATH, for ASGI and WSGI."""

import asyncio
import os
import time

from headgate import ConcurrencyLimiter
from headgate.adapters import asgi, wsgi
from headgate.adapters.keys import header

LIMIT = 8
PRIORITIES = {"high": 1.0, "low": 0.5}
PART = b"%d\n" % os.getpid()


def limiter(path):
    return ConcurrencyLimiter(LIMIT, algorithm="fixed", priorities=PRIORITIES, path=path)


async def respond(scope, receive, send):
    """``/stream`` sends parts until the client is gone, ``/work`` is slow, others respond at once."""
    if scope["type"] != "http":
        return
    await receive()
    if scope["path"] == "/work":
        await asyncio.sleep(0.02)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": PART, "more_body": True})
            await asyncio.wait([gone], timeout=0.02)
    await send({"type": "http.response.body", "body": PART})


def respond_in_thread(environ, start_response):
    start_response("200 OK", [])
    yield PART
    while environ["PATH_INFO"] == "/stream":
        time.sleep(0.02)
        yield PART


permits = limiter(os.environ["HEADGATE_TEST_PATH"])
app = asgi.ShedMiddleware(respond, permits, priority=header("x-priority"))
application = wsgi.ShedMiddleware(respond_in_thread, permits, priority=header("x-priority"))
