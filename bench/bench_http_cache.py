"""What hits of the response cache cost, beside its peers: ``python bench/bench_http_cache.py``."""

import uuid
from dataclasses import replace

import httpx
from aiocache import cached as aiocache_cached
from bench_http import REQUESTS, clock, in_asgi, in_wsgi, report, servers
from fastapi import FastAPI, Response
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache as fastapi_cache
from hishel import AsyncBaseStorage, BaseStorage, Entry
from hishel.asgi import ASGICacheMiddleware
from hishel.httpx import CacheTransport

from headgate.adapters import asgi, wsgi
from headgate.adapters.httpx import CachingTransport
from headgate.httpcache import HTTPCache

BODY = b"x" * 1024
FIELDS = [("Content-Type", "text/plain"), ("Content-Length", "1024"), ("Cache-Control", "max-age=600")]
RAW_FIELDS = [(name.lower().encode(), value.encode()) for name, value in FIELDS]


class Memory(AsyncBaseStorage):
    """The fastest storage of hishel, which has none of its own in memory: a dict."""

    def __init__(self):
        super().__init__()
        self._entries = {}

    async def create_entry(self, request, response, key, *, ttl=None, tti=None):
        entry = Entry(uuid.uuid4(), request, response)

        async def saved():
            parts = []
            async for part in response.stream:
                parts.append(part)
                yield part
            self._entries[key] = [(entry, b"".join(parts))]

        return replace(entry, response=replace(response, stream=saved()))

    async def get_entries(self, key):
        return [replace(entry, response=replace(entry.response, stream=_one(body)))
                for entry, body in self._entries.get(key, ())]

    async def update_headers(self, id, headers):
        pass

    async def remove_entry(self, id):
        pass


async def _one(body):
    yield body


class BlockingMemory(BaseStorage):
    """The same for the synchronous transport."""

    def __init__(self):
        super().__init__()
        self._entries = {}

    def create_entry(self, request, response, key, *, ttl=None, tti=None):
        entry = Entry(uuid.uuid4(), request, response)

        def saved():
            parts = []
            for part in response.stream:
                parts.append(part)
                yield part
            self._entries[key] = [(entry, b"".join(parts))]

        return replace(entry, response=replace(response, stream=saved()))

    def get_entries(self, key):
        return [replace(entry, response=replace(entry.response, stream=iter([body])))
                for entry, body in self._entries.get(key, ())]

    def update_headers(self, id, headers):
        pass

    def remove_entry(self, id):
        pass


async def kilobyte(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": RAW_FIELDS})
    await send({"type": "http.response.body", "body": BODY})


def wsgi_kilobyte(environ, start_response):
    start_response("200 OK", list(FIELDS))
    return [BODY]


def asgi_candidates():
    """Applications of ASGI by name, without a framework."""
    return {
        "CacheMiddleware": asgi.CacheMiddleware(kilobyte),
        "hishel, a dict": ASGICacheMiddleware(kilobyte, storage=Memory()),
    }


def wsgi_candidates():
    return {"CacheMiddleware": wsgi.CacheMiddleware(wsgi_kilobyte)}


def fastapi_candidates():
    """Applications of FastAPI by name: without a cache, with cached endpoints, and behind the middleware."""
    FastAPICache.init(InMemoryBackend())
    plain, decorated, memoized = FastAPI(), FastAPI(), FastAPI()
    text = BODY.decode()

    @plain.get("/")
    async def endpoint(response: Response):
        response.headers["Cache-Control"] = "max-age=600"
        return text

    @decorated.get("/")
    @fastapi_cache(expire=600)
    async def cached_endpoint():
        return text

    @memoized.get("/")
    @aiocache_cached(ttl=600)
    async def memoized_endpoint():
        return text

    return {"no cache": plain, "CacheMiddleware": asgi.CacheMiddleware(plain), "fastapi-cache2": decorated,
            "aiocache": memoized}


def client_candidates():
    """Clients of httpx by name: over a transport that responds at once, and over caches of it."""
    def origin():
        return httpx.MockTransport(lambda request: httpx.Response(200, headers=FIELDS, content=BODY))

    transports = {
        "no cache": origin(),
        "CachingTransport": CachingTransport(HTTPCache(shared=False), origin()),
        "hishel, a dict": CacheTransport(origin(), storage=BlockingMemory()),
    }
    return {name: httpx.Client(transport=transport) for name, transport in transports.items()}


def in_httpx(client):
    """A trial: nanoseconds for a request of a client of httpx."""

    def trial():
        start = clock()
        for _ in range(REQUESTS):
            client.get("http://example.com/")
        return (clock() - start) / REQUESTS

    return trial


def trials(into, applications):
    return {name: into(application) for name, application in applications.items()}


def main():
    report("ASGI, hits of 1 KB", in_asgi(kilobyte), trials(in_asgi, asgi_candidates()), "hishel, a dict")
    report("WSGI, hits of 1 KB", in_wsgi(wsgi_kilobyte), trials(in_wsgi, wsgi_candidates()))
    report("FastAPI, hits of 1 KB, over a bare plain application", in_asgi(kilobyte),
           trials(in_asgi, fastapi_candidates()), "fastapi-cache2")
    clients = trials(in_httpx, client_candidates())
    report("httpx, hits of 1 KB, over a client of the same", clients.pop("no cache"), clients,
           "hishel, a dict")
    servers("hello", ["plain", "hits of CacheMiddleware"])


if __name__ == "__main__":
    main()
