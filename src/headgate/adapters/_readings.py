"""Reads primitives into families of samples, for metrics and dashboards.

    Gate, or name -> primitive  ->  reader of each  ->  (family, values of labels, value)  ->  Family

A reader is chosen by what a primitive has, so that nothing is imported of what a service does not use. The
samples of a primitive are complete or absent: what raises is counted under ``headgate.reading.errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import nlargest
from operator import attrgetter, itemgetter
from urllib.parse import urlsplit

import headgate
from headgate.adapters._families import FAMILIES, Family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeAlias

    Reading: TypeAlias = tuple[str, tuple[Any, ...], float]
    Reader: TypeAlias = Callable[[str, Any, int], Iterable[Reading]]

GROUPS = (
    "caches", "http_caches", "near", "limits", "levels", "buckets", "throttles", "concurrency", "placements",
    "balancers", "retry_budgets", "hotkeys", "objectives",
)
"""The attributes of a Gate that map names to primitives."""
_ASYNC_GROUPS = ("near", "limits", "levels")
"""Those of which some primitives have another form for event loops, which counts by itself."""
MOST_MEMBERS = 1000
"""The most nodes or servers of one primitive that have samples of their own: those with the most."""
_LONGEST_LABEL = 128
_ONLY_LEVEL = ""


def readings(source: Any, *, k: int = 10) -> list[Family]:
    """The families of all primitives of a `source`, a Gate or a mapping of names to primitives, as of now.

    Only families with samples are returned, in the order of `FAMILIES`. Of `HotKeys` the `k` hottest keys
    have samples. Of samples of one family with equal labels the first counts. A primitive that raises has
    none, except one of ``headgate.reading.errors``. Nothing that is read changes.

    Complexity: O(primitives), and that of ``ownership`` for each placement.

    >>> from headgate import LRUCache
    >>> cache = LRUCache(10)
    >>> cache.get("absent")
    >>> [family.samples for family in readings({"pages": cache}) if family.name == "headgate.cache.misses"]
    [[({'cache': 'pages'}, 1)]]
    """
    found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in FAMILIES}
    found["headgate.build"][headgate.__version__, headgate.backend] = 1
    for name, primitive, (_, reader) in _known(source):
        try:
            samples = _labelled(reader(name, primitive, k))
        except Exception as error:
            samples = _labelled([("headgate.reading.errors", (name, type(error).__name__), 1)])
        for family, values, value in samples:
            found[family].setdefault(values, value)
    return [_family(name, samples) for name, samples in found.items() if samples]


def _labelled(samples: Iterable[Reading]) -> list[tuple[str, tuple[str, ...], float]]:
    """Samples with texts as labels, which keys of the user need not be able to become."""
    return [(family, tuple(map(label_text, values)), value) for family, values, value in samples]


def primitives(source: Any) -> list[tuple[str, str, Any]]:
    """The kind, the name and the object of each primitive of a source; objects of other kinds are left out.

    >>> from headgate import RateLimiter, LRUCache
    >>> [(kind, name) for kind, name, _ in primitives({"pages": LRUCache(10), "api": RateLimiter("1/s")})]
    [('cache', 'pages'), ('limit', 'api')]
    """
    return [(kind, name, primitive) for name, primitive, (kind, _) in _known(source)]


def check_source(source: Any) -> None:
    """Raises TypeError if a source is neither a Gate nor a mapping of names to what can be read."""
    if not isinstance(source, Mapping):
        if not any(hasattr(source, group) for group in GROUPS):
            raise TypeError(f"source must be a Gate or a mapping of names to primitives, got {source!r}")
        return
    for name, primitive in list(source.items()):  # another thread may add one meanwhile
        if not isinstance(name, str):
            raise TypeError(f"source must have names that are str, got {name!r}")
        if _kind_of(primitive) is None:
            raise TypeError(f"source must have primitives of headgate, got {primitive!r} for {name!r}")


def _known(source: Any) -> Iterator[tuple[str, Any, tuple[str, Reader]]]:
    """The name of each primitive, itself, and its kind and reader."""
    for group in [source] if isinstance(source, Mapping) else _groups(source):
        for name, primitive in list(group.items()):
            found = _kind_of(primitive)
            if found is not None:
                yield name, primitive, found


def _groups(gate: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of a Gate; some of its attributes may be absent."""
    for group in GROUPS:
        yield getattr(gate, group, {})
    for group in _ASYNC_GROUPS:
        plain = getattr(gate, group, {})
        forms = getattr(gate, f"async_{group}", {})
        yield {f"{name} (async)": form for name, form in forms.items() if form is not plain.get(name)}
    yield {"http": getattr(getattr(gate, "http", None), "cache", None)}
    if getattr(gate, "applications", ()):
        from headgate.adapters._applications import applications

        yield from applications(gate)


def _family(name: str, samples: Mapping[tuple[str, ...], float]) -> Family:
    kind, unit, labels, help = FAMILIES[name]
    pairs = [(dict(zip(labels, values, strict=True)), value) for values, value in samples.items()]
    return Family(name, kind, unit, help, pairs)


def label_text(value: Any) -> str:
    """The value of a label: valid UTF-8, not too long, and without the password of a URL."""
    if type(value) is str and value.isascii() and len(value) < _LONGEST_LABEL and "@" not in value:
        return value  # nearly all
    if isinstance(value, bytes):
        value = bytes.decode(value, "utf-8", "backslashreplace")
    text = str(value)
    if "@" in text and "://" in text:
        text = _redacted(text)
    if len(text) > _LONGEST_LABEL:
        text = text[: _LONGEST_LABEL - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _redacted(text: str) -> str:
    try:
        url = urlsplit(text)
    except ValueError:
        return text.partition("://")[0] + "://"
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


# ---- caches -------------------------------------------------------------------------------------


def _cache_stats(name: str, cache: Any, stats: Any) -> Iterator[Reading]:
    labels = (name,)
    for field in ("hits", "misses", "evictions", "expirations", "replacements", "removals", "loads"):
        yield f"headgate.cache.{field}", labels, getattr(stats, field)
    yield "headgate.cache.load.failures", labels, stats.load_failures
    yield "headgate.cache.load.time", labels, stats.load_seconds
    if hasattr(type(cache), "__len__"):
        yield "headgate.cache.entries", labels, len(cache)
    yield "headgate.cache.size", labels, stats.currsize
    yield "headgate.cache.max_size", labels, stats.maxsize


def _http_cache_stats(name: str, _: Any, stats: Any) -> Iterator[Reading]:
    results = {"hit": stats.hits, "stale": stats.stale, "revalidation": stats.revalidations,
               "miss": stats.misses, "pass": stats.passes}
    for result, count in results.items():
        yield "headgate.http_cache.requests", (name, result), count
    for field in ("stored", "evictions", "purged", "entries"):
        yield f"headgate.http_cache.{field}", (name,), getattr(stats, field)
    yield "headgate.http_cache.size", (name,), stats.currsize
    yield "headgate.http_cache.max_size", (name,), stats.maxsize


def _near_stats(name: str, _: Any, stats: Any) -> Iterator[Reading]:
    for field in ("hits", "misses", "negative_hits", "stored", "overtaken", "invalidations", "flushes",
                  "errors", "entries", "pending"):
        yield f"headgate.near.{field}", (name,), getattr(stats, field)
    yield "headgate.near.fresh_servers", (name,), stats.fresh
    yield "headgate.near.oldest_entry.age", (name,), stats.oldest


def _memoized(name: str, function: Any, k: int) -> Iterator[Reading]:
    info = function.cache_info()
    yield "headgate.cache.hits", (name,), info.hits
    yield "headgate.cache.misses", (name,), info.misses
    if info.currsize is not None:
        yield "headgate.cache.entries", (name,), info.currsize
        yield "headgate.cache.size", (name,), info.currsize
    if info.maxsize is not None:
        yield "headgate.cache.max_size", (name,), info.maxsize


# ---- limits -------------------------------------------------------------------------------------


def _limiter(name: str, limiter: Any, k: int) -> Iterator[Reading]:
    """A limiter by key or by level, in this process, in a shared file or in a store."""
    rates = limiter.rates
    levels = rates if isinstance(rates, Mapping) else {_ONLY_LEVEL: rates}
    for level, tiers in levels.items():
        for tier in tiers:
            yield "headgate.limit.rate", (name, level, tier), tier.limit / tier.period
    limiters = getattr(limiter, "_levels", {_ONLY_LEVEL: limiter})
    for level, each in limiters.items():
        yield from _tables(name, level, each)
    if hasattr(limiter, "counters"):
        yield from _counters(name, limiter, k)
    if isinstance(limiter, headgate.RateLimits):
        yield from _no_denials(name, limiter)
        yield from _denied_keys(name, limiter, k)
    servers = getattr(limiter, "_servers", None)
    if servers is not None:
        yield "headgate.store.open_breakers", (name,), servers.open_breakers()


def _tables(name: str, level: str, limiter: Any) -> Iterator[Reading]:
    """The table of keys of a limiter, or those of an `AddressLimiter` together."""
    tables = getattr(limiter, "_limiters", {None: limiter}).values()
    if all(hasattr(table, "evictions") for table in tables):
        yield "headgate.limit.max_keys", (name, level), sum(table.max_keys for table in tables)
        yield "headgate.limit.evictions", (name, level), sum(table.evictions for table in tables)


def _level_counts(name: str, _: Any, counts: Mapping[str, Any]) -> Iterator[Reading]:
    for level, count in counts.items():
        yield "headgate.limit.requests", (name, level, "allowed"), count.allowed
        yield "headgate.limit.requests", (name, level, "denied"), count.denied
        for policy, denials in count.policies.items():
            yield "headgate.limit.denials", (name, level, policy), denials


def _no_denials(name: str, limits: Any) -> Iterator[Reading]:
    """Zeros for policies that have denied nothing yet, since rates need a sample before the first denial."""
    for level, limiter in limits._levels.items():
        if hasattr(limiter, "evictions"):  # its tiers are its policies
            for tier in limiter.rates:
                yield "headgate.limit.denials", (name, level, tier), 0


def _denied_keys(name: str, limiter: Any, k: int) -> Iterator[Reading]:
    """What ``count_denied`` counts, of those counters that know the most."""
    for level, counter in limiter.denied.items():
        for key, count, _ in counter.top(k) if hasattr(counter, "top") else ():
            yield "headgate.limit.denied_keys", (name, level, key), count


def _store_counts(name: str, _: Any, counts: Any) -> Iterator[Reading]:
    for field in counts._fields:
        yield f"headgate.store.{field}", (name,), getattr(counts, field)


def _bucket(name: str, bucket: Any, k: int) -> Iterator[Reading]:
    for field in ("available", "capacity", "refill_rate"):
        yield f"headgate.bucket.{field}", (name,), getattr(bucket, field)


def _concurrency(name: str, limiter: Any, k: int) -> Iterator[Reading]:
    for field in ("limit", "inflight", "denied"):
        yield f"headgate.concurrency.{field}", (name,), getattr(limiter, field)
    if limiter.algorithm == "gradient":
        yield "headgate.concurrency.latency", (name,), limiter.latency


def _shed_stats(name: str, _: Any, stats: Any) -> Iterator[Reading]:
    for outcome in ("admitted", "shed"):
        for priority, count in getattr(stats, outcome).items():
            yield "headgate.shed.requests", (name, priority or "", outcome), count
    yield "headgate.concurrency.limit", (name,), stats.limit
    yield "headgate.concurrency.inflight", (name,), stats.inflight


def _throttle(name: str, throttle: Any, k: int) -> Iterator[Reading]:
    for field in ("requests", "accepts", "rejection_probability"):
        yield f"headgate.throttle.{field}", (name,), getattr(throttle, field)


def _retry_budget(name: str, budget: Any, k: int) -> Iterator[Reading]:
    yield "headgate.retry_budget.balance", (name,), budget.balance


# ---- placements and balancers -------------------------------------------------------------------


def _largest(values: Mapping[Any, float]) -> Iterable[tuple[Any, float]]:
    if len(values) <= MOST_MEMBERS:
        return values.items()
    return nlargest(MOST_MEMBERS, values.items(), key=itemgetter(1))


def _placement(name: str, placement: Any, k: int) -> Iterator[Reading]:
    yield "headgate.placement.nodes", (name,), len(placement)
    for node, share in _largest(placement.ownership()):
        yield "headgate.placement.share", (name, node), share


def _bounded(name: str, bounded: Any, k: int) -> Iterator[Reading]:
    yield from _placement(name, bounded.placement, k)
    for node, load in _largest(bounded.loads):
        yield "headgate.placement.inflight", (name, node), load


def _balancer(name: str, balancer: Any, k: int) -> Iterator[Reading]:
    from headgate.adapters._http import counters_of

    records = balancer.records
    for health in ("healthy", "ejected", "down", "draining"):
        count = sum(record.health == health for record in records)
        yield "headgate.balancer.servers", (name, health), count
    for record in nlargest(MOST_MEMBERS, records, key=itemgetter(2)):
        labels = (name, record.server)
        yield "headgate.balancer.weight", labels, record.weight
        yield "headgate.balancer.inflight", labels, record.in_flight
        yield "headgate.balancer.latency", labels, record.latency
        yield "headgate.balancer.healthy", labels, int(record.health == "healthy")
    yield from _server_counts(name, balancer, counters_of(balancer))


def _server_counts(name: str, _: Any, counters: Mapping[Any, Any]) -> Iterator[Reading]:
    """What the adapters of HTTP clients have counted."""
    for server, counts in nlargest(MOST_MEMBERS, counters.items(), key=itemgetter(1)):
        labels = (name, server)
        yield "headgate.balancer.requests", labels, counts.requests
        yield "headgate.balancer.failures", labels, counts.failed
        yield "headgate.balancer.retries", labels, counts.retried
        yield "headgate.balancer.ejections", labels, counts.ejected


def _health_checks(name: str, checks: Any, k: int) -> Iterator[Reading]:
    for record in nlargest(MOST_MEMBERS, checks.records, key=attrgetter("failures")):
        labels = (name, record.server)
        yield "headgate.health.probes", labels, record.probes
        yield "headgate.health.failures", labels, record.failures
        yield "headgate.health.errors", labels, record.errors
        if record.up is not None:
            yield "headgate.health.up", labels, int(record.up)


def _followed(name: str, follower: Any, k: int) -> Iterator[Reading]:
    position = follower.position
    yield "headgate.purges.applied", (name,), 0 if position is None else position[1]
    yield "headgate.purges.gaps", (name,), follower.gaps


def _purges(name: str, purges: Any, k: int) -> Iterator[Reading]:
    yield from _followed(name, purges.follower, k)
    yield "headgate.purges.failures", (name,), purges.failures
    yield "headgate.purges.behind", (name,), purges.behind


# ---- hot keys and objectives --------------------------------------------------------------------


def _hotkeys(name: str, hotkeys: Any, k: int) -> Iterator[Reading]:
    yield "headgate.hotkeys.all", (name,), hotkeys.total
    for key, count, _ in hotkeys.top(k):
        yield "headgate.hotkeys.hottest", (name, key), count


def _slo(name: str, slo: Any, k: int) -> Iterator[Reading]:
    yield "headgate.slo.events", (name, "good"), slo.good
    yield "headgate.slo.events", (name, "bad"), slo.bad
    yield "headgate.slo.target", (name,), round(slo.target / 100, 12)
    yield "headgate.slo.availability", (name,), slo.availability()
    yield "headgate.slo.error_budget", (name,), slo.error_budget()
    for rule, burning in zip(slo.rules, slo._burning(), strict=True):
        long, short = f"{rule.long:g}", f"{rule.short:g}"
        yield "headgate.slo.burn_rate", (name, long), slo.burn_rate(rule.long)
        yield "headgate.slo.burn_rate", (name, short), slo.burn_rate(rule.short)
        yield "headgate.slo.alert.firing", (name, rule.severity, long, short), int(all(burning))


# ---- which reader a primitive has ---------------------------------------------------------------


_SNAPSHOTS: dict[str, Callable[[str, Any, Any], Iterable[Reading]]] = {
    "CacheStats": _cache_stats,
    "HTTPCacheStats": _http_cache_stats,
    "LevelCounts": _level_counts,
    "NearStats": _near_stats,
    "ServerCounters": _server_counts,
    "ShedStats": _shed_stats,
    "StoreCounts": _store_counts,
}
"""Readers of what ``stats`` and ``counters`` return, by the name of its class, or of the values of a dict."""


def _snapshot(name: str, primitive: Any, snapshot: Any) -> Iterable[Reading]:
    if not isinstance(snapshot, dict):
        return _SNAPSHOTS[type(snapshot).__name__](name, primitive, snapshot)
    kinds = {type(value).__name__ for value in snapshot.values()}
    return _SNAPSHOTS[kinds.pop()](name, primitive, snapshot) if kinds else ()


def _stats(name: str, primitive: Any, k: int) -> Iterator[Reading]:
    yield from _snapshot(name, primitive, primitive.stats())
    if hasattr(primitive, "count_denied"):
        yield from _denied_keys(name, primitive, k)


def _counters(name: str, primitive: Any, k: int) -> Iterable[Reading]:
    return _snapshot(name, primitive, primitive.counters())


_KINDS: tuple[tuple[str, str, Reader], ...] = (
    ("rates", "limit", _limiter),
    ("behind", "purges", _purges),
    ("gaps", "purges", _followed),
    ("purge", "http_cache", _stats),
    ("open_epoch", "near", _stats),
    ("cache_info", "memoized", _memoized),
    ("refill_rate", "bucket", _bucket),
    ("inflight", "concurrency", _concurrency),
    ("rejection_probability", "throttle", _throttle),
    ("withdraw", "retry_budget", _retry_budget),
    ("ownership", "placement", _placement),
    ("loads", "bounded_load", _bounded),
    ("run", "health_checks", _health_checks),
    ("records", "balancer", _balancer),
    ("top", "hotkeys", _hotkeys),
    ("error_budget", "objective", _slo),
    ("maxsize", "cache", _stats),
    ("stats", "middleware", _stats),
    ("counters", "client", _counters),
)
"""The kind and the reader of a primitive: of the first of these attributes that its class or it has."""


def _kind_of(primitive: Any) -> tuple[str, Reader] | None:
    own = getattr(primitive, "__dict__", {})
    cls = type(primitive)
    found = ((kind, reader) for name, kind, reader in _KINDS if hasattr(cls, name) or name in own)
    return next(found, None)
