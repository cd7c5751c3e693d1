"""Decisions over HTTP: the fields of a response and the body of a denial."""

import json
import re
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import Twin, twin_names

from headgate import AddressLimiter, Decision, Rate, RateLimits
from headgate.limit._decision import with_details

ITEM = re.compile(r'"((?:[^"\\]|\\["\\])*)";([a-z]+)=(\d+);([a-z]+)=(\d+)')
NUMBERS = st.floats(1e-4, 1e4) | st.integers(1, 10**5)


def item(field):
    """The name and the parameters of a RateLimit field."""
    name, *parameters = ITEM.fullmatch(field).groups()
    return name, dict(zip(parameters[::2], map(int, parameters[1::2]), strict=True))


def exhausted(twin, clock, rate, **options):
    """The last allowed decision for a key, and the denial after it."""
    limiter = twin.keyed.RateLimiter(rate, clock=clock, **options)
    while decision := limiter.decide("ann"):
        allowed = decision
    return allowed, decision


def test_an_allowed_request(twin, clock):
    decision = twin.keyed.RateLimiter("10/min", clock=clock).decide("ann", 3)
    assert decision.headers() == {
        "RateLimit-Policy": '"10/min";q=10;w=60',
        "RateLimit": '"10/min";r=7;t=18',
    }


def test_a_denied_request(twin, clock):
    _, denied = exhausted(twin, clock, "10/min")
    clock.advance(0.1)
    assert denied.headers("api", x_headers=True) == {
        "RateLimit-Policy": '"api";q=10;w=60',
        "RateLimit": '"api";r=0;t=6',
        "Retry-After": "6",
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "60",
    }


def test_the_policy_is_that_of_the_tier_that_decided(twin, clock):
    _, denied = exhausted(twin, clock, "100/s; 3/min")
    assert item(denied.headers()["RateLimit"]) == ("3/min", {"r": 0, "t": 20})


@pytest.mark.parametrize("rate", ["7/s", "1000/s", "3/min", "1/7s", "5/h", "10/500ms"])
def test_a_client_that_waits_as_long_as_retry_after_is_never_early(twin, clock, rate):
    limiter = twin.keyed.RateLimiter(rate, clock=clock)
    for _ in range(50):
        if decision := limiter.decide("ann"):
            continue
        clock.advance(int(decision.headers()["Retry-After"]))
        assert limiter.allow("ann")


def test_the_fields_of_a_bucket(twin, clock):
    decision = twin.bucket.TokenBucket(5, 2, clock=clock).decide()
    assert item(decision.headers()["RateLimit-Policy"]) == ("2/s, burst 5", {"q": 5, "w": 3})


@given(limit=NUMBERS, period=NUMBERS, burst=NUMBERS, remaining=st.floats(0, 1), times=st.floats(0, 1))
def test_the_fields_are_well_formed_and_never_promise_too_much(limit, period, burst, remaining, times):
    rate = Rate(limit, period, burst)
    whole = rate.burst * rate.period / rate.limit
    for allowed in (True, False):
        decision = Decision(
            allowed, rate.burst, rate.burst * remaining, whole * times, whole * times, str(rate)
        )
        fields = decision.headers()
        name, quota = item(fields["RateLimit-Policy"])
        assert name == str(rate)
        assert quota["w"] >= max(1, whole)
        assert quota["q"] <= rate.burst
        name, left = item(fields["RateLimit"])
        assert name == str(rate)
        assert left["r"] <= min(quota["q"], decision.remaining)
        assert 0 <= left["t"] <= quota["w"]
        assert ("Retry-After" in fields) is not allowed
        if not allowed:
            assert left["t"] <= int(fields["Retry-After"]) == max(1, ceil(decision.retry_after))


def lower(fields):
    """The fields of a dict as pairs of bytes."""
    return [(name.lower().encode(), value.encode()) for name, value in fields.items()]


@given(allowed=st.booleans(), remaining=st.floats(-1, 9), after=st.floats(0, 1e3) | st.just(inf))
def test_fields_are_the_headers_as_bytes(allowed, remaining, after):
    rates = ("9/s", Rate(5, 1))
    decision = Decision(allowed, 5, remaining, 0.0 if allowed else after, 0.5, "ip: 5/s")
    draft, both = decision.headers(), decision.headers(x_headers=True)
    legacy = {name: value for name, value in both.items() if not name.startswith("RateLimit")}
    assert decision.fields() == lower(draft)
    assert decision.fields(style="both") == lower(both)
    assert decision.fields(style="legacy") == lower(legacy)
    assert decision.fields("api", policies=rates) == lower(decision.headers("api", policies=rates))
    assert ("Retry-After" in legacy) == ("Retry-After" in draft) == (not allowed and after < inf)


SECONDS = st.floats(0, 1e16) | st.sampled_from([0.0, 1.0, 60, 1e300, inf])


@given(
    allowed=st.booleans(), limit=NUMBERS | st.just(2**32), remaining=st.floats(-1, 1e17) | st.integers(0, 9),
    after=SECONDS, reset=SECONDS, more=st.none() | st.floats(0, 1e6),
    name=st.sampled_from([None, "api", "", 5]),
    rate=st.sampled_from(["9/s", "ip: 5/min, burst 9", "0/s", "1/52week", "often", ""]),
    policies=st.sampled_from([(), ("9/s", Rate(1, 1)), ["9/s"], (["9/s"],), {"ip": [Rate(2, 60)]}, "1/h", 5]),
    style=st.sampled_from(["draft", "legacy", "both", "none"]),
)
def test_the_twins_make_the_same_fields(allowed, limit, remaining, after, reset, more, name, rate, policies,
                                        style):
    decision = with_details(Decision(allowed, limit, remaining, after, reset, rate), (), more)

    def made(twin):
        try:
            return twin.fields.fields_of(decision, name, policies, style)
        except (TypeError, ValueError) as error:
            return type(error), str(error)

    results = [made(Twin(twin)) for twin in twin_names()]
    assert all(result == results[0] for result in results)


def test_fields_of_another_style():
    decision = Decision(True, 5, 4, 0.0, 0.2, "5/s")
    assert decision.fields(style="legacy") == [
        (b"x-ratelimit-limit", b"5"), (b"x-ratelimit-remaining", b"4"), (b"x-ratelimit-reset", b"1"),
    ]
    for style in ("Draft", None, "", 5):
        with pytest.raises(ValueError, match=f"^style must be one of draft, legacy, both, got {style!r}$"):
            decision.fields(style=style)


def test_the_policies_of_levels_follow_their_rates(twin, clock):
    api = twin.keyed.RateLimiter("9/s", clock=clock)
    limits = RateLimits(ip="2/s", api=api, clock=clock)
    assert limits.policies == ("ip: 2/s", "api: 9/s")
    assert limits.policies is limits.policies
    api.reconfigure("3/s; 5/min")
    assert limits.policies == ("ip: 2/s", "api: 3/s", "api: 5/min")
    limits.reconfigure(ip="4/s")
    assert limits.policies == ("ip: 4/s", "api: 3/s", "api: 5/min")
    decision = limits.decide(ip="::1")
    assert decision.fields(policies=limits.policies) == decision.fields(policies=limits.rates)


def test_other_policies_are_listed_too(twin, clock):
    limiter = twin.keyed.RateLimiter("100/s; 3/min, burst 5; 100/s", clock=clock)
    fields = limiter.decide("ann").headers(policies=limiter.rates)
    assert fields["RateLimit-Policy"].split(", \"") == ['"100/s";q=100;w=1', '3/min, burst 5";q=5;w=100']
    assert item(fields["RateLimit"])[0] == "3/min, burst 5"
    named = limiter.decide("ann").headers("slow", policies=limiter.rates)
    assert named["RateLimit-Policy"] == '"100/s";q=100;w=1, "slow";q=5;w=100'
    assert item(named["RateLimit"])[0] == "slow"
    own = Decision(True, 5, 4, 0.0, 0.2, "user: 5/s").headers(policies=["ip: 9/s", Rate(1, 1)])
    assert own["RateLimit-Policy"] == '"ip: 9/s";q=9;w=1, "1/s";q=1;w=1, "user: 5/s";q=5;w=1'
    with pytest.raises(ValueError, match=r"rate must be like .*, got 'often'"):
        limiter.peek("ann").headers(policies=["often"])


def test_no_policy_no_fields():
    decision = Decision(True, float("inf"), float("inf"), 0.0, 0.0, "")
    assert decision.headers(x_headers=True) == {}


def test_the_longest_times_are_integers_of_a_structured_field():
    decision = Decision(False, 2**32, 0.0, 1e300, 1e300, str(Rate(1e-300, 1, 2**32)))
    fields = decision.headers()
    assert item(fields["RateLimit-Policy"])[1] == {"q": 2**32, "w": 10**15 - 1}
    assert fields["Retry-After"] == "999999999999999"


def test_names_are_quoted():
    decision = Decision(True, 10, 9, 0.0, 1.0, "10/s")
    assert decision.headers(r'a"b\c')["RateLimit"] == r'"a\"b\\c";r=9;t=1'
    for name in ("na\u00efve", "a\nSet-Cookie: b"):
        with pytest.raises(ValueError, match="name must be printable ASCII"):
            decision.headers(name)


def test_names_and_policies_of_other_types_are_named():
    decision = Decision(False, 10, 9, 1.0, 1.0, "10/s")
    for call in (decision.headers, decision.problem):
        for name in (5, ["api"]):
            with pytest.raises(TypeError) as caught:
                call(name)
            assert str(caught.value) == f"name must be a str or None, got {name!r}"
    with pytest.raises(TypeError, match=r"^policies must be rates, their texts or rates by level, got 5$"):
        decision.headers(policies=5)
    for one in ("9/min", Rate(9, 60)):
        assert decision.headers(policies=one)["RateLimit-Policy"] == '"9/min";q=9;w=60, "10/s";q=10;w=1'


def test_what_is_no_rate_is_named():
    with pytest.raises(ValueError, match=r"rate must be like .*, got 'often'"):
        Decision(True, 10, 9, 0.0, 1.0, "often").headers()


def test_the_body_of_a_denial(twin, clock):
    allowed, denied = exhausted(twin, clock, "1/min")
    assert json.loads(json.dumps(denied.problem())) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "Try again in 60 seconds.",
        "violated-policies": ["1/min"],
    }
    soon = denied._replace(retry_after=0.2).problem("api")
    assert (soon["detail"], soon["violated-policies"]) == ("Try again in 1 second.", ["api"])
    with pytest.raises(ValueError, match="decision must be a denial, got Decision"):
        allowed.problem()


def test_where_nothing_is_left_t_is_until_there_is_more(twin, clock):
    limiter = twin.keyed.RateLimiter("100/min", clock=clock)
    fields = [limiter.decide("ann").headers()["RateLimit"] for _ in range(101)]
    assert fields[0] == '"100/min";r=99;t=1'
    assert fields[49] == '"100/min";r=50;t=30'
    assert fields[98:] == ['"100/min";r=1;t=60', '"100/min";r=0;t=1', '"100/min";r=0;t=1']
    costly = limiter.decide("ann", 50).headers()
    assert (costly["RateLimit"], costly["Retry-After"]) == ('"100/min";r=0;t=1', "30")
    clock.advance(3)
    costly = limiter.decide("ann", 50).headers()
    assert (costly["RateLimit"], costly["Retry-After"]) == ('"100/min";r=5;t=27', "27")


def test_a_strict_limit_returns_when_its_oldest_request_is_over(twin, clock):
    limiter = twin.keyed.RateLimiter("2/min", strict=True, max_keys=8, clock=clock)
    assert limiter.decide("ann").headers()["RateLimit"] == '"2/min";r=1;t=60'
    clock.advance(20)
    assert limiter.decide("ann").headers()["RateLimit"] == '"2/min";r=0;t=40'
    assert limiter.peek("ann", 0).headers()["RateLimit"] == '"2/min";r=0;t=40'
    assert limiter.decide("ann").headers()["RateLimit"] == '"2/min";r=0;t=40'


def test_a_limit_of_nothing_promises_nothing(twin, clock):
    decision = twin.keyed.RateLimiter("0/min", clock=clock).decide("ann")
    assert decision.headers() == {"RateLimit-Policy": '"0/min";q=0;w=60', "RateLimit": '"0/min";r=0'}
    assert decision.problem()["detail"] == "Such requests are not allowed."


@pytest.mark.usefixtures("limits_of_twin")
def test_all_policies_that_deny_are_named(twin, clock):
    tiers = twin.keyed.RateLimiter("9/s; 1/min; 1/h", clock=clock)
    assert tiers.decide("ann").violated == ()
    assert tiers.decide("ann").problem()["violated-policies"] == ["1/min", "1/h"]
    assert tiers.decide("ann").problem("api")["violated-policies"] == ["1/min", "api"]
    addresses = AddressLimiter("1/s", v4={32: 1, 24: 2}, clock=clock)
    limits = RateLimits(ip=addresses, user="1/min; 9/h", clock=clock)
    assert limits.allow(ip="192.0.2.1", user="ann")
    denied = limits.decide(ip="192.0.2.1", user="ann")
    assert denied.problem()["violated-policies"] == ["ip: /32: 1/s", "user: 1/min"]
    fields = limits.peek(user="bob").headers(policies=limits.rates)
    assert fields["RateLimit-Policy"] == '"ip: 1/s";q=1;w=1, "user: 1/min";q=1;w=60, "user: 9/h";q=9;w=3600'
    assert Decision(False, 1, 0.0, 0.5, 1.0, "1/s").violated == ("1/s",)
