"""A Starlette application with slowapi, whose file and strategy are of the environment."""

import os

from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate.adapters.limits import HeadgateStorage

limiter = Limiter(
    lambda request: request.headers.get("X-Key", os.urandom(8).hex()),
    storage_uri=f"{HeadgateStorage.STORAGE_SCHEME[0]}://{os.environ['HEADGATE_TEST_PATH']}",
    strategy=os.environ["HEADGATE_TEST_STRATEGY"],
)


@limiter.limit(os.environ["HEADGATE_TEST_RATE"])
async def pid(request):
    return PlainTextResponse(str(os.getpid()))


handlers = {RateLimitExceeded: _rate_limit_exceeded_handler}
app = Starlette(routes=[Route("/", pid)], exception_handlers=handlers)
app.state.limiter = limiter
