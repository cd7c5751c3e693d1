"""The adapters of HTTP clients under faults: what is repeated, for how long, and what is reported."""

import asyncio
import base64
import gc
import ssl
import weakref
from functools import partial
from importlib import import_module

import pytest
from clients import CLIENTS, balanced
from clocks import FakeClock
from servers import Origin

from headgate import (
    AddressHash,
    BoundedLoad,
    HashRing,
    KeyHash,
    LeastLoaded,
    Rendezvous,
    RetryBudget,
    RoundRobin,
    schemes,
)
from headgate.adapters import BalancerEvent, ServerCounters, _http, server_of

NOTHING_MORE = {"share": 0, "per_second": 0}


def received(origins):
    return [len(origin.requests) for origin in origins]


# ---- servers -----------------------------------------------------------------------------------


def test_servers_of_ipv6(http):
    try:
        origin = Origin("::1")
    except OSError:
        pytest.skip("this machine has no IPv6 on loopback")
    with origin, http.open(RoundRobin([origin.url])) as client:
        assert client.send("GET", "/v1?a=b%20c").text == origin.url
    assert origin.requests == [("GET", "/v1?a=b%20c", origin.netloc, b"")]


def test_credentials_of_a_server_are_sent_to_it(http, origins):
    user, password = "us%40er", "p%3A%C3%A9"
    first = origins[0].url.replace("//", f"//{user}:{password}@")
    with http.open(RoundRobin([first, origins[1].url], seed=0)) as client:
        for _ in range(2):
            client.send("GET")
        client.send("GET", headers={"Authorization": "Bearer own"})
    credentials = base64.b64encode("us@er:p:é".encode()).decode()
    assert origins[0].authorizations == [f"Basic {credentials}", "Bearer own"]
    assert origins[1].authorizations == [None]
    assert {host for _, _, host, _ in origins[0].requests} == {origins[0].netloc}


def test_servers_that_are_written_in_another_script():
    parts = _http.origin("https://bücher.example:8443/ä/%20/")
    assert parts == ("https", "xn--bcher-kva.example:8443", "/%C3%A4/%20", None)
    assert _http.origin("HTTP://Orders.Example") == ("http", "orders.example", "", None)


WRONG = [
    ("10.0.0.1:80", "; write 'http://10.0.0.1:80'"),
    ("orders", "; write 'http://orders'"),
    ("[::1]:80", r"; write 'http://\[::1\]:80'"),
    ("http://", ""),
    ("ftp://10.0.0.1", ""),
    ("http://10.0.0.1:http", ""),
    ("http://10.0.0.1/?x=1", ""),
    ("http://[::1", ""),
    ("http://10.0.0.1 ", ""),
    ("http://a b", ""),
    (7, ""),
]


@pytest.mark.parametrize(("server", "remedy"), WRONG)
def test_a_server_that_is_no_origin_is_refused_with_the_remedy(http, server, remedy):
    got = repr(server).replace("[", r"\[").replace("]", r"\]").replace("?", r"\?")
    message = f"server must be an origin such as 'http://10.0.0.1:8080', got {got}{remedy}$"
    with pytest.raises(ValueError, match=message):
        http.adapter(RoundRobin(["http://10.0.0.1", server]))
    balancer = RoundRobin([])
    with http.open(balancer) as client:
        balancer.add_server(server)
        with pytest.raises(ValueError, match=message):
            client.send("GET")


def test_what_is_no_balancer_is_refused(http):
    with pytest.raises(TypeError, match=r"balancer must be a balancer .* got <BoundedLoad .*KeyHash"):
        http.adapter(BoundedLoad(HashRing(["http://10.0.0.1"])))
    for cls in (AddressHash, KeyHash):
        with pytest.raises(TypeError, match=f"key must be a function of the request for {cls.__name__}"):
            http.adapter(cls(["http://10.0.0.1"]))


# ---- keys of requests ----------------------------------------------------------------------------


PLACEMENTS = [None, Rendezvous, partial(HashRing, scheme=schemes.headgate("sha3_256"))]


@pytest.mark.parametrize("placement", PLACEMENTS, ids=["HashRing", "Rendezvous", "sha3_256"])
def test_requests_of_one_key_go_to_one_server(http, origins, placement):
    balancer = KeyHash([origin.url for origin in origins], placement=placement)
    with http.open(balancer, key=lambda request: request.headers["X-User"]) as client:
        homes = {user: client.send("GET", headers={"X-User": user}).text for user in map(str, range(12))}
        assert homes == {user: balancer.get_server(user) for user in homes}
        again = {user: client.send("POST", headers={"X-User": user}).text for user in homes}
    assert again == homes
    assert sum(record.in_flight for record in balancer.records) == 0


def test_a_key_whose_server_is_dead_goes_to_its_next_until_it_is_back(http, origins):
    clock, urls = FakeClock(), [origin.url for origin in origins]
    balancer = KeyHash(urls, max_failures=2, clock=clock)
    users = [str(number) for number in range(12)]
    homes = {user: balancer.get_server(user) for user in users}
    fullest = max(urls, key=list(homes.values()).count)
    down = origins[urls.index(fullest)]
    nexts = {user: balancer.get_server(user, exclude=[down.url]) for user in users}
    down.mode = 503
    with http.open(balancer, key=lambda request: request.headers["X-User"], backoff=0) as client:
        def served():
            return {user: client.send("GET", headers={"X-User": user}).text for user in users}

        assert served() == nexts
        assert len(down.requests) == 2
        down.mode = 200
        assert served() == nexts
        clock.advance(31)
        assert served() == homes


def test_a_key_that_cannot_be_hashed_is_an_error_of_the_caller(http, origins):
    balancer = KeyHash([origin.url for origin in origins])
    with http.open(balancer, key=lambda request: None) as client, \
            pytest.raises(TypeError, match="key must be"):
        client.send("GET")
    with http.open(balancer, key=lambda request: request.headers["X-User"]) as client, \
            pytest.raises(KeyError):
        client.send("GET")
    assert received(origins) == [0, 0, 0]


# ---- authentication ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 3])
def test_digest_authentication_stays_at_the_server_that_asked(http, origins, number):
    for origin in origins:
        origin.mode = "digest"
    balancer = balanced(origins)
    with http.open(balancer) as client:
        options = client.digest("user", "password")
        for _ in range(number):
            response = client.send("GET", "/private", **options)
            assert response.status_code == 200
            assert str(response.url) == "http://orders/private"
            assert server_of(response) == response.text
    assert sum(record.in_flight for record in balancer.records) == 0
    assert sum(record.latency > 0 for record in balancer.records) == number  # every request was counted


def test_a_server_that_asked_and_died_is_replaced(http, origins):
    origins[0].mode = "digest"
    with http.open(balanced(origins)) as client:
        origins[0].release.set()
        original = origins[0].nonce

        class Dying(str):
            def __format__(self, spec):
                origins[0].mode = "silent"
                return original

        origins[0].nonce = Dying(original)
        assert client.send("GET", **client.digest("user", "password")).text == origins[1].url
    assert received(origins) == [2, 1, 0]


# ---- what is repeated ------------------------------------------------------------------------------


def test_a_handshake_that_fails_has_sent_nothing(http, origins):
    """An origin without TLS: a POST goes to the next."""
    first = origins[0].url.replace("http", "https")
    balancer = RoundRobin([first, origins[1].url], seed=0)
    with http.open(balancer) as client:
        assert client.send("POST", content=b"once").text == origins[1].url
    assert received(origins) == [0, 1, 0]


def test_a_broken_post_stays_broken_amid_another_error(origins):
    """The caller is handling an error of a connection, which says nothing of this request."""
    http = CLIENTS["requests"]()
    origins[1].mode = "silent"
    origins[0].kill()
    with http.open(balanced(origins)) as client:
        try:
            client._session.get(origins[0].url, timeout=5)
        except http.no_connection:
            with pytest.raises(http.broken):
                client.send("POST", content=b"once")
    assert received(origins) == [0, 1, 0]


def test_urllib3s_own_retries_are_failures_of_the_server(origins):
    http = CLIENTS["requests"]()
    retry = pytest.importorskip("urllib3").Retry(1, status_forcelist=[503], backoff_factor=0)
    inner = http.package.adapters.HTTPAdapter(max_retries=retry)
    origins[0].mode = 503
    balancer = balanced(origins, max_failures=1)
    with http.package.Session() as session:
        adapter = http.adapter(balancer, inner)
        session.mount("http://orders/", adapter)
        assert session.get("http://orders/").text == origins[1].url
        assert [record.health for record in balancer.records] == ["ejected", "healthy", "healthy"]
        origins[1].mode = origins[2].mode = 503
        with pytest.raises(http.package.exceptions.RetryError):
            session.put("http://orders/", data=iter([b"x"]))
    assert adapter.counters()[origins[0].url].failed == 1


def test_a_mount_without_a_slash_balances_one_host(origins):
    http = CLIENTS["requests"]()
    balancer = balanced(origins[:1])
    with http.package.Session() as session:
        session.mount("http://127.0.0.1", http.adapter(balancer, host="127.0.0.1.example"))
        assert session.get(origins[1].url).text == origins[1].url
    with http.package.Session() as session:
        session.mount("http://orders", http.adapter(balancer, host="Orders"))
        assert session.get("http://orders/").text == origins[0].url
        with pytest.raises(http.no_connection):
            session.get("http://orders.invalid/")
    with pytest.raises(TypeError, match="host must be a str or None, got 5"):
        http.adapter(balancer, host=5)


def test_too_many_requests_count_against_a_server_but_do_not_eject_it(http, origins):
    origins[0].mode = 429
    urls = [origin.url for origin in origins]
    balancer = LeastLoaded(urls, seed=1, max_failures=1, clock=FakeClock())
    with http.open(balancer) as client:
        statuses = [client.send("GET").status_code for _ in range(12)]
    assert statuses.count(429) == 1
    assert [record.health for record in balancer.records] == ["healthy"] * 3


# ---- the budget -----------------------------------------------------------------------------------


def test_a_budget_bounds_what_is_repeated(http, origins):
    for origin in origins:
        origin.mode = 503
    budget, events = RetryBudget(share=0.2, per_second=0, clock=FakeClock()), []
    balancer = balanced(origins, max_failures=None)
    with http.open(balancer, budget=budget, backoff=0, on_event=events.append) as client:
        for _ in range(20):
            assert client.send("GET").status_code == 503
    assert sum(received(origins)) == 24
    kinds = [event.kind for event in events]
    assert (kinds.count("retried"), kinds.count("abandoned")) == (4, 20)
    assert {event.reason for event in events if event.kind == "abandoned"} == {"budget"}
    assert sum(record.in_flight for record in balancer.records) == 0


def test_what_was_not_sent_costs_no_budget(http, origins):
    origins[0].kill()
    with http.open(balanced(origins, max_failures=None), budget=RetryBudget(**NOTHING_MORE)) as client:
        for _ in range(6):
            assert client.send("POST", content=b"x").status_code == 200


def test_without_a_budget_all_attempts_are_made(http, origins):
    for origin in origins:
        origin.mode = 503
    with http.open(balanced(origins, max_failures=None), budget=None, backoff=0) as client:
        for _ in range(5):
            client.send("GET")
    assert sum(received(origins)) == 15


def test_the_adapters_of_a_balancer_share_its_budget(http):
    balancer = RoundRobin(["http://10.0.0.1"])
    budgets = {_http.Failover(balancer).budget for _ in range(2)}
    assert len(budgets) == 1
    assert budgets != {_http.Failover(RoundRobin(["http://10.0.0.1"])).budget}
    reference = weakref.ref(balancer)
    del balancer
    gc.collect()
    assert reference() is None


# ---- time -----------------------------------------------------------------------------------------


def test_the_callers_timeout_bounds_all_attempts(http, origins):
    for origin in origins:
        origin.mode = "slow"
    events = []
    balancer = balanced(origins, max_failures=None)
    options = WHOLE.get(type(http).__name__, {})
    with http.open(balancer, on_event=events.append, **options) as client, \
            pytest.raises(http.timeout) as caught:
        client.send("GET", timeout=0.3)
    assert received(origins) == [1, 0, 0]
    assert [(event.kind, event.reason) for event in events[1:]] == [("abandoned", "deadline")]
    assert events[0].kind == "failed" and server_of(caught.value) == origins[0].url
    assert sum(record.in_flight for record in balancer.records) == 0


WHOLE = {"Aiohttp": {"deadline": 0.3}}  # there a timeout is of the whole request anyway, or of a single wait


def test_a_deadline_bounds_all_attempts(http, origins):
    for origin in origins:
        origin.mode = "slow"
    balancer, events = balanced(origins, max_failures=None), []
    options = {"deadline": 0.4, "attempt_timeout": 0.25, "backoff": 0, "on_event": events.append}
    with http.open(balancer, **options) as client, pytest.raises(http.timeout):
        client.send("GET")
    assert origins[2].requests == []
    assert (events[-1].kind, events[-1].reason) == ("abandoned", "deadline")


def attempts(balancer, *, request=None, method="GET", **options):
    return _http.Attempts(_http.Failover(balancer, **options), request, method, True)


def test_the_wait_before_a_retry(monkeypatch):
    balancer = RoundRobin([f"http://10.0.0.{i}" for i in range(1, 9)], seed=0, max_failures=None)
    slept = []
    monkeypatch.setattr(_http, "sleep", slept.append)
    monkeypatch.setattr(_http, "random", lambda: 0.5)
    with attempts(balancer, attempts=8, backoff=0.1) as one:
        assert all(one.retry(503, True) for _ in range(7))
        assert not one.retry(503, True)
    assert slept == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5])
    slept.clear()
    with attempts(balancer, attempts=8, backoff=0.1) as one:
        assert one.retry(OSError(), False)
        assert one.retry(503, True)
    assert slept == pytest.approx([0.1])  # what was not sent goes on at once


def test_no_wait_reaches_beyond_the_end(monkeypatch):
    now, events = [0.0], []
    monkeypatch.setattr(_http, "monotonic", lambda: now[0])
    monkeypatch.setattr(_http, "random", lambda: 1.0)
    monkeypatch.setattr(_http, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    balancer = RoundRobin([f"http://10.0.0.{i}" for i in range(1, 9)], seed=0, max_failures=None)
    options = {"attempts": 8, "backoff": 1, "deadline": 2.5, "attempt_timeout": 2, "on_event": events.append}
    with attempts(balancer, **options) as one:
        assert (one.remaining(), one.remaining(1.5), one.remaining(9)) == (2, 1.5, 2)
        assert one.retry(503, True) and one.remaining() == 1.5
        assert one.retry(503, True) and one.remaining() == 0.5
        assert not one.retry(503, True)
    assert events[-1] == BalancerEvent("abandoned", "http://10.0.0.3", 3, "deadline")


# ---- what is reported -------------------------------------------------------------------------------


def test_events_and_counters(http, origins):
    clock, events = FakeClock(), []
    urls = [origin.url for origin in origins]
    balancer = balanced(origins, max_failures=1, ejection_time=30, clock=clock)
    origins[0].mode = 503
    with http.open(balancer, on_event=events.append, backoff=0) as client:
        response = client.send("GET")
        assert server_of(response) == response.text == urls[1]
        assert events == [
            BalancerEvent("failed", urls[0], 1, 503),
            BalancerEvent("ejected", urls[0], 1, 503),
            BalancerEvent("retried", urls[1], 2, 503),
        ]
        events.clear()
        origins[0].mode = 200
        for _ in range(4):
            client.send("GET")
        assert events == []
        clock.advance(31)
        while not events:
            client.send("GET")
        assert events == [BalancerEvent("returned", urls[0], 1, None)]
        counters = _http.Failover(balancer).counters()
    assert set(counters) == set(urls)
    assert counters[urls[0]] == ServerCounters(requests=2, failed=1, retried=0, ejected=1, returned=1)
    assert counters[urls[1]].retried == 1
    assert sum(row.requests for row in counters.values()) == sum(received(origins))


def test_an_error_says_which_servers_were_tried(http, origins):
    for origin in origins:
        origin.kill()
    events = []
    first = origins[0].url.replace("//", "//user:secret@")
    balancer = RoundRobin([first, origins[1].url], seed=0, max_failures=None)
    with http.open(balancer, on_event=events.append) as client, pytest.raises(http.no_connection) as caught:
        client.send("GET")
    assert server_of(caught.value) == origins[1].url
    note = caught.value.__notes__[0]
    assert note.startswith(f"servers tried by headgate: {origins[0].url} (")
    assert origins[1].url in note and "secret" not in note
    assert [event.server for event in events] == [first, origins[1].url, origins[1].url]
    assert events[-1].reason is caught.value


@pytest.mark.parametrize("name", [name for name in CLIENTS if name != "requests"])
def test_a_body_that_breaks_is_reported(name, origins):
    """The adapter of requests reads the body itself, and repeats the request."""
    http = CLIENTS[name]()
    origins[0].mode, events = "cut", []
    balancer = balanced(origins, max_failures=1)
    with http.open(balancer, on_event=events.append) as client, pytest.raises(http.broken) as caught:
        client.send("GET")
    assert [event.kind for event in events] == ["failed", "ejected"]
    assert server_of(caught.value) == server_of(events[0].reason) == origins[0].url


def test_the_last_status_is_reported_once(http, origins):
    origins[0].mode, events = 500, []
    balancer = balanced(origins)
    with http.open(balancer, on_event=events.append) as client:
        assert client.send("GET").status_code == 500
    assert events == [BalancerEvent("failed", origins[0].url, 1, 500)]


def test_errors_of_the_callback_are_reported_and_not_raised(http, origins, unraisable):
    origins[0].mode = 503

    def fail(event):
        raise LookupError(event.kind)

    with http.open(balanced(origins), on_event=fail, backoff=0) as client:
        assert client.send("GET").status_code == 200
    assert [str(error) for error in unraisable] == ["failed", "retried"]


def test_counters_of_servers_that_are_no_more_are_dropped():
    balancer = RoundRobin([])
    failover = _http.Failover(balancer)
    for i in range(1000):
        balancer.add_server(f"http://10.0.{i // 250}.{i % 250}")
        with attempts(balancer) as one:
            one.failed(503, True)
        balancer.remove_server(balancer.servers[0])
    assert failover.counters() == {}
    assert len(failover._state._rows) <= 2 + 64 + 1


def test_what_nobody_marked_has_no_server():
    assert server_of(ValueError()) is None
    assert server_of(ssl) is None


# ---- bodies that are there at once ---------------------------------------------------------------


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("is_async", [False, True])
def test_responses_that_the_transport_beneath_has_read(library, is_async):
    """As those of mocks are, which are not closed again."""
    pytest.importorskip(library)
    mocked, adapter = import_module(library), import_module(f"headgate.adapters.{library}")
    beneath = mocked.MockTransport(lambda request: mocked.Response(500 if request.url.host == "a" else 200))
    balancer = RoundRobin(["http://a", "http://b"], seed=0, max_failures=3)
    statuses = []

    async def run():
        async with mocked.AsyncClient(transport=adapter.AsyncBalancedTransport(balancer, beneath)) as client:
            statuses.extend([(await client.get("http://orders/")).status_code for _ in range(12)])

    if is_async:
        asyncio.run(run())
    else:
        with mocked.Client(transport=adapter.BalancedTransport(balancer, beneath)) as client:
            statuses.extend([client.get("http://orders/").status_code for _ in range(12)])
    assert statuses == 3 * [500, 200] + 6 * [200]
    assert [record.in_flight for record in balancer.records] == [0, 0]
    assert [record.health for record in balancer.records] == ["ejected", "healthy"]
