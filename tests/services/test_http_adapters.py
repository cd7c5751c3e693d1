"""The adapters of HTTP clients: balance, failover and health, on HTTP servers that break on demand."""

import asyncio
import gc

import pytest
from clients import CLIENTS, balanced
from threads import run_threads

from headgate import AddressHash, NoServerError, RoundRobin


def in_flight(balancer):
    gc.collect()
    return sum(record.in_flight for record in balancer.records)


def health(balancer):
    return [record.health for record in balancer.records]


def received(origins):
    return sum(len(origin.requests) for origin in origins)


def test_requests_are_spread_and_arrive_whole(http, origins):
    balancer = balanced(origins)
    with http.open(balancer) as client:
        responses = [client.send("POST", "/v1/7?a=b%20c", content=b"body") for _ in range(6)]
    assert [response.text for response in responses] == [origin.url for origin in origins] * 2
    assert {str(response.url) for response in responses} == {"http://orders/v1/7?a=b%20c"}
    for origin in origins:
        assert origin.requests == [("POST", "/v1/7?a=b%20c", origin.netloc, b"body")] * 2
    assert in_flight(balancer) == 0
    assert all(record.latency > 0 for record in balancer.records)


def test_a_servers_path_precedes_the_requests(http, origins):
    with http.open(RoundRobin([origins[0].url + "/api/"], seed=0)) as client:
        client.send("GET", "/v1")
    assert origins[0].requests[0][1] == "/api/v1"


def test_the_host_can_be_preserved(http, origins):
    with http.open(balanced(origins[:1]), preserve_host=True) as client:
        client.send("GET")
    assert origins[0].requests[0][2] == "orders"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_dead_server_costs_no_request(http, origins, method):
    balancer = balanced(origins, max_failures=2)
    with http.open(balancer) as client:
        for _ in range(3):
            client.send(method)
        origins[1].kill()
        for _ in range(12):
            assert client.send(method).status_code == 200
    assert health(balancer) == ["healthy", "ejected", "healthy"]
    assert in_flight(balancer) == 0


def test_what_was_not_sent_goes_elsewhere_even_as_a_stream(http, origins):
    origins[0].kill()
    with http.open(balanced(origins)) as client:
        response = client.send("POST", content=iter([b"a", b"b"]))
    assert response.text == origins[1].url
    assert origins[1].requests[0][3] == b"ab"


def test_a_broken_connection_repeats_what_is_idempotent(http, origins):
    origins[0].mode = "silent"
    balancer = balanced(origins)
    with http.open(balancer) as client:
        assert client.send("GET").text == origins[1].url
    assert received(origins) == 2
    balancer = balanced(origins)
    with http.open(balancer) as client, pytest.raises(http.broken):
        client.send("POST", content=b"once")
    assert received(origins) == 3
    assert in_flight(balancer) == 0


def test_a_stream_is_not_repeated(http, origins):
    origins[0].mode = 503
    with http.open(balanced(origins)) as client:
        assert client.send("PUT", content=iter([b"a"])).status_code == 503
        assert client.send("PUT", content=b"a").status_code == 200
    assert received(origins) == 2


def test_statuses_that_go_elsewhere(http, origins):
    origins[0].mode = 503
    with http.open(balanced(origins)) as client:
        assert client.send("GET").text == origins[1].url
    with http.open(balanced(origins)) as client:
        assert client.send("POST").status_code == 503
    with http.open(balanced(origins), statuses=[]) as client:
        assert client.send("GET").status_code == 503


def test_the_last_response_stands(http, origins):
    for origin in origins:
        origin.mode = 503
    balancer = balanced(origins)
    with http.open(balancer) as client:
        response = client.send("GET")
    assert (response.status_code, response.text) == (503, origins[2].url)
    assert [len(origin.requests) for origin in origins] == [1, 1, 1]
    with http.open(balanced(origins), attempts=2) as client:
        assert client.send("GET").text == origins[1].url
    with http.open(balanced(origins), attempts=9) as client:
        assert client.send("GET").text == origins[2].url
    assert in_flight(balancer) == 0


def test_an_error_of_the_server_counts_against_it(http, origins):
    origins[0].mode = 500
    balancer = balanced(origins, max_failures=2)
    with http.open(balancer) as client:
        statuses = [client.send("GET").status_code for _ in range(9)]
    assert statuses.count(500) == 2
    assert health(balancer) == ["ejected", "healthy", "healthy"]


def test_when_every_server_is_dead(http, origins):
    for origin in origins:
        origin.kill()
    balancer = balanced(origins, max_failures=None)
    with http.open(balancer, attempts=9) as client, pytest.raises(http.no_connection):
        client.send("GET")
    assert in_flight(balancer) == 0


def test_when_there_is_no_server(http):
    with http.open(RoundRobin([])) as client, pytest.raises(http.no_connection, match="no server") as caught:
        client.send("GET")
    assert isinstance(caught.value.__cause__, NoServerError)


def test_a_body_that_is_cut_counts_against_the_server(http, origins):
    origins[0].mode = "cut"
    balancer = balanced(origins, max_failures=1)
    with http.open(balancer) as client:
        if http.reads_bodies:
            assert client.send("GET").text in {origins[1].url, origins[2].url}
        else:
            with pytest.raises(http.broken):
                client.send("GET")
    assert health(balancer) == ["ejected", "healthy", "healthy"]
    assert in_flight(balancer) == 0


def test_a_timeout_of_an_attempt_counts_and_goes_elsewhere(http, origins):
    origins[0].mode = "slow"
    balancer = balanced(origins, max_failures=1)
    with http.open(balancer, attempt_timeout=0.3) as client:
        assert client.send("GET").text in {origins[1].url, origins[2].url}
    assert health(balancer) == ["ejected", "healthy", "healthy"]


def test_the_key_of_a_request(http, origins):
    balancer = AddressHash([origin.url for origin in origins])
    with http.open(balancer, key=lambda request: request.headers["X-Address"]) as client:
        for i in range(20):
            address = f"10.0.{i}.1"
            assert client.send("GET", headers={"X-Address": address}).text == balancer.get_server(address)


def test_a_redirect_leads_back_to_the_balancer(http, origins):
    origins[0].mode = 302
    with http.open(balanced(origins)) as client:
        response = client.send("GET", "/here", follow_redirects=True)
    assert response.text == origins[1].url
    assert str(response.url) == "http://orders/elsewhere"


@pytest.mark.parametrize("name", ["httpx", "httpx2", "requests"])
def test_threads_while_a_server_dies(name, origins):
    balancer = balanced(origins, max_failures=3)
    with CLIENTS[name]().open(balancer) as client:
        def work(number):
            for i in range(10):
                if (number, i) == (0, 3):
                    origins[1].kill()
                assert client.send("GET").status_code == 200

        run_threads(work)
        for _ in range(9):  # a thread that was held up may have left it to this one to find out
            assert client.send("GET").status_code == 200
    assert received(origins) >= 89
    assert health(balancer) == ["healthy", "ejected", "healthy"]
    assert in_flight(balancer) == 0


def test_wrong_arguments(http):
    balancer = RoundRobin(["http://10.0.0.1"])
    with pytest.raises(TypeError, match=r"balancer must be a balancer, got \['http://a'\]"):
        http.adapter(["http://a"])
    with pytest.raises(TypeError, match="attempts must be an int, got '3'"):
        http.adapter(balancer, attempts="3")
    with pytest.raises(ValueError, match="attempts must be positive, got 0"):
        http.adapter(balancer, attempts=0)
    for statuses in ("503", 503, ["503"]):
        with pytest.raises(TypeError, match="statuses must be a collection of ints, got "):
            http.adapter(balancer, statuses=statuses)
    with pytest.raises(TypeError, match="key must be callable or None, got 'X-Key'"):
        http.adapter(balancer, key="X-Key")
    with pytest.raises(TypeError, match="on_event must be callable or None, got 'print'"):
        http.adapter(balancer, on_event="print")

    async def awaited(_):
        return ""

    for name in ("key", "on_event"):
        with pytest.raises(TypeError, match=f"{name} must not be a coroutine function"):
            http.adapter(balancer, **{name: awaited})
    with pytest.raises(TypeError, match=r"budget must be a RetryBudget or None, got 0\.2"):
        http.adapter(balancer, budget=0.2)
    for name in ("deadline", "attempt_timeout"):
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            http.adapter(balancer, **{name: 0})
        with pytest.raises(TypeError, match=f"{name} must be a number, got 'x'"):
            http.adapter(balancer, **{name: "x"})
    with pytest.raises(ValueError, match="backoff must not be negative, got -1"):
        http.adapter(balancer, backoff=-1)
    with pytest.raises(TypeError, match="retries"):
        http.adapter(balancer, retries=3)


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_in_flight_until_the_body_is_closed(name, origins):
    balancer = balanced(origins)
    client = CLIENTS[name]()
    with client.open(balancer), client._client.stream("GET", "http://orders/") as response:
        assert in_flight(balancer) == 1
        response.read()
        assert in_flight(balancer) == 0


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_cancelled_task_counts_neither_way(name, origins):
    origins[0].mode = "slow"
    balancer = balanced(origins, max_failures=1)

    async def main():
        transport = CLIENTS[f"{name}-async"]().adapter(balancer)
        async with CLIENTS[name]().package.AsyncClient(mounts={"http://orders": transport}) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.get("http://orders/")

    asyncio.run(main())
    assert health(balancer) == ["healthy"] * 3
    assert in_flight(balancer) == 0


@pytest.fixture
def aiohttp_client():
    return CLIENTS["aiohttp"]()


def test_aiohttp_in_flight_until_the_body_is_read(aiohttp_client, origins):
    origins[0].mode = "slow body"
    balancer = balanced(origins)

    async def main(session):
        async with session.get("http://orders/") as response:
            assert in_flight(balancer) == 1
            origins[0].release.set()
            await response.read()
            assert in_flight(balancer) == 0
        response = await session.get("http://orders/")
        response.close()

    with aiohttp_client.open(balancer) as client:
        client.runner.run(main(client.session))
    assert in_flight(balancer) == 0
    assert health(balancer) == ["healthy"] * 3


def test_aiohttp_lets_other_hosts_pass(aiohttp_client, origins):
    balancer = balanced(origins[:1])

    async def main(session):
        async with session.get(f"{origins[1].url}/other") as response:
            return await response.text()

    with aiohttp_client.open(balancer) as client:
        assert client.runner.run(main(client.session)) == origins[1].url
    assert balancer.records[0].latency == 0
    with pytest.raises(TypeError, match=r"host must be a str, got \['orders'\]"):
        aiohttp_client.adapter(balancer, host=["orders"])


@pytest.mark.parametrize(("limit", "outcome"), [("total", "ejected"), ("task", "healthy")])
def test_aiohttp_the_whole_time_of_a_request(aiohttp_client, origins, limit, outcome):
    """A timeout of aiohttp's counts against the server, that of the task that waits does not."""
    origins[0].mode = "slow"
    balancer = balanced(origins, max_failures=1)
    timeout = aiohttp_client.package.ClientTimeout(total=0.2 if limit == "total" else 5)

    async def main(session):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2 if limit == "task" else 5):
                await session.get("http://orders/", timeout=timeout)

    with aiohttp_client.open(balancer) as client:
        client.runner.run(main(client.session))
    assert health(balancer) == [outcome, "healthy", "healthy"]
    assert in_flight(balancer) == 0


def test_aiohttp_an_error_of_the_body_counts_for_nobody(aiohttp_client, origins):
    """Or a client of a proxy that breaks off its uploads would have its servers ejected."""
    balancer = balanced(origins, max_failures=1)

    async def body():
        yield b"a"
        raise RuntimeError("the client has left")

    async def main(session):
        with pytest.raises(aiohttp_client.package.ClientConnectionError) as caught:
            await session.put("http://orders/", data=body())
        assert isinstance(caught.value.__cause__, RuntimeError)

    with aiohttp_client.open(balancer) as client:
        client.runner.run(main(client.session))
    assert health(balancer) == ["healthy"] * 3
    assert in_flight(balancer) == 0
