"""The families of metrics: names, kinds, units, labels and help, each written once.

Names and units are OpenTelemetry's: units by UCUM, what is counted in braces. `headgate.adapters.prometheus`
derives its own from them. The docs' table is held to this one by a test.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NamedTuple, TypeAlias

    Kind: TypeAlias = Literal["counter", "amount", "gauge", "info"]
    Sample: TypeAlias = tuple[dict[str, str], float]

    class _Terms(NamedTuple):
        kind: Kind
        unit: str
        labels: tuple[str, ...]
        help: str

    class _Family(NamedTuple):
        name: str
        kind: Kind
        unit: str
        help: str
        samples: list[Sample]
else:
    _Terms = namedtuple("_Terms", "kind unit labels help")
    _Family = namedtuple("_Family", "name kind unit help samples")


class Family(_Family):
    """A family of samples: pairs of labels, the same for all of a family, and a value.

    `kind` is ``"counter"``, which only grows, ``"amount"``, whose sum over objects and processes has a
    meaning, ``"gauge"``, whose sum has none, or ``"info"``, whose value is 1 and whose labels matter. `unit`
    is UCUM's: ``"s"``, ``"By"``, ``"1"`` for a share, or what is counted, in braces.

    >>> Family("headgate.cache.hits", "counter", "{hit}", "Lookups that hit.", [({"cache": "pages"}, 3)]).unit
    '{hit}'
    """

    __slots__ = ()


def _terms(kind: Kind, unit: str, labels: str, help: str) -> _Terms:
    return _Terms(kind, unit, tuple(labels.split()), help)


FAMILIES: dict[str, _Terms] = {
    "headgate.build": _terms("info", "", "version backend", "The version of headgate, and its twin."),
    "headgate.reading.errors": _terms(
        "gauge", "{error}", "primitive error", "1 for a primitive that could not be read at this time."),

    "headgate.cache.hits": _terms("counter", "{hit}", "cache", "Lookups that hit."),
    "headgate.cache.misses": _terms("counter", "{miss}", "cache", "Lookups that missed."),
    "headgate.cache.evictions": _terms(
        "counter", "{entry}", "cache", "Entries that left to keep within the maximum size."),
    "headgate.cache.expirations": _terms(
        "counter", "{entry}", "cache", "Entries that left at the end of their lifetime."),
    "headgate.cache.replacements": _terms(
        "counter", "{entry}", "cache", "Values that were replaced by another one."),
    "headgate.cache.removals": _terms("counter", "{entry}", "cache", "Entries that were removed by callers."),
    "headgate.cache.loads": _terms("counter", "{load}", "cache", "Loaders that were called."),
    "headgate.cache.load.failures": _terms(
        "counter", "{load}", "cache", "Loaders that raised or were cancelled."),
    "headgate.cache.load.time": _terms("counter", "s", "cache", "Time that loaders took."),
    "headgate.cache.entries": _terms("amount", "{entry}", "cache", "Entries in the cache."),
    "headgate.cache.size": _terms(
        "amount", "{size}", "cache", "Size of the entries: their number, or the sum of their sizes."),
    "headgate.cache.max_size": _terms("amount", "{size}", "cache", "Maximum size of the cache."),

    "headgate.http_cache.requests": _terms(
        "counter", "{request}", "cache result",
        "Requests by what their lookup led to: hit, stale, revalidation, miss or pass."),
    "headgate.http_cache.stored": _terms("counter", "{response}", "cache", "Responses that were stored."),
    "headgate.http_cache.evictions": _terms(
        "counter", "{response}", "cache", "Responses that left to keep within the maximum size."),
    "headgate.http_cache.purged": _terms("counter", "{response}", "cache", "Responses that were purged."),
    "headgate.http_cache.entries": _terms("amount", "{url}", "cache", "URLs with stored responses."),
    "headgate.http_cache.size": _terms("amount", "By", "cache", "Size of the stored responses."),
    "headgate.http_cache.max_size": _terms("amount", "By", "cache", "Maximum size of the stored responses."),

    "headgate.near.hits": _terms("counter", "{hit}", "cache", "Lookups that were served without I/O."),
    "headgate.near.misses": _terms("counter", "{miss}", "cache", "Lookups that asked the store."),
    "headgate.near.negative_hits": _terms(
        "counter", "{hit}", "cache", "Hits on keys that are known to be absent."),
    "headgate.near.stored": _terms("counter", "{fetch}", "cache", "Fetched values that were kept."),
    "headgate.near.overtaken": _terms(
        "counter", "{fetch}", "cache", "Fetched values that were not kept: written or lost meanwhile."),
    "headgate.near.invalidations": _terms(
        "counter", "{key}", "cache", "Keys that servers announced as changed."),
    "headgate.near.flushes": _terms(
        "counter", "{flush}", "cache", "Times at which all entries of a server were dropped."),
    "headgate.near.errors": _terms("counter", "{error}", "cache", "Calls to the store that failed."),
    "headgate.near.entries": _terms("amount", "{entry}", "cache", "Entries that can be served now."),
    "headgate.near.pending": _terms("amount", "{key}", "cache", "Keys that are being fetched."),
    "headgate.near.fresh_servers": _terms("gauge", "{server}", "cache", "Servers that are heard of."),
    "headgate.near.oldest_entry.age": _terms(
        "gauge", "s", "cache", "Time since the oldest entry was fetched; 0 without entries."),

    "headgate.limit.requests": _terms(
        "counter", "{request}", "limit level outcome", "Requests that were allowed or denied."),
    "headgate.limit.denials": _terms(
        "counter", "{denial}", "limit level policy", "Denials by the policy that denied."),
    "headgate.limit.denied_keys": _terms(
        "gauge", "{denial}", "limit level key",
        "Estimate of the denials of one of the keys that are denied most, where they are counted."),
    "headgate.limit.rate": _terms(
        "gauge", "{request}/s", "limit level policy", "Sustained rate that a policy allows each key."),
    "headgate.limit.max_keys": _terms(
        "gauge", "{key}", "limit level", "Maximum number of keys whose debts are kept."),
    "headgate.limit.evictions": _terms(
        "counter", "{key}", "limit level", "Keys that owed something and were evicted by others."),

    "headgate.store.calls": _terms("counter", "{call}", "limit", "Calls to the store of a limit."),
    "headgate.store.failures": _terms("counter", "{call}", "limit", "Calls to the store that failed."),
    "headgate.store.refused": _terms(
        "counter", "{call}", "limit", "Calls that failed at once, as the breaker of their server was open."),
    "headgate.store.degraded": _terms(
        "counter", "{decision}", "limit", "Decisions that were made without the store."),
    "headgate.store.resent": _terms(
        "counter", "{command}", "limit", "Commands that were sent again, as nothing had run."),
    "headgate.store.reloads": _terms(
        "counter", "{reload}", "limit", "Times that a server did not know a script."),
    "headgate.store.open_breakers": _terms("gauge", "{server}", "limit", "Servers whose breaker is open."),

    "headgate.bucket.available": _terms("gauge", "{token}", "bucket", "Tokens in the bucket now."),
    "headgate.bucket.capacity": _terms("gauge", "{token}", "bucket", "Most tokens that the bucket holds."),
    "headgate.bucket.refill_rate": _terms("gauge", "{token}/s", "bucket", "Tokens that are added a second."),

    "headgate.concurrency.limit": _terms(
        "gauge", "{request}", "limiter", "Requests that may be in flight at once, as of now."),
    "headgate.concurrency.inflight": _terms("gauge", "{request}", "limiter", "Requests in flight."),
    "headgate.concurrency.denied": _terms(
        "counter", "{request}", "limiter", "Requests that this process denied."),
    "headgate.concurrency.latency": _terms(
        "gauge", "s", "limiter", "Long average of the latency, of the algorithm gradient."),
    "headgate.shed.requests": _terms(
        "counter", "{request}", "limiter priority outcome", "Requests that were admitted or shed."),

    "headgate.throttle.requests": _terms(
        "amount", "{request}", "throttle", "Requests in the window, sent or not."),
    "headgate.throttle.accepts": _terms(
        "amount", "{request}", "throttle", "Requests in the window that the server accepted."),
    "headgate.throttle.rejection_probability": _terms(
        "gauge", "1", "throttle", "Probability that the next request is not sent."),
    "headgate.retry_budget.balance": _terms("amount", "{retry}", "budget", "Retries that are allowed now."),

    "headgate.placement.nodes": _terms("gauge", "{node}", "placement", "Nodes of the placement."),
    "headgate.placement.share": _terms("gauge", "1", "placement node", "Share of all keys that a node owns."),
    "headgate.placement.inflight": _terms(
        "amount", "{request}", "placement node", "Requests in flight at a node with a bounded load."),

    "headgate.balancer.servers": _terms(
        "gauge", "{server}", "balancer health", "Servers by health: healthy, ejected, down or draining."),
    "headgate.balancer.weight": _terms("gauge", "{weight}", "balancer server", "Weight of a server."),
    "headgate.balancer.inflight": _terms(
        "amount", "{request}", "balancer server", "Picks of a server that are in flight."),
    "headgate.balancer.latency": _terms(
        "gauge", "s", "balancer server", "Peak-sensitive moving average of a server's latency."),
    "headgate.balancer.healthy": _terms(
        "gauge", "{server}", "balancer server", "1 if a server is healthy, 0 if it is not picked."),
    "headgate.balancer.requests": _terms(
        "counter", "{request}", "balancer server", "Attempts that HTTP clients have sent to a server."),
    "headgate.balancer.failures": _terms(
        "counter", "{request}", "balancer server", "Attempts of HTTP clients at a server that failed."),
    "headgate.balancer.retries": _terms(
        "counter", "{request}", "balancer server", "Attempts at a server after another one failed."),
    "headgate.balancer.ejections": _terms(
        "counter", "{ejection}", "balancer server", "Times that HTTP clients saw a server ejected."),

    "headgate.health.probes": _terms(
        "counter", "{probe}", "checks server", "Probes of a server that have ended."),
    "headgate.health.failures": _terms(
        "counter", "{probe}", "checks server", "Probes of a server that failed."),
    "headgate.health.errors": _terms(
        "counter", "{error}", "checks server", "Errors of checks that say nothing of the server."),
    "headgate.health.up": _terms(
        "gauge", "{server}", "checks server", "1 if the last verdict about a server is up, 0 if down."),

    "headgate.purges.applied": _terms(
        "gauge", "{purge}", "purges", "Number, in the log of purges, of the last one that was applied."),
    "headgate.purges.gaps": _terms(
        "counter", "{gap}", "purges", "Times that purges were missing, which made what is older stale."),
    "headgate.purges.failures": _terms("counter", "{failure}", "purges", "Times that the log was not read."),
    "headgate.purges.behind": _terms("gauge", "s", "purges", "Time since the log was read."),

    "headgate.hotkeys.hottest": _terms(
        "gauge", "{request}", "hotkeys key", "Estimate of how often one of the hottest keys was added."),
    "headgate.hotkeys.all": _terms(
        "gauge", "{request}", "hotkeys", "How often any key was added, after decay."),

    "headgate.slo.events": _terms("counter", "{event}", "objective outcome", "Good and bad events."),
    "headgate.slo.target": _terms("gauge", "1", "objective", "Share of events that is to be good."),
    "headgate.slo.availability": _terms(
        "gauge", "1", "objective", "Share of events that was good, over the window."),
    "headgate.slo.error_budget": _terms(
        "gauge", "1", "objective", "Share of the error budget that is left; negative once overspent."),
    "headgate.slo.burn_rate": _terms(
        "gauge", "{burn}", "objective window",
        "Times as fast as allowed that events failed in a window, in seconds, of an alert."),
    "headgate.slo.alert.firing": _terms(
        "gauge", "{alert}", "objective severity long short",
        "1 if an alert fires: both of its windows burn faster than its rule allows."),
}
