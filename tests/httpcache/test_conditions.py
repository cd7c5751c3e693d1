"""Conditional requests, received from clients and sent to origins."""

import pytest
from http_exchange import Exchange, answering
from hypothesis import given
from hypothesis import strategies as st

from headgate.httpcache._conditions import is_not_modified, matches_weakly

FRESH = ("cache-control", "max-age=60")
TAGS = st.lists(st.tuples(st.booleans(), st.text("abc,; ", max_size=3)), min_size=1, max_size=4)


def written(tags):
    return [("W/" if weak else "") + f'"{text}"' for weak, text in tags]


@given(TAGS, st.tuples(st.booleans(), st.sampled_from(["", "a", "b", "a,b", " "])))
def test_weak_comparison_as_the_reference(tags, own):
    condition, etag = ", ".join(written(tags)).encode(), written([own])[0].encode()
    assert matches_weakly(condition, etag) == (own[1] in [text for _, text in tags])


@pytest.mark.parametrize(("etag", "condition", "status"), [
    ('"a"', '"a"', 304), ('"a"', 'W/"a"', 304), ('W/"a"', '"a"', 304), ('W/"a"', 'W/"a"', 304),
    ('"a"', "*", 304),
    ('"a"', '"b", "a", "c"', 304), ('"a"', '"b"', 200), ('"a"', '"b,"a', 200), ('"a"', "a", 200),
    ("a", "a", 304),
    ('"ü"', '"ü"', 304), ('"a"', '"A"', 200), (None, '"a"', 200), (None, "*", 304), ('"a"', "", 200),
])
def test_if_none_match(etag, condition, status):
    web = Exchange(answering(FRESH, ("content-type", "text/plain"), *([("etag", etag)] if etag else [])))
    web.get()
    reply = web.get(headers={"if-none-match": condition})
    assert reply.status == status
    assert reply["etag"] == (None if etag is None else etag)
    assert (reply.body == b"") == (status == 304) == (reply["content-type"] is None)
    assert len(web.forwarded) == 1


def test_if_none_match_has_precedence():
    web = Exchange(answering(FRESH, ("etag", '"a"'), ("last-modified", -100)))
    web.get()
    assert web.get(headers={"if-none-match": '"b"', "if-modified-since": web.date()}).status == 200
    assert web.get(headers={"if-none-match": '"a"', "if-modified-since": web.date(-200)}).status == 304


@pytest.mark.parametrize(("modified", "since", "status"), [
    (-100, -100, 304), (-100, -50, 304), (-100, -101, 200), (None, 0, 304), (None, -100, 200),
])
def test_if_modified_since(modified, since, status):
    """Without Last-Modified, Date is compared: RFC 9111 4.3.2."""
    fields = [] if modified is None else [("last-modified", modified)]
    web = Exchange(answering(FRESH, ("date", 0), *fields))
    web.get()
    assert web.get(headers={"if-modified-since": web.date(since)}).status == status
    assert web.get(headers={"if-modified-since": "junk"}).status == 200


def test_a_date_of_the_old_form():
    web = Exchange(answering(FRESH, ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")))
    web.get()
    assert web.get(headers={"if-modified-since": "Sunday, 06-Nov-94 08:49:37 GMT"}).status == 304


@pytest.mark.parametrize("status", [404, 301, 500])
def test_only_a_200_becomes_a_304(status):
    web = Exchange(answering(FRESH, ("etag", '"a"'), status=status))
    web.get()
    assert web.get(headers={"if-none-match": '"a"'}).status == status


def test_a_head_is_served_from_a_get():
    web = Exchange(answering(FRESH, ("etag", '"a"')))
    web.get()
    reply = web.get(method="HEAD")
    assert (reply.status, reply.body, reply["content-length"]) == (200, b"", "4")
    assert web.get(method="HEAD", headers={"if-none-match": '"a"'}).status == 304
    assert len(web.forwarded) == 1


def test_a_head_is_not_stored_and_not_refreshed_by():
    web = Exchange(answering(("cache-control", "max-age=1, stale-while-revalidate=60")))
    web.get(method="HEAD")
    assert web.cache.stats().entries == 0
    web.get()
    web.advance(2)
    assert web.cache.lookup(web.request(method="HEAD")).kind == "pass"
    assert web.get().body == b"body"


def test_preconditions_are_removed_from_a_fill_and_evaluated_on_its_result():
    web = Exchange(answering(FRESH, ("etag", '"a"')))
    assert web.get(headers={"if-none-match": '"a"', "if-modified-since": web.date()}).status == 304
    assert web.sent("if-none-match") is None and web.sent("if-modified-since") is None
    assert web.get().body == b"body"
    other = Exchange(answering(FRESH, ("etag", '"a"')))
    assert other.get(headers={"if-none-match": '"b"'}).body == b"body"


def test_a_validation_sends_the_stored_validators_and_evaluates_the_clients():
    web = Exchange(answering(FRESH, ("etag", '"a"'), ("vary", "foo")))
    web.get(headers={"foo": "1"})
    web.advance(61)
    web.origin = answering(status=304, body=b"")
    reply = web.get(headers={"if-none-match": '"b"', "foo": "1"})
    assert (reply.status, reply.body) == (200, b"body")
    assert web.sent("if-none-match") == '"a"' and web.sent("foo") == "1"
    web.advance(61)
    assert web.get(headers={"if-none-match": '"a"', "foo": "1"}).status == 304


@pytest.mark.parametrize(("name", "updated"), [
    ("x-test", True), ("content-foo", True), ("etag", True), ("cache-control", True), ("content-type", True),
    ("content-security-policy", True), ("content-length", False), ("content-encoding", False),
    ("content-range", False), ("connection", None), ("keep-alive", None), ("ratelimit", None),
])
def test_which_fields_a_304_updates(name, updated):
    old, new = ("4", "9") if name == "content-length" else ("max-age=60, a", "max-age=60, b")
    web = Exchange(answering(*{"cache-control": "max-age=60", "etag": '"a"', name: old}.items()))
    web.get()
    web.advance(61)
    web.origin = answering((name, new), status=304, body=b"")
    web.get()
    assert web.get()[name] == (None if updated is None else new if updated else old)


@given(st.dictionaries(
    st.sampled_from([b"if-none-match", b"if-modified-since"]), st.binary(max_size=40)),
    st.binary(max_size=20))
def test_junk_raises_nowhere(fields, etag):
    is_not_modified(fields, etag, etag, 0.0)
