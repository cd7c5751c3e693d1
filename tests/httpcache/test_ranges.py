"""Ranges of stored responses, against a naive reference."""

import pytest
from http_exchange import Exchange, answering
from hypothesis import given
from hypothesis import strategies as st

from headgate.httpcache._ranges import MOST_RANGES, parse_ranges

FRESH = ("cache-control", "max-age=60")
BODY = b"0123456789"
SPECS = st.one_of(
    st.tuples(st.integers(0, 14), st.integers(0, 14)), st.tuples(st.integers(0, 14), st.none()),
    st.tuples(st.none(), st.integers(0, 14)))


def written(first, last):
    return f"{'' if first is None else first}-{'' if last is None else last}"


def selected(first, last, body):
    """The bytes of a range by counting them; None for an invalid one."""
    if first is None:
        return body[len(body) - min(last, len(body)):]
    if last is not None and last < first:
        return None
    end = len(body) if last is None else last + 1
    return bytes(byte for position, byte in enumerate(body) if first <= position < end)


@given(SPECS, st.binary(max_size=12))
def test_one_range_as_the_reference(spec, body):
    wanted = selected(*spec, body)
    web = Exchange(answering(FRESH, body=body))
    web.get()
    reply = web.get(headers={"range": f"bytes={written(*spec)}"})
    if wanted is None:
        assert (reply.status, reply.body) == (200, body)
    elif not wanted:
        assert (reply.status, reply.body, reply["content-range"]) == (416, b"", f"bytes */{len(body)}")
    else:
        start = body.index(wanted) if spec[0] is None else spec[0]
        start = len(body) - len(wanted) if spec[0] is None else start
        assert (reply.status, reply.body) == (206, wanted)
        assert reply["content-range"] == f"bytes {start}-{start + len(wanted) - 1}/{len(body)}"
    assert reply["content-length"] == str(len(reply.body))


@given(st.lists(SPECS, min_size=2, max_size=5))
def test_several_ranges_as_the_reference(specs):
    parts = [selected(*spec, BODY) for spec in specs]
    web = Exchange(answering(FRESH, ("content-type", "text/plain"), body=BODY))
    web.get()
    reply = web.get(headers={"range": "bytes=" + ", ".join(written(*spec) for spec in specs)})
    satisfied = [part for part in parts if part]
    if None in parts or sum(map(len, satisfied)) > len(BODY):
        assert (reply.status, reply.body) == (200, BODY)
    elif not satisfied:
        assert reply.status == 416
    elif len(satisfied) == 1:
        assert (reply.status, reply.body) == (206, satisfied[0])
    else:
        kind, _, boundary = reply["content-type"].partition("; boundary=")
        assert (reply.status, kind) == (206, "multipart/byteranges")
        sections = reply.body.split(b"\r\n--" + boundary.encode())
        assert sections[0] == b"" and sections[-1] == b"--\r\n"
        assert [section.partition(b"\r\n\r\n")[2] for section in sections[1:-1]] == satisfied
        assert all(b"Content-Type: text/plain" in section for section in sections[1:-1])
        assert reply["content-length"] == str(len(reply.body))


@pytest.mark.parametrize("value", [
    "", "bytes", "bytes=", "bytes=,", "bytes=-", "bytes=a-b", "bytes=1", "bytes=2-1", "lines=0-1",
    "bytes=1-2-3",
    "bytes= ,,", "bytes=0-1;x", "bytes=" + "9" * 50 + "-", "bytes=" + ",".join(["0-0"] * (MOST_RANGES + 1)),
    "bytes=0-9,0-9",
])
def test_ranges_that_are_ignored(value):
    assert parse_ranges(value.encode(), 10) is None


def test_a_unit_in_capitals_and_space():
    assert parse_ranges(b"Bytes= 0-1 , 3-3", 10) == [(0, 2), (3, 4)]


@pytest.mark.parametrize(("condition", "partial"), [
    ('"a"', True), ('"b"', False), ('W/"a"', False), ("junk", False), (-100, True), (-50, False),
    (None, True),
])
def test_if_range(condition, partial):
    web = Exchange(answering(FRESH, ("etag", '"a"'), ("last-modified", -100), ("date", 0), body=BODY))
    web.get()
    headers = {"range": "bytes=0-1"}
    if condition is not None:
        headers["if-range"] = web.date(condition) if isinstance(condition, int) else condition
    assert web.get(headers=headers).status == (206 if partial else 200)


def test_if_range_with_a_weak_date():
    """A response that was modified in the second in which it was made may have changed since."""
    web = Exchange(answering(FRESH, ("last-modified", 0), ("date", 0), body=BODY))
    web.get()
    assert web.get(headers={"range": "bytes=0-1", "if-range": web.date()}).status == 200


def test_only_a_200_has_ranges():
    web = Exchange(answering(FRESH, status=404, body=BODY))
    web.get()
    assert web.get(headers={"range": "bytes=0-1"}).status == 404


def test_a_304_precedes_a_range_and_a_head_has_none():
    web = Exchange(answering(FRESH, ("etag", '"a"'), body=BODY))
    web.get()
    assert web.get(headers={"range": "bytes=0-1", "if-none-match": '"a"'}).status == 304
    assert web.get(headers={"range": "bytes=0-1"}, method="HEAD").status == 200


def test_a_range_that_misses_passes_as_it_is():
    web = Exchange(answering(FRESH, ("content-range", "bytes 0-1/10"), status=206, body=b"01"))
    assert web.get(headers={"range": "bytes=0-1"}).status == 206
    assert web.sent("range") == "bytes=0-1"
    assert web.cache.stats().entries == 0 and web.cache.lookup(web.request()).coalesce


def test_a_stale_response_is_validated_whole_for_a_range():
    web = Exchange(answering(FRESH, ("etag", '"a"'), body=BODY))
    web.get()
    web.advance(61)
    web.origin = answering(FRESH, ("etag", '"b"'), body=b"abcdefghij")
    reply = web.get(headers={"range": "bytes=0-1", "if-range": '"b"'})
    assert (reply.status, reply.body, web.sent("range")) == (206, b"ab", None)


@given(st.binary(max_size=60), st.integers(0, 20))
def test_junk_raises_nowhere(value, length):
    parse_ranges(b"bytes=" + value, length)
    parse_ranges(value, length)
