"""CacheMiddleware in front of ASGI applications: which clients a call of the application serves, and how."""

import asyncio
import threading
from random import Random

import pytest
from asgi_clients import Client, Origin, settled
from asgi_driver import call, get, hello, scope_of
from http_junk import REQUEST_NAMES, RESPONSE_NAMES, junk
from threads import run_threads
from watchdog import PATIENCE

from headgate.adapters.asgi import CacheMiddleware
from headgate.errors import HeadgateError
from headgate.httpcache import HTTPCache, _fills

SLICE = 64 * 1024
MIB = 2**20
PRIVATE = (("cache-control", "private"),)


def run(main):
    async def guarded():
        async with asyncio.timeout(PATIENCE):
            return await main()

    return asyncio.run(guarded())


async def clients_of(app, count, path="/", **options):
    """Clients whose requests have reached the application, or wait."""
    clients = [Client(app, path, **options) for _ in range(count)]
    await settled()
    return clients


async def all_done(clients):
    await asyncio.gather(*(client.task for client in clients))


def test_a_hit_does_not_call_the_application():
    origin = Origin()
    app = CacheMiddleware(origin)
    first, second = get(app), get(app)
    assert (first.status, first.body) == (second.status, second.body) == (200, b"Hello")
    assert first.fields["cache-status"] == "headgate; fwd=uri-miss; fwd-status=200; stored"
    assert second.fields["cache-status"].startswith("headgate; hit; ttl=")
    assert origin.calls == 1 and app.cache.stats().hits == 1


def test_a_thousand_clients_of_one_loop_share_one_call():
    async def main():
        origin = Origin(b"Hello, ", b"world", gated=True)
        clients = await clients_of(CacheMiddleware(origin), 1000)
        origin.open(2)
        await all_done(clients)
        return origin, clients

    origin, clients = run(main)
    assert origin.calls == 1
    assert {client.response.body for client in clients} == {b"Hello, world"}
    outcomes = [client.outcome for client in clients]
    assert [outcome.rpartition("; ")[2] for outcome in outcomes] == ["stored"] + ["collapsed"] * 999


def test_a_thousand_clients_of_several_loops_share_one_call():
    origin, outcomes, gate = Origin(), [], threading.Event()
    arrived = threading.Semaphore(0)

    async def slow(scope, receive, send):
        await asyncio.to_thread(gate.wait, PATIENCE)
        await origin(scope, receive, send)

    app = CacheMiddleware(slow)

    async def main():
        clients = await clients_of(app, 250)
        arrived.release()
        await all_done(clients)
        outcomes.extend(client.response.body for client in clients)

    threads = [threading.Thread(target=run, args=(main,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert arrived.acquire(timeout=PATIENCE)
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert (origin.calls, outcomes) == (1, [b"Hello"] * 1000)


def test_loops_request_no_url_twice():
    """Whether a task comes before, while or after the response to one of another loop is stored."""
    origin = Origin(b"a", b"b")
    app = CacheMiddleware(origin)

    async def main():
        for page in range(200):
            clients = [Client(app, f"/{page}") for _ in range(3)]
            await all_done(clients)
            assert {client.response.body for client in clients} == {b"ab"}

    run_threads(lambda number: run(main), 4)
    assert origin.calls == 200


def test_parts_reach_all_clients_as_they_come():
    async def main():
        origin = Origin(b"a", b"b", gated=True)
        clients = await clients_of(CacheMiddleware(origin), 3)
        origin.open()
        await settled()
        assert [client.response.body for client in clients] == [b"a"] * 3
        origin.open()
        await all_done(clients)
        assert [client.response.body for client in clients] == [b"ab"] * 3

    run(main)


def test_a_part_is_sent_before_the_application_computes_the_next_one():
    seen = []

    async def main():
        async def computing(scope, receive, send):
            await send({"type": "http.response.start", "status": 200,
                        "headers": [(b"cache-control", b"max-age=60")]})
            for part in (b"a", b"b", b"c"):
                seen.append(client.response.body if client.messages else b"")
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})

        client = Client(CacheMiddleware(computing))
        await client.done()

    run(main)
    assert seen == [b"", b"a", b"ab"]


@pytest.mark.parametrize("how", ["disconnects", "is cancelled"])
@pytest.mark.parametrize("opened", [0, 1], ids=["before the head", "within the body"])
def test_the_first_client_leaving_changes_nothing_for_the_others(how, opened):
    async def main():
        origin = Origin(b"a", b"b", gated=True)
        app = CacheMiddleware(origin)
        first, *others = await clients_of(app, 5)
        origin.open(opened)
        await settled()
        if how == "disconnects":
            first.leave()
        else:
            first.task.cancel()
        await settled()
        assert first.task.done() == (how == "is cancelled")  # its call returns when the fill has ended
        origin.open(2 - opened)
        await all_done(others)
        await settled()
        assert first.task.done() and not first.is_complete
        assert {other.response.body for other in others} == {b"ab"} and origin.calls == 1
        assert (await Client(app).done()).outcome.startswith("hit")

    run(main)


def test_a_fill_that_all_clients_have_left_before_its_head_is_abandoned():
    received = []

    async def waiting(scope, receive, send):
        received.extend([await receive(), await receive()])

    async def main():
        app = CacheMiddleware(waiting)
        clients = await clients_of(app, 3)
        for client in clients:
            assert len(received) == 0
            client.leave()
            await settled()
        await all_done(clients)

    run(main)
    assert received == [
        {"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]


def test_a_fill_about_to_be_stored_goes_on_without_clients():
    async def main():
        origin = Origin(b"a", b"b", gated=True)
        app = CacheMiddleware(origin)
        (client,) = await clients_of(app, 1)
        origin.open()
        await settled()
        client.leave()
        await settled()
        origin.open()
        await client.done()
        assert (await Client(app).done()).response.body == b"ab" and origin.calls == 1

    run(main)


def test_a_cancelled_client_that_is_alone_cancels_the_call():
    async def main():
        origin = Origin(gated=True)
        (client,) = await clients_of(CacheMiddleware(origin), 1)
        client.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client.task
        assert origin.running == 0

    run(main)


def test_a_fill_is_complete_with_its_body_and_the_call_with_its_background_tasks():
    async def main():
        origin, finish = Origin(), asyncio.Event()

        async def with_background_task(scope, receive, send):
            await origin(scope, receive, send)
            await finish.wait()

        app = CacheMiddleware(with_background_task)
        first, follower = await clients_of(app, 2)
        assert first.is_complete and not first.task.done() and follower.task.done()
        assert (await Client(app).done()).outcome.startswith("hit")
        finish.set()
        await first.done()

    run(main)


def test_a_slow_client_slows_no_other():
    async def main():
        origin = Origin(*[bytes(SLICE)] * 40)
        app = CacheMiddleware(origin)
        slow = await clients_of(app, 3, stalls_at=1)
        others = [Client(app) for _ in range(5)]
        await all_done(others)
        assert {len(other.response.body) for other in others} == {40 * SLICE} and origin.calls == 1
        for client in slow:
            assert not client.task.done()
            client.resume.set()
        await all_done(slow)
        assert {len(client.response.body) for client in slow} == {40 * SLICE}

    run(main)


def test_fields_for_one_client_reach_the_first_one_only():
    async def main():
        headers = (("cache-control", 'max-age=60, no-cache="x-mine"'), ("x-mine", "secret"), ("x-all", "a"))
        origin = Origin(b"a", b"b", headers=headers, gated=True)
        app = CacheMiddleware(origin)
        clients = await clients_of(app, 3)
        origin.open()
        await settled()
        clients += await clients_of(app, 1)
        origin.open()
        await all_done(clients)
        clients.append(await Client(app).done())
        assert [client.response.fields.get("x-mine") for client in clients] == ["secret"] + [None] * 4
        assert {client.response.fields["x-all"] for client in clients} == {"a"} and origin.calls == 1

    run(main)


def test_private_responses_are_not_waited_for():
    async def main():
        origin = Origin(headers=PRIVATE, gated=True)
        app = CacheMiddleware(origin)
        first = await clients_of(app, 10)
        assert origin.calls == 1  # whether it is private is not known yet
        origin.open()
        await settled()
        assert origin.running == 9  # the others are released at once, and run side by side
        origin.open(9)
        await all_done(first)
        second = await clients_of(app, 10)
        assert origin.running == 10
        origin.open(10)
        await all_done(second)
        assert {client.outcome for client in [*first, *second]} == {"fwd=uri-miss; fwd-status=200"}

    run(main)


def test_a_follower_waits_for_a_head_for_some_time_only():
    async def main():
        origin = Origin(gated=True)
        app = CacheMiddleware(origin, HTTPCache(wait=0.05))
        clients = await clients_of(app, 3)
        assert origin.calls == 1
        await asyncio.sleep(0.2)
        assert origin.calls == 3
        origin.open(3)
        await all_done(clients)
        assert {client.response.body for client in clients} == {b"Hello"}

    run(main)


def test_variants_have_fills_of_their_own():
    async def main():
        headers = (("cache-control", "max-age=60"), ("vary", "accept-language"))
        origin = Origin(headers=headers, gated=True)
        app = CacheMiddleware(origin)
        languages = ["de", "en", "fr"] * 20
        clients = [Client(app, headers=[("host", "a"), ("accept-language", code)]) for code in languages]
        for _ in range(3):
            await settled()
            origin.open(1)
        await all_done(clients)
        assert origin.calls == 3 and {client.response.body for client in clients} == {b"Hello"}

    run(main)


def test_variants_do_not_wait_for_each_other_once_vary_is_known():
    async def main():
        headers = (("cache-control", "max-age=60"), ("vary", "accept-language"))
        origin = Origin(headers=headers)
        app = CacheMiddleware(origin)
        await Client(app).done()
        origin.gated = True
        clients = [Client(app, headers=[("host", "example.com"), ("accept-language", code)])
                   for code in ["de", "en", "fr"] * 2]
        await settled()
        assert origin.running == 3
        origin.open(3)
        await all_done(clients)
        assert origin.calls == 4

    run(main)


@pytest.mark.parametrize("length", [None, 9])
def test_a_failure_within_the_body_aborts_every_response_and_stores_nothing(length):
    async def main():
        headers = [("cache-control", "max-age=60")] + [("content-length", str(length))] * (length is not None)
        error = ZeroDivisionError("app")
        origin = Origin(b"abc", None, headers=headers, error=error, gated=True)
        app = CacheMiddleware(origin)
        clients = await clients_of(app, 5)
        origin.open()
        await settled()
        origin.open()
        outcomes = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        assert outcomes == [error] * 5 and not any(client.is_complete for client in clients)
        await clients_of(app, 1)
        assert origin.calls == 2

    run(main)


def test_a_failure_before_the_head_reaches_all_clients_of_the_one_call():
    async def main():
        error = ZeroDivisionError("app")
        origin = Origin(None, error=error, gated=True)
        clients = await clients_of(CacheMiddleware(origin), 100)
        origin.open()
        outcomes = await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
        assert outcomes == [error] * 100 and origin.calls == 1

    run(main)


@pytest.mark.parametrize("body", [b"Hell", b"Hello!"])
def test_a_body_of_another_length_aborts_every_response(body):
    headers = (("cache-control", "max-age=60"), ("content-length", "5"))

    async def main():
        origin = Origin(b"He", body[2:], headers=headers, gated=True)
        app = CacheMiddleware(origin)
        clients = await clients_of(app, 3)
        origin.open()
        await settled()
        origin.open()
        for client in clients:
            with pytest.raises(HeadgateError, match="the body has"):
                await client.task
            assert not client.is_complete
        assert len(app.cache.fills) == 0 and app.cache.stats().entries == 0

    run(main)


def test_a_response_without_an_end_fails():
    async def endless(scope, receive, send):
        headers = [(b"cache-control", b"max-age=9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})

    with pytest.raises(HeadgateError, match="the application returned before its response ended"):
        get(CacheMiddleware(endless))


def test_a_content_length_above_the_bound_releases_all_at_once():
    async def main():
        headers = (("cache-control", "max-age=60"), ("content-length", "6"))
        origin = Origin(b"abc", b"def", headers=headers, gated=True)
        clients = await clients_of(CacheMiddleware(origin, HTTPCache(max_object=5)), 4)
        origin.open()
        await settled()
        assert origin.running == 4
        origin.open(7)
        await all_done(clients)
        assert {client.response.body for client in clients} == {b"abcdef"}

    run(main)


def test_clients_under_way_get_a_body_that_is_too_large_to_be_stored():
    async def main():
        part = bytes(SLICE)
        origin = Origin(*[part] * 64, gated=True)
        app = CacheMiddleware(origin, HTTPCache(max_object=MIB))
        clients = await clients_of(app, 5)
        origin.open(20)  # above 1 MiB
        await settled()
        late = await clients_of(app, 1)
        assert origin.calls == 2
        origin.open(200)
        await all_done([*clients, *late])
        assert {len(client.response.body) for client in clients} == {4 * MIB}
        assert app.cache.stats().entries == 0 and app.cache.fills.filling == 0

    run(main)


def test_a_client_that_stalls_is_cut_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(_fills, "STALL", 0.1)

    async def main():
        origin = Origin(*[bytes(SLICE)] * 64)
        app = CacheMiddleware(origin, HTTPCache(max_object=MIB))
        slow, *others = [Client(app, stalls_at=at) for at in (1, None, None)]
        await all_done(others)
        assert {len(other.response.body) for other in others} == {4 * MIB}
        with pytest.raises(HeadgateError, match="the client took nothing while others waited"):
            await slow.task
        assert not slow.is_complete and origin.calls == 1

    run(main)


def test_a_hit_is_sent_in_slices():
    body = bytes(range(256)) * 1000
    app = CacheMiddleware(Origin(body))
    for _ in range(2):
        response = get(app)
        assert response.body == body
        assert max(len(message.get("body", b"")) for message in response.messages) == SLICE


class Staleness:
    """A cache whose clocks the test moves, with a response that is stale by now."""

    def __init__(self, directives):
        self.seconds = 0
        self.cache = HTTPCache(clock=lambda: self.seconds * 10**9)
        self.origin = Origin(b"old", headers=(("cache-control", directives),))
        self.app = CacheMiddleware(self.origin, self.cache)
        assert get(self.app, headers=[("host", "example.com")]).body == b"old"
        self.seconds = 20


def test_a_stale_response_is_refreshed_in_the_background():
    stale = Staleness("max-age=10, stale-while-revalidate=60")

    async def main():
        stale.origin.parts, stale.origin.gated = (b"new",), True
        clients = await clients_of(stale.app, 10)
        assert {client.response.body for client in clients} == {b"old"}
        assert stale.origin.running == 1 and [client.task.done() for client in clients].count(False) == 1
        stale.origin.open()
        await all_done(clients)
        fresh = await Client(stale.app).done()
        assert fresh.response.body == b"new" and stale.origin.calls == 2

    run(main)


def test_a_refresh_that_fails_is_reported(monkeypatch):
    stale, caught = Staleness("max-age=10, stale-while-revalidate=60"), []
    monkeypatch.setattr("headgate.adapters.asgi._cache.report", caught.append)
    stale.origin.parts, stale.origin.error = (None,), ZeroDivisionError("app")
    assert get(stale.app, headers=[("host", "example.com")]).body == b"old"
    assert caught == [stale.origin.error]


def test_a_refresh_takes_no_longer_than_a_fill_may():
    async def main():
        seconds = [0]
        origin = Origin(b"old", headers=(("cache-control", "max-age=10, stale-while-revalidate=60"),))
        app = CacheMiddleware(origin, HTTPCache(clock=lambda: seconds[0] * 10**9, fill_timeout=0.05))
        await Client(app).done()
        seconds[0], origin.gated = 20, True
        assert (await Client(app).done()).response.body == b"old"
        assert (origin.calls, origin.running) == (2, 0)

    run(main)


@pytest.mark.parametrize("failure", ["exception", "status"])
def test_a_stale_response_is_served_for_an_error(failure, monkeypatch):
    stale, caught = Staleness("max-age=10, stale-if-error=60"), []
    monkeypatch.setattr("headgate.adapters.asgi._cache.report", caught.append)

    async def main():
        origin = stale.origin
        origin.gated = True
        if failure == "exception":
            origin.parts, origin.error = (None,), ZeroDivisionError("app")
        else:
            origin.status, origin.parts = 503, (b"sorry",)
        clients = await clients_of(stale.app, 5)
        origin.open()
        await all_done(clients)
        assert {client.response.body for client in clients} == {b"old"} and origin.calls == 2
        assert "stale-if-error" in clients[0].response.fields["cache-status"]
        assert caught == ([origin.error] if failure == "exception" else [])

    run(main)


def test_without_stale_if_error_a_crash_is_a_crash():
    stale = Staleness("max-age=10")
    stale.origin.parts, stale.origin.error = (None,), ZeroDivisionError("app")
    with pytest.raises(ZeroDivisionError):
        get(stale.app, headers=[("host", "example.com")])


def test_a_304_validates_for_all_clients():
    async def main():
        seconds = [0]
        headers = (("cache-control", "max-age=10"), ("etag", '"1"'))
        origin = Origin(b"old", headers=headers)
        app = CacheMiddleware(origin, HTTPCache(clock=lambda: seconds[0] * 10**9))
        await Client(app).done()
        seconds[0], origin.gated, origin.status, origin.parts = 20, True, 304, (b"",)
        clients = await clients_of(app, 10)
        origin.open()
        await all_done(clients)
        assert (b"if-none-match", b'"1"') in origin.scopes[1]["headers"]
        assert {client.response.body for client in clients} == {b"old"} and origin.calls == 2

    run(main)


def test_preconditions_are_evaluated_on_the_result_of_a_fill():
    async def main():
        headers = (("cache-control", "max-age=60"), ("etag", '"1"'))
        origin = Origin(b"a", b"b", headers=headers, gated=True)
        app = CacheMiddleware(origin)
        clients = [Client(app, headers=[("host", "a"), *more]) for more in (
            [("if-none-match", '"1"')], [], [("if-none-match", '"1"')], [("if-none-match", '"2"')])]
        await settled()
        origin.open(2)
        await all_done(clients)
        assert [client.response.status for client in clients] == [304, 200, 304, 200]
        assert [client.response.body for client in clients] == [b"", b"ab", b"", b"ab"]
        assert b"if-none-match" not in dict(origin.scopes[0]["headers"]) and origin.calls == 1

    run(main)


@pytest.mark.parametrize("options", [
    {"method": "POST"}, {"method": "HEAD"}, {"headers": [("host", "a"), ("range", "bytes=0-1")]},
    {"headers": [("host", "a"), ("content-length", "3")]}, {"headers": [("host", "a"), ("if-match", "x")]},
])
def test_what_cannot_be_shared_passes_without_waiting(options):
    async def main():
        origin = Origin(gated=True)
        clients = await clients_of(CacheMiddleware(origin), 3, **options)
        assert origin.running == 3 and origin.scopes == [client.scope for client in clients]
        origin.open(3)
        await all_done(clients)
        assert {client.outcome.partition(";")[0] for client in clients} <= {
            "fwd=method", "fwd=request", "fwd=uri-miss"}

    run(main)


def test_an_unsafe_request_invalidates():
    origin = Origin()
    app = CacheMiddleware(origin)
    for method in ("GET", "POST", "GET"):
        get(app, method=method)
    assert origin.calls == 3


def test_a_purge_during_a_fill_wins():
    async def main():
        origin = Origin(gated=True)
        app = CacheMiddleware(origin)
        before = await clients_of(app, 2)
        app.cache.purge("/")
        after = await clients_of(app, 2)
        assert origin.calls == 2  # those who come after the purge do not join
        origin.open()
        await all_done(before)
        assert [client.outcome for client in before] == [
            "fwd=uri-miss; fwd-status=200", "fwd=uri-miss; collapsed"]
        origin.open()
        await all_done(after)
        assert (await Client(app).done()).outcome.startswith("hit") and origin.calls == 2

    run(main)


def test_a_call_for_a_fill_has_a_scope_of_its_own_without_extensions():
    origin, extensions = Origin(), {"http.response.pathsend": {}}
    app = CacheMiddleware(origin)
    scope = scope_of("/a", extensions=extensions, headers=[("host", "a")], state={"a": 1})
    asyncio.run(call(app, scope))
    (found,) = origin.scopes
    assert found is not scope and found["state"] is scope["state"]
    assert "extensions" not in found and scope["extensions"] is extensions


def test_trailers_and_unknown_messages_go_straight_to_the_client():
    async def odd(scope, receive, send):
        await send({"type": "http.response.push", "path": "/b"})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        await send({"type": "http.response.trailers", "headers": []})

    response = get(CacheMiddleware(odd))
    kinds = [message["type"].rpartition(".")[2] for message in response.messages]
    assert kinds == ["push", "start", "body", "trailers"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "else"])
def test_other_scopes_pass_unchanged(kind):
    seen = []

    async def app(*args):
        seen.append(args)

    scope, receive, send = {"type": kind}, object(), object()
    asyncio.run(CacheMiddleware(app)(scope, receive, send))
    assert seen == [(scope, receive, send)] and seen[0][0] is scope


def test_exempt_requests_are_left_alone():
    app = CacheMiddleware(hello, exempt=["/health*"])
    assert "cache-status" not in get(app, "/healthz").fields
    assert "cache-status" in get(app, "/other").fields

    async def is_exempt(request):
        return request.path == "/a"

    assert "cache-status" not in get(CacheMiddleware(hello, exempt=is_exempt), "/a").fields


def test_only_if_cached_is_refused_without_a_call():
    origin = Origin()
    response = get(CacheMiddleware(origin), headers=[("cache-control", "only-if-cached")])
    assert response.status == 504 and origin.calls == 0 and "cache-status" in response.fields


def test_the_raw_path_is_the_key():
    origin = Origin()
    app = CacheMiddleware(origin)
    for raw in (b"/a%2Fb", b"/a%2fb", b"/a/b"):
        get(app, "/a/b", raw_path=raw)
    assert origin.calls == 2
    assert get(app, "/a/b", raw_path=None).body == b"Hello" and origin.calls == 2
    get(app, "/a/b", query_string=b"c")
    assert origin.calls == 3


def test_junk_in_headers_never_raises():
    """In 10,000 requests and responses; a client that asks for all of it gets the whole body."""
    random, statuses = Random(14), [200, 200, 200, 203, 204, 206, 301, 304, 404, 416, 500, 503, 599]
    cache = HTTPCache("1 MiB", stale_while_revalidate=1, stale_if_error=1)
    respond = Origin(b"Hello, ", b"world")
    app = CacheMiddleware(respond, cache)

    async def main():
        for _ in range(10_000):
            respond.status, respond.headers = random.choice(statuses), junk(random, RESPONSE_NAMES)
            respond.headers = [(name, value.encode().decode("latin-1")) for name, value in respond.headers]
            fields = [(name, value.encode().decode("latin-1")) for name, value in junk(random, REQUEST_NAMES)]
            path = random.choice(["/", "/a%", "/%ff?%", "*", "", "//b", "/" + "a" * 20_000])
            method = random.choice(["GET"] * 8 + ["HEAD", "POST", "DELETE", "BREW"])
            scope = scope_of(path, method=method, headers=fields, raw_path=path.encode())
            response = await call(app, scope)
            assert b"cache-status" in dict(response.start["headers"])
            if response.status == 200 and method == "GET":
                assert response.body == b"Hello, world"
        cache._check()

    run(main)


@pytest.mark.parametrize("cache", [1, "64 MiB", {}])
def test_a_cache_of_another_type_is_refused(cache):
    with pytest.raises(TypeError, match="cache must be an HTTPCache or None, got"):
        CacheMiddleware(hello, cache)
