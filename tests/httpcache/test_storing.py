"""What is stored, and which fields of it."""

import pytest
from http_exchange import Exchange, answering
from hypothesis import given
from hypothesis import strategies as st

from headgate.httpcache._storing import MOST_TAGS

FRESH = ("cache-control", "max-age=60")


def is_stored(*fields, status=200, headers=(), method="GET", **options):
    web = Exchange(answering(*fields, status=status), **options)
    web.get(headers=headers, method=method)
    return web.cache.stats().entries == 1


@pytest.mark.parametrize(
    "status", [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599])
def test_statuses_with_explicit_freshness(status):
    web = Exchange(answering(FRESH, status=status))
    web.get()
    assert web.get().status == status and len(web.forwarded) == 1
    web.advance(61)
    assert not web.is_cached()


@pytest.mark.parametrize("status", [100, 103, 206, 304, 416, 429, 600, 999])
def test_statuses_that_are_never_stored(status):
    assert not is_stored(FRESH, status=status)


@pytest.mark.parametrize(("control", "status", "stored"), [
    ("no-store, max-age=60", 200, False), ("No-StOrE, max-age=60", 200, False),
    ("private, max-age=60", 200, False), ('private="x-a", max-age=60', 200, True),
    ("no-store, must-understand, max-age=60", 200, True),
    ("no-store, must-understand, max-age=60", 599, False),
    ("must-understand, max-age=60", 599, False), ("no-cache", 200, False), ("max-age=0", 200, False),
    ("max-age=0, stale-while-revalidate=9", 200, True),
])
def test_directives(control, status, stored):
    assert is_stored(("cache-control", control), status=status) == stored


def test_a_private_cache_stores_private_responses():
    assert is_stored(("cache-control", "private, max-age=60"), shared=False)


@pytest.mark.parametrize(("control", "stored"), [
    ("max-age=60", False), ("max-age=60, public", True), ("max-age=60, must-revalidate", True),
    ("s-maxage=60", True), ("max-age=60, proxy-revalidate", False),
])
def test_authorization(control, stored):
    headers = {"authorization": "Basic x"}
    assert is_stored(("cache-control", control), headers=headers) == stored
    assert is_stored(("cache-control", f"{control}, max-age=60"), headers=headers, shared=False)


@pytest.mark.parametrize(("mode", "control", "stored"), [
    ("explicit", "max-age=60", False), ("explicit", "max-age=60, public", True),
    ("explicit", "s-maxage=60", True),
    ("store", "max-age=60", True), ("never", "s-maxage=60, public", False),
])
def test_set_cookie(mode, control, stored):
    fields = ("cache-control", control), ("set-cookie", "a=b")
    assert is_stored(*fields, set_cookie=mode) == stored


def test_validators_without_freshness_are_stored_for_validation():
    assert is_stored(("etag", '"a"'))
    assert is_stored(("cache-control", "no-cache"), ("etag", '"a"'))
    assert not is_stored(("etag", '"a"'), status=403)
    assert not is_stored(("etag", '"a"'), headers={"cookie": "a=b"})


@pytest.mark.parametrize("fields", [
    [("content-type", "text/event-stream")], [("content-type", " Text/Event-Stream; charset=utf-8")],
    [("trailer", "x-checksum")], [("vary", "*")],
    [("cache-tag", ",".join(map(str, range(MOST_TAGS + 1))))],
])
def test_responses_that_are_never_stored(fields):
    assert not is_stored(FRESH, *fields)


def test_fields_that_are_not_stored():
    names = [
        "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "upgrade",
        "transfer-encoding", "ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-a",
    ]
    web = Exchange(answering(FRESH, *((name, "x-a") for name in names), ("x-b", "2")))
    assert web.get()["x-a"] == "x-a"
    reply = web.get()
    assert [name for name in names if reply[name] is not None] == []
    assert reply["x-b"] == "2"


def test_fields_named_by_directives_are_not_stored():
    control = 'max-age=60, no-cache="x-a, X-B", private="x-c"'
    fields = ("cache-control", control), ("x-a", "1"), ("x-b", "2"), ("x-c", "3"), ("x-d", "4")
    for shared, left in ((True, ["x-d"]), (False, ["x-c", "x-d"])):
        web = Exchange(answering(*fields), shared=shared)
        web.get()
        reply = web.get()
        assert [name for name in ("x-a", "x-b", "x-c", "x-d") if reply[name]] == left


def test_a_length_is_added_but_not_to_a_204():
    web = Exchange(answering(FRESH))
    web.get()
    assert web.get()["content-length"] == "4"
    empty = Exchange(answering(FRESH, status=204, body=b""))
    empty.get()
    assert empty.get()["content-length"] is None


def test_own_tag_fields():
    web = Exchange(answering(FRESH, ("x-tags", "a b"), ("cache-tag", "c")), tag_headers=("X-Tags",))
    web.get()
    assert web.cache.purge(tag="c") == 0
    assert web.cache.purge(tag="a") == 1


def test_query_and_host_and_scheme_are_in_the_key():
    web = Exchange(answering(FRESH))
    web.get("http://a/b?x=1")
    for other in ("http://a/b?x=2", "http://a/b", "https://a/b?x=1", "http://c/b?x=1", "http://a/B?x=1"):
        assert not web.is_cached(other)
    for same in ("http://A/b?x=1", "http://a:80/b?x=1", "http://a/%62?x=1"):
        assert web.is_cached(same)


@given(st.lists(st.tuples(
    st.sampled_from(["set-cookie", "vary", "cache-tag", "connection", "content-length", "trailer", "etag",
    "x"]),
    st.text(st.characters(max_codepoint=255), max_size=20)), max_size=6),
    st.integers(0, 999))
def test_junk_raises_nowhere(fields, status):
    web = Exchange(answering(FRESH, *fields, status=status))
    web.get()
    web.get(headers=fields)
