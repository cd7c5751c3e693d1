"""A web service whose workers have their limits in common.

    pip install 'headgate[fastapi]' uvicorn
    uvicorn fastapi_app:app --app-dir examples --workers 4
"""

import os
import tempfile
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from headgate import RateLimiter, RateLimits
from headgate.adapters.asgi import RateLimitMiddleware
from headgate.adapters.fastapi import Charge, RateLimit, install
from headgate.adapters.keys import client, header

folder = os.environ.get("HEADGATE_FOLDER", tempfile.gettempdir())


def shared(name: str, rate: str) -> RateLimiter:
    """A limit that all workers of this host have in common, and that outlives them."""
    return RateLimiter(rate, path=f"{folder}/headgate-{name}")


app = FastAPI(title="headgate in FastAPI")
install(app)
app.add_middleware(
    RateLimitMiddleware,
    limits=RateLimits(ip=shared("ip", "20/s; 600/min"), key=shared("key", "1000/h")),
    keys={"ip": client(trusted=["127.0.0.1"]), "key": header("X-API-Key")},
    exempt=["/healthz", "/docs", "/openapi.json"],
)
tokens = RateLimit(shared("tokens", "2000/min"), cost=500, key=header("X-API-Key"), shared="tokens")


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/search", dependencies=[Depends(RateLimit(shared("search", "5/min")))])
def search(q: str) -> str:
    return q.title()


@app.post("/complete")
async def complete(request: Request, charge: Annotated[Charge, Depends(tokens)]) -> int:
    used = len((await request.body()).split())
    charge.settle(used)  # instead of the 500 tokens that were reserved
    return used
