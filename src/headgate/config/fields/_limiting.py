"""Sections of limits, and of the stores that hosts share."""

from __future__ import annotations

from headgate.config._hints import listed
from headgate.config.fields._compounds import NAME, Either, Limit, ListOf, MapOf
from headgate.config.fields._field import REQUIRED, Field, Record, Section
from headgate.config.fields._kinds import (
    Choice,
    Duration,
    Flag,
    Mode,
    Name,
    Number,
    RateText,
    Reports,
    StoreURL,
    Text,
    Whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from headgate.config._errors import Path
    from headgate.config._nodes import Node
    from headgate.config.fields._field import Found

_LOCAL = ("keyed", "address")
_PATH = Field("path", Text("a path"), "the file by which processes of the host share it, best in /dev/shm")
_MODE = Field("mode", Mode(), "the permissions of that file", 0o600)
_ON_FULL = Choice("evict", "deny")
_MAX_KEYS = Whole(1, 2**32)


def _kind_of_limit(given: Mapping[str, Any]) -> str:
    return "redis" if "store" in given else "keyed"


def _burst(fields: Mapping[str, Any]) -> Found:
    if fields["burst"] is not None and ";" in fields["rate"]:
        yield "burst", "not with several tiers", 'write it in the rate, as in "10/s, burst 20; 100/min"'


class _Multiples(MapOf):
    """How many times the rate networks of each length have."""

    def __init__(self, most: int) -> None:
        super().__init__(Number(above=0), "a mapping of lengths to multiples")
        self.most = most

    def member(self, name: str, node: Node, path: Path, reports: Reports) -> Any:
        if not (len(name) <= 3 and name.isascii() and name.isdecimal() and int(name) <= self.most):
            hint = f"write one from 0 to {self.most}"
            return reports.add_key(path, node, "not the length of a prefix", hint)
        return super().member(name, node, path, reports)


def _prefixes(most: int) -> Either:
    length = Whole(0, most)
    return Either(length, ListOf(length), _Multiples(most))


LIMITS = Section("limits", Record(
    "a limit",
    Field("kind", Choice("keyed", "address", "redis"), "what it limits: keys, addresses with their networks,"
          " or keys of all hosts; redis if a store is given", "keyed"),
    Field("rate", RateText(), "how many requests in which time", REQUIRED, live=True),
    Field("burst", Number(above=0), "how many of them may come at once; all by default", live=True),
    Field("max_keys", _MAX_KEYS, "how many keys may owe something at once", 1_000_000, only=_LOCAL),
    _PATH._replace(only=_LOCAL),
    _MODE._replace(only=_LOCAL),
    Field("on_full", _ON_FULL, "what a new key does when the table is full", "evict", only=_LOCAL),
    Field("strict", Flag(), "whether no window of the period ever has more than the limit", False),
    Field("v4", _prefixes(32), "the lengths of the prefixes of IPv4 that are limited, or a mapping of each to"
          " how many times the rate it has", 32, only=("address",)),
    Field("v6", _prefixes(128), "the same for IPv6", 64, only=("address",)),
    Field("store", Name("stores"), "the store by which hosts share it", REQUIRED, only=("redis",)),
    Field("prefix", Text("a prefix of keys"),
          "what the keys in the store begin with; headgate:NAME by default", only=("redis",)),
    Field("lease", Whole(0, 10_000), "the most tokens that a process takes at once from the store", 0,
          only=("redis",)),
    Field("lease_ttl", Duration(most=3600), "how long it keeps them", 1.0, only=("redis",)),
    selector="kind", variant=_kind_of_limit, checks=(_burst,),
), "limits by key")


_RESERVED = ("clock", "cost", "self", "timeout")


def _levels(fields: Mapping[str, Any]) -> Found:
    levels = fields["levels"]
    if not levels:
        yield (), "there is no level", 'write for example ip: "10/s"'
    for level, limit in levels.items():
        if level in _RESERVED:
            yield level, "reserved", "give the level another name"
        if fields["store"] is not None and NAME.fullmatch(limit):
            yield level, "expected a rate", "as every level of a store is one"
    named: list[tuple[Path, str]] = [(("shadow", at), level) for at, level in enumerate(fields["shadow"])]
    named += [((name, level), level) for name in ("deny", "exempt") for level in fields[name]]
    for path, level in named:
        if level not in levels:
            yield path, "not a level", f"levels are {listed(list(levels))}"


_KEYS = MapOf(ListOf(Text("a key or a network")), "a mapping of levels to lists of keys and networks")
LEVELS = Section("levels", Record(
    "levels",
    Field("shadow", ListOf(Text("the name of a level")), "the levels that count but never deny", (),
          live=True),
    Field("deny", _KEYS, "the keys and networks that each level denies", {}, live=True),
    Field("exempt", _KEYS, "the keys and networks that each level exempts", {}, live=True),
    Field("max_keys", _MAX_KEYS, "the most keys of each level that is a rate", 1_000_000),
    Field("on_full", _ON_FULL, "what a new key does when the table is full", "evict"),
    Field("store", Name("stores"), "the store by which hosts share them"),
    Field("prefix", Text("a prefix of keys"),
          "what the keys in the store begin with; headgate:NAME by default"),
    collected="levels", rest=Limit(), checks=(_levels,),
), "several limits for one request, all or nothing; any other field is a level: a limit's name, or a rate;"
   " with a store, a rate")

BUCKETS = Section("buckets", Record(
    "a bucket",
    Field("capacity", Number(above=0), "the most tokens", REQUIRED),
    Field("refill_rate", Number(above=0), "the tokens that come back in a second", REQUIRED),
    _PATH, _MODE,
    Field("on_mismatch", Choice("raise", "adopt"), "what happens if the file has other settings", "raise"),
), "token buckets")

THROTTLES = Section("throttles", Record(
    "a throttle",
    Field("k", Number(1), "how many times as much is sent as the server accepts", 2.0),
    Field("window", Duration(most=1e8), "the time that is looked back", 120.0),
), "throttles of a client, by what its server accepts")

RETRY_BUDGETS = Section("retry_budgets", Record(
    "a retry budget",
    Field("share", Number(0, 1), "the retries allowed, as a share of the requests", 0.2),
    Field("per_second", Number(0, 1_000_000), "the retries a second that are always allowed", 10),
    Field("window", Duration(least=1, most=86400), "the time that is looked back", 10),
), "budgets of retries")


def _latency(fields: Mapping[str, Any]) -> Found:
    if fields["algorithm"] == "aimd" and fields["max_latency"] is None:
        yield "algorithm", "aimd needs a max_latency", 'write for example max_latency: "500 ms"'
    if fields["min_limit"] > fields["max_limit"]:
        yield "min_limit", "expected at most max_limit", ""
    elif not fields["min_limit"] <= fields["limit"] <= fields["max_limit"]:
        yield "limit", "expected from min_limit to max_limit", ""


_MOST_LIMIT = 10**6
CONCURRENCY = Section("concurrency", Record(
    "a concurrency limit",
    Field("limit", Whole(1, _MOST_LIMIT), "the limit at the start", 20),
    Field("algorithm", Choice("aimd", "gradient", "fixed"), "how the limit adapts", "gradient"),
    Field("min_limit", Whole(1, _MOST_LIMIT), "the least limit", 1),
    Field("max_limit", Whole(1, _MOST_LIMIT), "the greatest limit", 1000),
    Field("max_latency", Duration(), "the time beyond which a request counts as dropped"),
    Field("priorities", MapOf(Number(above=0, most=1)), "the share of the limit that each priority may use"),
    _PATH, _MODE, checks=(_latency,),
), "limits of the requests in flight")

_RULE = Record(
    "a rule",
    Field("burn", Number(above=0), "how many times as fast as allowed the budget burns", REQUIRED),
    Field("long", Duration(), "the long window", REQUIRED),
    Field("short", Duration(), "the short window", REQUIRED),
    Field("severity", Text(), "what the alert is called", REQUIRED),
)


def _target(fields: Mapping[str, Any]) -> Found:
    if not 50 < fields["target"] < 100:
        hint = "write it in percent, such as 99.9" if fields["target"] < 1 else ""
        yield "target", "expected a number above 50 and below 100", hint


OBJECTIVES = Section("objectives", Record(
    "an objective",
    Field("target", Number(), "the percentage of events that are good, above 50 and below 100", REQUIRED),
    Field("window", Duration(least=43200, most=3660 * 86400), "the time in which they are", 30 * 86400),
    Field("latency", Duration(), "the time within which a request is good"),
    Field("rules", ListOf(_RULE), "the rules of alerts; those of the SRE workbook by default"),
    Field("min_events", Whole(0), "the events in the long window without which no alert fires", 100),
    _PATH._replace(help="the file by which processes of the host share it, best on a disk"),
    checks=(_target,),
), "objectives of a service")


def _store(fields: Mapping[str, Any]) -> Found:
    if fields["on_error"] == "local" and fields["fallback"] is None:
        yield "on_error", "local needs a fallback", "write the name of a limit of this process"
    if fields["on_error"] != "local" and fields["fallback"] is not None:
        yield "fallback", "only with on_error: local", ""


STORES = Section("stores", Record(
    "a store",
    Field("kind", Choice("single", "cluster", "sentinel"),
          "one server, a cluster, or servers behind Sentinel", "single"),
    Field("url", StoreURL(), "its address, such as redis://10.0.0.1:6379/0; with kind: sentinel the host"
          " is the name of the master", REQUIRED),
    Field("sentinels", ListOf(Text("an address as host:port")), "the addresses of the sentinels", REQUIRED,
          only=("sentinel",)),
    Field("package", Choice("redis", "valkey"),
          "the package of the client; the one that is there by default"),
    Field("on_error", Choice("raise", "allow", "deny", "local"), "what limits do if it does not respond",
          "raise"),
    Field("fallback", Name("limits"), "the limit of this process that decides then, with on_error: local"),
    Field("timeout", Duration(), "the most time of a call", 0.25),
    selector="kind", checks=(_store,),
), "servers of Redis or Valkey")
