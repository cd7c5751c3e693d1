"""CacheMiddleware against clients that want others to get their responses, and servers that lose clients."""

import asyncio
import io
import threading
import time

import pytest
from asgi_clients import Client, Origin, settled
from asgi_driver import call, get, scope_of
from watchdog import PATIENCE
from wsgi_driver import call as call_wsgi
from wsgi_driver import environ_of

from headgate.adapters.asgi import CacheMiddleware
from headgate.adapters.wsgi import CacheMiddleware as WSGICacheMiddleware
from headgate.httpcache import HTTPCache

MIB = 2**20
CACHED = [(b"cache-control", b"max-age=60")]


def run(main):
    async def guarded():
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(guarded())


async def echo(scope, receive, send):
    """An application whose response shows the request."""
    message = await receive()
    host = dict(scope["headers"]).get(b"host", b"")
    body = b"%b %b %b" % (host, scope["path"].encode(), message.get("body", b""))
    await send({"type": "http.response.start", "status": 200, "headers": CACHED})
    await send({"type": "http.response.body", "body": body})


def echo_wsgi(environ, start_response):
    start_response("200 OK", [("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")])
    body = environ["wsgi.input"].read()
    return [b"%b %b %b" % (environ["HTTP_HOST"].encode(), environ["PATH_INFO"].encode(), body)]


@pytest.mark.parametrize("host", ["example.com/login", "example.com/", "/"])
def test_a_host_with_a_path_is_not_the_key_of_another_url(host):
    app = CacheMiddleware(echo)
    get(app, "/x", headers=[("host", host)])
    path = host.partition("/")[2]
    name = host.partition("/")[0]
    victim = get(app, f"/{path}/x", headers=[("host", name)])
    assert victim.body == f"{name} /{path}/x ".encode()
    assert app.cache.stats().stored == 1

    wsgi = WSGICacheMiddleware(echo_wsgi)
    call_wsgi(wsgi, environ_of("/x", HTTP_HOST=host))
    assert wsgi.cache.stats().stored == 0


def test_decoded_paths_without_raw_ones_are_different_keys():
    app = CacheMiddleware(echo)
    paths = ["/a/b", "/a%2Fb", "/aA", "/a%41", "/a?b", "/a%3Fb"]
    for _ in range(2):
        for path in paths:
            assert get(app, path, raw_path=None).body == f" {path} ".encode()
    assert app.cache.stats().hits == len(paths)


@pytest.mark.parametrize("leaves", [ConnectionResetError("the client is gone"), RuntimeError("the server")])
def test_a_server_that_fails_to_send_frees_a_body_too_large_to_store(leaves):
    async def main():
        sent = []

        async def large(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": CACHED})
            for _ in range(64):
                await send({"type": "http.response.body", "body": bytes(MIB // 8), "more_body": True})
            await send({"type": "http.response.body"})

        async def send(message):
            sent.append(message)
            if len(sent) > 20:
                raise leaves

        app = CacheMiddleware(large, HTTPCache(max_object=MIB))
        with pytest.raises(type(leaves), match="the"):
            await asyncio.wait_for(app(scope_of(), asyncio.Event().wait, send), PATIENCE)
        assert len(app.cache.fills) == 0 and app.cache.fills.filling == 0

    run(main)


def test_the_body_of_a_get_is_not_stored_for_others():
    async def main():
        personal = True

        async def app(scope, receive, send):
            if personal:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"personal"})
            else:
                await echo(scope, receive, send)

        cached = CacheMiddleware(app)
        await call(cached, scope_of())  # leaves a mark: nobody waits, but what comes may be stored
        personal = False
        sent, messages = [], [{"type": "http.request", "body": b"evil", "more_body": False}]

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await cached(scope_of(), receive, send)  # HTTP/2 has bodies without a field that announces them
        return (await call(cached, scope_of())).body

    assert b"evil" not in run(main)


def test_the_body_of_a_get_is_not_stored_for_others_in_wsgi():
    personal = True

    def app(environ, start_response):
        if personal:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"personal"]
        return echo_wsgi(environ, start_response)

    cached = WSGICacheMiddleware(app)
    call_wsgi(cached, environ_of())
    personal = False
    call_wsgi(cached, environ_of(**{"wsgi.input": io.BytesIO(b"evil")}))
    assert b"evil" not in call_wsgi(cached, environ_of()).body


def test_middlewares_with_one_cache_do_not_wait_for_each_other():
    cache = HTTPCache(wait=PATIENCE * 2)
    origin = Origin()
    app = CacheMiddleware(CacheMiddleware(origin, cache), cache)

    async def main():
        clients = [Client(app) for _ in range(3)]
        await asyncio.gather(*(client.task for client in clients))
        return {client.response.body for client in clients}

    assert run(main) == {b"Hello"}
    assert origin.calls == 1 and cache.stats().stored == 1

    wsgi = WSGICacheMiddleware(WSGICacheMiddleware(echo_wsgi, cache), cache)
    assert call_wsgi(wsgi, environ_of("/wsgi")).body == b"example.com /wsgi "
    assert call_wsgi(wsgi, environ_of("/wsgi")).fields["cache-status"].startswith("headgate; hit")


def test_own_keys_with_line_breaks_are_not_variants_of_others():
    async def main():
        origin = Origin(headers=[("cache-control", "max-age=60"), ("vary", "x")], gated=True)
        app = CacheMiddleware(origin, HTTPCache(key=lambda request: request.header("k")))
        origin.open()
        await Client(app, headers=[("k", "a")]).done()
        first = Client(app, headers=[("k", "a"), ("x", "1")])
        second = Client(app, headers=[("k", "a\n+1")])
        await settled()
        assert origin.calls == 3
        origin.open(2)
        await first.done()
        await second.done()

    run(main)


def test_a_validation_that_makes_the_lifetime_a_guess_is_not_for_followers_with_cookies():
    async def main():
        clock = [0]
        release = asyncio.Event()
        seen = []

        async def app(scope, receive, send):
            seen.append(dict(scope["headers"]).get(b"cookie"))
            fields = dict(scope["headers"])
            if b"if-none-match" in fields:
                await release.wait()
                headers = [(b"cache-control", b"public"),
                           (b"last-modified", b"Thu, 01 Jan 1970 00:01:00 GMT")]
                await send({"type": "http.response.start", "status": 304, "headers": headers})
                await send({"type": "http.response.body"})
                return
            headers = [(b"cache-control", b"max-age=60"), (b"etag", b'"1"')]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": fields.get(b"cookie", b"none")})

        cached = CacheMiddleware(app, HTTPCache(clock=lambda: clock[0] * 10**9))
        await Client(cached).done()
        clock[0] = 100
        leader = Client(cached)
        await settled()
        follower = Client(cached, headers=[("host", "example.com"), ("cookie", "a=b")])
        await settled()
        release.set()
        await leader.done()
        await follower.done()
        assert leader.response.body == b"none"
        assert follower.response.body == b"a=b"

    run(main)


@pytest.mark.parametrize("leaves_late", [False, True])
def test_a_response_that_does_not_end_is_given_up_when_nobody_reads_it(leaves_late):
    async def main():
        async def tail(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": CACHED})
            await send({"type": "http.response.body", "body": b"line", "more_body": True})
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            ended.set()

        ended = asyncio.Event()
        app = CacheMiddleware(tail, HTTPCache(fill_timeout=0.05))
        clients = [Client(app) for _ in range(1 if leaves_late else 3)]
        await settled()
        assert {client.response.body for client in clients} == {b"line"}
        if leaves_late:
            await asyncio.sleep(0.1)
            assert not ended.is_set(), "its client is there"
        for client in clients:
            client.leave()
        await asyncio.gather(*(client.task for client in clients))
        await ended.wait()
        assert len(app.cache.fills) == 0 and app.cache.fills.filling == 0

    run(main)


def test_a_refresh_outlives_the_call_with_which_it_began():
    async def main():
        clock, gate, calls = [0], asyncio.Event(), []

        async def app(scope, receive, send):
            calls.append(scope)
            if len(calls) > 1:
                await gate.wait()
            headers = [(b"cache-control", b"max-age=10, stale-while-revalidate=60")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"%d" % len(calls)})

        cached = CacheMiddleware(app, HTTPCache(clock=lambda: clock[0] * 10**9, fill_timeout=0.2))
        await Client(cached).done()
        clock[0] = 20
        for gate_opens in (False, True):
            client = Client(cached)
            await settled()
            assert client.response.body == b"1"
            client.task.cancel()
            await settled()
            if gate_opens:
                gate.set()
                await settled()
            else:
                await asyncio.sleep(0.3)
        assert (await Client(cached).done()).response.body == b"3"

    run(main)


@pytest.mark.parametrize("opened", [0, 1])
def test_who_asks_after_a_purge_by_tag_does_not_join_what_began_before(opened):
    async def main():
        headers = [("cache-control", "max-age=60"), ("cache-tag", "t")]
        origin = Origin(b"a", b"b", headers=headers, gated=True)
        app = CacheMiddleware(origin, HTTPCache())
        before = [Client(app), Client(app)]
        await settled()
        origin.open(opened)
        await settled()
        app.cache.purge(tag="other")
        other = Client(app)
        await settled()
        app.cache.purge(tag="t")
        after = [Client(app), Client(app)]
        await settled()
        origin.open(6)
        await asyncio.gather(*(client.task for client in [*before, other, *after]))
        assert origin.calls == 2
        outcomes = [client.outcome.rpartition("; ")[2] for client in [other, *after]]
        assert sorted(outcomes) == ["collapsed", "collapsed", "stored"]
        assert app.cache.stats().stored == 1, "what was asked for after the purge"
        assert {client.response.body for client in [*before, other, *after]} == {b"ab"}

    run(main)


def test_threads_that_ask_after_a_purge_by_tag_do_not_join_what_began_before():
    def app(environ, start_response):
        calls.append(len(calls))
        if len(calls) == 1:
            began.set()
            assert gate.wait(PATIENCE)
        start_response("200 OK", [("Cache-Control", "max-age=60"), ("Cache-Tag", "t")])
        return [b"%d" % len(calls)]

    calls, began, gate = [], threading.Event(), threading.Event()
    cached = WSGICacheMiddleware(app)
    threads = []
    for asks_after in (False, True):
        thread = threading.Thread(target=call_wsgi, args=(cached, environ_of()), daemon=True)
        threads.append(thread)
        thread.start()
        assert began.wait(PATIENCE)
        if not asks_after:
            cached.cache.purge(tag="t")
    fills, deadline = cached.cache.fills, time.monotonic() + PATIENCE
    while sum(len(fill._readers) for fill in list(fills._fills.values())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(calls) == 2 and cached.cache.stats().stored == 1
