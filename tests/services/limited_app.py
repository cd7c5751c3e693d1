"""An ASGI application whose workers have one limit, of HEADGATE_TEST_RATE in the file HEADGATE_TEST_PATH."""

import os

from headgate import RateLimiter
from headgate.adapters.asgi import RateLimitMiddleware
from headgate.adapters.keys import header


async def pid(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    if scope["type"] == "http":
        body = str(os.getpid()).encode()
        fields = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})


limiter = RateLimiter(os.environ["HEADGATE_TEST_RATE"], path=os.environ["HEADGATE_TEST_PATH"])
app = RateLimitMiddleware(pid, limiter, keys=header("x-key"))
