"""Limits in Redis in front of web applications: the synchronous ones for WSGI, the others for ASGI."""

import asgi_driver
import pytest
import redis
import redis.asyncio
import wsgi_driver
from servers import Port
from watchdog import in_a_loop

from headgate import RateLimiter, RateLimits
from headgate.adapters.asgi import RateLimitMiddleware
from headgate.adapters.keys import client, header
from headgate.adapters.redis import (
    AsyncRedisRateLimiter,
    AsyncRedisRateLimits,
    RedisRateLimiter,
    RedisRateLimits,
)
from headgate.adapters.wsgi import RateLimitMiddleware as WSGIRateLimitMiddleware

USER = [("x-user", "ann")]


def hello(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"hello"]


async def get(app, count):
    calls = [asgi_driver.call(app, asgi_driver.scope_of("/", headers=USER)) for _ in range(count)]
    return sorted([(await each).status for each in calls])


def test_asgi_awaits_the_asynchronous_limits(redis_server, prefix):
    async def main():
        store = redis.asyncio.Redis(port=redis_server.port)
        async with AsyncRedisRateLimiter(store, "3/h", prefix=prefix, timeout=20) as limiter:
            app = RateLimitMiddleware(asgi_driver.hello, limiter, keys=client())
            assert await get(app, 5) == [200] * 3 + [429] * 2
        levels = {"ip": "9/h", "user": "2/h"}
        async with AsyncRedisRateLimits(store, levels, prefix=f"{prefix}-levels", timeout=20) as limits:
            keys = {"ip": client(), "user": header("x-user")}
            app = RateLimitMiddleware(asgi_driver.hello, limits, keys=keys)
            assert await get(app, 3) == [200] * 2 + [429]
            denied = await asgi_driver.call(app, asgi_driver.scope_of("/", headers=USER))
            assert denied.fields["ratelimit-policy"] == '"ip: 9/h";q=9;w=3600, "user: 2/h";q=2;w=3600'
            assert (await limits.peek(ip="192.0.2.1")).remaining == pytest.approx(7, abs=0.01)

    in_a_loop(main())


def test_asgi_decides_without_a_store_as_was_chosen(prefix):
    async def main():
        port = Port()
        store = redis.asyncio.Redis(port=port.number)
        async with AsyncRedisRateLimiter(store, "9/h", on_error=RateLimiter("2/h")) as limiter:
            app = RateLimitMiddleware(asgi_driver.hello, limiter, keys=client())
            assert await get(app, 4) == [200] * 2 + [429] * 2
        port.release()

    in_a_loop(main())


def test_asgi_refuses_limits_that_block(redis_server):
    store = redis_server.client()
    blocking = RedisRateLimiter(store, "3/h")
    for limits in (blocking, RedisRateLimits(store, ip="3/h"), RateLimits(ip=blocking)):
        keys = client() if limits is blocking else {"ip": client()}
        with pytest.raises(TypeError):
            RateLimitMiddleware(asgi_driver.hello, limits, keys=keys)


def test_wsgi_has_the_synchronous_limits(redis_server, prefix):
    with RedisRateLimits(redis_server.client(), ip="2/h", prefix=prefix, timeout=20) as limits:
        app = WSGIRateLimitMiddleware(hello, limits, keys={"ip": client()})
        statuses = [wsgi_driver.call(app, wsgi_driver.environ_of()).status for _ in range(3)]
        assert statuses == [200, 200, 429]
        with pytest.raises(TypeError):
            WSGIRateLimitMiddleware(hello, AsyncRedisRateLimiter(redis_server.client(), "1/h"), keys=client())
