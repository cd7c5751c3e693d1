"""The dashboard without a browser: who may look, what is sent, and the streams."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from urllib.parse import quote
from wsgiref.util import shift_path_info

import asgi_driver
import pytest
import wsgi_driver
from watchdog import PATIENCE

from headgate import SLO, ConcurrencyLimiter, HotKeys, LRUCache, PowerOfTwo, RateLimiter, RateLimits
from headgate.adapters import dashboard
from headgate.adapters.asgi import ASGIRequest, RateLimitMiddleware
from headgate.adapters.dashboard import _feed
from headgate.adapters.fastapi import RateLimit
from headgate.adapters.flask import limit
from headgate.adapters.keys import const
from headgate.adapters.wsgi import RateLimitMiddleware as WSGIRateLimitMiddleware
from headgate.config import load

HERE = "192.0.2.0/24"
HOSTS = {"asgi": (dashboard.asgi, asgi_driver.get), "wsgi": (dashboard.wsgi, wsgi_driver.get)}
EVIL = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e\0\ud800'\"\r\n\r\ndata: x"


@pytest.fixture(scope="module", autouse=True)
def no_thread_remains():
    yield
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_feed, "_LINGER", 0.0)
        deadline = time.monotonic() + PATIENCE
        while any(each.name == "headgate-dashboard" for each in threading.enumerate()):
            assert time.monotonic() < deadline, "a thread goes on without viewers"
            time.sleep(0.01)


@pytest.fixture(params=HOSTS)
def host(request):
    return request.param


@pytest.fixture
def make(host):
    return HOSTS[host][0]


@pytest.fixture
def get(host):
    return HOSTS[host][1]


def mounted(host, app, mount):
    """An application beneath a path, as frameworks mount it."""
    async def asgi(scope, receive, send):
        await app({**scope, "root_path": mount}, receive, send)

    def wsgi(environ, start_response):
        for _ in range(mount.count("/")):
            shift_path_info(environ)
        return app(environ, start_response)

    return {"asgi": asgi, "wsgi": wsgi}[host]


def data_of(app, get, path="/data.json"):
    response = get(app, path)
    assert response.status == 200
    assert response.fields["content-type"] == "application/json"
    return json.loads(response.body)


# ---- who may look

def test_nobody_may_look_unless_allowed(make, get):
    for path in ("/", "", "/page.js", "/data.json", "/events", "/absent"):
        response = get(make({}), path)
        assert response.status == 403
        assert response.fields["cache-control"] == "no-store, no-transform"


@pytest.mark.parametrize("allow, address, status", [
    ("192.0.2.0/24", "192.0.2.9", 200), ("192.0.2.0/24", "192.0.3.9", 403),
    (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::7", 200), (["::1"], "127.0.0.1", 403),
    ("127.0.0.1/8", "127.9.9.9", 200), ("127.0.0.1/8", "::ffff:127.0.0.1", 200),
    ("127.0.0.1/8", "", 403), ("unix", "", 200), ([], "127.0.0.1", 403), ("0.0.0.0/0", "localhost", 403),
    (lambda request: request.client == "127.0.0.1", "127.0.0.1", 200), (lambda request: None, "::1", 403),
    (lambda request: request.header("X-Token") == "1", "::1", 403),
])
def test_who_may_look(host, make, get, allow, address, status):
    client = (address, 5) if address and host == "asgi" else address or None
    if host == "wsgi" and client is None:
        client = ""
    assert get(make({}, allow=allow), "/data.json", client=client).status == status


@pytest.mark.parametrize("header", [
    "X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto", "CF-Connecting-IP"])
def test_a_local_proxy_does_not_let_everyone_in(host, make, get, header):
    client = ("127.0.0.1", 5) if host == "asgi" else "127.0.0.1"
    forwarded = {"headers": [(header, "203.0.113.9")], "client": client}
    assert get(make({}, allow="127.0.0.1/8"), client=client).status == 200
    assert get(make({}, allow="127.0.0.1/8"), **forwarded).status == 403
    assert get(make({}, allow="127.0.0.1/8", trusted=["127.0.0.1"]), headers=[
        ("X-Forwarded-For", "203.0.113.9")], client=client).status == 403
    assert get(make({}, allow="203.0.113.9", trusted=["127.0.0.1"]), headers=[
        ("X-Forwarded-For", "203.0.113.9")], client=client).status == 200


def test_coroutine_functions_say_who_may_look_where_they_are_awaited():
    async def allow(request):
        return request.path == "/data.json"

    assert asgi_driver.get(dashboard.asgi({}, allow=allow), "/data.json").status == 200
    assert asgi_driver.get(dashboard.asgi({}, allow=allow), "/").status == 403
    with pytest.raises(TypeError, match=r"^allow must not be a coroutine function, as nothing awaits it"):
        dashboard.wsgi({}, allow=allow)
    with pytest.raises(TypeError, match=r"^allow must not return an awaitable"):
        wsgi_driver.get(dashboard.wsgi({}, allow=lambda request: allow(request)))


@pytest.mark.parametrize("arguments, error, message", [
    ({"allow": "nowhere"}, ValueError, r"^allow must be networks, as '127.0.0.1/8', .* got 'nowhere'$"),
    ({"allow": 5}, TypeError, r"^allow must be an iterable, got 5$"),
    ({"every": 0}, ValueError, r"^every must be in \[0.1, 60.0\] seconds, got 0$"),
    ({"every": "1"}, TypeError, r"^every must be a number, got '1'$"),
    ({"viewers": -1}, ValueError, r"^viewers must be in \[0, 10000\], got -1$"),
    ({"mask": None}, TypeError, r"^mask must be True, False or a callable, got None$"),
    ({"mask": 5}, TypeError, r"^mask must be callable or None, got 5$"),
    ({"trusted": "junk"}, ValueError, r"^trusted must be addresses, networks or 'unix', got 'junk'$"),
])
def test_arguments_are_checked(make, arguments, error, message):
    with pytest.raises(error, match=message):
        make({}, **{"allow": "127.0.0.1", **arguments})


@pytest.mark.parametrize("source", [5, {"a": 5}, {5: None}])
def test_sources_are_checked(make, source):
    with pytest.raises(TypeError, match=r"^source must "):
        make(source)


# ---- what is sent

FILES = {"/": "text/html; charset=utf-8", "/page.css": "text/css; charset=utf-8",
         "/page.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
         "/data.json": "application/json"}


@pytest.mark.parametrize("path", FILES)
def test_files_and_their_fields(make, get, path):
    app = make({}, allow=HERE)
    response, head = get(app, path), get(app, path, method="HEAD")
    assert (response.status, response.fields["content-type"]) == (200, FILES[path])
    assert int(response.fields["content-length"]) == len(response.body) > 100
    assert (head.status, head.body) == (200, b"")
    policy = dict(part.split(" ", 1) for part in response.fields["content-security-policy"].split("; "))
    assert set(policy.values()) == {"'self'", "'none'"}
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert response.fields["x-content-type-options"] == "nosniff"
    assert response.fields["referrer-policy"] == "no-referrer"
    assert response.fields["x-frame-options"] == "DENY"


def test_the_page_has_nothing_that_its_policy_forbids(make, get):
    page = get(make({}, allow=HERE)).body.decode()
    assert "<style" not in page
    assert "style=" not in page
    assert page.count("<script") == page.count('<script src="page.js" defer></script>') == 1
    script = get(make({}, allow=HERE), "/page.js").body.decode()
    for junk in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert junk not in script
    for text in (page, script, get(make({}, allow=HERE), "/page.css").body.decode()):
        assert text.replace("http://www.w3.org/2000/svg", "").count("://") == 0


def test_other_methods_and_paths(make, get):
    app = make({}, allow=HERE)
    assert get(app, "/absent").status == 404
    assert get(app, "/page.html").status == 404
    assert get(app, "/../page.css").status == 404
    head = get(app, "/events", method="HEAD")
    assert (head.status, head.fields["content-type"], head.body) == (200, "text/event-stream", b"")
    for path in ("/", "/data.json", "/events"):
        response = get(app, path, method="POST")
        assert (response.status, response.fields["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("mount", ["/headgate", "/a/b-c", "/h%3Fx?y", "/über", "/a\r\nX: b"])
def test_mounts(host, make, get, mount):
    app = mounted(host, make({}, allow=HERE), mount)
    path = mount if host == "asgi" else mount.encode().decode("latin-1")  # as WSGI has it
    assert get(app, f"{path}/").status == 200
    assert data_of(app, get, f"{path}/data.json")["schema"] == "headgate.dashboard"
    response = get(app, path)
    assert response.status == 308
    assert response.fields["location"] == f"./{quote(mount.rpartition('/')[2], safe='')}/"


def test_a_mount_whose_prefix_the_host_removes():
    app = dashboard.asgi({}, allow=HERE)
    assert asgi_driver.get(app, "/data.json", root_path="/headgate").status == 200


def test_mounts_in_frameworks():
    from fastapi import FastAPI
    from flask import Flask
    from starlette.testclient import TestClient
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    service = FastAPI()
    service.mount("/ops/headgate", dashboard.asgi({"a": LRUCache(5)}, allow=lambda request: True))
    with TestClient(service) as client:
        assert client.get("/ops/headgate").text.startswith("<!doctype html>")
        assert client.get("/ops/headgate/data.json").json()["caches"][0]["name"] == "a"

    flask = Flask(__name__)
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, {
        "/ops/headgate": dashboard.wsgi({"a": LRUCache(5)}, allow=lambda request: True)})
    client = flask.test_client()
    assert client.get("/ops/headgate/").text.startswith("<!doctype html>")
    assert client.get("/ops/headgate/data.json").json["caches"][0]["name"] == "a"


def test_websockets_are_refused_and_lifespans_served():
    app = dashboard.asgi({}, allow=lambda request: True)
    response = asyncio.run(asgi_driver.call(app, asgi_driver.scope_of("/events", kind="websocket")))
    assert response.messages == [{"type": "websocket.close", "code": 1013}]

    async def live():
        events, sent = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}], []

        async def receive():
            return events.pop()

        async def send(message):
            sent.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(live()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# ---- the document

def test_the_document(make, get, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("headgate.adapters.dashboard._documents.monotonic", lambda: now[0])
    cache, limits = LRUCache(2), RateLimits(ip="2/day", user="5/day")
    limiter, slo = ConcurrencyLimiter(1), SLO(99.9)
    balancer, hot = PowerOfTwo(["http://u:secret@a:1", "http://b:2"]), HotKeys(5)
    app = make({"pages": cache, "public": limits, "workers": limiter, "checkout": slo, "orders": balancer,
                "paths": hot, "plain": RateLimiter("1/s")}, allow=HERE, every=0.1, mask=False)
    first = data_of(app, get)
    assert first["interval"] is None
    assert "hits_per_second" not in first["caches"][0]
    assert first["problems"] == []

    cache["a"] = 1
    cache.get("a"), cache.get("a"), cache.get("b")
    for _ in range(5):
        limits.allow(ip="192.0.2.1", user="ann")
    held, pick = limiter.acquire(), balancer.pick()
    slo.record(False, 200)
    hot.add("/a", 7)
    now[0] += 2
    time.sleep(0.11)
    data = data_of(app, get)
    assert data["interval"] == 2
    assert data["caches"] == [data["caches"][0] | {
        "name": "pages", "hits": 2, "misses": 1, "hits_per_second": 1.0, "size": 1, "max_size": 2}]
    assert data["series"]["hit_ratio"] == {"pages": 2 / 3}
    ip = next(row for row in data["limits"] if row["level"] == "ip")
    assert ip["requests"] == {"allowed": 2, "denied": 3}
    assert ip["requests_per_second"] == {"allowed": 1.0, "denied": 1.5}
    assert ip["denials"] == {"2/day": 3}
    assert data["series"]["denied"] == {"public: ip": 1.5, "public: user": 0.0}
    assert data["denied"][0] == {"name": "public", "level": "ip", "total": 3, "keys": [
        {"key": "192.0.2.1", "count": 3, "error": 0}]}
    assert data["hotkeys"] == [{"name": "paths", "total": 7, "keys": [{"key": "/a", "count": 7, "error": 0}]}]
    assert data["concurrency"][0]["inflight"] == data["concurrency"][0]["limit"] == 1
    assert data["objectives"][0]["error_budget"] < 0
    assert set(data["balancers"][0]["weight"]) == {"http://a:1", "http://b:2"}
    assert {(each["severity"], each["name"]) for each in data["problems"]} == {
        ("critical", "checkout"), ("warning", "workers")} | {("warning", "checkout")}
    assert [each["severity"] for each in data["problems"]] == sorted(
        each["severity"] for each in data["problems"])
    held.release(), pick.done()


def test_problems_of_balancers_and_of_what_cannot_be_read(make, get):
    class Broken(LRUCache):
        def stats(self, **options):
            raise OSError("no")

    balancer = PowerOfTwo(["a", "b"], max_failures=1, max_ejected=1.0)
    app = make({"bad": Broken(1), "orders": balancer}, allow=HERE, every=0.1)
    balancer.pick().done(ok=False)
    problems = {each["name"]: each for each in data_of(app, get)["problems"]}
    assert problems["bad"]["text"] == "bad could not be read: OSError."
    assert problems["orders"]["text"] == "1 of 2 servers of orders are ejected."


def test_problems_of_servers_that_are_down(make, get):
    balancer = PowerOfTwo(["a", "b", "c"])
    texts = [
        "1 of 3 servers of orders are down.", "2 of 3 servers of orders are down.",
        "No server of orders is healthy.",
    ]
    for server, text in zip("abc", texts, strict=True):
        balancer.mark_down(server)
        app = make({"orders": balancer}, allow=HERE, every=0.1)
        assert [each["text"] for each in data_of(app, get)["problems"]] == [text]


class BrokenLimits(RateLimits):
    def counters(self):
        raise OSError("no")


class BrokenDenials(RateLimits):
    @property
    def denied(self):
        raise OSError("no")


class BrokenKeys(HotKeys):
    def top(self, *arguments, **options):
        raise OSError("no")


@pytest.mark.parametrize("broken", [
    lambda: BrokenLimits(ip="1/s"), lambda: BrokenDenials(ip="1/s"), lambda: BrokenKeys(10),
])
def test_what_cannot_be_read_hides_nothing_else(make, get, broken):
    hot = HotKeys(10)
    hot.add("/search")
    app = make({"bad": broken(), "pages": LRUCache(1), "paths": hot}, allow=HERE, mask=False)
    data = data_of(app, get)
    assert [each["text"] for each in data["problems"]] == ["bad could not be read: OSError."]
    assert [row["name"] for row in data["caches"]] == ["pages"]
    assert [(row["name"], row["keys"][0]["key"]) for row in data["hotkeys"]] == [("paths", "/search")]


def test_a_mask_that_raises_hides_the_keys_and_says_so(make, get):
    def mask(key):
        raise LookupError(key)

    hot, limits = HotKeys(10), RateLimits(user="1/day")
    app = make({"paths": hot, "public": limits, "pages": LRUCache(1)}, allow=HERE, mask=mask)
    hot.add("/secret")
    limits.deny("user", "ann")
    limits.allow(user="ann")
    response = get(app, "/data.json")
    data = json.loads(response.body)
    assert [each["text"] for each in data["problems"]] == [
        "paths could not be read: LookupError.", "public could not be read: LookupError."]
    assert (data["hotkeys"], data["denied"], len(data["caches"])) == ([], [], 1)
    assert b"secret" not in response.body and b"ann" not in response.body


def test_names_are_printable_wherever_they_are(make, get):
    primitives = {"hot": HotKeys(5), "limits": RateLimits(ip="1/s"), "bad": BrokenKeys(5), "c": LRUCache(1)}
    data = data_of(make({f"{EVIL}{name}": each for name, each in primitives.items()}, allow=HERE), get)
    shown = [row["name"] for rows in ("hotkeys", "denied", "limits", "caches") for row in data[rows]]
    shown += [each["text"] for each in data["problems"]]
    assert len(shown) == 5
    assert [text for text in shown if not text.isprintable()] == []


def test_alerts_of_one_severity_are_one_problem(make, get):
    rules = [(2, "1 h", "5 min", "wake up"), (1, "6 h", "30 min", "wake up"), (1, "3 d", "6 h", "page")]
    slo = SLO(99.9, rules=rules)
    slo.record(False, 200)
    data = data_of(make({"checkout": slo}, allow=HERE), get)
    assert [each["text"] for each in data["problems"]] == [
        "An alert of checkout is firing (page).", "The error budget of checkout is overspent.",
        "An alert of checkout is firing (wake up)."]


def test_alerts_keep_their_transitions_for_the_callbacks_of_the_service(make, get):
    slo, seen = SLO(99.9), []
    app = make({"checkout": slo}, allow=HERE)
    slo.record(False, 200)
    assert any(each["severity"] == "critical" for each in data_of(app, get)["problems"])
    slo.alerts(on_change=lambda alert: seen.append(alert.state))
    assert "firing" in seen


MIDDLEWARES = {
    "asgi": lambda limits, keys: RateLimitMiddleware(None, limits, keys=keys),
    "wsgi": lambda limits, keys: WSGIRateLimitMiddleware(None, limits, keys=keys),
    "fastapi": lambda limits, keys: RateLimit(limits, key=keys),
    "flask": lambda limits, keys: limit(limits, key=keys),
}


@pytest.mark.parametrize("name", MIDDLEWARES)
def test_who_is_denied_by_a_middleware(make, get, name):
    limited = MIDDLEWARES[name](RateLimiter("1/day"), const("everyone@example.com"))
    app = make({"web": limited}, allow=HERE, mask=False)
    assert limited.denied["default"].total == 0
    request = ASGIRequest({"method": "GET", "path": "/orders"})
    assert [bool(limited._limiting.charge(request)) for _ in range(3)] == [True, False, False]
    key = f"{'GET /orders ' if name in ('fastapi', 'flask') else ''}everyone@example.com"
    assert data_of(app, get)["denied"] == [{"name": "web", "level": "default", "total": 2, "keys": [
        {"key": key, "count": 2, "error": 0}]}]


def test_a_gate(make, get):
    document = {"caches": {"pages": {"maxsize": 5}}, "levels": {"public": {"ip": "1/day"}},
                "objectives": {"checkout": {"target": 99.9}}}
    gate = load(document)
    app = make(gate, allow=HERE, every=0.1, mask=False)
    gate.caches["pages"].get("a")
    data = data_of(app, get)
    assert [row["misses"] for row in data["caches"]] == [1]
    assert [row["name"] for row in data["objectives"]] == ["checkout"]

    document["levels"]["more"] = {"user": "1/day"}
    assert gate.apply(document)
    time.sleep(0.11)
    assert [row["name"] for row in data_of(app, get)["denied"]] == ["public", "more"]
    gate.levels["more"].allow(user="ann"), gate.levels["more"].allow(user="ann")
    time.sleep(0.11)
    assert data_of(app, get)["denied"][1]["keys"] == [{"key": "ann", "count": 1, "error": 0}]


def test_counters_of_the_user_are_kept(make):
    limits, own = RateLimits(ip="1/s", user="1/s"), HotKeys(3)
    limits.count_denied(ip=own)
    make({"public": limits})
    assert limits.denied["ip"] is own
    assert limits.denied["user"].k == 256


def test_masked_keys_are_nowhere_in_the_document(make, get):
    limits, hot = RateLimits(user="1/day"), HotKeys(5)
    web = RateLimitMiddleware(None, RateLimiter("1/day"), keys=const("secret-of-web"))
    app = make({"public": limits, "paths": hot, "web": web}, allow=HERE, every=0.1)
    for _ in range(3):
        limits.allow(user="secret-of-user"), web._limiting.charge(None), hot.add("secret-path")
    time.sleep(0.11)
    response = get(app, "/data.json")
    data = json.loads(response.body)
    assert [len(row["keys"]) for row in data["denied"] + data["hotkeys"]] == [1, 1, 1]
    assert b"ecret" not in response.body


class Unfriendly:
    def __str__(self):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("mask", [True, False, str, lambda key: EVIL * 1000, lambda key: None])
def test_hostile_keys(make, get, mask):
    hot, limits = HotKeys(10), RateLimits(user="1/day")
    raw = b"\xff" + EVIL.encode("utf-8", "surrogatepass")
    for key in (EVIL, raw, "x" * 10**6, b"y" * 10**6, 5, ("a", EVIL)):
        hot.add(key)
    limits.deny("user", EVIL.replace("\ud800", ""), "z" * 10**6)
    app = make({"paths": hot, "public": limits}, allow=HERE, mask=mask)
    limits.allow(user=EVIL.replace("\ud800", "")), limits.allow(user="z" * 10**6)
    response = get(app, "/data.json")
    assert len(response.body) < 20_000
    assert response.body.isascii()
    assert b"\n" not in response.body
    data = json.loads(response.body)
    shown = [key["key"] for row in data["hotkeys"] + data["denied"] for key in row["keys"]]
    assert len(shown) == 8
    assert all(len(key) <= 80 and key.isprintable() for key in shown)
    if mask is True:
        assert not any("img" in key or "xxx" in key for key in shown)
        assert len(set(shown)) == 8


def test_keys_that_cannot_be_shown(make, get):
    hot = HotKeys(10)
    hot.add(Unfriendly())
    data = data_of(make({"paths": hot}, allow=HERE, mask=False), get)
    assert data["hotkeys"][0]["keys"][0]["key"] == "<Unfriendly>"


def test_hostile_names(make, get):
    data = data_of(make({EVIL: LRUCache(5)}, allow=HERE), get)
    (name,) = [row["name"] for row in data["caches"]]
    assert name.isprintable()


# ---- streams

def events_of(data):
    """The events of a stream: pairs of name and JSON."""
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            yield fields.get("event", "message"), json.loads(fields["data"])


class Viewer:
    """A client of a stream under ASGI, which may stop to read."""

    def __init__(self, app):
        self.app, self.sent, self.gone = app, [], asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def start(self):
        self.task = asyncio.create_task(self.app(asgi_driver.scope_of("/events"), self._receive, self._send))
        return self

    async def _receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        await self.goes_on.wait()
        self.sent.append(message)

    @property
    def events(self):
        return list(events_of(b"".join(message.get("body", b"") for message in self.sent)))

    async def has(self, count):
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                await asyncio.sleep(0.005)


def test_a_stream():
    async def main():
        cache = LRUCache(5)
        app = dashboard.asgi({"pages": cache}, allow=HERE, every=0.1)
        viewer = Viewer(app).start()
        await viewer.has(2)
        cache.get("a")
        await viewer.has(5)
        assert viewer.sent[0]["status"] == 200
        assert dict(viewer.sent[0]["headers"])[b"content-type"] == b"text/event-stream"
        names = [name for name, _ in viewer.events]
        assert names[0] == "past"
        assert set(names[1:]) == {"message"}
        assert viewer.events[-1][1]["caches"][0]["misses"] == 1
        times = [data["at"] for name, data in viewer.events if name == "message"]
        assert times == sorted(times)

        late = Viewer(app).start()
        await late.has(2)
        assert len(late.events[0][1]) >= 4
        for each in (viewer, late):
            each.gone.set()
            await asyncio.wait_for(each.task, PATIENCE)
        assert app._pages.feed.viewers == 0

    asyncio.run(main())


def test_one_producer_for_all_viewers_and_none_too_many(monkeypatch):
    async def main():
        readings, before = [], set(threading.enumerate())
        app = dashboard.asgi({"pages": LRUCache(5)}, allow=HERE, every=0.1, viewers=20)
        feed = app._pages.feed
        read = feed._read
        feed._read = lambda: readings.append(threading.current_thread().name) or read()
        viewers = [Viewer(app).start() for _ in range(20)]
        for viewer in viewers:
            await viewer.has(4)
        refused = await asgi_driver.call(app, asgi_driver.scope_of("/events"))
        assert (refused.status, refused.fields["retry-after"]) == (503, "30")
        times = {data["at"] for viewer in viewers for name, data in viewer.events if name == "message"}
        assert 3 <= len(times) <= len(readings)
        assert readings[-1] == "headgate-dashboard"
        made = set(threading.enumerate()) - before
        assert sum(thread.name == "headgate-dashboard" for thread in made) == 1

        viewers[0].gone.set()
        await asyncio.wait_for(viewers[0].task, PATIENCE)
        again = Viewer(app).start()
        await again.has(2)
        for viewer in [*viewers[1:], again]:
            viewer.task.cancel()
        await asyncio.wait([viewer.task for viewer in [*viewers[1:], again]])
        assert feed.viewers == 0

        monkeypatch.setattr(_feed, "_LINGER", 0.0)
        async with asyncio.timeout(PATIENCE):
            while feed._thread is not None:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_slow_viewers_miss_documents_and_stalled_ones_are_cut(monkeypatch):
    async def main():
        app = dashboard.asgi({"pages": LRUCache(5)}, allow=HERE, every=0.1)
        slow, quick = Viewer(app).start(), Viewer(app).start()
        await slow.has(2)
        slow.goes_on.clear()
        await quick.has(8)
        slow.goes_on.set()
        await slow.has(5)
        assert len(slow.events) < len(quick.events)

        monkeypatch.setattr("headgate.adapters.dashboard._asgi._STALLED", 0.05)
        await quick.has(len(quick.events) + 2)
        quick.goes_on.clear()
        await asyncio.wait_for(quick.task, PATIENCE)
        assert app._pages.feed.viewers == 1
        monkeypatch.setattr("headgate.adapters.dashboard._asgi.LONGEST", 0.0)
        brief = Viewer(app).start()
        await asyncio.wait_for(brief.task, PATIENCE)
        assert brief.sent[-1] == {"type": "http.response.body", "body": b""}
        slow.gone.set()
        await asyncio.wait_for(slow.task, PATIENCE)

    asyncio.run(main())


def test_a_failing_reading_ends_no_stream(monkeypatch):
    reported = []
    monkeypatch.setattr(_feed, "report", reported.append)

    async def main():
        app = dashboard.asgi({"pages": LRUCache(5)}, allow=HERE, every=0.1)
        viewer = Viewer(app).start()
        await viewer.has(2)
        feed = app._pages.feed
        read, error = feed._read, OSError("no")

        def fail():
            feed._read = read
            raise error

        feed._read = fail
        await viewer.has(len(viewer.events) + 3)
        assert reported == [error]
        viewer.gone.set()
        await asyncio.wait_for(viewer.task, PATIENCE)

    asyncio.run(main())


def stream_of(app, **more):
    environ = wsgi_driver.environ_of("/events", **{"wsgi.multithread": True, **more})
    response = wsgi_driver.Response()
    return response, app(environ, response.start)


def test_a_stream_under_wsgi():
    cache = LRUCache(5)
    app = dashboard.wsgi({"pages": cache}, allow=HERE, every=0.1, viewers=1)
    response, parts = stream_of(app)
    assert (response.status, response.fields["content-type"]) == (200, "text/event-stream")
    assert [name for name, _ in events_of(next(parts))] == ["past", "message"]
    assert [name for name, _ in events_of(next(parts) + next(parts))] == ["message"] * 2
    assert stream_of(app)[0].status == 503
    parts.close()
    assert app._pages.feed.viewers == 0
    assert list(parts) == []
    _, unread = stream_of(app)
    assert app._pages.feed.viewers == 1
    del unread
    assert app._pages.feed.viewers == 0


def test_pages_poll_where_a_server_has_no_threads():
    app = dashboard.wsgi({}, allow=HERE)
    assert stream_of(app, **{"wsgi.multithread": False})[0].status == 503
    assert app._pages.feed.viewers == 0


def test_a_stream_without_news(monkeypatch):
    monkeypatch.setattr("headgate.adapters.dashboard._wsgi.PATIENCE", 0.01)
    app = dashboard.wsgi({}, allow=HERE, every=2)
    _, parts = stream_of(app)
    next(parts)
    assert b": no news\n\n" in (next(parts), next(parts))
    parts.close()


def test_pollers_share_readings(make, get):
    readings = []
    app = make({}, allow=HERE, every=60)
    feed = app._pages.feed
    read = feed._read
    feed._read = lambda: readings.append(1) or read()
    assert [data_of(app, get)["at"] for _ in range(5)].count(data_of(app, get)["at"]) == 5
    assert readings == [1]


FORKED = """
import os, warnings
from headgate import LRUCache
from headgate.adapters import dashboard
warnings.simplefilter("ignore")
feed = dashboard.asgi({"a": LRUCache(5)}, every=0.1)._pages.feed
assert feed.enter()
seen = feed.changes.number
assert feed.changes.wait(seen, 60)
child = os.fork()
if not child:
    alone = feed.viewers == 0 and feed._thread is None
    alive = feed.enter() and feed.changes.wait(feed.changes.number, 60) and feed.current().startswith(b"{")
    os._exit(0 if alone and alive else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), feed.viewers)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_the_child_of_a_fork_has_a_thread_and_viewers_of_its_own():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("0 1\n", "")
