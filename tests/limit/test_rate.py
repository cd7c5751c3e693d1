"""Rate: what its text says, and what it refuses."""

import math
import pickle

import pytest

from headgate import Rate, RateLimiter
from headgate.limit._rate import checked_rates


@pytest.mark.parametrize(
    ("text", "rate", "written"),
    [
        ("10/s", Rate(10, 1), "10/s"),
        ("5/10s", Rate(5, 10), "5/10s"),
        ("5 per 10 seconds", Rate(5, 10), "5/10s"),
        (" 5 / 10 s ", Rate(5, 10), "5/10s"),
        ("1 per second", Rate(1, 1), "1/s"),
        ("1 PER Second, Burst 2", Rate(1, 1, 2), "1/s, burst 2"),
        ("100/min", Rate(100, 60), "100/min"),
        ("100/m", Rate(100, 60), "100/min"),
        ("100 Per Minute, Burst 5", Rate(100, 60, 5), "100/min, burst 5"),
        ("10/second", Rate(10, 1), "10/s"),
        ("10/ 5 s", Rate(10, 5), "10/5s"),
        ("10 per 5min", Rate(10, 300), "10/5min"),
        ("1e3/s", Rate(1000, 1), "1000/s"),
        ("1/2 weeks", Rate(1, 1209600), "1/14day"),
        ("100 per 15 minutes", Rate(100, 900), "100/15min"),
        ("1000/h", Rate(1000, 3600), "1000/h"),
        ("1000/hours", Rate(1000, 3600), "1000/h"),
        ("7/day", Rate(7, 86400), "7/day"),
        ("7/week", Rate(7, 604800), "7/7day"),
        ("1/500ms", Rate(1, 0.5), "1/0.5s"),
        ("0.5/s", Rate(0.5, 1), "0.5/s"),
        ("2.5/1.5s", Rate(2.5, 1.5), "2.5/1.5s"),
        ("3/1e-05s", Rate(3, 1e-05), "3/1e-05s"),
        ("10/s, burst 20", Rate(10, 1, 20), "10/s, burst 20"),
        ("10/s,burst 1", Rate(10, 1, burst=1), "10/s, burst 1"),
    ],
)
def test_text(text, rate, written):
    assert Rate.parse(text) == rate
    assert str(rate) == written
    assert Rate.parse(written) == rate


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "/s", "x/s", "10/", "10/q", "10 s", "10/s/s", "10/s; 5/min", "1/month"),
        *("ten/s", "10/5", "10 requests/s", "10//s", "10/minms", "10 per", "10/s, 20", "10/s, burst"),
    ],
)
def test_bad_text(text):
    with pytest.raises(ValueError, match=r"^rate must be like '10/s', '5/10s' or '100/min, burst 200', got "):
        Rate.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/s, burst 5", "burst must be None with a limit of 0, got 5"),
        ("-1/s", "limit must be positive and finite, got -1.0"),
        ("1e400/s", "limit must be positive and finite, got inf"),
        ("nan/s", "limit must be positive and finite, got nan"),
        ("10/0s", "period must be positive and finite, got 0"),
        ("5/-2s", "period must be positive and finite, got -2.0"),
        ("10/s, burst 0", "burst must be positive and finite, got 0"),
        ("5000000000/min", "burst must be at most 4294967296, got 5000000000"),
    ],
)
def test_text_of_numbers_that_no_rate_has(text, message):
    with pytest.raises(ValueError) as caught:
        Rate.parse(text)
    assert str(caught.value) == f"{message} in {text!r}"


def test_text_must_be_text():
    with pytest.raises(TypeError, match=r"^rate must be a str, got 5$"):
        Rate.parse(5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1, 5), ValueError, "burst must be None with a limit of 0, got 5"),
        ((1, -1), ValueError, "period must be positive and finite, got -1"),
        ((1, 1, math.nan), ValueError, "burst must be positive and finite, got nan"),
        ((1, 1, 2**32 + 1), ValueError, "burst must be at most 4294967296, got 4294967297"),
        ((2**33, 1), ValueError, "burst must be at most 4294967296, got 8589934592"),
        ((2**32, 1e-10), ValueError, "limit / period must be at most 1e+18, got 4294967296 / 1e-10"),
        (("1", 1), TypeError, "limit must be a number, got '1'"),
    ],
)
def test_bad_numbers(arguments, error, message):
    with pytest.raises(error) as caught:
        Rate(*arguments)
    assert str(caught.value) == message


def test_a_value():
    rate = Rate(10, 60)
    assert (rate.limit, rate.period, rate.burst) == (10, 60, 10)
    assert rate == Rate(10.0, 60, 10)
    assert hash(rate) == hash(Rate(10, 60))
    assert pickle.loads(pickle.dumps(rate)) == rate
    assert repr(rate) == "Rate(limit=10, period=60, burst=10)"


def test_tiers():
    tiers = (Rate(1, 1), Rate(5, 10), Rate(10, 60))
    for rate in ("1/s; 5/10s; 10/min", ["1/s", Rate(5, 10), "10/min"], tiers):
        assert RateLimiter(rate).rates == tiers
    assert RateLimiter(Rate(5, 10)).rates == (Rate(5, 10),)
    assert RateLimiter("5/s", burst=7).rates == (Rate(5, 1, 7),)


@pytest.mark.parametrize(
    ("rate", "burst", "error", "message"),
    [
        (5, None, TypeError, "rate must be a str, a Rate or several of them, got 5"),
        ([5], None, TypeError, r"rate must be a str, a Rate or several of them, got \[5\]"),
        ([], None, ValueError, "rate must have 1 to 8 tiers, got 0"),
        (["1/s"] * 9, None, ValueError, "rate must have 1 to 8 tiers, got 9"),
        ("1/s; 2/min", 5, ValueError, "burst must be None with several tiers, got 5"),
        ("1/s; x", None, ValueError, "rate must be like '10/s', .*, got ' x' in '1/s; x'"),
        ("10/s;", None, ValueError, "rate must be like '10/s', .*, got '' in '10/s;'"),
        (";", None, ValueError, "rate must be like '10/s', .*, got '' in ';'"),
        ("", None, ValueError, "rate must be like '10/s', '5/10s' or '100/min, burst 200', got ''"),
        ("1/s", -1, ValueError, "burst must be positive and finite, got -1"),
        (Rate(1, 1)._replace(limit=-1), None, ValueError, "limit must be positive and finite, got -1"),
        (["1/s", Rate(1, 1)._replace(burst=0)], None, ValueError, "burst must be positive and finite, got 0"),
    ],
)
def test_bad_tiers(rate, burst, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        RateLimiter(rate, burst=burst)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10/s, 100/min", "tiers are separated by ';'"),
        ("10/s | 100/min", "tiers are separated by ';'"),
        ("10/month", "a month has no length of its own, say '30day'"),
        ("10/months", "a month has no length of its own, say '30day'"),
        ("10/M", "'M' may be a minute or a month, say 'min' or '30day'"),
    ],
)
def test_what_is_often_meant_is_explained(text, hint):
    with pytest.raises(ValueError, match=r"^rate must be like") as caught:
        checked_rates(text, None)
    assert f"got {text!r}: {hint}" in str(caught.value)


def test_a_rate_of_nothing():
    assert Rate.parse("0/min") == Rate(0, 60) == (0, 60, 0)
    assert str(Rate(0, 60)) == "0/min"
    assert Rate.parse("10/MIN") == Rate.parse("10/m") == Rate(10, 60)
