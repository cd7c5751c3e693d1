"""What a type checker says of the public names; mypy reads this with the package, nothing runs it."""

from threading import Lock
from typing import Any, Literal, assert_type

from headgate import (
    SLO,
    Alert,
    AlertRule,
    BoundedLoad,
    CacheStats,
    ConcurrencyLimiter,
    Decision,
    HashRing,
    HotKey,
    HotKeys,
    LRUCache,
    Maglev,
    Permit,
    PowerOfTwo,
    Rate,
    RateLimiter,
    RateLimits,
    Rendezvous,
    Reservation,
    RetryBudget,
    ServerRecord,
    Throttle,
    TinyLFUCache,
    TokenBucket,
    TTLCache,
    cached,
    cachetools,
    lru_cache,
    schemes,
)
from headgate.adapters import BalancerEvent, ServerCounters, asgi, dashboard, keys, wsgi
from headgate.adapters.httpx import BalancedTransport
from headgate.adapters.proxy import ConnectionPool, Hop, Refusal, ReverseProxy, StrictMiddleware, refusal_of
from headgate.adapters.redis import (
    AsyncNearCache,
    AsyncPurgeStream,
    AsyncRedisRateLimits,
    NearCache,
    RedisRateLimiter,
)
from headgate.adapters.requests import BalancedAdapter
from headgate.cachetools.func import ttl_cache
from headgate.config import Change, Changes, Document, Gate, Problem, Watcher, check, diff, load, read, schema
from headgate.httpcache import AsyncPurges, HTTPCache, HTTPCacheStats, PurgeLog
from headgate.near import NearEntry, NearEpoch, NearSource, NearStats, NearTable


async def size(key: str) -> int:
    return len(key)


async def loads(cache: LRUCache[str, int]) -> None:
    assert_type(await cache.aget_or_load("a", size), int)
    assert_type(await cache.aget_or_load("a", len), int)


def caches(cache: LRUCache[str, int]) -> None:
    assert_type(cache["a"], int)
    assert_type(cache.get("a"), int | None)
    assert_type(cache.get("a", 0), int)
    assert_type(cache.get("a", b""), int | bytes)
    assert_type(cache.peek("a"), int | None)
    assert_type(cache.pop("a", None), int | None)
    assert_type(cache.popitem(), tuple[str, int])
    assert_type(cache.get_or_load("a", len), int)
    assert_type(list(cache.items()), list[tuple[str, int]])
    assert_type(cache.stats(), CacheStats)
    assert_type(TTLCache[str, bytes](10, 60, getsizeof=len).expire(), list[tuple[str, bytes]])


@lru_cache(maxsize=10)
def square(number: int) -> float:
    return float(number * number)


@cached(maxsize=10, ttl=60, stale=5)
def page(number: int, language: str = "en") -> bytes:
    return f"{number} {language}".encode()


@cached
async def fetched(number: int) -> bytes:
    return page(number)


class Reader:
    @cached(maxsize=10)
    def page(self, number: int) -> bytes:
        return page(number)

    @cached
    async def fetched(self, number: int) -> bytes:
        return await fetched(number)

    @classmethod
    @cached
    def of_class(cls, number: int) -> bytes:
        return page(number)

    @classmethod
    @cached(tti=60, keep=len, tags=lambda number: [f"page:{number}"])
    async def fetched_of_class(cls, number: int) -> bytes:
        return await fetched(number)

    @staticmethod
    @cached(policy=TinyLFUCache)
    def static(number: int) -> bytes:
        return page(number)


async def functions(reader: Reader) -> None:
    assert_type(square(3), float)
    assert_type(page(3, language="de"), bytes)
    assert_type(reader.page(3), bytes)
    assert_type(Reader.page(reader, 3), bytes)
    assert_type(page.cache_invalidate(3, language="de"), bool)
    assert_type(reader.page.cache_contains(3), bool)
    assert_type((Reader.of_class(3), reader.of_class(number=3)), tuple[bytes, bytes])
    assert_type((await Reader.fetched_of_class(3), await reader.fetched_of_class(3)), tuple[bytes, bytes])
    assert_type((Reader.static(3), reader.static(3)), tuple[bytes, bytes])
    assert_type(Reader.of_class.cache_contains(3), bool)
    assert_type(await fetched(3), bytes)
    assert_type(await reader.fetched(3), bytes)


def placements(ring: HashRing[str], bounded: BoundedLoad[str]) -> None:
    assert_type(HashRing({"a": 1, "b": 2}), HashRing[str])
    assert_type(HashRing([("a", 1)], node_key=lambda node: node[0]), HashRing[tuple[str, int]])
    assert_type(ring.get_node("key"), str | None)
    assert_type(ring.get_nodes(b"key", 2), list[str])
    assert_type(ring.get_nodes("key", 2, zones={"a": "east", "b": "west"}), list[str])
    assert_type(Maglev([1, 2]).get_nodes("key", 2, zones=lambda node: node % 2), list[int])
    assert_type(ring.get_many([1, 2]), list[str | None])
    assert_type(ring.weights, dict[str, float])
    ring.set_weight("a", 0)
    ring.replace_nodes({"a": 1, "b": 2.5})
    assert_type(HashRing(["a"], scheme=schemes.headgate(hash=lambda data: len(data))), HashRing[str])
    assert_type(ring.diff(ring), dict[tuple[str | None, str | None], float])
    assert_type(Rendezvous([1, 2]).get_node("key"), int | None)
    assert_type(Maglev({"a": 1}).get_node("key"), str | None)
    with bounded.pick("key") as pick:
        assert_type(pick.server, str)
    assert_type(bounded.loads, dict[str, int])


async def balancers(balancer: PowerOfTwo[str]) -> None:
    assert_type(PowerOfTwo({1: 1.5}).get_server(), int)
    with balancer.pick() as pick:
        assert_type(pick.server, str)
    async with balancer.pick(exclude=["a"]) as pick:
        assert_type(pick.server, str)
    assert_type(balancer.records, list[ServerRecord[str]])
    assert_type(balancer.records[0].server, str)
    assert_type(balancer.records[0].in_flight, int)


def hot_keys(hot: HotKeys[str]) -> None:
    assert_type(hot.top(10), list[HotKey[str]])
    assert_type(hot.top(10)[0].key, str)
    assert_type(hot.top(10)[0].error, int)


async def limits(bucket: TokenBucket, limiter: RateLimiter) -> None:
    assert_type(bucket.consume(), bool)
    assert_type(await bucket.acquire_async(), bool)
    assert_type(limiter.allow("ann"), bool)
    assert_type(limiter.rates, tuple[Rate, ...])
    assert_type(limiter.decide("ann", cost=2), Decision)
    assert_type(limiter.decide("ann").retry_after, float)
    assert_type(limiter.decide("ann").headers(), dict[str, str])
    assert_type(RateLimits(ip="10/s", user=Rate(1, 1), partner=limiter).decide(ip="::1", user=None), Decision)
    async with ConcurrencyLimiter().acquire() as permit:
        assert_type(permit, Permit)
    assert_type(bool(permit), bool)
    permit.observe("dropped")
    assert_type(limiter.reserve("ann").decision, Decision | None)
    assert_type(bucket.reserve(2), Reservation)
    assert_type(bucket.reserve(2).join(limiter.reserve("ann")), bool)
    assert_type(Throttle().rejection_probability, float)


async def levels(limits: RateLimits) -> None:
    assert_type(limits.allow(ip="::1", user=None), bool)
    assert_type(limits.reserve(ip="::1", cost=2), Reservation)
    assert_type(await limits.acquire_async(ip="::1", timeout=1), bool)
    assert_type(limits.counters()["ip"].allowed, int)
    assert_type(limits.counters()["ip"].policies, dict[str, int])
    assert_type(limits.decide(ip="::1").fields(style="both"), list[tuple[bytes, bytes]])


def objectives(slo: SLO) -> None:
    assert_type(SLO(99.9, "30 d", latency="250 ms", rules=[(14.4, "1 h", 300, "page")]), SLO)
    slo.record(seconds=0.2)
    assert_type((slo.availability(), slo.burn_rate("1 h"), slo.error_budget()), tuple[float, float, float])
    assert_type(slo.alerts(lambda alert: print(alert.severity)), list[Alert])
    assert_type(slo.alerts()[0].severity, str)
    assert_type(slo.alerts()[0].state, Literal["inactive", "pending", "firing", "resolved"])
    assert_type(slo.rules, tuple[AlertRule, ...])
    assert_type((slo.good, slo.latency), tuple[int, float | None])


def near_tables(cache: LRUCache[str, NearEntry]) -> None:
    table = NearTable(cache, prefixes=["user:", b"page:"], negative_ttl=1)
    source = NearSource(table)
    source.invalidated([b"user:1"])
    assert_type(source.epoch, NearEpoch | None)
    entry = table.begin(b"user:1", source.epoch)
    assert_type((entry, entry.epoch), tuple[NearEntry, NearEpoch | None])
    assert_type(table.store(entry, b"Ann", "run id", 1000), bool)
    assert_type(table.stats(), NearStats)
    assert_type(table.stats().hit_ratio, float)


async def remote_limits(
    limiter: RedisRateLimiter, limits: AsyncRedisRateLimits, near: NearCache, pages: AsyncNearCache
) -> None:
    assert_type(limiter.decide("ann"), Decision)
    assert_type(await limits.decide(ip="::1"), Decision)
    assert_type(near.stats(), NearStats)
    assert_type(await pages.get("page:1"), Any)


async def purges(stream: AsyncPurgeStream, cache: HTTPCache) -> None:
    for log in (PurgeLog(), stream):
        following = AsyncPurges(log, cache, every=5)
        assert_type(await following.purge("/", stale=True), tuple[int, dict[str, Any]])
        assert_type((following.behind, following.error), tuple[float, Exception | None])
    assert_type(PurgeLog().append(tag="a"), tuple[int, dict[str, Any]])
    assert_type(await stream.read(("a", 1), 0.5), tuple[str, int, list[tuple[int, dict[str, Any]]]])


def names_of(part: Any, document: Document) -> list[str]:
    return [*part, *document.sections]


def documents(old: Document, gate: Gate) -> None:
    assert_type(load("caches: {}", env={"HOME": "/"}), Gate)
    assert_type(load({}, extensions={"x-names": names_of}).extensions["x-names"], Any)
    assert_type(read({"limits": {}}), Document)
    assert_type(diff(old, read("{}")), tuple[Change, ...])
    assert_type(check(old), list[Problem])
    assert_type(schema(), dict[str, Any])
    assert_type(gate.document, Document)
    assert_type(gate.apply({"limits": {}}), Changes)
    assert_type([change.place for change in gate.reload()], list[str])
    assert_type(gate.watch(every=5), Watcher)
    with gate as opened:
        assert_type(opened, Gate)


def dropped_in(cache: cachetools.LRUCache[str, int], timed: cachetools.TTLCache[str, bytes]) -> None:
    assert_type(cache["a"], int)
    assert_type(cache.get("a"), int | None)
    assert_type(cache.get("a", b""), int | bytes)
    assert_type(cache.pop("a"), int)
    assert_type(cache.pop("a", None), int | None)
    assert_type(cache.popitem(), tuple[str, int])
    assert_type(cache.setdefault("a", 1), int)
    assert_type(timed.expire(), list[tuple[str, bytes]])
    assert_type(cachetools.RRCache[str, bytes](10, getsizeof=len)["a"], bytes)
    assert_type(cachetools.TLRUCache[str, int](10, ttu=lambda key, value, now: now + value)["a"], int)
    assert_type(cachetools.keys.hashkey(1, a=2), tuple[Any, ...])


class Recorded(cachetools.LRUCache[str, int]):
    def popitem(self) -> tuple[str, int]:
        return super().popitem()

    def __missing__(self, key: str) -> int:
        return len(key)


@cachetools.cached(cachetools.TTLCache(maxsize=10, ttl=60), lock=Lock())
def area(width: int, height: int) -> float:
    return float(width * height)


@cachetools.cached({}, info=True)
def length(text: str) -> int:
    return len(text)


@ttl_cache(maxsize=10, ttl=60)
def half(number: int) -> float:
    return number / 2


@ttl_cache
def double(number: int) -> int:
    return 2 * number


class Shelf:
    def __init__(self) -> None:
        self.cache = cachetools.LRUCache[tuple[Any, ...], bytes](10)

    @cachetools.cachedmethod(lambda self: self.cache)
    def page(self, number: int) -> bytes:
        return page(number)

    @cachetools.cachedmethod(lambda self: self.cache, key=cachetools.keys.typedmethodkey, info=True)
    def counted(self, number: int) -> bytes:
        return page(number)

    @cachetools.cached({})
    def own(self, number: int) -> bytes:
        return page(number)

    @classmethod
    @cachetools.cached({}, info=True)
    def of_class(cls, number: int) -> bytes:
        return page(number)

    @staticmethod
    @cachetools.cached({})
    def static(number: int) -> bytes:
        return page(number)

    @classmethod
    @ttl_cache(maxsize=10)
    def timed_of_class(cls, number: int) -> bytes:
        return page(number)

    @staticmethod
    @ttl_cache
    def timed_static(number: int) -> bytes:
        return page(number)


def decorators_dropped_in(shelf: Shelf) -> None:
    assert_type(area(1, height=2), float)
    assert_type((Shelf.of_class(3), shelf.of_class(3)), tuple[bytes, bytes])
    assert_type((Shelf.static(3), shelf.static(3)), tuple[bytes, bytes])
    assert_type((Shelf.timed_of_class(3), shelf.timed_of_class(3)), tuple[bytes, bytes])
    assert_type((Shelf.timed_static(3), shelf.timed_static(3)), tuple[bytes, bytes])
    assert_type(length.cache_info(), cachetools.CacheInfo)
    area.cache_clear()
    assert_type(length("a"), int)
    assert_type(length.cache_info().hits, int)
    assert_type(half(3), float)
    assert_type(half.cache_info().hits, int)
    assert_type(double(3), int)
    assert_type(double.cache_parameters(), dict[str, Any])
    assert_type(shelf.page(3), bytes)
    shelf.page.cache_clear()
    assert_type(shelf.counted(3), bytes)
    assert_type(shelf.counted.cache_info().misses, int)
    assert_type(shelf.own(3), bytes)


def adapters(balancer: PowerOfTwo[str], events: list[BalancerEvent]) -> None:
    budget = RetryBudget(share=0.1, per_second=5)
    transport = BalancedTransport(balancer, attempts=2, budget=budget, deadline=1.5, on_event=events.append)
    assert_type(transport.counters()["http://a"], ServerCounters)
    BalancedAdapter(balancer, host="orders", key=lambda request: request.url, attempt_timeout=1)
    assert_type(budget.withdraw(), bool)


async def proxies(balancer: PowerOfTwo[str], fields: list[tuple[bytes, bytes]]) -> None:
    hop = Hop("edge", trusted=["10.0.0.0/8"], internal=["x-edge-"])
    assert_type(hop.request_fields(fields, None, "http", "1.1"), list[tuple[bytes, bytes]])
    assert_type(refusal_of("GET", "/", fields), Refusal | None)
    async with ConnectionPool(per_server=10) as pool, ReverseProxy(
            balancer, hop, pool=pool, key=keys.client(), attempts=2, idle_timeout=5) as proxy:
        assert_type(proxy.counters()["http://a"], ServerCounters)
        assert_type(asgi.CacheMiddleware(StrictMiddleware(proxy, hop)).cache, HTTPCache)


def applications(asgi_app: Any, wsgi_app: Any, gate: Gate, limits: RateLimits, cache: HTTPCache) -> None:
    limited = asgi.RateLimitMiddleware(asgi_app, limits, keys={"ip": keys.client(trusted=["10.0.0.0/8"])})
    assert_type(limited.stats()["ip"].denied, int)
    assert_type(wsgi.RateLimitMiddleware(wsgi_app, "10/s", keys=keys.user()).stats()["default"].denied, int)
    cached = asgi.CacheMiddleware(limited, cache, exempt=["/health"])
    assert_type(cached.cache, HTTPCache)
    assert_type(cache.purge("/page", stale=True), int)
    assert_type(cache.stats(), HTTPCacheStats)
    shedding = asgi.ShedMiddleware(cached, ConcurrencyLimiter(), priority=keys.header("x-priority"))
    assert_type(shedding.stats(), asgi.ShedStats)
    assert_type(wsgi.ShedMiddleware(wsgi_app, ConcurrencyLimiter()).stats(), wsgi.ShedStats)
    assert_type(asgi.from_gate(asgi_app, gate), asgi.GateMiddleware)
    assert_type(wsgi.from_gate(wsgi_app, gate).stats(), wsgi.GateStats)
    wsgi.RateLimitMiddleware(dashboard.wsgi(gate, allow=lambda request: True), limits, keys=keys.path())
    asgi.ShedMiddleware(dashboard.asgi({"limits": limits}, allow=["127.0.0.0/8"]), ConcurrencyLimiter())
