"""The store: its invariants after every step, its bounds, threads, and purges by other processes."""

import random
import tracemalloc

import pytest
from http_exchange import Exchange, answering
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from threads import run_threads

from headgate.cache import LRUCache, S3FIFOCache, SieveCache, TinyLFUCache
from headgate.httpcache import HTTPCache, Request
from headgate.httpcache._log import MOST_RECORDS, LocalLog
from headgate.httpcache._purging import Purge, path_of, url_purge

FRESH = ("cache-control", "max-age=60")
PATHS = st.sampled_from(["/", "/a", "/a/b", "/b"])
TAGS = st.sets(st.sampled_from(["x", "y", "z"]))
VALUES = st.sampled_from(["1", "2", "3"])


def test_a_purge_leaves_alone_what_it_does_not_concern():
    """Stored again, it would count as used."""
    web = Exchange(answering(FRESH, ("vary", "foo"), body=b"x"))
    for path in ("/a", "/b"):
        web.get(f"http://a{path}")
    cache = web.cache._store.cache
    before = {key: cache.peek(key) for key in cache}
    for purge in ({"prefix": "/c"}, {"url": "/c", "stale": True}, {"prefix": "/", "at": 1.0}):
        assert web.cache.purge(**purge) == 0
        assert all(cache.peek(key) is resource for key, resource in before.items())
    assert web.cache.purge("/b", stale=True) == 1
    assert [cache.peek(key) is before[key] for key in before] == [True, False]


class Steps(RuleBasedStateMachine):
    """All that changes a store, beside a model: what is stored fresh, by path and value of a selecting
    field."""

    def __init__(self):
        super().__init__()
        self.web = Exchange(max_variants=3, maxsize="4 MiB", policy=LRUCache)
        self.model = {}

    @rule(path=PATHS, value=VALUES, tags=TAGS, body=st.binary(max_size=50))
    def get(self, path, value, tags, body):
        self.web.origin = answering(
            FRESH, ("vary", "foo"), ("cache-tag", " ".join(sorted(tags))), ("etag", '"a"'), body=body)
        known = self.model.get((path, value))
        reply = self.web.get(f"http://a{path}", {"foo": value})
        assert reply.body == (body if known is None else known[1])
        if known is None:
            self.model[path, value] = tags, body

    @rule(path=PATHS, value=VALUES)
    def validate(self, path, value):
        """A soft purge, and the validation after it."""
        self.web.cache.purge(f"http://a{path}", stale=True)
        self.web.origin = answering(FRESH, status=304)
        known = self.model.get((path, value))
        if known is not None:
            assert self.web.get(f"http://a{path}", {"foo": value}).body == known[1]
        self._forget(lambda at, tags: at[0] == path and at != (path, value))

    @rule(tag=st.sampled_from(["x", "y", "z"]))
    def purge_tag(self, tag):
        wanted = self._forget(lambda at, tags: tag in tags)
        assert self.web.cache.purge(tag=tag) >= wanted

    @rule(path=PATHS)
    def purge_url(self, path):
        wanted = self._forget(lambda at, tags: at[0] == path)
        assert self.web.cache.purge(f"http://a{path}") >= wanted

    @rule(path=PATHS)
    def purge_prefix(self, path):
        wanted = self._forget(lambda at, tags: at[0].startswith(path))
        assert self.web.cache.purge(prefix=path) >= wanted

    @rule(path=PATHS)
    def post(self, path):
        self.web.origin = answering()
        self.web.get(f"http://a{path}", method="POST")
        self._forget(lambda at, tags: at[0] == path)

    @precondition(lambda self: self.model)
    @rule(path=PATHS, value=VALUES)
    def overtake(self, path, value):
        """A purge while a response is under way."""
        def origin(request):
            self.web.cache.purge(path)
            return 200, [FRESH, ("vary", "foo")], b"overtaken"
        known = self.model.get((path, value))
        self.web.origin = origin
        reply = self.web.get(f"http://a{path}", {"foo": value})
        assert reply.body == (b"overtaken" if known is None else known[1])
        if known is None:
            self._forget(lambda at, tags: at[0] == path)

    def _forget(self, matches):
        gone = [at for at, (tags, _) in self.model.items() if matches(at, tags)]
        for at in gone:
            del self.model[at]
        return len(gone)

    @invariant()
    def whole(self):
        self.web.cache._check()
        for (path, value) in self.model:
            assert self.web.cache.lookup(self.web.request(f"http://a{path}", {"foo": value})).kind == "hit"


Steps.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_every_step = Steps.TestCase


def fill(cache, url, fields=(), body=b"body", headers=()):
    """Stores a response to a request for a path of one host."""
    request = Request("GET", "http", url, [(b"host", b"a"), *headers])
    lookup = cache.lookup(request)
    admission = cache.admit(lookup, request, 200, [(b"cache-control", b"max-age=60"), *fields], cache.now())
    return admission and admission.store(body)


def traced(steps):
    """The bytes that are still allocated after `steps()`, and what it returned."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = steps()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before, kept


MAXSIZE = 2**18
FLOODS = {
    "urls": lambda cache, n: fill(cache, b"/%d" % n),
    "fields": lambda cache, n: fill(cache, b"/%d" % n, [(b"x-%d" % (i + n), b"%d" % n) for i in range(5)]),
    "bodies": lambda cache, n: fill(cache, b"/%d" % n, body=b"%d" % n + bytes(5000)),
    "variants": lambda cache, n: fill(cache, b"/", [(b"vary", b"foo")], headers=[(b"foo", b"%d" % n)]),
    "vary": lambda cache, n: fill(cache, b"/", [(b"vary", b"x-%d" % n)], headers=[(b"x-%d" % n, b"1")]),
    "tags": lambda cache, n: fill(
        cache, b"/%d" % n, [(b"cache-tag", b" ".join(b"%d-%d" % (n, i) for i in range(20)))]),
    "marks": lambda cache, n: fill(cache, b"/%d" % n, [(b"cache-control", b"no-store")]),
    "purges": lambda cache, n: cache.purge(f"http://a/{n}"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_memory_is_bounded(flood):
    """Within the size, and half a megabyte for marks, purges and normalised values."""
    def steps():
        cache = HTTPCache(MAXSIZE)
        for number in range(1200):
            FLOODS[flood](cache, number)
        return cache
    size, cache = traced(steps)
    assert size < MAXSIZE + 0.5e6
    cache._check()


@pytest.mark.parametrize(
    ("flood", "count"), [("urls", 20_000), ("variants", 10_000), ("vary", 2000), ("tags", 2000)])
def test_the_bound_holds_in_a_flood(flood, count, exhaustive):
    cache = HTTPCache(MAXSIZE)
    for number in range(100_000 if exhaustive else count):
        FLOODS[flood](cache, number)
    assert cache.stats().currsize <= MAXSIZE
    cache._check()


def test_the_size_is_about_what_is_allocated():
    """CPython keeps a few thousand tuples for reuse, which are not traced."""
    def steps():
        cache = HTTPCache(2**23)
        for number in range(1500):
            fill(cache, b"/%d" % number, [(b"x-%d" % i, b"%d" % number) for i in range(8)])
            request = Request("GET", "http", b"/%d" % number, [(b"host", b"a")])
            cache.serve(request, cache.lookup(request))
        return cache
    size, cache = traced(steps)
    assert 0.8 * size < cache.stats().currsize < 1.3 * size


@pytest.mark.parametrize("policy", [LRUCache, SieveCache, S3FIFOCache, TinyLFUCache])
def test_evicted_responses_leave_no_tags(policy):
    cache = HTTPCache(50_000, policy=policy)
    for number in range(500):
        fill(cache, b"/%d" % number, [(b"cache-tag", b"all t%d" % number)])
        cache._check()
    stats = cache.stats()
    assert stats.evictions == stats.stored - stats.entries > 0
    assert cache.purge(tag="all") == stats.entries


def test_untagged_responses_cost_the_index_nothing():
    cache = HTTPCache()
    for number in range(100):
        fill(cache, b"/%d" % number)
    assert cache._store._tagged == {}


def test_what_is_larger_than_the_store_is_not_stored():
    cache = HTTPCache(2000)
    assert fill(cache, b"/", body=bytes(1900)) is None
    assert fill(cache, b"/", [(b"x", bytes(1900))]) is None
    assert cache.stats().entries == 0


def test_threads():
    """Each response is that of its URL and variant, whatever is purged, evicted and stored meanwhile."""
    cache = HTTPCache(60_000, max_variants=3)

    def work(seed):
        draw = random.Random(seed)
        for _ in range(500):
            path, value = b"/%d" % draw.randrange(20), b"%d" % draw.randrange(4)
            request = Request("GET", "http", path, [(b"host", b"a"), (b"foo", value)])
            lookup = cache.lookup(request)
            if lookup.kind == "hit":
                assert cache.serve(request, lookup)[2] == path + value
            elif lookup.kind == "miss":
                fields = [(b"vary", b"foo"), (b"cache-tag", b"t" + value)]
                fill(cache, path, fields, path + value, [(b"foo", value)])
            if draw.random() < 0.05:
                cache.purge(draw.choice(["/1", "http://a/2"]), stale=draw.random() < 0.5)
            if draw.random() < 0.02:
                cache.purge(tag="t1")

    run_threads(work, 4)
    cache._check()


class OtherLog(LocalLog):
    """A log that other processes write to."""

    def __init__(self):
        super().__init__()
        self.shared = True


@pytest.fixture
def two(monkeypatch):
    """The caches of two processes with one log."""
    log = OtherLog()
    monkeypatch.setattr("headgate.httpcache._cache.LocalLog", lambda: log)
    return HTTPCache(), HTTPCache()


def test_purges_reach_other_processes(two):
    for cache in two:
        fill(cache, b"/a", [(b"cache-tag", b"t")])
        fill(cache, b"/b")
    for purge in ({"url": "/a"}, {"tag": "t"}, {"prefix": "/a"}):
        assert two[0].purge(**purge) == 1
        request = Request("GET", "http", b"/a", [(b"host", b"a")])
        assert two[1].lookup(request).kind == "miss"
        assert two[1].stats().entries == 1
        for cache in two:
            fill(cache, b"/a", [(b"cache-tag", b"t")])


def test_invalidations_reach_other_processes(two):
    for cache in two:
        fill(cache, b"/a")
    request = Request("POST", "http", b"/a", [(b"host", b"a")])
    two[0].lookup(request)
    two[0].invalidate(request, 200, [])
    assert two[1].lookup(Request("GET", "http", b"/a", [(b"host", b"a")])).kind == "miss"


def test_a_purge_by_another_process_overtakes(two):
    request = Request("GET", "http", b"/a", [(b"host", b"a")])
    lookup = two[1].lookup(request)
    two[0].purge("/a")
    assert two[1].overtaken(lookup)
    admission = two[1].admit(lookup, request, 200, [(b"cache-control", b"max-age=60")], two[1].now())
    assert admission.store(b"") is None


def test_lost_purges_empty_the_store(two):
    fill(two[1], b"/a")
    for number in range(MOST_RECORDS + 1):
        two[0].purge(f"/{number}")
    assert two[1].lookup(Request("GET", "http", b"/a", [(b"host", b"a")])).kind == "miss"
    two[1]._check()


@pytest.mark.parametrize(("url", "value"), [
    ("http://Example.com", b"http://example.com/"), ("HTTP://a:80/%7eb?%7e#c", b"http://a/~b?%7e"),
    ("https://a:443/", b"https://a/"), ("https://a:80/", b"https://a:80/"), ("/ü", b"/%C3%BC"),
    ("/a b", b"/a%20b"),
    ("http://user@a/", b"http://a/"), ("http://münchen.example/", b"http://xn--mnchen-3ya.example/"),
])
def test_urls_are_normalised(url, value):
    assert url_purge("url", url, prefix=False, soft=False).value == value


def test_records_come_back():
    for purge in (url_purge("url", "/a", prefix=True, soft=True),
    url_purge("url", "/a", prefix=False, soft=False)):
        other = Purge.decode(purge.encode())
        assert (other.kind, other.value, other.soft) == (purge.kind, purge.value, purge.soft)
    assert path_of(b"http://a/b?c") == b"/b?c"
