"""A web service with limits, a response cache and shedding, shared by all workers of a host.

    pip install 'headgate[fastapi]' uvicorn
    uvicorn fastapi_app:app --app-dir examples --workers 4
"""

import os
import tempfile
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from headgate import ConcurrencyLimiter, RateLimiter, RateLimits
from headgate.adapters.asgi import CacheMiddleware, RateLimitMiddleware, ShedMiddleware
from headgate.adapters.fastapi import Charge, RateLimit, install
from headgate.adapters.keys import client, header
from headgate.httpcache import HTTPCache

shared = f"{os.environ.get('HEADGATE_FOLDER', tempfile.gettempdir())}/headgate"  # where the files are

app = FastAPI(title="headgate in FastAPI")
install(app)
app.add_middleware(ShedMiddleware, limiter=ConcurrencyLimiter(50, path=f"{shared}-permits"))
app.add_middleware(CacheMiddleware, cache=HTTPCache("64 MiB", path=f"{shared}-purges"))
app.add_middleware(  # the last one is the outermost
    RateLimitMiddleware,
    limits=RateLimits(ip=RateLimiter("20/s; 600/min", path=f"{shared}-ip"), key="1000/h"),
    keys={"ip": client(), "key": header("X-API-Key")},
    exempt=["/healthz", "/docs", "/openapi.json"],
)
searches = RateLimit(RateLimiter("5/min", path=f"{shared}-searches"))
tokens = RateLimit(RateLimiter("2000/min", path=f"{shared}-tokens"), cost=500, key=header("X-API-Key"))


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/articles/{number}")
async def article(number: int, response: Response) -> str:
    response.headers["Cache-Control"] = "max-age=60"
    return f"article {number}"


@app.get("/search", dependencies=[Depends(searches)])
def search(q: str) -> str:
    return q.title()


@app.post("/complete")
async def complete(request: Request, charge: Annotated[Charge, Depends(tokens)]) -> int:
    used = len((await request.body()).split())
    charge.settle(used)  # instead of the 500 tokens that were reserved
    return used
