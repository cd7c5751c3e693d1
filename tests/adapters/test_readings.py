"""What metrics and dashboards read of each primitive."""

from types import SimpleNamespace

import pytest

import headgate
from headgate import config
from headgate.adapters._families import FAMILIES, Family
from headgate.adapters._readings import GROUPS, MOST_MEMBERS, check_source, primitives, readings
from headgate.adapters.asgi import RateLimitMiddleware, ShedMiddleware
from headgate.httpcache import AsyncPurges, HTTPCache, PurgeFollower, PurgeLog
from headgate.near import NearTable

A, B = "http://10.0.0.1:8080", "http://10.0.0.2:8080"


def values(source, family, **options):
    """{values of labels: value} of a family."""
    found = {each.name: each for each in readings(source, **options)}
    samples = found[family].samples if family in found else []
    return {tuple(labels.values()): value for labels, value in samples}


def everything(twin):
    """One of each kind of primitive."""
    return {
        "cache": twin.cache.LRUCache(10),
        "ttl": twin.cache.TTLCache(10, 5),
        "memoized": twin.memoize.lru_cache(len),
        "cached": twin.memoize.cached(maxsize=5)(len),
        "limiter": twin.keyed.RateLimiter("10/s; 100/min"),
        "bucket": twin.bucket.TokenBucket(10, 1),
        "ring": twin.placement.HashRing(["a", "b"]),
        "rendezvous": twin.placement.Rendezvous(["a", "b"]),
        "maglev": twin.placement.Maglev(["a", "b"]),
        "bounded": twin.placement.BoundedLoad(twin.placement.HashRing(["a"])),
        "balancer": twin.balance.PowerOfTwo(["a", "b"]),
        "hot": twin.hotkeys.HotKeys(4),
        "slo": twin.slo.SLO(99.9),
        "addresses": headgate.AddressLimiter("2/s", v4={32: 1, 24: 2}),
        "levels": headgate.RateLimits(ip="9/s", user="1/min"),
        "concurrency": headgate.ConcurrencyLimiter(5),
        "throttle": headgate.Throttle(),
        "retries": headgate.RetryBudget(),
        "http": HTTPCache(),
        "near": NearTable(prefixes=["a"]),
    }


def test_health_checks_and_purges_are_read():
    aiohttp = pytest.importorskip("headgate.adapters.aiohttp")
    balancer = headgate.RoundRobin([A, B])
    purges = AsyncPurges(PurgeLog(), HTTPCache(), clock=lambda: 7.0)
    follower = PurgeFollower(HTTPCache())
    follower.receive("a", 4, [(4, {"tag": "news", "at": 1_700_000_000.0})])
    follower.receive("b", 9, [])

    class Checks(aiohttp.HealthChecks):
        records = aiohttp.HealthRecord(A, False, 9, 5, 1, 500), aiohttp.HealthRecord(B, None, 0, 0, 0, None)

    source = {"orders": Checks(balancer), "points": purges, "own": follower}
    check_source(source)
    assert [kind for kind, _, _ in primitives(source)] == ["health_checks", "purges", "purges"]
    assert values(source, "headgate.health.probes") == {("orders", A): 9, ("orders", B): 0}
    assert values(source, "headgate.health.failures") == {("orders", A): 5, ("orders", B): 0}
    assert values(source, "headgate.health.errors") == {("orders", A): 1, ("orders", B): 0}
    assert values(source, "headgate.health.up") == {("orders", A): 0}
    assert values(source, "headgate.purges.applied") == {("points",): 0, ("own",): 9}
    assert values(source, "headgate.purges.gaps") == {("points",): 0, ("own",): 1}
    assert values(source, "headgate.purges.failures") == {("points",): 0}
    assert values(source, "headgate.purges.behind") == {("points",): 0.0}
    assert not values(source, "headgate.reading.errors")
    assert readings({"orders": aiohttp.HealthChecks(balancer)})  # before they run


def test_every_kind_of_primitive_is_read(twin):
    source = everything(twin)
    check_source(source)
    families = readings(source)
    assert [family.name for family in families] == [
        name for name in FAMILIES if name in {family.name for family in families}]
    assert "headgate.reading.errors" not in {family.name for family in families}
    seen = {value for family in families for labels, _ in family.samples for value in labels.values()}
    assert source.keys() <= seen
    for family in families:
        terms = FAMILIES[family.name]
        assert (family.kind, family.unit, family.help) == (terms.kind, terms.unit, terms.help)
        for labels, value in family.samples:
            assert tuple(labels) == terms.labels
            assert isinstance(value, (int, float))
            assert all(type(label) is str for label in labels.values())


GATE = """
caches: {sessions: {policy: lru, maxsize: 10000, ttl: 15 min}}
http_caches: {static: {maxsize: 1 MiB}}
limits: {api: {rate: "10/s; 100/min", max_keys: 1000}, fleet: {rate: "1000/min", store: redis}}
levels: {public: {ip: api, user: "100/min; 1000/h"}}
buckets: {mails: {capacity: 5, refill_rate: 1}}
throttles: {upstream: {}}
placements: {shards: {kind: ring, nodes: {a: 1, b: 2}}}
balancers: {orders: {kind: peak_ewma, servers: ["http://10.0.0.1:8080"]}}
retry_budgets: {retries: {}}
concurrency: {workers: {algorithm: gradient}}
objectives: {checkout: {target: 99.9}}
hotkeys: {urls: {k: 5}}
stores: {redis: {url: "redis://127.0.0.1:1/0", on_error: allow}}
http: {limit: public, keys: {ip: client, user: header x-user}, shed: workers, cache: {maxsize: 64 MiB}}
"""


def test_everything_of_a_gate_is_read():
    gate = config.load(GATE)
    check_source(gate)
    named = {(kind, name) for kind, name, _ in primitives(gate)}
    assert named == {
        ("cache", "sessions"), ("http_cache", "static"), ("limit", "api"), ("limit", "fleet"),
        ("limit", "public"), ("bucket", "mails"), ("throttle", "upstream"), ("placement", "shards"),
        ("balancer", "orders"), ("retry_budget", "retries"), ("concurrency", "workers"),
        ("objective", "checkout"), ("hotkeys", "urls"), ("limit", "fleet (async)"), ("http_cache", "http")}
    assert values(gate, "headgate.http_cache.max_size") == {("static",): 2**20, ("http",): 2**26}
    assert values(gate, "headgate.store.calls") == {("fleet",): 0, ("fleet (async)",): 0}
    assert "headgate.reading.errors" not in {family.name for family in readings(gate)}


def test_sections_of_a_gate_are_those_of_a_document():
    assert set(GROUPS) == config.fields.SECTIONS.keys() - {"stores"}


def test_a_gate_may_lack_attributes():
    gate = SimpleNamespace(caches={"pages": headgate.LRUCache(10)})
    check_source(gate)
    assert values(gate, "headgate.cache.max_size") == {("pages",): 10}


def test_counters_of_a_cache():
    cache = headgate.LRUCache(1)
    source = {"pages": cache}
    cache["a"], cache["b"] = 1, 2
    cache.get("b"), cache.get("a"), cache.get_or_load("c", len)
    expected = {"hits": 1, "misses": 2, "evictions": 2, "loads": 1, "entries": 1, "max_size": 1}
    assert {field: values(source, f"headgate.cache.{field}")["pages",] for field in expected} == expected
    assert cache.hits == 1


def test_levels_count_allowed_and_denied_once_also_if_a_middleware_has_them_too():
    limits = headgate.RateLimits(ip="1/h", user="9/h", clock=lambda: 0)
    for _ in range(3):
        limits.allow(ip="::1", user="ann")
    middleware = RateLimitMiddleware(None, limits, keys={"ip": str, "user": str})
    gate = SimpleNamespace(levels={"public": limits}, near={"public": middleware})
    assert values(gate, "headgate.limit.requests") == {
        ("public", "ip", "allowed"): 1, ("public", "ip", "denied"): 2,
        ("public", "user", "allowed"): 1, ("public", "user", "denied"): 0}
    assert values(gate, "headgate.limit.denials") == {
        ("public", "ip", "1/h"): 2, ("public", "user", "9/h"): 0}


def test_policies_have_denials_before_the_first(twin):
    levels = headgate.RateLimits(
        ip=headgate.AddressLimiter("1/h", v4={32: 1, 24: 2}), user=twin.keyed.RateLimiter("1/h; 9/day"))
    assert values({"public": levels}, "headgate.limit.denials") == {
        ("public", "user", "1/h"): 0, ("public", "user", "9/day"): 0}
    for _ in range(3):
        levels.allow(ip="192.0.2.1", user="ann")
    assert values({"public": levels}, "headgate.limit.denials") == {
        ("public", "ip", "/32: 1/h"): 2, ("public", "user", "1/h"): 2, ("public", "user", "9/day"): 0}


def test_the_keys_that_are_denied_most_have_samples_where_they_are_counted(twin):
    class Counter:
        def add(self, key):
            """It knows no top."""

    levels = headgate.RateLimits(ip="100/h", user="1/h")
    levels.count_denied(user=twin.hotkeys.HotKeys(100), ip=Counter())
    for at in range(30):
        for _ in range(at + 1):
            levels.allow(ip="192.0.2.1", user=f"user-{at}")
    source = {"public": levels, "api": RateLimitMiddleware(None, levels, keys={"ip": str})}
    assert values(source, "headgate.limit.denied_keys", k=2) == {
        (name, "user", f"user-{at}"): at for name in source for at in (28, 29)}


def test_a_concurrency_limiter_counts_denials_of_its_own_and_by_priority():
    limiter = headgate.ConcurrencyLimiter(2, priorities={"user": 1, "batch": 0.5}, algorithm="fixed")
    shed = ShedMiddleware(None, limiter, priority=str)
    permits = [limiter.acquire("batch"), limiter.acquire("batch"), limiter.acquire("user")]
    source = {"workers": limiter, "service": shed}
    assert values(source, "headgate.concurrency.denied") == {("workers",): 1}
    assert values(source, "headgate.concurrency.inflight") == {("workers",): 2, ("service",): 2}
    assert values(source, "headgate.shed.requests")["service", "batch", "shed"] == 0
    assert values(source, "headgate.concurrency.latency") == {}
    for permit in permits:
        permit.release()


def test_the_latency_by_which_a_gradient_judges():
    clock = SimpleNamespace(now=10**9)
    limiter = headgate.ConcurrencyLimiter(50, clock=lambda: clock.now)
    for _ in range(60):
        permit = limiter.acquire()
        clock.now += 250_000_000
        permit.release()
    assert limiter.latency == pytest.approx(0.25, rel=0.01)
    assert values({"workers": limiter}, "headgate.concurrency.latency") == {("workers",): limiter.latency}


def test_shared_files_cover_all_workers(tmp_path, twin):
    ours, theirs = (twin.slo.SLO(99, path=tmp_path / "slo") for _ in range(2))
    theirs.record(True, 7)
    assert values({"checkout": ours}, "headgate.slo.events")["checkout", "good"] == 7


def test_reading_an_objective_takes_no_transition_from_its_alerts(twin):
    slo = twin.slo.SLO(99.9)
    slo.record(False, 500)
    firing = values({"checkout": slo}, "headgate.slo.alert.firing")
    assert firing["checkout", "page", "3600", "300"] == 1
    assert values({"checkout": slo}, "headgate.slo.burn_rate")["checkout", "300"] == pytest.approx(1000)
    changed = []
    slo.alerts(changed.append)
    assert [alert.state for alert in changed] == ["firing"] * 3


def test_only_the_hottest_keys_have_samples(twin):
    hot = twin.hotkeys.HotKeys(100)
    for at in range(100):
        hot.add(f"key{at}", at + 1)
    assert values({"urls": hot}, "headgate.hotkeys.hottest", k=2) == {
        ("urls", "key99"): 100, ("urls", "key98"): 99}
    assert values({"urls": hot}, "headgate.hotkeys.all") == {("urls",): 5050}


def test_labels_are_valid_bounded_and_without_passwords(twin):
    hot = twin.hotkeys.HotKeys(10)
    hot.add("a\ud800"), hot.add(b"\xff"), hot.add("x" * 1000), hot.add(("a", 1))
    found = {key for _, key in values({"urls": hot}, "headgate.hotkeys.hottest")}
    assert found == {"a\\ud800", "\\xff", "x" * 127 + "…", "('a', 1)"}
    balancer = twin.balance.RoundRobin(["http://user:secret@10.0.0.1:80/x", "http://a@[::1", "b@c"])
    assert {server for _, server in values({"orders": balancer}, "headgate.balancer.weight")} == {
        "http://10.0.0.1:80/x", "http://", "b@c"}


def test_members_beyond_the_bound_have_no_samples(twin):
    ring = twin.placement.HashRing([f"node{at}" for at in range(MOST_MEMBERS + 5)], replicas=1)
    source = {"shards": ring, "orders": twin.balance.RoundRobin(ring.nodes)}
    shares = values(source, "headgate.placement.share")
    assert len(shares) == MOST_MEMBERS
    assert min(shares.values()) >= sorted(ring.ownership().values())[5]
    assert len(values(source, "headgate.balancer.latency")) == MOST_MEMBERS
    assert values(source, "headgate.placement.nodes") == {("shards",): MOST_MEMBERS + 5}


def test_an_error_of_one_primitive_loses_only_that_one():
    class Broken:
        def stats(self):
            raise OSError("gone")

    source = {"broken": Broken(), "pages": headgate.LRUCache(10)}
    assert values(source, "headgate.reading.errors") == {("broken", "OSError"): 1}
    assert values(source, "headgate.cache.hits") == {("pages",): 0}


def test_keys_that_have_no_text_lose_only_their_own_counter():
    class Key:
        def __str__(self):
            raise RuntimeError("no")

    hot = headgate.HotKeys(5)
    hot.add(Key())
    source = {"paths": hot, "pages": headgate.LRUCache(10)}
    assert values(source, "headgate.reading.errors") == {("paths", "RuntimeError"): 1}
    assert values(source, "headgate.cache.hits") == {("pages",): 0}


def test_a_primitive_that_fails_half_way_has_no_samples():
    class Slo(SimpleNamespace):
        error_budget = None

    source = {"checkout": Slo(good=1, bad=0, target=99)}
    assert values(source, "headgate.slo.events") == {}
    assert values(source, "headgate.reading.errors") == {("checkout", "AttributeError"): 1}


@pytest.mark.parametrize(("source", "message"), [
    (3, "source must be a Gate or a mapping of names to primitives, got 3"),
    ({"a": 3}, "source must have primitives of headgate, got 3 for 'a'"),
    ({3: headgate.LRUCache(1)}, "source must have names that are str, got 3"),
])
def test_a_source_is_checked(source, message):
    with pytest.raises(TypeError) as raised:
        check_source(source)
    assert str(raised.value) == message


def test_counts_of_http_clients_belong_to_the_balancer():
    httpx = pytest.importorskip("httpx")
    from headgate.adapters.httpx import BalancedTransport

    balancer = headgate.RoundRobin(["http://10.0.0.1:80"])
    transport = BalancedTransport(balancer, httpx.MockTransport(lambda request: httpx.Response(503)))
    with httpx.Client(transport=transport) as client:
        client.get("http://service/")
    server = ("orders", "http://10.0.0.1:80")
    for source in ({"orders": balancer}, {"orders": transport}):
        assert values(source, "headgate.balancer.requests") == {server: 1}
        assert values(source, "headgate.balancer.failures") == {server: 1}


def test_a_family_is_a_tuple_of_its_parts():
    family = Family("headgate.cache.hits", "counter", "{hit}", "Lookups that hit.", [])
    assert family.samples == []
