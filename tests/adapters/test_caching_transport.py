"""CachingTransport of httpx and httpx2, sync and async, over transports that count."""

import asyncio
import importlib
from contextlib import contextmanager

import pytest

from headgate.httpcache import HTTPCache

FRESH = {"cache-control": "max-age=60"}
URL = "http://example.com/"


class Host:
    """One of the libraries, by its Client or its AsyncClient. `respond` is a handler of requests; what the
    client received is a list of parts."""

    def __init__(self, name, is_async):
        self.library = importlib.import_module(name)
        self.adapter = importlib.import_module(f"headgate.adapters.{name}")
        self.is_async = is_async
        self.requests = []
        self.closed = 0

    def transport(self, respond):
        host, library = self, self.library

        def handle(request):
            host.requests.append(request)
            return respond(request)

        class Sync(library.BaseTransport):
            def handle_request(self, request):
                return handle(request)

            def close(self):
                host.closed += 1

        class Async(library.AsyncBaseTransport):
            async def handle_async_request(self, request):
                return handle(request)

            async def aclose(self):
                host.closed += 1

        return Async() if self.is_async else Sync()

    def stream(self, parts, error=None):
        """A body that is read from the network."""
        library = self.library

        class Sync(library.SyncByteStream):
            def __iter__(self):
                yield from parts
                if error is not None:
                    raise error

        class Async(library.AsyncByteStream):
            async def __aiter__(self):
                for part in parts:
                    yield part
                if error is not None:
                    raise error

        return Async() if self.is_async else Sync()

    def response(self, *parts, status=200, headers=FRESH, error=None):
        return self.library.Response(status, headers=headers, stream=self.stream(parts or [b"Hello"], error))

    def caching(self, cache, respond):
        kind = self.adapter.AsyncCachingTransport if self.is_async else self.adapter.CachingTransport
        return kind(cache, self.transport(respond))

    @contextmanager
    def client(self, cache, respond):
        """A function that sends requests."""
        transport = self.caching(cache, respond)
        if not self.is_async:
            with self.library.Client(transport=transport) as client:
                yield client.request
            return
        with asyncio.Runner() as runner:
            client = self.library.AsyncClient(transport=transport)
            yield lambda *args, **options: runner.run(client.request(*args, **options))
            runner.run(client.aclose())

    def first_part(self, cache, respond):
        """The first part of a response that the client then closes."""
        if not self.is_async:
            with self.library.Client(transport=self.caching(cache, respond)) as client, (
                    client.stream("GET", URL)) as response:
                return next(response.iter_raw())

        async def main():
            async with self.library.AsyncClient(transport=self.caching(cache, respond)) as client, (
                    client.stream("GET", URL)) as response:
                return await anext(response.aiter_raw())

        return asyncio.run(main())


@pytest.fixture(params=["httpx", "httpx2"])
def name(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def host(request, name):
    return Host(name, request.param)


class Clock:
    def __init__(self):
        self.seconds = 0

    def __call__(self):
        return self.seconds * 10**9


@pytest.fixture
def seconds():
    return Clock()


@pytest.fixture
def cache(seconds):
    return HTTPCache(shared=False, clock=seconds)


def status_of(response):
    return response.headers["cache-status"]


def test_a_fresh_response_is_not_requested_again(host, cache):
    with host.client(cache, lambda request: host.response(b"Hello, ", b"world")) as send:
        responses = [send("GET", URL) for _ in range(3)]
    assert [response.content for response in responses] == [b"Hello, world"] * 3
    assert status_of(responses[0]).endswith("stored") and "hit" in status_of(responses[1])
    assert len(host.requests) == 1 and host.closed == 1


def test_a_private_cache_keeps_private_responses(host, cache):
    headers = {"cache-control": "private, max-age=60", "set-cookie": "a=b"}
    with host.client(cache, lambda request: host.response(headers=headers)) as send:
        for _ in range(2):
            assert send("GET", URL, headers={"authorization": "x"}).content == b"Hello"
    assert len(host.requests) == 1


def test_a_mocked_response_is_stored(host, cache):
    with host.client(cache, lambda request: host.library.Response(200, headers=FRESH, text="Hello")) as send:
        assert [send("GET", URL).text for _ in range(2)] == ["Hello", "Hello"]
    assert len(host.requests) == 1


def test_an_encoded_body_is_stored_as_it_came(host, cache):
    import zlib

    headers = FRESH | {"content-encoding": "deflate"}
    with host.client(cache, lambda request: host.response(zlib.compress(b"Hello"), headers=headers)) as send:
        assert [send("GET", URL).content for _ in range(2)] == [b"Hello", b"Hello"]
    assert len(host.requests) == 1


def test_a_stale_response_is_validated(host, cache, seconds):
    def respond(request):
        if "if-none-match" in request.headers:
            return host.library.Response(304, headers=FRESH | {"etag": '"1"'})
        return host.response(headers=FRESH | {"etag": '"1"'})

    with host.client(cache, respond) as send:
        send("GET", URL)
        seconds.seconds = 100
        response = send("GET", URL)
        assert (response.status_code, response.content) == (200, b"Hello")
        assert "fwd-status=304" in status_of(response) and "hit" in status_of(send("GET", URL))
    assert len(host.requests) == 2


@pytest.mark.parametrize("failure", ["status", "exception"])
def test_a_stale_response_is_used_for_an_error(host, cache, seconds, failure):
    headers = {"cache-control": "max-age=60, stale-if-error=600"}

    def respond(request):
        if not seconds.seconds:
            return host.response(headers=headers)
        if failure == "exception":
            raise host.library.ConnectError("refused")
        return host.response(b"sorry", status=503)

    with host.client(cache, respond) as send:
        send("GET", URL)
        seconds.seconds = 100
        assert send("GET", URL).content == b"Hello"
        seconds.seconds = 1000
        if failure == "exception":
            with pytest.raises(host.library.ConnectError):
                send("GET", URL)
        else:
            assert send("GET", URL).content == b"sorry"


def test_a_body_that_is_not_read_to_its_end_is_not_stored(host, cache):
    assert host.first_part(cache, lambda request: host.response(b"a", b"b")) == b"a"
    assert cache.stats().entries == 0 and cache.fills.filling == 0


def test_a_body_that_breaks_is_not_stored(host, cache):
    error = host.library.ReadError("broken")
    with (host.client(cache, lambda request: host.response(b"a", error=error)) as send,
          pytest.raises(host.library.ReadError)):
        send("GET", URL)
    assert cache.stats().entries == 0 and cache.fills.filling == 0


def test_a_body_that_is_too_large_passes(host, seconds):
    cache = HTTPCache(shared=False, max_object=1000)
    with host.client(cache, lambda request: host.response(*[bytes(600)] * 3)) as send:
        assert send("GET", URL).content == bytes(1800)
    assert cache.stats().entries == 0 and cache.fills.filling == 0


def test_an_unsafe_request_invalidates(host, cache):
    with host.client(cache, lambda request: host.response()) as send:
        for method in ("GET", "POST", "GET"):
            send(method, URL, content=b"x" if method == "POST" else None)
    assert [request.method for request in host.requests] == ["GET", "POST", "GET"]


def test_only_if_cached(host, cache):
    with host.client(cache, lambda request: host.response()) as send:
        assert send("GET", URL, headers={"cache-control": "only-if-cached"}).status_code == 504
    assert not host.requests


def test_ranges_and_conditions_of_a_stored_response(host, cache):
    with host.client(cache, lambda request: host.response(headers=FRESH | {"etag": '"1"'})) as send:
        send("GET", URL)
        part = send("GET", URL, headers={"range": "bytes=1-2"})
        same = send("GET", URL, headers={"if-none-match": '"1"'})
        parts = send("GET", URL, headers={"range": "bytes=0-0,4-4"})
    assert (part.status_code, part.content, same.status_code) == (206, b"el", 304)
    assert parts.headers["content-type"].startswith("multipart/byteranges") and len(host.requests) == 1


def test_vary(host, cache):
    with host.client(cache, lambda request: host.response(headers=FRESH | {"vary": "accept"})) as send:
        for accept in ("a", "b", "a", "b"):
            send("GET", URL, headers={"accept": accept})
    assert len(host.requests) == 2


def test_another_cache_is_refused(host):
    with pytest.raises(TypeError, match="cache must be an HTTPCache, got"):
        host.caching("64 MiB", None)


def test_the_default_transport_is_the_librarys(host, cache):
    kind = host.adapter.AsyncCachingTransport if host.is_async else host.adapter.CachingTransport
    expected = host.library.AsyncHTTPTransport if host.is_async else host.library.HTTPTransport
    assert isinstance(kind(cache)._transport, expected)
