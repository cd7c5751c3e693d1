"""Values of header fields, and that junk never raises."""

from datetime import UTC, datetime
from email.utils import format_datetime
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.httpcache._fields import (
    MOST_SECONDS,
    parse_age,
    parse_cache_control,
    parse_date,
    parse_names,
    parse_seconds,
    parse_targeted,
)

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1).map(str.encode)
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._", min_size=1).map(str.encode)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@pytest.mark.parametrize(("value", "directives"), [
    (b"", {}),
    (b"max-age=60", {b"max-age": b"60"}),
    (b"MAX-AGE=60,Public", {b"max-age": b"60", b"public": None}),
    (b'max-age="60"', {b"max-age": b"60"}),
    (b"max-age=60, max-age=1", {b"max-age": b"60"}),
    (b'x="max-age=3600", max-age=1', {b"x": b"max-age=3600", b"max-age": b"1"}),
    (b'max-age=1, x="max-age=3600"', {b"max-age": b"1", b"x": b"max-age=3600"}),
    (b'x="a\\"b, c"', {b"x": b'a"b, c'}),
    (b"max-age =60", {b"max-age": b"=60"}),
    (b"max-age= 60", {b"max-age": b"60"}),
    (b", ,no-store,,", {b"no-store": None}),
    (b"no-store;max-age=60", {b"no-store;max-age": b"60"}),
    (b'no-cache="a, b"', {b"no-cache": b"a, b"}),
    (b'x="unterminated, no-store', {b"x": b'"unterminated', b"no-store": None}),
])
def test_cache_control(value, directives):
    assert parse_cache_control(value) == directives


@given(
    st.dictionaries(NAMES, st.one_of(st.none(), TOKENS, TEXTS), max_size=6), st.sampled_from([b",", b" , "]))
def test_well_formed_directives_come_back(directives, comma):
    members, wanted = [], {}
    for name, argument in directives.items():
        if isinstance(argument, str):
            quoted = argument.replace("\\", "\\\\").replace('"', '\\"')
            members.append(name + b'="' + quoted.encode() + b'"')
            wanted[name] = argument.encode() or None
        else:
            members.append(name if argument is None else name + b"=" + argument)
            wanted[name] = argument
    assert parse_cache_control(comma.join(members)) == wanted


@pytest.mark.parametrize(("text", "seconds"), [
    (b"0", 0), (b"60", 60), (b"0060", 60), (b"2147483648", MOST_SECONDS), (b"9" * 5000, MOST_SECONDS),
    (b"", None), (b"-1", None), (b"+1", None), (b"1.0", None), (b" 1", None), (b"1a", None), (b"1_0", None),
    (None, None),
    (b"0" * 9000 + b"7", 7), ("٣".encode(), None),
])
def test_seconds(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(("value", "age"), [
    (None, 0), (b"", 0), (b"abc", 0), (b"-7200", 0), (b"7200.0", 0), (b"2147483649", MOST_SECONDS),
    (b"7200, 0", 7200), (b"0, 7200", 0), (b" 5 ", 5), (b"7200;foo=bar", 0),
])
def test_age(value, age):
    assert parse_age(value) == age


NOON = 2_544_400_878  # Thu, 18 Aug 2050 02:01:18 GMT
NOW = 1_796_000_000


@pytest.mark.parametrize("value", [
    b"Thu, 18 Aug 2050 02:01:18 GMT", b"THU, 18 aUG 2050 02:01:18 gmt", b" Thu, 18 Aug 2050 02:01:18 GMT ",
    b"Thursday, 18-Aug-50 02:01:18 GMT", b"Thu Aug 18 02:01:18 2050",
])
def test_dates(value):
    assert parse_date(value, NOW) == NOON


@pytest.mark.parametrize("value", [
    b"", b"0", b"Thu, 18 Aug 2050 02:01:18 UTC", b"Thu, 18 Aug 2050 02:01:18 AEST",
    b"Thu, 18 Aug 50 02:01:18 GMT",
    b"Thu 18 Aug 2050 02:01:18 GMT", b"Thu, 18  Aug  2050 02:01:18 GMT", b"Thu, 18-Aug-2050 02:01:18 GMT",
    b"Thu, 18 Aug 2050 02.01.18 GMT", b"Thu, 18 Aug 2050 2:01:18 GMT", b"Thu, 32 Aug 2050 02:01:18 GMT",
    b"Thu, 30 Feb 2050 02:01:18 GMT", b"Thu, 18 Aug 2050 24:01:18 GMT", b"Thu, 18 Aug 2050 02:01:61 GMT",
    b"Thu, 18 Aug 0000 02:01:18 GMT", b"Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:19 GMT",
    b"Thu Aug  8 02:01:18 205", b"Thu Aug 8 02:01:18 2050",
])
def test_no_dates(value):
    assert parse_date(value, NOW) is None


def test_leap_seconds_and_years_of_two_digits():
    assert parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == parse_date(b"Sat, 31 Dec 2016 23:59:59 GMT")
    assert parse_date(b"Saturday, 31-Dec-76 23:59:59 GMT", NOW) > NOW
    assert parse_date(b"Friday, 31-Dec-77 23:59:59 GMT", NOW) < NOW


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59)))
def test_every_date_comes_back(moment):
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_date(format_datetime(moment, usegmt=True).encode()) == int(moment.timestamp())
    assert parse_date(moment.ctime().encode()) == int(moment.timestamp())


@pytest.mark.parametrize(("value", "directives"), [
    (b"max-age=60", {b"max-age": b"60"}),
    (b"foobar, max-age=3600", {b"foobar": None, b"max-age": b"3600"}),
    (b"max-age=60;a=b, no-store=?0, private=?1", {b"max-age": b"60", b"private": None}),
    (b'a="x, y";p, b=(1 2;q "c"), c=:aGk=:, d=1.5, e=tok/en, f=@1', {
        b"a": b"x, y", b"b": b'(1 2;q "c")', b"c": b":aGk=:", b"d": b"1.5", b"e": b"tok/en", b"f": b"@1"}),
    (b"max-age=1, max-age=2", {b"max-age": b"2"}),
])
def test_targeted(value, directives):
    assert parse_targeted(value) == directives


@pytest.mark.parametrize("value", [
    b"", b"  ", b"max-age=10000, &&&&&", b'max-age="10000"', b"max-age", b"max-age=1.5", b"MaX-aGe=3600",
    b"max-age =100", b"max-age= 100", b"max-age=100,", b"max-age=100 no-store", b"max-age=1234567890123456",
    b"a=(1", b'a="b', b"a=\xff",
])
def test_targeted_fields_that_are_ignored(value):
    assert parse_targeted(value) is None


def test_names():
    assert parse_names(b" A ,b\tc,, a") == (b"a", b"b", b"c")
    assert parse_names(None) == ()


@given(st.binary(max_size=300))
def test_junk_raises_nowhere(value):
    for parse in (parse_cache_control, parse_seconds, parse_age, parse_date, parse_targeted, parse_names):
        parse(value)


@pytest.mark.parametrize(
    "piece", [b'a="', b'x="\\"', b"a=(", b"a=(1 ", b'a="\\', b"a;b", b",", b"a=1;", b"a=:aa", b" "])
def test_long_junk_takes_no_time(piece):
    """Milliseconds each; what backtracks would take minutes."""
    value = piece * (65536 // len(piece))
    started = perf_counter()
    for parse in (parse_cache_control, parse_targeted, parse_names, parse_date):
        parse(value)
    assert perf_counter() - started < 20
