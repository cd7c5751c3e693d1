"""A service with some of everything that the dashboard shows, and traffic of its own, for uvicorn."""

import os
import random
import threading
import time

from headgate import (
    SLO,
    BoundedLoad,
    ConcurrencyLimiter,
    HashRing,
    HotKeys,
    LRUCache,
    PeakEWMA,
    RateLimits,
    RetryBudget,
    TinyLFUCache,
    TokenBucket,
)
from headgate.adapters import dashboard

EVIL = "</script><script>document.title='owned'</script>\x1b[2J\u202e\0"
"""A key that would show if anything of it were taken for markup."""

pages, sessions = TinyLFUCache(600), LRUCache(2000)
public = RateLimits(ip="40/s, burst 80", user="70/s, burst 90")
workers = ConcurrencyLimiter(48, min_limit=4, max_limit=64)
checkout, search = SLO(99.9), SLO(99.5)
orders = PeakEWMA([f"http://10.0.0.{number}:8080" for number in range(1, 5)])
hot = HotKeys(100)
SOURCE = {
    "pages": pages, "sessions": sessions, "public": public, "workers": workers, "checkout": checkout,
    "search": search, "orders": orders, "paths": hot, "mail": TokenBucket(100, 5), "retries": RetryBudget(),
    "shards": HashRing({"cache-a": 1, "cache-b": 1, "cache-c": 2}),
    "bounded": BoundedLoad(HashRing(["cache-d", "cache-e"])),
}


def traffic():
    """About a hundred requests every tenth of a second, the same ones each time."""
    chance = random.Random(5)
    for turn in range(10**9):
        permits = [workers.acquire() for _ in range(chance.randrange(12, 30))]
        picks = [orders.pick() for _ in range(chance.randrange(8, 24))]
        for _ in range(100):
            request(chance)
        time.sleep(0.1 if turn > 20 else 0.01)
        for permit in permits:
            if permit:
                permit.release()
        for pick in picks:
            pick.done(ok=True)


def request(chance):
    number = int(5000 * chance.random() ** 3)
    path = f"/articles/{number}" if number else EVIL
    hot.add(path)
    for cache, key in ((pages, path), (sessions, f"session-{chance.randrange(2300)}")):
        if cache.get(key) is None:
            cache[key] = "text"
    customer = int(60 * chance.random() ** 2)
    user = f"customer-{customer}" if customer else EVIL
    public.allow(ip=f"192.0.2.{int(250 * chance.random() ** 2)}", user=user)
    checkout.record(chance.random() > 0.0004)
    search.record(chance.random() > 0.006)


async def other(scope, receive, send):
    """The application that the dashboard is mounted in."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


_page = dashboard.asgi(SOURCE, allow="127.0.0.0/8", mask=os.environ.get("HEADGATE_TEST_MASK") != "0")


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"].startswith("/ops/headgate"):
        await _page({**scope, "root_path": "/ops/headgate"}, receive, send)
    else:
        await other(scope, receive, send)


threading.Thread(target=traffic, daemon=True).start()
