"""Makes the objects that a document names, each after those that it refers to."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.balance import (
    AddressHash,
    KeyHash,
    LeastLoaded,
    PeakEWMA,
    PowerOfTwo,
    RandomChoice,
    RetryBudget,
    RoundRobin,
    WeightedRoundRobin,
)
from headgate.cache import (
    FIFOCache,
    LFUCache,
    LRUCache,
    RRCache,
    S3FIFOCache,
    SieveCache,
    TinyLFUCache,
)
from headgate.config._errors import ConfigError
from headgate.config._http import Http
from headgate.config._snapshot import Made, Snapshot
from headgate.config.fields import SECTIONS
from headgate.errors import HeadgateError
from headgate.hotkeys import HotKeys
from headgate.limit import (
    AddressLimiter,
    ConcurrencyLimiter,
    RateLimiter,
    RateLimits,
    Throttle,
    TokenBucket,
)
from headgate.limit._rate import checked_rates
from headgate.placement import BoundedLoad, HashRing, Maglev, Rendezvous
from headgate.slo import SLO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from headgate.config._document import Document, Fields
    from headgate.config._errors import Problem
    from headgate.config._snapshot import Key
    from headgate.limit import Rate

_POLICIES: dict[str, Any] = {
    "lru": LRUCache, "fifo": FIFOCache, "lfu": LFUCache, "sieve": SieveCache, "s3fifo": S3FIFOCache,
    "tinylfu": TinyLFUCache, "random": RRCache,
}
_BALANCERS: dict[str, Any] = {
    "round_robin": RoundRobin, "weighted_round_robin": WeightedRoundRobin, "random": RandomChoice,
    "power_of_two": PowerOfTwo, "least_loaded": LeastLoaded, "peak_ewma": PeakEWMA, "key_hash": KeyHash,
    "address_hash": AddressHash,
}
_PLACEMENTS: dict[str, Any] = {"ring": HashRing, "rendezvous": Rendezvous, "maglev": Maglev}
_FAILURES = (HeadgateError, ImportError, MemoryError, OSError, TypeError, ValueError)


class _Failed(Exception):
    """An object to which another one refers could not be made."""


class Building:
    """The objects of a document: those of `present` that it still has, and new ones.

    With `dry` nothing is opened: shared objects are private ones, and those of stores are not made. `clock`
    is that of all objects that have one. `extensions` are the functions that read those parts. What is made
    is in use nowhere until the caller publishes it.
    """

    def __init__(self, document: Document, present: Snapshot | None = None, *,
                 clock: Callable[[], int] | None = None, dry: bool = False,
                 extensions: Mapping[str, Callable[[Any, Document], Any]] | None = None) -> None:
        self.document = document
        self._extensions = extensions or {}
        self.problems: list[Problem] = []
        self.clock = clock
        self._causes: list[Exception] = []
        self._present = present
        self._made: dict[Key, Made] = {}
        self._new: list[Made] = []
        self._failed: set[Key] = set()
        self._dry = dry

    def all(self) -> Snapshot:
        """Everything. Raises ConfigError with all that could not be made; what could is closed then."""
        try:
            for section, objects in self.document.sections.items():
                for name in objects:
                    self.attempt(section, name, self.get, section, name)
            http = self.attempt("http", "", self._http)
            extensions = {name: self._extension(name) for name in self._extensions}
            self.raise_problems()
        except BaseException:
            self.discard()
            raise
        return Snapshot(self.document, SECTIONS, self._made, http, extensions)

    def _extension(self, name: str) -> Any:
        """What the function of an extension returns for its part."""
        try:
            return self._extensions[name](self.document.extension(name), self.document)
        except _FAILURES as error:
            self._refuse(self.document.refused_extension(name, error), error)
            return None

    def _refuse(self, problem: Problem, error: Exception) -> None:
        self._causes.append(error)
        self.problems.append(problem)

    def attempt(self, section: str, name: str, make: Callable[..., Any], *args: Any) -> Any:
        """What ``make(*args)`` returns; an error is a problem of that object, and the result None."""
        try:
            return make(*args)
        except _Failed:
            return None
        except _FAILURES as error:
            self._failed.add((section, name))
            self._refuse(self.document.refused(section, name, error), error)
            return None

    def get(self, section: str, name: str) -> Made:
        """The object of a name, made if need be."""
        key = section, name
        if key in self._failed:
            raise _Failed
        found = self._made.get(key)
        if found is None and self._present is not None:
            found = self._present.made.get(key)
        if found is None:
            fields = self.document.sections[section][name]
            found = self.attempt(section, name, self.make, section, name, fields)
            if found is None:
                raise _Failed
            self._new.append(found)
        self._made[key] = found
        return found

    def make(self, section: str, name: str, fields: Fields) -> Made:
        """A new object of these fields."""
        if self._dry and "path" in fields:
            fields = {**fields, "path": None}
        return _MAKERS[section](self, name, fields)

    def raise_problems(self, more: Iterable[Problem] = ()) -> None:
        """Raise ConfigError if there are any, after closing what was made."""
        problems = [*more, *self.problems]
        if problems:
            self.discard()
            causes = [error for error in self._causes if self.document.is_clear(error)]
            raise ConfigError(problems) from (causes[0] if causes else None)

    def discard(self) -> None:
        """Close what was made and will not be used."""
        for made in self._new:
            close = getattr(made.plain, "close", None)
            if close is not None:
                close()
        self._new.clear()

    # ---- caches ------------------------------------------------------------------------------

    def _cache(self, name: str, fields: Fields) -> Made:
        sizer = weight_of if fields["weigh"] == "bytes" else None
        return Made(_POLICIES[fields["policy"]](
            fields["maxsize"], sizer, ttl=fields["ttl"], tti=fields["tti"], jitter=fields["jitter"],
            clock=self.clock, seed=fields["seed"]))

    def _near(self, name: str, fields: Fields) -> Made:
        policy = _POLICIES[fields["policy"]]
        caches = policy(fields["maxsize"]), policy(fields["maxsize"])
        if self._dry:
            return Made(caches[0])
        from headgate.adapters.redis import AsyncNearCache, NearCache

        client = self.get("stores", fields["store"]).plain.settings
        options = {
            option: fields[option]
            for option in ("prefixes", "ttl", "max_stale", "heartbeat", "negative_ttl", "timeout", "on_error")
        }
        near = NearCache(client, caches[0], **options), AsyncNearCache(client, caches[1], **options)
        return Made(*near, parts=caches)

    def _http_cache(self, name: str, fields: Fields) -> Made:
        from headgate.httpcache import HTTPCache

        options = {**fields, "policy": _POLICIES[fields["policy"]], "clock": self.clock}
        return Made(HTTPCache(**options))

    def _hot_keys(self, name: str, fields: Fields) -> Made:
        return Made(HotKeys(fields["k"], half_life=fields["half_life"], clock=self.clock))

    # ---- limits ------------------------------------------------------------------------------

    def _limit(self, name: str, fields: Fields) -> Made:
        rates = rates_of(fields)
        if fields["kind"] == "redis":
            return self._redis_limit(name, fields, rates)
        shared = {} if fields["path"] is None else {
            "path": fields["path"], "mode": fields["mode"], "on_mismatch": "adopt"}
        options = {
            "max_keys": fields["max_keys"], "on_full": fields["on_full"], "strict": fields["strict"],
            "clock": self.clock, **shared,
        }
        if fields["kind"] == "address":
            v4, v6 = _prefixes(fields["v4"]), _prefixes(fields["v6"])
            return Made(AddressLimiter(rates, v4=v4, v6=v6, **options))
        return Made(RateLimiter(rates, **options))

    def _redis_limit(self, name: str, fields: Fields, rates: tuple[Rate, ...]) -> Made:
        if self._dry:
            return Made(RateLimiter(rates, strict=fields["strict"], max_keys=1))
        from headgate.adapters.redis import AsyncRedisRateLimiter, RedisRateLimiter

        store = self.document.sections["stores"][fields["store"]]
        local = None if store["fallback"] is None else self.get("limits", store["fallback"]).plain
        options = {
            "prefix": fields["prefix"] or f"headgate:{name}", "strict": fields["strict"],
            "on_error": store["on_error"] if local is None else local, "timeout": store["timeout"],
            "lease": fields["lease"], "lease_ttl": fields["lease_ttl"],
        }
        client = self.get("stores", fields["store"]).plain.settings
        plain = RedisRateLimiter(client, rates, **options)
        return Made(plain, AsyncRedisRateLimiter(client, rates, **options))

    def _levels(self, name: str, fields: Fields) -> Made:
        if fields["store"] is not None:
            return self._redis_levels(name, fields)
        named = self.document.sections["limits"]
        limits = RateLimits(
            {
                level: self.get("limits", limit).plain if limit in named else limit
                for level, limit in fields["levels"].items()
            },
            max_keys=fields["max_keys"], on_full=fields["on_full"], shadow=fields["shadow"], clock=self.clock,
        )
        for level, keys in fields["deny"].items():
            limits.deny(level, *keys)
        for level, keys in fields["exempt"].items():
            limits.exempt(level, *keys)
        return Made(limits)

    def _redis_levels(self, name: str, fields: Fields) -> Made:
        """Limits by level of a store; where that falls back, each host then has these rates itself."""
        for each in ("shadow", "deny", "exempt"):
            if fields[each]:
                raise ValueError(f"{each} must be absent with a store, got {fields[each]!r}")
        store = self.document.sections["stores"][fields["store"]]
        local = RateLimits(fields["levels"], max_keys=fields["max_keys"], on_full=fields["on_full"])
        if self._dry:
            return Made(local)
        from headgate.adapters.redis import AsyncRedisRateLimits, RedisRateLimits

        options = {
            "prefix": fields["prefix"] or f"headgate:{name}", "timeout": store["timeout"],
            "on_error": local if store["on_error"] == "local" else store["on_error"],
        }
        client = self.get("stores", fields["store"]).plain.settings
        levels = fields["levels"]
        plain = RedisRateLimits(client, levels, **options)
        return Made(plain, AsyncRedisRateLimits(client, levels, **options), parts=(local,))

    def _bucket(self, name: str, fields: Fields) -> Made:
        shared = {} if fields["path"] is None else {
            each: fields[each] for each in ("path", "mode", "on_mismatch")}
        return Made(TokenBucket(fields["capacity"], fields["refill_rate"], clock=self.clock, **shared))

    def _throttle(self, name: str, fields: Fields) -> Made:
        return Made(Throttle(fields["k"], fields["window"], clock=self.clock))

    def _concurrency(self, name: str, fields: Fields) -> Made:
        return Made(ConcurrencyLimiter(**fields, clock=self.clock))

    def _objective(self, name: str, fields: Fields) -> Made:
        options = {each: fields[each] for each in ("window", "latency", "min_events", "path")}
        return Made(SLO(fields["target"], rules=_rules(fields["rules"]), clock=self.clock, **options))

    def _store(self, name: str, fields: Fields) -> Made:
        from headgate.config._stores import StoreClients

        return Made(None if self._dry else StoreClients(fields))

    # ---- placements and balancers ------------------------------------------------------------

    def _placement(self, name: str, fields: Fields) -> Made:
        if fields["kind"] == "bounded":
            return Made(BoundedLoad(self.get("placements", fields["placement"]).plain, fields["c"]))
        options = {each: fields[each] for each in ("scheme", "replicas", "seed", "size") if each in fields}
        return Made(_PLACEMENTS[fields["kind"]](nodes_of(fields), **options))

    def _balancer(self, name: str, fields: Fields) -> Made:
        options = {
            each: value for each, value in fields.items() if each not in ("kind", "servers", "draining")
        }
        if fields["kind"] == "key_hash":
            options["placement"] = _PLACEMENTS[fields["placement"]]
            options["hotkeys"] = fields["hotkeys"] and self.get("hotkeys", fields["hotkeys"]).plain
        balancer = _BALANCERS[fields["kind"]](fields["servers"], clock=self.clock, **options)
        for server in fields["draining"]:
            balancer.drain_server(server)
        return Made(balancer)

    def _retry_budget(self, name: str, fields: Fields) -> Made:
        options = {"per_second": fields["per_second"], "window": fields["window"]}
        return Made(RetryBudget(fields["share"], **options, clock=self.clock))

    # ---- http --------------------------------------------------------------------------------

    def _http(self) -> Http:
        fields = self.document.http
        section = "levels" if fields["limit"] in self.document.sections["levels"] else "limits"
        limit = None if fields["limit"] is None else self.get(section, fields["limit"])
        shed = None if fields["shed"] is None else self.get("concurrency", fields["shed"]).plain
        return Http(fields, limit, shed, self._cache_of_http(fields))

    def _cache_of_http(self, fields: Fields) -> Any:
        """The cache of the section http; the present one goes on if it can."""
        wanted = fields["cache"]
        if wanted is None:
            return None
        if isinstance(wanted, str):
            return self.get("http_caches", wanted).plain
        if self._present is not None and goes_on(self._present.document.http["cache"], wanted):
            return self._present.http.cache
        return self.make("http_caches", "", wanted).plain


def check(document: Document) -> list[Problem]:
    """What of a document cannot be made, as far as that shows without opening a file or a connection."""
    building = Building(document, dry=True)
    try:
        building.all()
    except ConfigError as error:
        return error.errors
    return []


def rates_of(fields: Fields) -> tuple[Rate, ...]:
    """The tiers of a limit."""
    return checked_rates(fields["rate"], fields["burst"])


def nodes_of(fields: Fields) -> Mapping[Any, float]:
    """The weights of nodes; HAProxy's are ids of servers."""
    nodes: Mapping[Any, float] = fields["nodes"]
    if fields.get("scheme") == "haproxy":
        return {int(node): weight for node, weight in nodes.items()}
    return nodes


def goes_on(before: Any, after: Any) -> bool:
    """Whether the cache of the section http is the same object, by what the documents have there."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return False
    return all(before[each] == after[each] for each in ("policy", "path"))


def weight_of(value: Any) -> int:
    """The size of a value in a cache that weighs bytes.

    Raises TypeError if it is neither bytes-like nor a str, whose size is that of its UTF-8.

    >>> weight_of(b"abc"), weight_of("äöü")
    (3, 6)
    """
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    try:
        return memoryview(value).nbytes
    except TypeError:
        raise TypeError(f"value must be bytes or a str in a cache that weighs bytes, got {value!r}") from None


def _prefixes(wanted: Any) -> Any:
    """Lengths of prefixes; a mapping of a document has them as text."""
    if not hasattr(wanted, "items"):
        return wanted
    return {int(length): times for length, times in wanted.items()}


def _rules(rules: Any) -> Any:
    if rules is None:
        return None
    return [tuple(rule[each] for each in ("burn", "long", "short", "severity")) for rule in rules]


_MAKERS: Mapping[str, Callable[[Building, str, Fields], Made]] = {
    "caches": Building._cache,
    "near": Building._near,
    "http_caches": Building._http_cache,
    "hotkeys": Building._hot_keys,
    "limits": Building._limit,
    "levels": Building._levels,
    "buckets": Building._bucket,
    "throttles": Building._throttle,
    "concurrency": Building._concurrency,
    "objectives": Building._objective,
    "stores": Building._store,
    "placements": Building._placement,
    "balancers": Building._balancer,
    "retry_budgets": Building._retry_budget,
}
