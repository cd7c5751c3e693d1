"""promtool finds nothing to say about the metrics; a Prometheus server that scrapes them has data for every
expression of the Grafana dashboard, which is one by Grafana's own schema.
"""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from servers import Port, Server, package, program
from watchdog import PATIENCE

import headgate
from headgate.adapters._families import FAMILIES
from headgate.adapters.aiohttp import HealthChecks, HealthRecord
from headgate.adapters.asgi import ShedMiddleware
from headgate.adapters.httpx import BalancedTransport
from headgate.adapters.prometheus import metric_name, register
from headgate.adapters.redis import RedisRateLimiter
from headgate.httpcache import AsyncPurges, HTTPCache, PurgeLog
from headgate.near import NearTable

DASHBOARD = Path(__file__).parents[2] / "docs/grafana.json"
SUFFIX = re.compile(r"_(total|info)$")
CONFIG = """
global: {{scrape_interval: 200ms}}
scrape_configs:
  - {{job_name: headgate, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}
"""


class Broken:
    """A primitive that cannot be read, so that the family of errors has a sample too."""

    def stats(self):
        raise OSError("gone")


class Probed(HealthChecks):
    """Has found a server down."""

    records = HealthRecord("http://u:secret@10.0.0.2:80", False, 3, 3, 0, 500),


class Service:
    """One of every kind of primitive, and requests that change every counter."""

    def __init__(self, unreachable):
        self.client = redis.Redis(port=unreachable)
        self.fleet = RedisRateLimiter(self.client, "1/h", on_error="allow")
        self.pages, self.public = headgate.LRUCache(2), headgate.RateLimits(ip="1/h", user="1/h")
        self.public.count_denied(user=headgate.HotKeys(5))
        self.workers = headgate.ConcurrencyLimiter(1, max_limit=1, priorities={"user": 1})
        self.shed = ShedMiddleware(None, self.workers, priority=str)
        self.orders = headgate.PowerOfTwo(["http://10.0.0.1:80", "http://u:secret@10.0.0.2:80"])
        transport = httpx.MockTransport(lambda request: httpx.Response(503))
        self.http = httpx.Client(transport=BalancedTransport(self.orders, transport))
        self.hot, self.slo = headgate.HotKeys(5), headgate.SLO(99.9)
        self.near, self.throttle = NearTable(prefixes=["user:"]), headgate.Throttle()
        self.memoized = headgate.lru_cache(len)
        self.source = {
            "pages": self.pages, "public": self.public, "workers": self.workers, "shed": self.shed,
            "orders": self.orders, "urls": self.hot, "checkout": self.slo, "users": self.near,
            "upstream": self.throttle, "memoized": self.memoized, "fleet": self.fleet,
            "static": HTTPCache(), "mails": headgate.TokenBucket(5, 1), "retries": headgate.RetryBudget(),
            "api": headgate.RateLimiter("10/s"), "shards": headgate.HashRing(["a", "b"]),
            "bounded": headgate.BoundedLoad(headgate.HashRing(["a", "b"])), "broken": Broken(),
            "probes": Probed(self.orders), "points": AsyncPurges(PurgeLog(), HTTPCache()),
        }

    def work(self):
        self.pages.get_or_load(time.monotonic(), str)
        self.pages.get("absent"), self.memoized("a")
        self.public.allow(ip="::1", user="ann")
        with self.workers.acquire("user"):
            self.shed._shedding.admit("user")
        self.http.get("http://orders/")
        self.hot.add('a "quoted\\" key\n')
        self.slo.record(False), self.slo.record(True, 10)
        self.near.get("user:1"), self.throttle.allow(), self.fleet.allow("ann")

    def close(self):
        self.http.close()
        self.fleet.close()
        self.client.close()


@pytest.fixture(scope="module")
def service():
    nobody = Port()
    service = Service(nobody.number)
    service.work(), service.work()
    yield service
    service.close()
    nobody.release()


@pytest.fixture(scope="module")
def registry(service):
    registry = CollectorRegistry()
    register(service.source, registry=registry)
    return registry


@pytest.fixture(scope="module")
def expressions():
    """Every expression of the dashboard, as Grafana sends it."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    values = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*"}
    for name, value in values.items():
        found = [each.replace(name, value) for each in found]
    assert not [each for each in found if "$" in each]
    return found


def test_every_family_is_scraped(registry):
    names = {SUFFIX.sub("", line.split()[2]) for line in generate_latest(registry).decode().splitlines()
             if line.startswith("# TYPE")}
    assert names == {metric_name(family) for family in FAMILIES}


def test_promtool_has_nothing_to_say(registry):
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=generate_latest(registry), capture_output=True,
        timeout=PATIENCE, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def query(server, expression):
    url = f"http://127.0.0.1:{server.port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        body = json.load(response)
    assert body["status"] == "success"
    return body["data"]["result"]


def test_every_expression_of_the_dashboard_has_data(service, registry, expressions, tmp_path):
    endpoint, thread = start_http_server(0, "127.0.0.1", registry)
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(port=endpoint.server_port))
    command = [program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
               "--log.level=error"]
    try:
        with Server(lambda port: [*command, f"--web.listen-address=127.0.0.1:{port}"]) as server:
            without, deadline = expressions, time.monotonic() + PATIENCE
            while without and time.monotonic() < deadline:
                service.work()
                time.sleep(0.05)
                without = [each for each in without if not query(server, each)]
            assert without == []
            assert query(server, "sum(headgate_reading_errors)")[0]["value"][1] == "1"
            [hot] = query(server, "headgate_hotkeys_hottest")
            assert hot["metric"]["key"] == 'a "quoted\\" key\n'
            servers = {each["metric"]["server"] for each in query(server, "headgate_balancer_inflight")}
            assert servers == {"http://10.0.0.1:80", "http://10.0.0.2:80"}
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()


def losses(document, read, where=""):
    """What a document has that is not in it once it was read by a schema."""
    if isinstance(document, dict) and isinstance(read, dict):
        for key, value in document.items():
            yield from losses(value, read[key], f"{where}.{key}") if key in read else [f"{where}.{key}"]
    elif isinstance(document, list) and isinstance(read, list) and len(document) == len(read):
        for at, pair in enumerate(zip(document, read, strict=True)):
            yield from losses(*pair, f"{where}[{at}]")
    elif document != read:
        yield f"{where}: {document!r} is read as {read!r}"


def test_the_dashboard_is_one_by_the_schema_of_grafana():
    package("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    text = DASHBOARD.read_text(encoding="utf-8")
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(json.loads(text))))
    assert list(losses(json.loads(text), read)) == []


def test_panels_of_the_dashboard_have_their_own_numbers_and_places():
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    uids = {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}
    uids |= {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", ())}
    assert uids == {"${datasource}"}
    variables = {each["name"]: each["type"] for each in document["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query"}


def test_the_dashboard_names_only_metrics_that_exist(expressions):
    known = {metric_name(name) + {"counter": "_total", "info": "_info"}.get(terms.kind, "")
             for name, terms in FAMILIES.items()}
    assert {name for each in expressions for name in re.findall(r"\bheadgate_\w+", each)} <= known
