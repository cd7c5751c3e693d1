"""Points of presence of the example, their parents, and the purges that reach them."""

import asyncio
import json
import re
import threading
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest
import redis
import yaml
from edge_example import EXAMPLE
from edge_site import EdgeServer, SiteOrigin, document
from redis_servers import RedisServer
from watchdog import PATIENCE, until


class Network:
    """An origin, two parents and two points of presence."""

    def __init__(self, folder, redis_port, **changes):
        self._stack = ExitStack()
        self.origin = self._stack.enter_context(SiteOrigin())
        made = document([self.origin], redis_port, **changes)
        start = self._stack.enter_context
        self.parents = [start(EdgeServer(folder, name, made, "--shield")) for name in ("north", "south")]
        self.points = [
            start(EdgeServer(folder, name, made, parents=self.parents)) for name in ("paris", "tokyo")]

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self._stack.close()

    def hits(self, path):
        return self.origin.requests["GET", path]


@pytest.fixture(scope="module")
def network(redis_server, tmp_path_factory):
    with Network(tmp_path_factory.mktemp("network"), redis_server.port) as network:
        yield network


def own_status(point, path):
    """What a point itself says of a response."""
    return point.get(path)[1]["cache-status"].rpartition(point.config.stem)[2]


def test_one_fetch_from_the_origin_for_all_points(network):
    paris, tokyo = network.points
    for number in range(8):
        path = f"/version/shield-{number}"
        assert paris.get(path)[0] == tokyo.get(path)[0] == 200
        assert network.hits(path) == 1
    fields = [paris.get(f"/version/shield-{number}")[1] for number in range(8)]
    assert {each["cache-status"].partition(";")[0] for each in fields} == {"north", "south"}


def test_cache_status_and_via_show_every_hop(network):
    paris, tokyo = network.points
    _, first, _ = paris.get("/version/hops")
    parent = first["cache-status"].partition(";")[0]
    assert first["cache-status"] == (
        f"{parent}; fwd=uri-miss; fwd-status=200; stored, paris; fwd=uri-miss; fwd-status=200; stored")
    assert first["via"] == f"1.1 {parent}, 1.1 paris"
    _, other, _ = tokyo.get("/version/hops")
    assert other["cache-status"].startswith(f"{parent}; hit; ttl=")
    assert other["cache-status"].endswith("tokyo; fwd=uri-miss; fwd-status=200; stored")
    assert "; hit; ttl=" in tokyo.get("/version/hops")[1]["cache-status"].rpartition("tokyo")[2]


def test_a_hot_url_is_fetched_from_two_parents(network):
    def parents(path):
        return {network.points[0].get(path)[1]["via"].partition(",")[0] for _ in range(50)}

    assert len(parents("/fields/cold")) == 1
    until(lambda: parents("/fields/hot") == {"1.1 north", "1.1 south"})


def test_websockets_pass_both_tiers(network):
    for point in network.points:
        asyncio.run(point.talk())


@pytest.mark.parametrize("purge", [
    {"tag": "news"}, {"url": "/version/purged"}, {"url": "http://site.test/version/purged"},
    {"prefix": "/version/"}, {"tag": "news", "stale": True},
])
def test_a_purge_reaches_all_points(network, purge):
    for point in network.points:
        point.get("/version/purged")
    network.origin.version += 1
    number = network.points[0].purge(**purge)
    fresh = str(network.origin.version).encode()
    assert network.points[1].purge(tag="none") == number + 1
    for point in network.points:
        until(lambda point=point: point.get("/version/purged")[2] == fresh)
        for _ in range(3):
            assert point.get("/version/purged")[2] == fresh
    for point in network.points:  # a tenth of a second later, which clocks may differ by
        until(lambda point=point: "hit" in own_status(point, "/version/purged"))


def test_under_load_no_point_goes_back_behind_a_purge(network):
    """Each point fetches from parents that may not know of the purge yet; it must not keep what they have."""
    stop, failures = threading.Event(), []
    known = dict.fromkeys(network.points, 0)

    def load(point):
        while not stop.is_set():
            status, _, _ = point.get("/version/racing")
            if status != 200:
                failures.append(status)

    threads = [threading.Thread(target=load, args=(point,)) for point in network.points for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        network.origin.version += 1
        network.points[0].purge(url="/version/racing")
        time.sleep(0.15)
        for point in network.points:
            assert int(point.get("/version/racing")[2]) >= known[point]
        known = dict.fromkeys(network.points, network.origin.version)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures
    for point in network.points:
        assert int(point.get("/version/racing")[2]) == network.origin.version


def test_stale_while_an_origin_is_broken(network):
    paris = network.points[0]
    paris.get("/version/broken")
    network.origin.broken = True
    try:
        paris.purge(url="/version/broken", stale=True)
        until(lambda: "stale-if-error" in paris.get("/version/broken")[1]["cache-status"])
        status, _, body = paris.get("/version/broken")
        assert status == 200 and int(body) <= network.origin.version
        assert paris.get("/version/unknown")[0] == 503
    finally:
        network.origin.broken = False


def test_stale_while_it_is_fetched(redis_server, tmp_path):
    cache = {"maxsize": "64 MiB", "stale_while_revalidate": 60}
    with Network(tmp_path, redis_server.port, http__cache=cache) as network:
        paris, origin = network.points[0], network.origin
        before = paris.get("/version/while")[2]
        origin.version += 1
        paris.purge(url="/version/while", stale=True)
        assert paris.get("/version/while")[2] == before
        until(lambda: paris.get("/version/while")[2] == str(origin.version).encode())


def test_a_killed_parent_costs_no_request(redis_server, tmp_path):
    with Network(tmp_path, redis_server.port) as network:
        paths = [f"/version/{number}" for number in range(30)]
        assert {network.points[0].get(path)[0] for path in paths[:10]} == {200}
        network.parents[0].kill()
        assert {network.points[0].get(path)[0] for path in paths} == {200}
        assert {network.points[1].get(path)[0] for path in paths} == {200}


def test_a_killed_point_costs_its_clients_a_retry_and_no_wrong_byte(redis_server, tmp_path):
    with Network(tmp_path, redis_server.port) as network:
        body = network.points[1].get("/file/300000?stored")[2]
        outcomes, stop = [], threading.Event()

        def load():
            while not stop.is_set():
                for tries, point in enumerate(network.points):
                    try:
                        status, _, found = point.get("/file/300000?stored")
                        outcomes.append((status, found == body, tries))
                        break
                    except OSError:
                        continue
                    except Exception as error:  # a body that is cut is noticed
                        assert "Incomplete" in type(error).__name__, error

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(outcomes) > 40)
        network.points[0].kill()
        at = len(outcomes)
        until(lambda: len(outcomes) > at + 40)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert {outcome[:2] for outcome in outcomes} == {(200, True)}
        assert {outcome[2] for outcome in outcomes} == {0, 1}


def test_a_gap_in_the_log_makes_everything_older_stale(tmp_path):
    with RedisServer(tmp_path) as server, SiteOrigin() as origin, EdgeServer(
            tmp_path, "paris", document([origin], server.port)) as paris:
        paris.get("/version/a")
        paris.purge(tag="other")
        paris.get("/version/a")
        assert origin.requests["GET", "/version/a"] == 1
        origin.version += 1
        with redis.Redis(port=server.port) as client:
            client.flushall()  # the purges are lost
        until(lambda: paris.get("/version/a")[2] == b"2")
        assert origin.requests["GET", "/version/a"] >= 2
        server.kill()
        assert paris.get("/version/a")[0] == paris.get("/version/b")[0] == 200  # without purges
        origin.version += 1
        server.start()
        paris.purge(tag="other")
        until(lambda: paris.get("/version/b")[2] == b"3")


def test_a_cache_of_another_policy_is_purged(tmp_path, redis_server):
    with SiteOrigin() as origin:
        made = document([origin], redis_server.port)
        with EdgeServer(tmp_path, "paris", made) as paris:
            def is_hit():
                return "hit" in own_status(paris, "/version/policy")

            until(is_hit)
            made["http"]["cache"]["policy"] = "fifo"
            paris.write(made)
            until(lambda: not is_hit())
            until(is_hit)
            origin.version += 1
            assert paris.purge(url="/version/policy") >= 1
            assert paris.get("/version/policy")[2] == b"%d" % origin.version


def test_points_that_poll(tmp_path, redis_server):
    with SiteOrigin() as origin:
        made = document([origin], redis_server.port)
        made["x-edge"]["purges"] = {}
        with EdgeServer(tmp_path, "north", made, "--shield") as parent:
            polled = json.loads(json.dumps(made))
            url = f"http://127.0.0.1:{parent.port}/.edge/purges"
            polled["x-edge"]["purges"] = {"poll": url, "every": 0.2}
            with EdgeServer(tmp_path, "paris", polled, parents=[parent]) as paris, EdgeServer(
                    tmp_path, "tokyo", polled, parents=[parent]) as tokyo:
                for point in (paris, tokyo):
                    point.get("/version/polled")
                origin.version += 1
                assert tokyo.purge(url="/version/polled") == 1
                for status, query in ((200, "after=0"), (200, ""), (400, "after=x")):
                    wanted = f"/.edge/purges?{query}"
                    assert parent.get(wanted, Authorization="Bearer secret")[0] == status
                    assert parent.get(wanted)[0] == 401
                assert tokyo.get("/version/polled")[2] == b"2"  # at once where it was purged
                until(lambda: paris.get("/version/polled")[2] == b"2")
                parent.kill()
                parent.start()  # its log begins anew: a gap
                origin.version += 1
                until(lambda: paris.get("/version/polled")[2] == b"3")


def test_whichever_worker_is_scraped_reports_objective_and_limit_of_all(redis_server, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_RUN", str(tmp_path))
    example = yaml.safe_load((EXAMPLE / "edge.yaml").read_text())
    with SiteOrigin() as origin:
        made = document([origin], redis_server.port, x_edge__routes=[{"to": "origins", "head": 600}])
        made |= {name: example[name] for name in ("concurrency", "objectives")}
        made["http"] |= {name: example["http"][name] for name in ("shed", "priority")}
        with EdgeServer(tmp_path, "paris", made, "--workers", "2") as paris:
            def sample(name):
                text = paris.get("/.edge/metrics")[2].decode()
                return float(re.search(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)[1])

            bad = 'headgate_slo_events_total{objective="requests",outcome="bad"}'
            inflight = 'headgate_concurrency_inflight{limiter="requests"}'
            for _ in range(20):
                assert paris.get("/status/500", "POST")[0] >= 500
            until(lambda: sample(bad) == 20)
            assert {sample(bad) for _ in range(10)} == {20}
            with closing(HTTPConnection("127.0.0.1", paris.port)) as slow:
                slow.request("GET", "/slow/600", headers={"Host": "site.test"})
                until(lambda: sample(inflight) == 1)
                assert {sample(inflight) for _ in range(10)} == {1}
            until(lambda: sample(inflight) == 0)


def test_limits_are_exact_across_workers_and_points(redis_server, tmp_path):
    with SiteOrigin() as origin:
        made = document([origin], redis_server.port)
        made["levels"] = {"public": {"ip": "60/h", "user": "20/h", "region": "90/h", "endpoint": "1000/h",
                                     "store": "redis", "prefix": "{edge}exact"}}
        made["stores"]["redis"]["on_error"] = "raise"
        made["stores"]["redis"]["timeout"] = "5 s"
        made["http"] |= {"limit": "public", "keys": {
            "ip": "client", "user": "header x-user", "region": "header x-edge-region", "endpoint": "route"}}
        made["x-edge"]["regions"] = {"far": ["127.0.1.0/24"]}
        with EdgeServer(tmp_path, "paris", made, "--workers", "2") as paris, EdgeServer(
                tmp_path, "tokyo", made) as tokyo:
            def statuses(count, **options):
                found, lock = [], threading.Lock()

                def work(point, share):
                    for _ in range(share):
                        status = point.get("/version/x", **options)[0]
                        with lock:
                            found.append(status)

                threads = [threading.Thread(target=work, args=(point, count // 4))
                           for point in (paris, tokyo) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(PATIENCE)
                return found.count(200), found.count(429)

            assert statuses(40, source="127.0.0.2", X_User="ann") == (20, 20)
            assert statuses(60, source="127.0.0.2") == (40, 20)  # denied ones were charged to no tier
            assert statuses(80, source="127.0.1.2") == (60, 20)
            assert statuses(40, source="127.0.1.3", X_Edge_Region="moon") == (30, 10)  # a region of 90
