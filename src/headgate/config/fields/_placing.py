"""Sections of placements and balancers."""

from __future__ import annotations

from headgate.config._hints import listed
from headgate.config.fields._compounds import ListOf, Servers, Weights
from headgate.config.fields._field import REQUIRED, Field, Record, Section
from headgate.config.fields._kinds import Choice, Duration, Name, Number, OneOf, Text, Whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from headgate.config.fields._field import Found

_MOST_SECONDS = 2**62 / 1e9 / 16 - 1
_SCHEMES = ("headgate", "envoy", "haproxy", "libmemcached", "nginx", "twemproxy", "uhashring")


def _scheme(fields: Mapping[str, Any]) -> Found:
    allowed = {"ring": _SCHEMES, "rendezvous": ("headgate", "pymemcache")}.get(fields["kind"])
    if allowed is not None and fields["scheme"] not in allowed:
        yield "scheme", f"expected {' or '.join(allowed)}", f"with kind: {fields['kind']}"
    if fields.get("scheme") == "haproxy" and not all(map(str.isdecimal, fields["nodes"])):
        yield "nodes", "expected the ids of servers", "which are whole numbers, with scheme: haproxy"


PLACEMENTS = Section("placements", Record(
    "a placement",
    Field("kind", Choice("ring", "rendezvous", "maglev", "bounded"), "how keys are placed on nodes", "ring"),
    Field("nodes", Weights(), "the nodes, or their weights", REQUIRED, live=True,
          only=("ring", "rendezvous", "maglev")),
    Field("scheme", Choice(*_SCHEMES, "pymemcache"), "the program whose placement it is", "headgate",
          only=("ring", "rendezvous")),
    Field("replicas", Whole(1, 2**24), "the points of a node of weight 1 on the ring", 150, only=("ring",)),
    Field("seed", Whole(0, 2**32 - 1), "what the hash of a key begins with", 0, only=("rendezvous",)),
    Field("size", Whole(2, 2**24 - 1), "the size of the table, a prime", 65537, only=("maglev",)),
    Field("placement", Name("placements"), "the placement that it bounds the loads of", REQUIRED,
          only=("bounded",)),
    Field("c", Number(1), "how many times the mean load a node may have", 1.25, only=("bounded",)),
    selector="kind", checks=(_scheme,),
), "placements of keys on nodes")

def _draining(fields: Mapping[str, Any]) -> Found:
    for at, server in enumerate(fields["draining"]):
        if server not in fields["servers"]:
            hint = f"which are {listed(list(fields['servers']))}"
            yield ("draining", at), "expected one of the servers", hint


BALANCERS = Section("balancers", Record(
    "a balancer",
    Field("kind", Choice("round_robin", "weighted_round_robin", "random", "power_of_two", "least_loaded",
                         "peak_ewma", "key_hash", "address_hash"),
          "how a server is picked", "power_of_two"),
    Field("servers", Servers(1e-100, 1e100), "the servers, or their weights", REQUIRED, live=True),
    Field("draining", ListOf(Text("a server")), "the servers that get no new requests", (), live=True),
    Field("placement", Choice("ring", "rendezvous", "maglev"), "how keys are placed on servers", "ring",
          only=("key_hash",)),
    Field("hotkeys", Name("hotkeys"), "what counts the keys of requests, so that hot ones are replicated",
          only=("key_hash",)),
    Field("hot_replicas", Whole(1, 2**24), "the servers that a hot key is spread over", 2, live=True,
          only=("key_hash",)),
    Field("hot_share", Number(0.0001, 1), "the share of all requests from which a key is hot", 0.01,
          live=True, only=("key_hash",)),
    Field("scheme", Choice("headgate", "nginx"), "the program whose placement it is", "headgate",
          only=("address_hash",)),
    Field("max_failures", OneOf("never", None, Whole(1, 10**9)),
          "the failures in a row after which a server is ejected", 5, live=True),
    Field("success_rate", Number(0, 1), "the share of successes below which a server is ejected",
          live=True),
    Field("ejection_time", Duration(most=_MOST_SECONDS), "how long it is ejected", 30, live=True),
    Field("max_ejected", Number(0, 1), "the most share of servers that are ejected", 0.5, live=True),
    Field("panic_threshold", Number(0, 1), "the share of healthy servers below which all are used", 0.5,
          live=True),
    Field("slow_start", Duration(zero=True, most=_MOST_SECONDS),
          "how long a new server takes up its share", 0, live=True),
    Field("seed", Whole(0, 2**32 - 1), "what random picks follow from; chance by default"),
    selector="kind", checks=(_draining,),
), "balancers of requests among servers")
