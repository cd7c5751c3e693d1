"""For how long a response is reused: against a naive reference, and what the outside suite asks."""

import pytest
from http_exchange import Exchange, answering
from hypothesis import given
from hypothesis import strategies as st

AGES = st.integers(0, 200)
OFFSETS = st.integers(-200, 200)
MAYBE = st.one_of(st.none(), AGES)


class Response:
    """A response as its parts, and how long it is fresh by the plain text of RFC 9111 4.2."""

    def __init__(self, parts, shared):
        self.parts = parts
        self.shared = shared

    def fields(self):
        parts = self.parts
        directives = [f"{name}={parts[name]}" for name in ("max-age", "s-maxage") if parts[name] is not None]
        fields = [("cache-control", directive) for directive in directives]
        if parts["age"] is not None:
            fields.append(("age", str(parts["age"])))
        return fields + [(name, parts[name]) for name in ("date", "expires", "last-modified")
                         if parts[name] is not None]

    def lifetime(self):
        parts = self.parts
        date = parts["date"] or 0
        if self.shared and parts["s-maxage"] is not None:
            return parts["s-maxage"]
        if parts["max-age"] is not None:
            return parts["max-age"]
        if parts["expires"] is not None:
            return max(0, parts["expires"] - date)
        if parts["last-modified"] is not None:
            return max(0, date - parts["last-modified"]) / 10
        return 0

    def age(self, delay):
        return max(0, -(self.parts["date"] or 0), (self.parts["age"] or 0) + delay)


@given(
    st.fixed_dictionaries({
        "max-age": MAYBE, "s-maxage": MAYBE, "age": MAYBE, "date": st.one_of(st.none(), OFFSETS),
        "expires": st.one_of(st.none(), OFFSETS), "last-modified": st.one_of(st.none(), OFFSETS),
    }),
    st.booleans(), st.integers(0, 5), st.integers(0, 300),
)
def test_as_the_reference(parts, shared, delay, later):
    response = Response(parts, shared)
    web = Exchange(shared=shared)

    def slow(request):
        web.advance(delay)
        return 200, response.fields(), b""
    web.origin = slow
    web.get()
    web.advance(later)
    assert web.is_cached() == (response.age(delay) + later < response.lifetime())


@given(st.lists(st.tuples(
    st.sampled_from([
        "cache-control", "cdn-cache-control", "expires", "date", "age", "last-modified", "pragma"]),
    st.text(st.characters(max_codepoint=255), max_size=30)), max_size=5))
def test_junk_raises_nowhere(fields):
    web = Exchange(answering(*fields))
    web.get()
    web.get()


@pytest.mark.parametrize("fields", [
    [("cache-control", "max-age=3600")], [("cache-control", "max-age=99999999999")],
    [("cache-control", "MaX-aGe=3600")], [("cache-control", "foobar, max-age=3600")],
    [("cache-control", "max-age=3600"), ("expires", -7200), ("date", 0)],
    [("cache-control", "max-age=3600"), ("expires", "0")], [("expires", 3600), ("date", 0)],
    [("expires", 10), ("date", "foo")], [("expires", "Tue, 19 Jan 2138 14:14:08 GMT")],
    [("cache-control", "max-age=0, s-maxage=3600"), ("expires", -10)],
    [("cache-control", "max-age=3600, must-revalidate")], [("cache-control", "max-age=3600, immutable")],
    [("last-modified", -86400), ("date", 0)],
    [("cdn-cache-control", "max-age=3600")], [("cdn-cache-control", "max-age=3600"), ("expires", -10000)],
    [("cdn-cache-control", "max-age=3600"), ("cache-control", "no-store")],
    [("cdn-cache-control", "&&"), ("cache-control", "max-age=3600")],
])
def test_fresh(fields):
    web = Exchange(answering(*fields))
    web.get()
    web.advance(3)
    assert web.is_cached()


@pytest.mark.parametrize("fields", [
    [], [("cache-control", "max-age=2")], [("cache-control", "max-age=0")],
    [("cache-control", "max-age=-3600")], [("cache-control", "max-age='3600'")],
    [("cache-control", "max-age=3600a")],
    [("cache-control", "max-age=0"), ("expires", 3600)], [("cache-control", "max-age=3600, s-maxage=1")],
    [("cache-control", "max-age=3600"), ("age", "7200")],
    [("cache-control", "max-age=3600"), ("date", -7200)],
    [("expires", 0), ("date", 0)], [("expires", 300), ("date", 400)], [("expires", "0"), ("date", 0)],
    [("expires", 3600), ("expires", 3600)],
    [("expires", 10), ("date", -10), ("age", "25")], [("cache-control", "no-cache, max-age=3600")],
    [("cache-control", "no-store, max-age=3600")], [("cache-control", "private, max-age=3600")],
    [("cdn-cache-control", "max-age=1"), ("cache-control", "max-age=3600")],
    [("cdn-cache-control", "max-age=0"), ("expires", 3600)],
    [("cdn-cache-control", "no-cache"), ("cache-control", "max-age=3600")],
    [("cdn-cache-control", "private"), ("cache-control", "max-age=3600")],
    [("cdn-cache-control", "max-age=3600, &&"), ("cache-control", "no-store")],
    [("pragma", "no-cache"), ("last-modified", -86400)],
])
def test_not_fresh(fields):
    web = Exchange(answering(*fields))
    web.get()
    web.advance(3)
    assert not web.is_cached()


@pytest.mark.parametrize("status", [200, 203, 204, 404, 405, 410, 414, 501])
def test_heuristics_by_status(status):
    web = Exchange(answering(("last-modified", -86400), status=status))
    web.get()
    assert web.is_cached()


@pytest.mark.parametrize("status", [201, 202, 302, 403, 500, 502, 503, 504, 599])
def test_no_heuristics_by_status(status):
    web = Exchange(answering(("last-modified", -86400), status=status), stale_if_error=60, default_ttl=60)
    web.get()
    assert not web.is_cached()
    public = Exchange(answering(("last-modified", -86400), ("cache-control", "public"), status=status))
    public.get()
    assert public.is_cached()


@pytest.mark.parametrize("name", ["cookie", "authorization"])
def test_a_guess_is_not_for_requests_with_cookies_or_credentials(name):
    for options in ({"default_ttl": 60}, {}):
        web = Exchange(answering(("last-modified", -86400)), **options)
        web.get(headers={name: "a"})
        assert not web.is_cached()
        assert web.is_cached()
        assert not web.is_cached(headers={name: "a"})
        assert not web.cache.lookup(web.request(headers={name: "a"})).coalesce
        assert web.is_cached()
    private = Exchange(answering(("last-modified", -86400)), shared=False)
    private.get(headers={name: "a"})
    assert private.is_cached(headers={name: "a"})


def test_a_guess_is_at_most_a_day():
    web = Exchange(answering(("last-modified", "Thu, 01 Jan 1970 00:00:01 GMT")))
    web.get()
    web.advance(86_399)
    assert web.is_cached()
    web.advance(1)
    assert not web.is_cached()


def test_default_ttl_and_no_heuristics():
    web = Exchange(answering(), default_ttl=10)
    web.get()
    web.advance(9)
    assert web.is_cached()
    web.advance(1)
    assert not web.is_cached()
    strict = Exchange(answering(("last-modified", -86400)), heuristic=0)
    strict.get()
    assert not strict.is_cached()


@pytest.mark.parametrize(("control", "served"), [
    ("max-age=2", True), ("max-age=2, stale-if-error=1", False), ("max-age=2, must-revalidate", False),
    ("max-age=2, proxy-revalidate", False), ("max-age=2, no-cache", False), ("s-maxage=2", False),
    ("s-maxage=2, stale-if-error=60", True), ("max-age=2, must-revalidate, stale-if-error=60", False),
])
def test_what_may_be_served_stale(control, served):
    web = Exchange(answering(("cache-control", control), ("etag", '"a"')), stale_if_error=60)
    web.get()
    web.advance(5)
    web.origin = answering(status=503, body=b"")
    assert (web.get().status == 200) == served


def test_the_age_that_a_response_comes_with_goes_on():
    web = Exchange(answering(("cache-control", "max-age=3600"), ("age", "30")))
    web.get()
    web.advance(3)
    assert web.get()["age"] == "33"


def test_a_clock_that_steps_back_serves_no_negative_age():
    web = Exchange(answering(("cache-control", "max-age=3600")))
    web.get()
    web.advance(-100)
    assert web.get()["age"] == "0"
