"""Vary: against a naive reference, normalised, bounded."""

import pytest
from http_exchange import Exchange
from hypothesis import given
from hypothesis import strategies as st

from headgate.httpcache._selecting import selecting_names

FIELDS = ("accept-encoding", "accept-language", "foo", "bar")
LANGUAGES = ["en", "de", "EN", "fr;q=0.5", "de;q=0.5", "*;q=0.1", "en;q=0"]
LISTS = st.lists(st.sampled_from(LANGUAGES), min_size=1, max_size=3).map(", ".join)
PLAIN = st.sampled_from(["1", "2", "1,2", "1, 2", " 1 ,2 ", '"1, 2"', "a b"])
REQUESTS = st.fixed_dictionaries({}, optional={
    "accept-encoding": LISTS, "accept-language": LISTS, "foo": PLAIN, "bar": PLAIN})


def meaning(name, value):
    """What a value of a field means, computed the plain way."""
    if value is None:
        return None
    if name.startswith("accept-"):
        members = [member.strip().lower().partition(";q=") for member in value.split(",")]
        return frozenset((language, float(quality or 1)) for language, _, quality in members)
    return value.strip() if '"' in value else tuple(part.strip(" ") for part in value.strip(" ").split(","))


@given(st.lists(st.tuples(st.sets(st.sampled_from(FIELDS)), REQUESTS), min_size=1, max_size=20))
def test_as_the_reference(exchanges):
    """A request is served exactly by a response whose selecting fields it has."""
    stored = []
    web = Exchange(max_variants=1000)
    for vary, headers in exchanges:
        web.origin = lambda request, vary=vary: (
            200, [("cache-control", "max-age=60"), ("vary", ", ".join(sorted(vary)))], b"")
        wanted = any(all(meaning(name, headers.get(name)) == meaning(name, other.get(name)) for name in names)
                     for names, other in stored)
        assert web.is_cached(headers=headers) == wanted
        if not wanted:
            stored.append((vary, headers))


def varied(name="foo", **fields):
    """An origin that varies its responses by a field, whose value they have as body."""
    headers = [("cache-control", "max-age=60"), ("vary", name), *fields.items()]
    return lambda request: (200, headers, (request.header(name) or "").encode())


@pytest.mark.parametrize(("name", "first", "second", "same"), [
    ("foo", "1", "1", True), ("foo", "1", "2", False), ("foo", None, "1", False), ("foo", "1", None, False),
    ("foo", None, None, True), ("foo", "1,2", " 1, 2 ", True), ("foo", "1, 2", "2, 1", False),
    ("accept-language", "en, de", "de, en", True), ("accept-language", "en, de", "eN,  De", True),
    ("accept-language", "en, de;q=0.5", "en;q=0.5, de", False),
    ("accept-encoding", "gzip, br", "br,gzip", True),
    ("accept-encoding", "gzip", "GZIP;q=1.0", True), ("accept-encoding", "gzip", "gzip;q=0", False),
    ("accept-encoding", "gzip;q=junk", "gzip;q=0", False),
])
def test_which_requests_are_the_same(name, first, second, same):
    web = Exchange(varied(name))
    web.get(headers={} if first is None else {name: first})
    assert web.is_cached(headers={} if second is None else {name: second}) == same


def test_lines_are_combined():
    web = Exchange(varied())
    web.get(headers=[("foo", "1"), ("foo", "2")])
    assert web.is_cached(headers={"foo": "1, 2"})
    cookies = Exchange(varied("cookie"))
    cookies.get(headers=[("cookie", "a=1"), ("cookie", "b=2")])
    assert cookies.is_cached(headers={"cookie": "a=1; b=2"})


def test_two_variants_are_stored():
    web = Exchange(varied())
    for value in "121":
        assert web.get(headers={"foo": value}).body == value.encode()
    assert len(web.forwarded) == 2
    assert web.get(headers={"foo": "3"})["cache-status"] == "headgate; fwd=vary-miss; fwd-status=200; stored"


def test_the_most_recent_response_is_selected():
    web = Exchange(varied("foo"))
    web.get(headers={"foo": "1", "bar": "1"})
    web.origin = lambda request: (200, [("cache-control", "max-age=60"), ("vary", "bar")], b"second")
    web.get(headers={"foo": "2", "bar": "2"})
    web.advance(1)
    web.get(headers={"foo": "3", "bar": "1"})
    assert web.get(headers={"foo": "1", "bar": "1"}).body == b"second"


@pytest.mark.parametrize("vary", ["*", "*, *", ", *", "*, foo", "foo, *"])
def test_star_matches_nothing(vary):
    web = Exchange(varied(vary))
    web.get()
    assert not web.is_cached()
    assert selecting_names(vary.encode()) is None


def test_endless_vary_is_a_star():
    web = Exchange(lambda request: (200, [("cache-control", "max-age=60"), *(
        ("vary", f"x-{number}") for number in range(10_000))], b""))
    web.get()
    assert web.cache.stats().entries == 0


def test_a_response_in_the_favourite_language_is_selected():
    web = Exchange(varied("accept-language", **{"content-language": "de"}))
    web.get(headers={"accept-language": "en, de"})
    assert web.is_cached(headers={"accept-language": "fr;q=0.5, de;q=1.0"})
    assert web.is_cached(headers={"accept-language": "DE"})
    assert not web.is_cached(headers={"accept-language": "fr, de"})
    assert not web.is_cached(headers={"accept-language": "*"})
    assert not web.is_cached(headers={"accept-language": "de;q=0"})


def test_the_favourite_language_is_not_all_that_counts():
    web = Exchange(varied("accept-language, foo", **{"content-language": "de"}))
    web.get(headers={"accept-language": "en, de", "foo": "1"})
    assert not web.is_cached(headers={"accept-language": "de", "foo": "2"})
    assert web.is_cached(headers={"accept-language": "de", "foo": "1"})


def test_variants_are_bounded_and_those_in_use_stay():
    web = Exchange(varied(), max_variants=4)
    web.get(headers={"foo": "favourite"})
    for number in range(3000):
        web.get(headers={"foo": str(number)})
        if number % 2:
            assert web.is_cached(headers={"foo": "favourite"})
    assert web.cache.stats().entries == 1


def test_variants_of_a_url_take_a_quarter_of_the_store():
    web = Exchange(lambda request: (200, [("cache-control", "max-age=60"), ("vary", "foo")], b"x" * 5000),
                   maxsize=100_000)
    web.get("http://example.com/other")
    for number in range(100):
        web.get(headers={"foo": str(number)})
    assert web.is_cached("http://example.com/other")
    assert web.cache.stats().currsize < 40_000


def test_followers_match_by_their_selecting_fields():
    web = Exchange(varied())
    request = web.request(headers={"foo": "1"})
    lookup = web.cache.lookup(request)
    admission = web.cache.admit(
        lookup, request, 200, [(b"cache-control", b"max-age=60"), (b"vary", b"foo")], web.cache.now())
    same, other = web.request(headers={"foo": " 1"}), web.request(headers={"foo": "2"})
    assert admission.matches(same) and not admission.matches(other)
    assert admission.variant(same) == admission.variant(request) != admission.variant(other)
    admission.store(b"")
    keys = [web.cache.lookup(web.request(headers={"foo": foo})).fill_key for foo in ("2", " 2 ", "3")]
    assert keys[0] == keys[1] != keys[2]


def test_a_guess_is_no_match_for_followers_with_cookies():
    web = Exchange()
    request = web.request()
    admission = web.cache.admit(
        web.cache.lookup(request), request, 200, [(b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT")], 0)
    personal = web.request(headers={"cookie": "a=b"})
    assert not admission.matches(personal)
    assert admission.variant(personal) != admission.variant(request)
