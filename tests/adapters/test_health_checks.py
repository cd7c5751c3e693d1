"""Health checks over a session that does as it is told: verdicts, servers that come and go, and endings."""

import asyncio
import gc
import sys
import warnings
from base64 import b64encode
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watchdog import PATIENCE

import headgate
from headgate import RoundRobin
from headgate.adapters import BalancerEvent

aiohttp = pytest.importorskip("aiohttp")
web = import_module("aiohttp.web")
HealthChecks = import_module("headgate.adapters.aiohttp").HealthChecks

A, B, C = SERVERS = [f"http://10.0.0.{number}:8080" for number in (1, 2, 3)]
SOON = 1e-4


class Session:
    """Responds as `results` says: with a status, or an error; without one, when the test ends."""

    def __init__(self, results=None):
        self.results = results or {}
        self.requests, self.flying, self.most = [], 0, 0
        self.closed = False

    def get(self, url, **options):
        self.requests.append((str(url), options))
        return Exchange(self, str(url))

    def result(self, url):
        found = self.results[url.rpartition("/")[0]]
        if isinstance(found, list):
            return found.pop(0) if found else None
        return found


class Exchange:
    """A request in flight, and its response."""

    def __init__(self, session, url):
        self._session, self._url = session, url

    async def __aenter__(self):
        session = self._session
        session.flying += 1
        session.most = max(session.most, session.flying)
        try:
            result = session.result(self._url)
            if result is None:
                await asyncio.Event().wait()
            if isinstance(result, BaseException):
                raise result
        except BaseException:
            session.flying -= 1
            raise
        self.status = result
        return self

    async def __aexit__(self, *failure):
        self._session.flying -= 1


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(SOON)


def health(balancer):
    return {row.server: row.health for row in balancer.records}


def checks_of(balancer, session, **options):
    return HealthChecks(
        balancer, session, **{"every": SOON, "timeout": PATIENCE, "path": "/health"} | options)


def checked(balancer, session, condition, **options):
    """Run checks until a condition of theirs holds; returns what it returned then, besides the checks."""
    async def main():
        async with checks_of(balancer, session, **options) as checks:
            await until(lambda: condition(checks))
            seen = health(balancer), checks.records
        return *seen, len(asyncio.all_tasks())

    healths, records, tasks = asyncio.run(main())
    assert tasks == 1 and session.flying == 0
    return healths, {row.server: row for row in records}


@pytest.fixture
def reported(monkeypatch):
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: found.append(unraisable.exc_value))
    return found


# ---- verdicts -------------------------------------------------------------------------------


def verdicts(results, rise, fall):
    """By a naive model: the event at each change, and the last verdict."""
    up, events = None, []
    for end in range(1, len(results) + 1):
        for wanted, number in ((True, rise), (False, fall)):
            tail = results[max(end - number, 0):end]
            if len(tail) == number and all(each is wanted for each in tail) and up is not wanted:
                if not (up is None and wanted):
                    events.append((wanted, end))
                up = wanted
    return up, events


@settings(max_examples=40, deadline=None)
@given(results=st.lists(st.booleans(), min_size=1, max_size=25), rise=st.integers(1, 4),
       fall=st.integers(1, 4))
def test_verdicts_are_those_of_a_naive_model(results, rise, fall):
    balancer, events = RoundRobin(SERVERS), []
    session = Session({A: [200 if ok else 500 for ok in results], B: [], C: []})

    def record(event):
        events.append((event.kind == "up", session.result_count(A)))
        assert event.server == A and event.attempt >= (rise if event.kind == "up" else fall)
        assert event.reason == (200 if event.kind == "up" else 500)

    session.result_count = lambda server: len(results) - len(session.results[server])
    healths, records = checked(balancer, session, lambda checks: sum(
        row.probes for row in checks.records) == len(results), rise=rise, fall=fall, on_event=record)
    up, expected = verdicts(results, rise, fall)
    assert records[A].up is up and events == expected
    assert healths[A] == ("down" if up is False else "healthy")
    assert records[A].failures == results.count(False) and records[A].last == (200 if results[-1] else 500)
    assert set(health(balancer).values()) == {"healthy"}  # nobody would mark it up after the checks


@pytest.mark.parametrize("failure", [
    500, 404, 199, 400, aiohttp.ClientConnectionError(), aiohttp.ServerDisconnectedError(), TimeoutError(),
    ConnectionResetError(), aiohttp.ClientPayloadError(),
])
def test_failures(failure):
    balancer = RoundRobin(SERVERS)
    healths, records = checked(balancer, Session({A: failure, B: 204, C: 399}), lambda checks: (
        all(row.up is not None for row in checks.records) and len(checks.records) == 3))
    assert healths == {A: "down", B: "healthy", C: "healthy"}
    assert records[A].last is failure or records[A].last == failure
    assert records[A].failures >= 3 and records[B].failures == records[A].errors == 0


@pytest.mark.parametrize("expect", [
    {200, 503}, [503, 200], lambda response: response.status in (200, 503), "coroutine",
])
def test_what_is_expected(expect):
    async def wait(response):
        await asyncio.sleep(0)
        return response.status != 204

    balancer = RoundRobin(SERVERS)
    expect = wait if expect == "coroutine" else expect
    healths, _ = checked(balancer, Session({A: 200, B: 503, C: 204}), lambda checks: len(checks.records) == 3
                         and all(row.up is not None for row in checks.records), expect=expect)
    assert healths == {A: "healthy", B: "healthy", C: "down"}


def test_a_probe_that_hangs_is_a_failure():
    healths, records = checked(RoundRobin([A, B]), Session({A: 200, B: []}), lambda checks: any(
        row.up is False for row in checks.records), timeout=0.01)
    assert healths == {A: "healthy", B: "down"} and isinstance(records[B].last, TimeoutError)


def test_errors_of_foreign_code_say_nothing_of_the_server(reported):
    def expect(response):
        raise ZeroDivisionError(response.status)

    healths, records = checked(RoundRobin([A]), Session({A: 200}), lambda checks: any(
        row.errors > 5 for row in checks.records), expect=expect)
    assert healths == {A: "healthy"} and records[A].up is None and records[A].failures == 0
    assert isinstance(records[A].last, ZeroDivisionError)
    assert len(reported) >= 6 and {type(error) for error in reported} == {ZeroDivisionError}


def test_a_cancellation_within_foreign_code_is_an_error_and_probes_go_on(reported):
    async def expect(response):
        raise asyncio.CancelledError

    _, records = checked(RoundRobin([A]), Session({A: 200}), lambda checks: any(
        row.probes > 5 for row in checks.records), expect=expect)
    assert records[A].errors == records[A].probes and records[A].failures == 0
    assert {type(error) for error in reported} == {asyncio.CancelledError}


def test_errors_of_callbacks_and_clocks_are_counted(reported):
    broken = [False]

    def clock():
        return 1 / 0 if broken[0] else 0

    def on_event(event):
        broken[0] = event.kind == "down"
        raise KeyError(event)

    balancer = RoundRobin([A, B], clock=clock)
    session = Session({A: [500, 500, 500, 200, 200], B: 200})

    async def main():
        async with checks_of(balancer, session, on_event=on_event) as checks:
            await until(lambda: any(row.server == A and row.probes == 5 for row in checks.records))
            records = checks.records
            broken[0] = False
        return records

    records = {row.server: row for row in asyncio.run(main())}
    assert records[A].errors >= 1 and records[A].probes == 5
    assert KeyError in {type(error) for error in reported}
    assert set(health(balancer).values()) == {"healthy"}


def test_when_all_fail_all_are_used():
    balancer = RoundRobin(SERVERS, seed=0)

    async def main():
        async with checks_of(balancer, Session(dict.fromkeys(SERVERS, 500))):
            await until(lambda: set(health(balancer).values()) == {"down"})
            return {balancer.get_server() for _ in SERVERS}

    assert asyncio.run(main()) == set(SERVERS)


# ---- servers, requests and bounds -----------------------------------------------------------


def test_servers_that_come_and_go():
    balancer, events = RoundRobin([A, B]), []
    session = Session({A: 200, B: 500, C: 500})

    async def main():
        async with checks_of(balancer, session, on_event=events.append) as checks:
            await until(lambda: health(balancer)[B] == "down")
            balancer.remove_server(B)
            await until(lambda: len(checks.records) == 1)
            balancer.add_server(C)
            await until(lambda: health(balancer).get(C) == "down")
            balancer.remove_server(C)
            balancer.add_server(C)  # before the checks can notice, perhaps
            await until(lambda: health(balancer)[C] == "down")
            session.results[C] = 200
            await until(lambda: health(balancer)[C] == "healthy")
            balancer.drain_server(A)
            seen = len(session.requests)
            await until(lambda: len(session.requests) > seen + 20)

    asyncio.run(main())
    assert events[0] == BalancerEvent("down", B, 3, 500)
    assert events[-1][:2] == ("up", C) and events[-1].reason == 200
    assert health(balancer) == {A: "draining", C: "healthy"}


def test_requests_are_for_the_path_of_the_server():
    servers = ["http://ann:s%40cret@[::1]:8080/base/", "https://example.org"]
    session = Session({"http://[::1]:8080/base": 200, "https://example.org": 200})
    checked(RoundRobin(servers), session, lambda checks: [row.up for row in checks.records] == [True, True])
    found = dict(session.requests)
    assert set(found) == {"http://[::1]:8080/base/health", "https://example.org/health"}
    assert found["https://example.org/health"] == {
        "headers": {}, "allow_redirects": False, "raise_for_status": False}
    assert found["http://[::1]:8080/base/health"]["headers"] == {"Authorization": "Basic YW5uOnNAY3JldA=="}


def test_credentials_of_a_server_are_those_of_its_probes():
    """Whatever the session has; aiohttp refuses an Authorization beside an auth, whose text is in Latin-1."""
    wanted = "Basic " + b64encode("ann:s@crét".encode()).decode()
    own = {"Authorization": "Basic " + b64encode(b"bob:other").decode()}

    async def respond(request):
        return web.Response(status=200 if request.headers["Authorization"] == wanted else 401)

    async def up(url, **options):
        async with aiohttp.ClientSession(**options) as session, checks_of(
                RoundRobin([url]), session) as checks:
            await until(lambda: [row.up for row in checks.records] not in ([], [None]))
            return checks.records[0].up

    async def main():
        app = web.Application()
        app.router.add_get("/health", respond)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://ann:s%40cr%C3%A9t@127.0.0.1:{runner.addresses[0][1]}"
            with warnings.catch_warnings(action="ignore"):  # as auth is to leave aiohttp
                auth = aiohttp.BasicAuth("bob", "other")
                found = [await up(url, auth=auth), await up(url, headers=own), await up(url)]
        finally:
            await runner.cleanup()
        assert found == [True, True, True]

    asyncio.run(main())


def test_probes_are_bounded_and_concurrent():
    servers = [f"http://10.0.1.{number}" for number in range(40)]
    session = Session({server: [] for server in servers})

    async def main():
        async with checks_of(RoundRobin(servers), session, concurrency=7):
            await until(lambda: session.flying == 7)
            for _ in range(100):
                await asyncio.sleep(0)
        return session.most

    assert asyncio.run(main()) == 7 and session.flying == 0


# ---- running --------------------------------------------------------------------------------


def test_own_sessions_are_closed_and_others_are_not(monkeypatch):
    opened = []
    make = aiohttp.ClientSession.__init__

    def init(self, *arguments, **options):
        make(self, *arguments, **options)
        opened.append(self)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", init)

    async def main():
        async with HealthChecks(RoundRobin([])):
            await until(lambda: opened)
            assert not opened[0].closed
        assert opened[0].closed
        async with aiohttp.ClientSession() as session:
            async with HealthChecks(RoundRobin([]), session):
                await asyncio.sleep(0)
            assert not session.closed

    asyncio.run(main())
    assert len(opened) == 2


def test_run_ends_by_cancellation_and_can_be_run_again():
    session = Session({A: [], B: 500})
    balancer = RoundRobin([A, B])
    checks = checks_of(balancer, session)

    async def main():
        for _ in range(2):
            running = asyncio.create_task(checks.run())
            await until(lambda: health(balancer)[B] == "down" and session.flying)
            with pytest.raises(RuntimeError, match="these checks are running already"):
                await checks.run()
            assert len(checks.records) == 2
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert health(balancer)[B] == "healthy" and checks.records == []
            assert len(asyncio.all_tasks()) == 1
        async with checks:
            with pytest.raises(RuntimeError, match="these checks are running already"):
                await checks.__aenter__()

    asyncio.run(main())
    gc.collect()


def test_a_block_that_is_cancelled_leaves_nothing():
    session = Session({A: []})

    async def block():
        async with checks_of(RoundRobin([A]), session):
            await asyncio.Event().wait()

    async def main():
        running = asyncio.create_task(block())
        await until(lambda: session.flying)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1 and session.flying == 0


def test_a_cancellation_that_foreign_code_suppresses_ends_the_probes():
    """Of a server that is removed, and of all at the end."""
    suppressed = []

    async def expect(response):
        try:
            await asyncio.Event().wait()
        except BaseException:
            suppressed.append(response)
            if len(suppressed) > 2:  # so that this test ends if it fails
                raise
            return True

    async def main():
        balancer, session = RoundRobin([A, B]), Session({A: 200, B: 200})
        async with asyncio.timeout(PATIENCE), checks_of(balancer, session, expect=expect) as checks:
            await until(lambda: session.flying == 2)
            balancer.remove_server(A)
            await until(lambda: len(asyncio.all_tasks()) == 3)
            assert [row.server for row in checks.records] == [B]
        return len(session.requests), len(asyncio.all_tasks())

    assert asyncio.run(main()) == (2, 1) and len(suppressed) == 2


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"balancer": 5}, TypeError, "balancer must be a balancer, got 5"),
    ({"balancer": RoundRobin(["10.0.0.1:80"])}, ValueError, "server must be an origin such as"),
    ({"balancer": headgate.BoundedLoad(headgate.HashRing([A]))}, TypeError, "balancer must be a balancer of"),
    ({"path": 5}, TypeError, "path must be a str, got 5"),
    ({"path": "x"}, ValueError, "path must begin with '/', got 'x'"),
    ({"path": "/a b"}, ValueError, "path must be of printable ASCII without spaces, got '/a b'"),
    ({"path": "/\r\nX: 1"}, ValueError, "path must be of printable ASCII without spaces, got"),
    ({"path": "/\u00e9"}, ValueError, "path must be of printable ASCII without spaces, got"),
    ({"every": 0}, ValueError, "every must be positive and finite, got 0"),
    ({"timeout": float("inf")}, ValueError, "timeout must be positive and finite, got inf"),
    ({"timeout": "1"}, TypeError, "timeout must be a number, got '1'"),
    ({"rise": 0}, ValueError, "rise must be positive, got 0"),
    ({"fall": 1.5}, TypeError, r"fall must be an int, got 1\.5"),
    ({"concurrency": 0}, ValueError, "concurrency must be positive, got 0"),
    ({"expect": 200}, TypeError, "statuses must be a collection of ints, got 200"),
    ({"on_event": 5}, TypeError, "on_event must be callable or None, got 5"),
])
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        HealthChecks(**{"balancer": RoundRobin([A])} | options)


def test_a_balancer_without_marks_is_refused():
    class Other:
        servers = (A,)

        def pick(self, key=None, *, exclude=()):
            raise NotImplementedError

    with pytest.raises(TypeError, match="balancer must have mark_down and mark_up"):
        HealthChecks(Other())
