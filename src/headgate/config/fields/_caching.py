"""Sections of caches."""

from __future__ import annotations

from headgate.config.fields._compounds import ListOf
from headgate.config.fields._field import REQUIRED, Field, Record, Section
from headgate.config.fields._kinds import (
    Bytes,
    Choice,
    Duration,
    Entries,
    Flag,
    Name,
    Number,
    Size,
    Text,
    Whole,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from headgate.config.fields._field import Found

_POLICIES = Choice("lru", "fifo", "lfu", "sieve", "s3fifo", "tinylfu", "random")
_MOST_ENTRIES = 2**31


def _maxsize(fields: Mapping[str, Any]) -> Found:
    """A size in bytes needs `weigh`; a number of entries is bounded."""
    maxsize = fields["maxsize"]
    if isinstance(maxsize, Bytes) and fields["weigh"] != "bytes":
        yield "maxsize", "expected a number of entries", "with weigh: bytes it is a size"
    elif fields["weigh"] == "entries" and maxsize > _MOST_ENTRIES:
        yield "maxsize", f"expected at most {_MOST_ENTRIES:,} entries", ""


CACHES = Section("caches", Record(
    "a cache",
    Field("policy", _POLICIES, "which entries are evicted", "lru"),
    Field("maxsize", Entries(), "the most entries, or the most bytes with weigh: bytes", REQUIRED, live=True),
    Field("weigh", Choice("entries", "bytes"), "what maxsize counts: entries, or the bytes of values",
          "entries"),
    Field("ttl", Duration(), "the time after which an entry expires"),
    Field("tti", Duration(), "the time without a hit after which an entry expires"),
    Field("jitter", Number(0, below=1), "the share of ttl and tti that is random", 0.0),
    Field("seed", Whole(0, 2**32 - 1), "what random draws follow from", 0),
    checks=(_maxsize,),
), "caches in this process")

def _heartbeat(fields: Mapping[str, Any]) -> Found:
    if not 2 * fields["heartbeat"] < fields["max_stale"]:
        yield "heartbeat", "expected less than half of max_stale", ""


NEAR = Section("near", Record(
    "a near cache",
    Field("store", Name("stores"), "the store of the values", REQUIRED),
    Field("prefixes", ListOf(Text("a prefix of keys")), "the prefixes of the keys that are kept", REQUIRED),
    Field("maxsize", Whole(1, _MOST_ENTRIES), "the most entries", 10_000, live=True),
    Field("policy", _POLICIES, "which entries are evicted", "lru"),
    Field("ttl", Duration(), "the time after which an entry expires", 60),
    Field("max_stale", Duration(), "how far a hit may be behind the server", 2.0),
    Field("heartbeat", Duration(), "the time between two heartbeats of a connection", 0.25),
    Field("negative_ttl", Duration(zero=True), "how long an absent key is remembered", 0),
    Field("timeout", Duration(), "the most time of a call", 0.25),
    Field("on_error", Choice("bypass", "raise"), "what happens if the store does not respond", "bypass"),
    checks=(_heartbeat,),
), "caches of a store's values that learn what changes there")

HTTP_CACHE = Record(
    "an HTTP cache",
    Field("maxsize", Size(), "the most bytes of all responses", 64 * 2**20, live=True),
    Field("policy", _POLICIES, "which responses are evicted", "tinylfu"),
    Field("shared", Flag(), "whether several users share it", True, live=True),
    Field("path", Text("a path"), "the file by which processes share purges"),
    Field("default_ttl", Duration(zero=True), "how long a response is fresh that does not say so", live=True),
    Field("set_cookie", Choice("explicit", "store", "never"), "which responses with Set-Cookie are stored",
          "explicit", live=True),
    Field("max_object", Size(), "the most bytes of a response", 8 * 2**20, live=True),
    Field("max_filling", Size(), "the most bytes of responses being stored", 32 * 2**20, live=True),
    Field("max_variants", Whole(1), "the most variants of a URL", 32, live=True),
    Field("wait", Duration(zero=True), "how long a request waits for another one's response", 5, live=True),
    Field("fill_timeout", Duration(zero=True), "the most time that storing a response takes", 60, live=True),
    Field("stale_while_revalidate", Duration(zero=True), "how long a stale response is served meanwhile",
          live=True),
    Field("stale_if_error", Duration(zero=True), "how long a stale response is served instead of an error",
          live=True),
    Field("heuristic", Number(0, 1), "the share of its age for which a response is fresh", 0.1, live=True),
    Field("tag_headers", ListOf(Text("the name of a field")), "the fields that have the tags of a response",
          ("cache-tag", "surrogate-key"), live=True),
    Field("name", Text("a name"), "the name of the cache in Cache-Status", "headgate", live=True),
)
HTTP_CACHES = Section("http_caches", HTTP_CACHE, "caches of HTTP responses, for clients")

HOTKEYS = Section("hotkeys", Record(
    "hot keys",
    Field("k", Whole(1, 2**26), "the most keys that are counted", REQUIRED),
    Field("half_life", Duration(), "the time after which counts are halved"),
), "the most frequent keys")
