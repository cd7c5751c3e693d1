"""Purges with a time, in several tiers of caches, and followers of a log of them."""

import asyncio
from email.utils import formatdate

import pytest
from asgi_clients import Client, Origin, settled
from clocks import FakeClock
from http_exchange import START, Exchange, answering
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.adapters.asgi import CacheMiddleware
from headgate.httpcache import HTTPCache, PurgeFollower
from headgate.httpcache._dated import MOST, MOST_PREFIXES, DatedPurges
from headgate.httpcache._purging import PATH_PREFIX, TAG, URL, Purge

FRESH = ("cache-control", "max-age=600")


def web(*fields, **options):
    return Exchange(answering(FRESH, *fields), **options)


@pytest.mark.parametrize("purge", [
    {"url": "http://example.com/"}, {"url": "/"}, {"tag": "news"}, {"prefix": "/"},
    {"prefix": "http://example.com/"},
])
@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("key", [None, lambda request: "one"])
def test_what_was_generated_before_a_purge_is_not_stored_after_it(purge, stale, key):
    parent = web(("cache-tag", "news"), ("age", "30"), key=key)
    assert not parent.is_cached() and parent.is_cached()
    parent.cache.purge(**purge, stale=stale, at=START - 10)
    assert not parent.is_cached() and not parent.is_cached()  # another cache has it, without this purge
    parent.origin = answering(FRESH, ("cache-tag", "news"), ("age", "5"))
    assert not parent.is_cached() and parent.is_cached()


def test_a_purge_leaves_what_was_generated_after_it():
    cache = web()
    cache.get()
    assert cache.cache.purge("/", at=START - 1) == 0
    assert cache.is_cached()
    assert cache.cache.purge("/", at=START + 0.001) == 1


def test_seconds_of_age_are_rounded_down():
    cache = web(("age", "0"))
    cache.cache.purge("/", at=START - 0.5)
    assert not cache.is_cached() and not cache.is_cached()  # it may be 0.9 seconds old
    cache.origin = answering(FRESH)
    assert not cache.is_cached() and cache.is_cached()  # generated for this request


def test_the_time_that_a_request_takes_counts():
    cache = web()

    def slow(request):
        cache.advance(5)
        return answering(FRESH)(request)

    cache.origin = slow
    cache.cache.purge("/", at=START + 1)  # while the first request is under way
    assert not cache.is_cached() and not cache.is_cached() and cache.is_cached()


def test_a_validation_by_another_cache_is_as_old_as_that_one_says():
    cache = web(("etag", '"a"'))
    cache.get()
    cache.advance(700)
    cache.cache.purge("/", stale=True, at=START + 650)
    cache.origin = answering(FRESH, ("age", "100"), status=304)
    assert not cache.is_cached()
    cache.origin = answering(FRESH, ("etag", '"b"'))
    assert not cache.is_cached()
    cache.advance(700)
    cache.cache.purge("/", stale=True, at=START + 1300)
    cache.origin = answering(FRESH, status=304)
    assert not cache.is_cached() and cache.is_cached()  # validated for this request


@pytest.mark.parametrize(("at", "error"), [
    (-1, ValueError), (float("nan"), ValueError), (1e20, ValueError), ("now", TypeError)])
def test_times_are_checked(at, error):
    with pytest.raises(error, match=r"^at must be"):
        HTTPCache().purge("/", at=at)


def test_workers_share_the_times(tmp_path):
    one, two = (web(("age", "30"), path=tmp_path / "purges") for _ in range(2))
    one.cache.purge("/", at=START - 10)
    assert not two.is_cached() and not two.is_cached()


def test_memory_is_bounded_and_what_is_forgotten_counts_as_a_purge_of_all():
    purges = DatedPurges()
    for number in range(MOST + 10):
        purges.add(Purge(TAG, b"%d" % number, at=number + 1))
    assert len(purges._exact) == MOST and purges.floor == 10
    assert purges.latest(b"k", b"http://a/", ()) == 10
    assert purges.latest(b"k", b"http://a/", (b"%d" % MOST,)) == MOST + 1
    for number in range(MOST_PREFIXES + 10):
        purges.add(Purge(PATH_PREFIX, b"/%d" % number, at=MOST + number))
    assert len(purges._prefixes) == MOST_PREFIXES and purges.floor == MOST + 9
    purges.add(Purge(URL, b"http://a/", at=3))
    purges.add(Purge(PATH_PREFIX, b"/", at=2**60))
    assert purges.latest(b"k", b"http://a/", ()) == purges.floor == 2**60


def test_a_response_to_another_request_has_an_age():
    """Or the cache behind would take it for one that was generated for its own request."""
    async def main():
        origin = Origin(gated=True)
        app = CacheMiddleware(origin)
        clients = [Client(app) for _ in range(2)]
        await settled()
        origin.open()
        return [await client.done() for client in clients]

    leader, follower = asyncio.run(main())
    assert "age" not in leader.response.fields
    assert follower.response.fields["age"] == "0"


def tiers():
    """A parent, and a point of presence behind it, on one clock."""
    parent = web(("cache-tag", "news"))
    pop = Exchange(clock=parent.clock, wall_clock=parent.wall_clock)

    def origin(request):
        reply = parent.get()
        return reply.status, [(name.decode(), value.decode()) for name, value in reply.headers], reply.body

    pop.origin = origin
    return parent, pop


@pytest.mark.parametrize("seconds", [0.0, 0.25, 0.999, 1.0, 1.5, 40.7])
def test_what_was_generated_soon_after_a_purge_is_stored(seconds):
    """Age alone would not tell it from what was generated up to a second before."""
    parent, pop = tiers()
    parent.get()
    parent.advance(0.3)
    for tier in (parent, pop):
        tier.cache.purge(tag="news", at=parent.wall_clock() / 1e9)
    parent.advance(0.002)
    parent.get()
    parent.advance(seconds)
    assert not pop.is_cached() and pop.is_cached()
    assert "generated=" in parent.get()["cache-status"]


@pytest.mark.parametrize("said", [
    START + 5, START - 62, "x", f"{START - 0.1:.3f}, b; hit", f"{START - 0.1:.2f}"])
def test_what_a_cache_says_must_be_a_time_of_the_past(said):
    value = said if isinstance(said, str) else f"{said:.3f}"
    cache = web(("age", "0"), ("cache-status", f"a; hit; generated={value}"))
    cache.cache.purge("/", at=START - 0.5)
    assert not cache.is_cached() and not cache.is_cached()
    cache.origin = answering(FRESH, ("age", "0"), ("cache-status", f"a; hit; generated={START - 0.25:.3f}"))
    assert not cache.is_cached() and cache.is_cached()


@pytest.mark.parametrize("microseconds", [0, 100, 500, 590, 650, 999, 1600])
def test_all_tiers_decide_alike(microseconds):
    """Or what a parent has stored just after a purge would never be stored behind it."""
    parent, pop = tiers()
    parent.advance(0.3004)
    at = parent.wall_clock() / 1e9
    for tier in (parent, pop):
        tier.cache.purge(tag="news", at=at)
    parent.advance(microseconds / 1e6)
    parent.get()
    was_stored = parent.is_cached()
    pop.get()
    assert pop.is_cached() == was_stored == (microseconds >= 650)


def test_the_clock_of_an_origin_may_be_behind():
    """By its Date the response is nine seconds old, and older than the purge."""
    parent, pop = tiers()
    parent.origin = answering(FRESH, ("date", formatdate(START - 9, usegmt=True)))
    parent.advance(0.3)
    for tier in (parent, pop):
        tier.cache.purge(tag="news", at=parent.wall_clock() / 1e9)
    parent.advance(0.002)
    assert int(parent.get()["age"] or parent.get()["age"]) >= 9
    assert not pop.is_cached() and pop.is_cached()


def test_no_purge_has_a_time_and_nothing_is_said():
    parent, pop = tiers()
    parent.get()
    parent.cache.purge(tag="other")
    assert "generated" not in parent.get()["cache-status"] + pop.get()["cache-status"]


class Tiers(RuleBasedStateMachine):
    """A point of presence and its parent, which purges reach in any order and after any time."""

    def __init__(self):
        super().__init__()
        self.parent = Exchange(self._origin)
        shared = {"clock": self.parent.clock, "wall_clock": self.parent.wall_clock}
        self.pop = Exchange(self._from_parent, **shared)
        self.version, self.purges = 1, []
        self.done = {self.parent: 0, self.pop: 0}
        self.least = 1

    def _origin(self, request):
        return 200, [FRESH, ("etag", f'"{self.version}"')], b"%d" % self.version

    def _from_parent(self, request):
        fields = [(name.decode(), value.decode()) for name, value in self.pop.forwarded[-1][1]]
        reply = self.parent.get(headers=[field for field in fields if field[0] != "host"])
        return reply.status, [(name.decode(), value.decode()) for name, value in reply.headers], reply.body

    @rule(stale=st.booleans())
    def change(self, stale):
        self.version += 1
        self.purges.append((self.parent.wall_clock() / 1e9, self.version, stale))

    @rule(is_pop=st.booleans())
    def deliver(self, is_pop):
        tier = self.pop if is_pop else self.parent
        if self.done[tier] == len(self.purges):
            return
        at, version, stale = self.purges[self.done[tier]]
        self.done[tier] += 1
        tier.cache.purge("/", stale=stale, at=at)
        if is_pop:
            self.least = version

    @rule(seconds=st.sampled_from([0.0001, 0.3, 0.9, 1.1, 20, 700]))
    def advance(self, seconds):
        self.parent.advance(seconds)

    @rule()
    def get(self):
        before = len(self.pop.forwarded)
        reply = self.pop.get()
        if len(self.pop.forwarded) == before:
            assert int(reply.body) >= self.least, "a hit is no older than the purges that have come"

    @invariant()
    def whole(self):
        self.pop.cache._check()


TestTiers = Tiers.TestCase


def followed(**options):
    cache = web(**options)
    return cache, PurgeFollower(cache.cache, clock=lambda: cache.wall_clock() / 1e9)


def test_a_follower_applies_records_once():
    cache, follower = followed()
    cache.get()
    cache.advance(5)
    record = {"url": "/", "at": START + 1.0}
    assert follower.receive("a", 1, [(1, record)]) == 1
    cache.get()
    assert follower.receive("a", 1, [(1, record)]) == 0
    assert follower.receive("a", 1, []) == 0
    assert cache.is_cached() and follower.position == ("a", 1) and follower.gaps == 0


@pytest.mark.parametrize(("epoch", "last", "records"), [
    ("a", 4, [(4, {"url": "/other", "at": START + 9.0})]),  # 2 and 3 are missing
    ("a", 3, [(2, {"url": "/other", "at": START + 9.0})]),  # the last one is
    ("a", 2, []), ("b", 1, [(1, {"url": "/other", "at": START + 9.0})]), ("b", 0, []),
    ("a", 0, []),  # the log was emptied
    ("a", 2, [(2, {"colour": "red", "at": START + 9.0})]), ("a", 2, [(2, {"url": "x", "at": START + 9.0})]),
])
def test_a_gap_makes_everything_older_stale(epoch, last, records):
    cache, follower = followed(stale_if_error=60)
    follower.receive("a", 1, [(1, {"url": "/other", "at": START + 0.0})])
    cache.get()
    cache.advance(10)
    follower.receive(epoch, last, records)
    assert follower.gaps >= 1 and follower.position == (epoch, last)
    assert cache.cache.lookup(cache.request()).kind == "revalidate"
    cache.advance(0.001)
    cache.origin = answering(FRESH, ("age", "30"))
    assert not cache.is_cached() and not cache.is_cached()
    cache.origin = answering(FRESH)
    cache.advance(0.002)
    assert not cache.is_cached() and cache.is_cached()


def test_a_follower_that_starts_has_no_gap_but_does_not_trust_what_is_older():
    cache, follower = followed()
    cache.origin = answering(FRESH, ("age", "30"))
    follower.receive("a", 9, [(9, {"url": "/other", "at": START - 10.0})])
    assert follower.gaps == 0 and not cache.is_cached() and not cache.is_cached()
    cache.origin = answering(FRESH, ("age", "5"))
    assert not cache.is_cached() and cache.is_cached()
    empty = PurgeFollower(HTTPCache(clock=FakeClock(0)))
    assert empty.receive("a", 0, []) == 0 and empty.gaps == 0


def test_clocks_may_differ_by_the_skew():
    """The log is 30 ms behind: what was generated just before a purge seems to be newer."""
    cache = web()
    follower = PurgeFollower(cache.cache, skew=0.05)
    assert not cache.is_cached()
    follower.receive("a", 1, [(1, {"url": "/", "at": START - 0.03})])
    assert not cache.is_cached() and not cache.is_cached()
    cache.advance(0.022)
    assert not cache.is_cached() and cache.is_cached()
    follower.receive("a", 3, [(3, {"url": "/other", "at": START - 0.03})])
    assert cache.is_cached() and follower.gaps == 1  # generated after the skew


@pytest.mark.parametrize(("skew", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_skews_are_checked(skew, error):
    with pytest.raises(error, match=r"^skew must"):
        PurgeFollower(HTTPCache(), skew=skew)


def test_a_record_without_a_time_is_a_gap():
    follower = PurgeFollower(HTTPCache())
    assert follower.receive("a", 1, [(1, {"url": "/"})]) == 0
    assert follower.gaps == 1
