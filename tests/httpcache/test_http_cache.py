"""HTTPCache: lookups, storing, serving, validation, invalidation and purges together."""

import pytest
from http_exchange import Exchange, Failure, answering

from headgate.cache import LRUCache
from headgate.httpcache import HTTPCache

FRESH = ("cache-control", "max-age=60")


def test_a_hit_has_age_status_and_the_stored_fields():
    web = Exchange(answering(FRESH, ("x-a", "1"), ("content-type", "text/plain")))
    assert web.get()["cache-status"] == "headgate; fwd=uri-miss; fwd-status=200; stored"
    web.advance(7)
    reply = web.get()
    assert (reply.status, reply.body, reply["x-a"], reply["age"]) == (200, b"body", "1", "7")
    assert reply["cache-status"] == "headgate; hit; ttl=53"
    assert reply["content-length"] == "4"
    assert len(web.forwarded) == 1


def test_the_fields_of_a_hit_are_the_callers_own():
    web = Exchange(answering(FRESH))
    web.get()
    for _ in range(2):
        reply = web.get()
        reply.headers.append((b"x-added", b"1"))
    assert web.get()["x-added"] is None


def test_a_stale_response_is_forwarded_again():
    web = Exchange(answering(FRESH))
    web.get()
    web.advance(60)
    assert not web.is_cached()
    assert web.is_cached()


def test_a_304_makes_a_stored_response_fresh():
    web = Exchange(answering(FRESH, ("etag", '"a"'), ("last-modified", -100), ("x-a", "1")))
    web.get()
    web.advance(61)
    web.origin = answering(("cache-control", "max-age=30"), ("x-a", "2"), status=304, body=b"")
    reply = web.get()
    assert (reply.status, reply.body, reply["x-a"]) == (200, b"body", "2")
    assert reply["cache-status"] == "headgate; fwd=stale; fwd-status=304; stored"
    assert web.sent("if-none-match") == '"a"' and web.sent("if-modified-since") is not None
    web.advance(29)
    assert web.is_cached() and web.get()["age"] == "29"
    web.advance(1)
    assert not web.is_cached()


def test_a_304_with_no_store_removes_the_response():
    web = Exchange(answering(FRESH, ("etag", '"a"')))
    web.get()
    web.advance(61)
    web.origin = answering(("cache-control", "no-store"), status=304, body=b"")
    assert web.get().body == b"body"
    assert web.cache.stats().entries == 0


@pytest.mark.parametrize("control", ["private", "no-store"])
def test_a_304_for_one_client_is_not_for_the_others(control):
    web = Exchange(answering(FRESH, ("etag", '"a"')))
    web.get()
    web.advance(61)
    request = web.request()
    lookup = web.cache.lookup(request)
    stored = web.cache.validated(lookup, request, [(b"cache-control", control.encode())], web.cache.now())
    assert stored.private and web.cache.stats().entries == 0


def test_the_cookies_of_a_304_are_for_one_client():
    web = Exchange(answering(FRESH, ("etag", '"a"')))
    web.get()
    web.advance(61)
    web.origin = answering(FRESH, ("set-cookie", "a=b"), status=304, body=b"")
    assert web.get()["set-cookie"] == "a=b"
    assert web.is_cached() and web.get()["set-cookie"] is None
    other = Exchange(answering(FRESH, ("etag", '"a"')), set_cookie="store")
    other.get()
    other.advance(61)
    other.origin = web.origin
    other.get()
    assert other.is_cached() and other.get()["set-cookie"] == "a=b"


def test_a_revalidation_that_may_not_be_stored_removes_the_old_response():
    web = Exchange(answering(FRESH, ("etag", '"a"')))
    web.get()
    web.advance(61)
    web.origin = answering(("cache-control", "no-store"), body=b"new")
    assert web.get().body == b"new"
    assert web.cache.stats().entries == 0


def test_stale_while_revalidate_serves_and_refreshes():
    web = Exchange(answering(("cache-control", "max-age=1, stale-while-revalidate=10"), body=b"old"))
    web.get()
    web.advance(5)
    web.origin = answering(("cache-control", "max-age=1, stale-while-revalidate=10"), body=b"new")
    reply = web.get()
    assert (reply.body, reply["cache-status"]) == (b"old", "headgate; hit; ttl=-4")
    assert web.get().body == b"new"
    web.advance(12)
    web.origin = answering(body=b"newest")
    assert web.get().body == b"newest"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_stale_if_error(status):
    web = Exchange(answering(("cache-control", "max-age=1, stale-if-error=10")))
    web.get()
    web.advance(5)
    web.origin = answering(status=status, body=b"error")
    reply = web.get()
    assert (reply.status, reply.body) == (200, b"body")
    assert reply["cache-status"] == "headgate; fwd=stale; detail=stale-if-error"
    web.advance(7)
    assert web.get().status == status


def test_a_crash_gets_a_stale_response_only_with_stale_if_error():
    def crash(request):
        raise Failure
    web = Exchange(answering(("cache-control", "max-age=1")))
    web.get()
    web.advance(2)
    web.origin = crash
    with pytest.raises(Failure):
        web.get()
    patient = Exchange(answering(("cache-control", "max-age=1")), stale_if_error=10)
    patient.get()
    patient.advance(2)
    patient.origin = crash
    assert patient.get().body == b"body"


def test_an_error_is_no_stale_response():
    """A stored 503 is not served instead of the next 503."""
    web = Exchange(answering(("cache-control", "max-age=1"), status=503, body=b"first"), stale_if_error=60)
    web.get()
    web.advance(2)
    web.origin = answering(status=503, body=b"second")
    assert web.get().body == b"second"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "M-SEARCH", "PATCH"])
@pytest.mark.parametrize(("status", "left"), [(200, 0), (302, 0), (400, 2), (500, 2)])
def test_unsafe_methods_invalidate_unless_they_fail(method, status, left):
    web = Exchange(answering(FRESH))
    web.get("http://a/b")
    web.get("http://a/c")
    web.origin = answering(("location", "c"), status=status)
    web.get("http://a/b", method=method)
    assert web.cache.stats().entries == left


def test_locations_of_other_origins_are_not_invalidated():
    web = Exchange(answering(FRESH))
    web.get("http://a/b")
    web.origin = answering(("location", "http://a/b"), ("content-location", "http://a/b"))
    web.get("http://c/d", method="POST")
    assert web.is_cached("http://a/b")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND"])
def test_safe_methods_pass_and_leave_all(method):
    web = Exchange(answering(FRESH))
    web.get()
    assert web.get(method=method)["cache-status"] == "headgate; fwd=method; fwd-status=200"
    assert web.is_cached()


def test_a_post_that_names_its_own_url_is_stored_for_get():
    web = Exchange(answering(FRESH, ("content-location", "/"), body=b"posted"))
    web.get(method="POST")
    assert web.get().body == b"posted" and len(web.forwarded) == 1
    for status, location in ((200, "/other"), (404, "/")):
        other = Exchange(answering(FRESH, ("content-location", location), status=status))
        other.get(method="POST")
        assert not other.is_cached()


def test_only_if_cached():
    web = Exchange(answering(FRESH))
    reply = web.get(headers={"cache-control": "only-if-cached"})
    assert reply.status == 504 and web.forwarded == []
    web.get()
    assert web.get(headers={"cache-control": "only-if-cached"}).status == 200


def test_what_cannot_be_stored_leaves_a_mark_for_ten_seconds():
    web = Exchange(answering(("cache-control", "no-store")))
    assert web.cache.lookup(web.request()).coalesce
    web.get()
    assert not web.cache.lookup(web.request()).coalesce
    web.advance(10)
    assert web.cache.lookup(web.request()).coalesce


def test_what_can_be_stored_again_removes_the_mark():
    web = Exchange(answering(("cache-control", "no-store")))
    web.get()
    web.origin = answering(FRESH)
    web.get()
    assert web.is_cached()


@pytest.mark.parametrize("headers", [
    {"if-match": '"a"'}, {"if-unmodified-since": "x"}, {"content-length": "3"},
    {"transfer-encoding": "chunked"}, {"cache-control": "no-store"},
])
def test_requests_for_the_origin_pass_unchanged(headers):
    web = Exchange(answering(FRESH))
    web.get()
    lookup = web.cache.lookup(web.request(headers=headers))
    assert (lookup.kind, lookup.storable) == ("pass", False)
    assert set(lookup.forward_headers) >= {(name.encode(), value.encode()) for name, value in headers.items()}


def test_clients_do_not_reload_a_shared_cache():
    web = Exchange(answering(FRESH))
    web.get()
    for directive in ("no-cache", "max-age=0", "min-fresh=1000"):
        assert web.is_cached(headers={"cache-control": directive})
    assert web.is_cached(headers={"pragma": "no-cache"})


def test_the_client_of_a_private_cache_does():
    web = Exchange(answering(FRESH), shared=False)
    web.get()
    for directive in ("no-cache", "min-fresh=1000"):
        assert not web.is_cached(headers={"cache-control": directive})
    assert not web.is_cached(headers={"pragma": "no-cache"})
    web.advance(5)
    assert web.is_cached(headers={"cache-control": "max-age=5"})
    assert not web.is_cached(headers={"cache-control": "max-age=4"})
    web.advance(70)
    assert web.is_cached(headers={"cache-control": "max-stale"})
    assert web.is_cached(headers={"cache-control": "max-stale=20"})
    assert not web.is_cached(headers={"cache-control": "max-stale=2"})


def test_an_immutable_response_outlives_reloads():
    web = Exchange(answering(("cache-control", "max-age=60, immutable")), shared=False)
    web.get()
    web.advance(5)
    assert web.is_cached(headers={"cache-control": "max-age=0"})
    assert not web.is_cached(headers={"cache-control": "no-cache"})


def test_own_keys():
    web = Exchange(answering(FRESH), key=lambda request: None if request.path == "/no" else request.path)
    web.get("http://a/b?x=1")
    assert web.is_cached("http://c/b?x=2")
    assert web.get("http://a/no")["cache-status"] == "headgate; fwd=bypass; fwd-status=200"
    assert web.cache.purge("http://elsewhere/b") == 1
    purges = [("/b?x=1", False), ("http://a/b?x=1", False), ("http://a/b", False), ("http://a/b", True)]
    for purge, soft in purges:
        web.get("http://a/b?x=1")
        assert web.cache.purge(purge, stale=soft) == 1
        assert web.cache.purge(purge, stale=soft) == 0
    web.get("http://a/b")
    web.get("http://c/b", method="DELETE")
    assert not web.is_cached("http://a/b")
    with pytest.raises(TypeError, match=r"key must return a str or None, got 3"):
        Exchange(answering(FRESH), key=lambda request: 3).get()


def test_purge_by_url_path_prefix_and_tag():
    web = Exchange(lambda request: (200, [FRESH, ("cache-tag", f"all {request.host}")], b""))
    urls = ["http://a/", "http://a/b", "http://a/b?c", "http://d/b", "https://d/b"]
    def fill():
        for url in urls:
            web.get(url)
    def left():
        return [url for url in urls if web.cache.lookup(web.request(url)).kind == "hit"]
    for arguments, count, remaining in [
        (("http://a/b",), 1, [urls[0], *urls[2:]]),
        (("HTTP://A:80/b",), 1, [urls[0], *urls[2:]]),
        (("/b",), 3, [urls[0], urls[2]]),
        ({"prefix": "/b"}, 4, [urls[0]]),
        ({"prefix": "http://a"}, 3, urls[3:]),
        ({"tag": "d"}, 2, urls[:3]),
        ({"tag": "all"}, 5, []),
        ({"tag": "none"}, 0, urls),
        (("http://a/none",), 0, urls),
    ]:
        fill()
        by_url = isinstance(arguments, tuple)
        purged = web.cache.purge(*arguments) if by_url else web.cache.purge(**arguments)
        assert (purged, left()) == (count, remaining), arguments
        web.cache._check()


@pytest.mark.parametrize("url", [0, False, b"", b"/", 5.0])
def test_a_purge_names_a_url_that_is_none(url):
    with pytest.raises(TypeError, match=f"^url must be a str, got {url!r}$"):
        HTTPCache().purge(url)


def test_a_soft_purge_makes_stale():
    web = Exchange(answering(("cache-control", "max-age=60, stale-while-revalidate=5"), body=b"old"))
    web.get()
    assert web.cache.purge("/", stale=True) == 1
    web.origin = answering(FRESH, body=b"new")
    assert web.get().body == b"old"
    assert web.get().body == b"new"
    web.cache.purge("/", stale=True)
    assert not web.is_cached()


@pytest.mark.parametrize(
    "purge", [{"url": "/"}, {"url": "http://example.com/"}, {"prefix": "/"}, {"tag": "t"}])
@pytest.mark.parametrize("stale", [False, True])
def test_a_purge_during_a_fill_keeps_its_result_from_being_stored(purge, stale):
    web = Exchange()
    def origin(request):
        web.cache.purge(**purge, stale=stale)
        return 200, [FRESH, ("cache-tag", "t"), ("etag", '"a"')], b"old"
    web.origin = origin
    assert web.get().body == b"old"
    assert not web.is_cached()
    web.origin = answering(FRESH, ("cache-tag", "t"), ("etag", '"a"'))
    web.get()
    web.advance(61)
    web.origin = lambda request: (web.cache.purge(**purge, stale=stale), (304, [FRESH], b""))[1]
    assert web.get().status == 200
    assert not web.is_cached()


def test_other_purges_during_a_fill_do_not_matter():
    web = Exchange()
    def origin(request):
        web.cache.purge("/other")
        web.cache.purge(tag="other")
        return 200, [FRESH], b""
    web.origin = origin
    web.get()
    assert web.is_cached()


def test_too_many_purges_during_a_fill_count_as_one_of_it():
    web = Exchange()
    def origin(request):
        for _ in range(2000):
            web.cache.purge("/other")
        return 200, [FRESH], b""
    web.origin = origin
    web.get()
    web.origin = answering(FRESH)
    assert not web.is_cached()


def test_overtaken():
    web = Exchange(answering(FRESH))
    lookup = web.cache.lookup(web.request())
    web.cache.purge("/other")
    assert not web.cache.overtaken(lookup)
    web.cache.purge("/")
    assert web.cache.overtaken(lookup)
    assert not web.cache.overtaken(web.cache.lookup(web.request()))


def test_bodies_that_are_not_whole_are_not_stored():
    web = Exchange(answering(FRESH, ("content-length", "5"), body=b"four"))
    web.get()
    assert not web.is_cached()


def test_large_bodies_are_not_stored():
    web = Exchange(answering(FRESH, body=b"x" * 1001), max_object=1000)
    web.get()
    assert not web.is_cached()
    web.origin = answering(FRESH, ("content-length", "1001"), body=b"x" * 1001)
    request = web.request()
    assert web.cache.admit(web.cache.lookup(request), request, 200, [(b"content-length", b"1001")], 0) is None


def test_policies():
    web = Exchange(answering(FRESH), policy=LRUCache)
    web.get()
    assert web.is_cached()


def test_stats():
    web = Exchange(answering(FRESH))
    web.get()
    web.get()
    web.get(method="POST")
    stats = web.cache.stats()
    assert (stats.hits, stats.misses, stats.passes, stats.stored, stats.purged) == (1, 1, 1, 1, 1)
    assert stats.entries == 0
    assert stats.hit_ratio == 0.5 and stats.currsize == 0 and stats.maxsize == 64 * 2**20


@pytest.mark.parametrize(("arguments", "message"), [
    ({"maxsize": "many"}, r"maxsize must be .*, got 'many'"),
    ({"max_object": 0}, r"max_object must be .*, got 0"),
    ({"max_variants": 0}, r"max_variants must be 1 or more, got 0"),
    ({"set_cookie": "no"}, r"set_cookie must be one of explicit, store, never, got 'no'"),
    ({"heuristic": 2}, r"heuristic must be a fraction from 0 to 1, got 2"),
    ({"default_ttl": -1}, r"default_ttl must be finite seconds and not negative, got -1"),
    ({"wait": float("inf")}, r"wait must be finite"),
    ({"name": "a b"}, r"name must be a token of RFC 9651 such as headgate, got 'a b'"),
])
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        HTTPCache(**arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"key": 1}, r"key must be callable or None, got 1"),
    ({"clock": 1}, r"clock must be callable or None, got 1"),
    ({"tag_headers": "cache-tag"}, r"tag_headers must be names of header fields, got 'cache-tag'"),
    ({"wait": "x"}, r"wait must be a number, got 'x'"),
])
def test_arguments_of_wrong_types(arguments, message):
    with pytest.raises(TypeError, match=message):
        HTTPCache(**arguments)


@pytest.mark.parametrize(
    "arguments", [{}, {"url": "/", "tag": "a"}, {"tag": 1}, {"url": 1}, {"prefix": b"/"}])
def test_purges_of_wrong_types(arguments):
    with pytest.raises(TypeError, match="must be"):
        HTTPCache().purge(**arguments)


@pytest.mark.parametrize("url", ["", "a", "http:/a", "http://[", "a:b"])
def test_purges_of_no_url(url):
    with pytest.raises(ValueError, match="url must be an absolute URL, or a path"):
        HTTPCache().purge(url)


def test_reconfigure_keeps_what_is_stored():
    web = Exchange(answering(FRESH, body=bytes(1000)))
    for number in range(8):
        web.get(f"http://example.com/{number}")
    web.cache.reconfigure(name="other", max_variants=1, maxsize=3000)
    web.cache._check()
    assert web.cache.maxsize == web.cache.max_object == 3000 and web.cache.stats().evictions >= 6
    web.cache.reconfigure(maxsize="1 MiB")
    assert web.cache.max_object == 2**20, "the bound on objects is the smaller of the two that were given"
    web.get("http://example.com/0")
    assert web.get("http://example.com/0")["cache-status"] == "other; hit; ttl=60"


def test_what_cannot_be_reconfigured_changes_nothing():
    cache = HTTPCache("1 MiB")
    with pytest.raises(TypeError, match=r"^settings must be among maxsize, .*, got 'policy'$"):
        cache.reconfigure(policy=LRUCache, maxsize=5)
    with pytest.raises(ValueError, match=r"^heuristic must be a fraction from 0 to 1, got 2$"):
        cache.reconfigure(maxsize=5, heuristic=2)
    assert cache.maxsize == 2**20 == cache._store.cache.maxsize
