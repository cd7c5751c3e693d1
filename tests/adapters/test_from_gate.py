"""from_gate: an application within the limits, the cache and the shedding of a gate, which changes live."""

import asyncio
import gc
import json
import threading

import asgi_driver
import pytest
import wsgi_driver
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from headgate.adapters import asgi, dashboard, wsgi
from headgate.adapters._readings import readings
from headgate.cli.top.show import tables_of_document
from headgate.config import ConfigError, load

LIMITS = {"api": {"rate": "2/h"}, "few": {"rate": "1/h"}}


class ASGI:
    """An application that says how often it was called."""

    def __init__(self):
        self.calls = 0

    async def app(self, scope, receive, send):
        self.calls += 1
        headers = [(b"cache-control", b"max-age=60")] if scope["path"] == "/cached" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%d" % self.calls})

    def wrapped(self, gate):
        return asgi.from_gate(self.app, gate)

    def get(self, app, path="/", **options):
        return asgi_driver.get(app, path, **options)


class WSGI:
    def __init__(self):
        self.calls = 0

    def app(self, environ, start_response):
        self.calls += 1
        headers = [("Cache-Control", "max-age=60")] if environ["PATH_INFO"] == "/cached" else []
        start_response("200 OK", headers)
        return [b"%d" % self.calls]

    def wrapped(self, gate):
        return wsgi.from_gate(self.app, gate)

    def get(self, app, path="/", **options):
        return wsgi_driver.call(app, wsgi_driver.environ_of(path, **options))


@pytest.fixture(params=[ASGI, WSGI])
def host(request):
    return request.param()


def test_an_empty_document_wraps_nothing(host):
    app = host.wrapped(load({}))
    assert host.get(app).body == b"1"
    assert app.stats() == (None, None, None) and app.app == host.app


def test_limit_cache_and_shedding_in_this_order(host):
    gate = load({
        "limits": LIMITS, "concurrency": {"workers": {"limit": 1, "max_limit": 1, "algorithm": "fixed"}},
        "http": {"limit": "api", "keys": "client", "exempt": "/free", "shed": "workers", "cache": {},
                 "retry_after": 7},
    })
    app = host.wrapped(gate)
    with gate.concurrency["workers"].acquire():
        assert host.get(app, "/free").status == 503, "shed"
        assert host.get(app, "/free").fields["retry-after"] == "7"
    assert host.get(app, "/cached").body == b"1"
    with gate.concurrency["workers"].acquire():
        response = host.get(app, "/cached")
        assert response.body == b"1" and "hit" in response.fields["cache-status"], "a hit needs no permit"
    response = host.get(app, "/cached")
    assert response.status == 429 and "cache-status" not in response.fields, "a hit is charged too"
    stats = app.stats()
    assert stats.limit["default"].denied == 1 and stats.cache.hits == 1 and stats.shed.shed == {None: 2}


def test_keys_of_levels_behind_proxies(host):
    gate = load({
        "limits": {"networks": {"kind": "address", "rate": "1/h"}},
        "levels": {"public": {"ip": "networks", "user": "1/h"}},
        "http": {"limit": "public", "keys": {"ip": "client", "user": "header x-user"},
                 "trusted": ["192.0.2.1"], "headers": "none"},
    })
    app = host.wrapped(gate)

    def status(address, user=None):
        headers = [("x-forwarded-for", address)] + ([("x-user", user)] if user else [])
        return host.get(app, headers=headers).status

    assert [status("2001:db8::1"), status("2001:db8::2")] == [200, 429], "both are of one network"
    assert [status("2001:db8:1::1", "ann"), status("2001:db8:2::1", "ann")] == [200, 429]


def test_what_was_counted_stays_with_another_rate(host):
    document = {"limits": LIMITS, "http": {"limit": "api", "keys": "client"}}
    gate = load(document)
    app = host.wrapped(gate)
    host.get(app)
    gate.apply({**document, "limits": {"api": {"rate": "3/h"}, "few": {"rate": "1/h"}}})
    assert app.stats().limit["default"].allowed == 1


def test_a_changed_rate_holds_with_the_next_request(host):
    document = {"limits": LIMITS, "http": {"limit": "api", "keys": "client"}}
    gate = load(document)
    app = host.wrapped(gate)
    assert [host.get(app).status for _ in range(3)] == [200, 200, 429]
    gate.apply({**document, "limits": {"api": {"rate": "3/h; 9/d"}, "few": {"rate": "1/h"}}})
    response = host.get(app)
    assert response.status == 200 and len(response.fields["ratelimit-policy"].split(",")) == 2
    assert host.get(app).status == 429
    gate.apply({"limits": LIMITS, "http": {"limit": "few", "keys": "const all"}})
    assert [host.get(app).status for _ in range(2)] == [200, 429]
    gate.apply({"limits": LIMITS})
    assert host.get(app).status == 200 and app.stats().limit is None


def test_responses_stay_cached_and_can_be_purged(host):
    gate = load({"http": {"cache": {"maxsize": "1 MiB"}}})
    app = host.wrapped(gate)
    assert host.get(app, "/cached").body == b"1"
    gate.apply({"http": {"cache": {"maxsize": "2 MiB"}, "retry_after": 3}})
    assert host.get(app, "/cached").body == b"1"
    assert gate.http.cache.purge("/cached") == 1
    assert host.get(app, "/cached").body == b"2"


def test_a_document_that_the_host_cannot_have_is_refused(host):
    pytest.importorskip("redis")
    document = {
        "limits": {**LIMITS, "fleet": {"rate": "5/s", "store": "shared"}},
        "levels": {"mixed": {"ip": "fleet"}},
        "concurrency": {"workers": {"priorities": {"user": 1}}},
        "stores": {"shared": {"url": "redis://127.0.0.1:1", "on_error": "allow"}},
    }
    gate = load(document)
    app = host.wrapped(gate)
    with pytest.raises(ConfigError, match=r"^\$\.http\.priority: priority must be given for a limiter with"):
        gate.apply({**document, "http": {"shed": "workers"}})
    if isinstance(host, ASGI):
        with pytest.raises(ConfigError, match=r"limits must not block the event loop"):
            gate.apply({**document, "http": {"limit": "mixed", "keys": {"ip": "client"}}})
    assert gate.http.limit is None and host.get(app).status == 200
    gate.apply({**document, "http": {"limit": "fleet", "keys": "client"}})
    assert host.get(app).status == 200, "each host has the form of the limiter that it can wait for"
    gate.close()


def test_a_request_ends_with_what_it_began_with():
    async def main():
        gate = load({"concurrency": {"workers": {"limit": 1, "max_limit": 1, "algorithm": "fixed"}},
                     "http": {"shed": "workers"}})
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(scope, receive, send):
            begun.set()
            await go_on.wait()
            await asgi_driver.hello(scope, receive, send)

        app = asgi.from_gate(slow, gate)
        workers = gate.concurrency["workers"]
        request = asyncio.create_task(asgi_driver.call(app, asgi_driver.scope_of()))
        await begun.wait()
        gate.apply({"http": {}})
        assert workers.inflight == 1
        go_on.set()
        assert (await request).status == 200 and workers.inflight == 0
        assert (await asgi_driver.call(app, asgi_driver.scope_of())).status == 200

    asyncio.run(main())


def test_requests_while_the_document_changes(host):
    tried = {"limit": "few", "keys": "const all", "dry_run": True}
    https = {}, {"cache": {}}, tried, {"cache": {"policy": "lru"}}
    documents = [{"limits": LIMITS, "http": http} for http in https]
    gate = load(documents[0])
    app, ended, statuses = host.wrapped(gate), threading.Event(), set()

    def serve():
        while not ended.is_set():
            statuses.add(host.get(app, "/cached").status)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(60):
        gate.apply(documents[at % len(documents)])
    ended.set()
    for thread in threads:
        thread.join()
    assert statuses == {200}


def test_an_application_that_is_dropped_is_followed_no_more(host):
    gate = load({"http": {}})
    app = host.wrapped(gate)
    assert len(gate._followers) == 1
    del app
    gc.collect()
    assert len(gate._followers) == 0


def test_a_level_that_waits_for_a_store_is_none_of_an_event_loop():
    limits = {"fleet": {"rate": "1/s", "store": "main"}}
    gate = load({"stores": {"main": {"url": "redis://127.0.0.1:1"}}, "limits": limits,
                 "levels": {"public": {"ip": "fleet", "user": "1/s"}},
                 "http": {"limit": "public", "keys": {"ip": "client", "user": "user"}}})
    assert wsgi.from_gate(None, gate)
    expected = r"event loop, as the level 'ip' does: give all levels one store, got RateLimits\("
    with pytest.raises(ConfigError, match=expected):
        asgi.from_gate(None, gate)


SHED = {"concurrency": {"workers": {"limit": 1, "max_limit": 1, "algorithm": "fixed",
                                    "priorities": {"user": 1, "batch": 0.5}}}}


def samples(gate, name):
    return {tuple(labels.values()): value for family in readings(gate) if family.name == name
            for labels, value in family.samples}


def test_metrics_of_a_gate_have_what_all_its_applications_count(host):
    http = {"limit": "api", "keys": "client", "shed": "workers", "priority": "header x-priority"}
    gate = load({"limits": LIMITS, **SHED, "http": http})
    first, second = host.wrapped(gate), host.wrapped(gate)
    assert samples(gate, "headgate.limit.denials") == {("api", "", "2/h"): 0}
    statuses = [host.get(app, headers=[("x-priority", "user")]).status for app in (first, second, second)]
    assert statuses == [200, 200, 429]
    assert samples(gate, "headgate.limit.requests") == {("api", "", "allowed"): 2, ("api", "", "denied"): 1}
    assert samples(gate, "headgate.limit.denials") == {("api", "", "2/h"): 1}
    assert samples(gate, "headgate.limit.rate")["api", "", "2/h"] == 2 / 3600, "labels are the same"
    assert samples(gate, "headgate.shed.requests") == {
        ("workers", "user", "admitted"): 2, ("workers", "user", "shed"): 0,
        ("workers", "batch", "admitted"): 0, ("workers", "batch", "shed"): 0}
    assert samples(gate, "headgate.concurrency.limit") == {("workers",): 1}
    assert not samples(gate, "headgate.reading.errors")


def test_metrics_follow_another_document(host):
    document = {"limits": LIMITS, "http": {"limit": "api", "keys": "client"}}
    gate = load(document)
    app = host.wrapped(gate)
    host.get(app)
    gate.apply({**document, "http": {"limit": "few", "keys": "client"}})
    host.get(app)
    assert samples(gate, "headgate.limit.requests") == {("few", "", "allowed"): 1, ("few", "", "denied"): 0}
    gate.apply({"limits": LIMITS})
    assert not samples(gate, "headgate.limit.requests")


def test_limits_by_level_are_counted_once(host):
    gate = load({"levels": {"public": {"ip": "1/h"}}, "http": {"limit": "public", "keys": {"ip": "client"}}})
    apps = [host.wrapped(gate) for _ in range(2)]
    assert [host.get(app).status for app in apps] == [200, 429]
    assert samples(gate, "headgate.limit.requests") == {
        ("public", "ip", "allowed"): 1, ("public", "ip", "denied"): 1}


def test_a_dashboard_of_a_gate_shows_what_its_applications_deny(host):
    gate = load({"limits": LIMITS, "http": {"limit": "few", "keys": "client"}})
    apps = [host.wrapped(gate) for _ in range(2)]
    page = dashboard.wsgi(gate, allow=lambda request: True, mask=False)
    for app in apps:
        for _ in range(2):
            host.get(app)
    document = json.loads(wsgi_driver.call(page, wsgi_driver.environ_of("/data.json")).body)
    rows = {row["name"]: row for row in document["limits"]}
    assert rows["few"]["requests"] == {"allowed": 1, "denied": 3} and rows["few"]["rate"]
    denied, = document["denied"]
    assert (denied["name"], denied["level"], denied["total"]) == ("few", "", 3)


@pytest.mark.parametrize(("priorities", "before"), [(None, ""), ({"user": 1.0}, "user ")])
def test_a_dashboard_of_a_gate_shows_what_its_applications_shed(host, priorities, before):
    http = {"shed": "workers", "priority": "header x-priority" if priorities else None}
    gate = load({"concurrency": {"workers": {"priorities": priorities}}, "http": http})
    app = host.wrapped(gate)
    host.get(app)
    page = dashboard.wsgi(gate, allow=lambda request: True)
    row, = json.loads(wsgi_driver.call(page, wsgi_driver.environ_of("/data.json")).body)["shedding"]
    assert row["requests"] == {f"{before}admitted": 1, f"{before}shed": 0}
    row["requests_per_second"] = {f"{before}admitted": 30.0, f"{before}shed": 10.0}
    cells = [line.cells for table in tables_of_document({"shedding": [row]}) for line in table.rows]
    assert cells == [(f"workers: {before}".rstrip(" :"), "30/s", "10/s", "25.0%")]


def test_gates_have_other_followers_too(host):
    gate = load({"limits": LIMITS, "http": {"limit": "few", "keys": "client"}})
    followed = gate.follow(lambda http: http.retry_after)
    assert gate.applications == (followed.current,) and not samples(gate, "headgate.limit.requests")


@pytest.mark.parametrize("gate", [None, {"stores": {"main": {"url": "redis://:secret@a"}}}, "gate.yaml"])
def test_what_is_no_gate_is_refused(host, gate):
    message = f"gate must be a Gate, as headgate.config.load returns one, got a {type(gate).__name__}"
    with pytest.raises(TypeError, match=f"^{message}$"):
        host.wrapped(gate)


def test_as_a_middleware_of_starlette():
    gate = load({"limits": LIMITS, "http": {"limit": "api", "keys": "client"}})
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])
    app.add_middleware(asgi.from_gate, gate=gate)
    assert [asgi_driver.get(app).status for _ in range(3)] == [200, 200, 429]
    gate.apply({"limits": LIMITS})
    assert asgi_driver.get(app).status == 200
