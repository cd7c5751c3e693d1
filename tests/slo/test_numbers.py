"""Nines, downtime and redundancy, against enumerations and simple sums."""

from itertools import product
from math import inf, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import downtime, k_of_n, nines, parallel, replicas, series

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(("availability", "seconds", "text"), [
    (0.99, 3600, "87.7"), (0.999, 3600, "8.8"), (0.9999, 60, "52.6"), (0.99999, 60, "5.3"),
])
def test_the_four_lines(availability, seconds, text):
    """99 % is 87.7 hours a year, 99.9 % 8.8 hours, 99.99 % 52.6 minutes, 99.999 % 5.3 minutes."""
    assert f"{downtime(availability) / seconds:.1f}" == text


@pytest.mark.parametrize("count", range(1, 13))
def test_nines_are_exact(count):
    assert nines(float("0." + "9" * count)) == count


def test_the_ends():
    assert nines(1) == inf and nines(0) == 0.0 == nines(0.0)
    assert str(nines(0)) == "0.0"
    assert downtime(1) == 0.0 and downtime(0, "day") == 86_400
    assert series() == 1.0 and parallel() == 0.0
    assert series(0.5) == parallel(0.5) == k_of_n(0.5, 1, 1) == 0.5
    assert k_of_n(0, 0, 3) == 1.0 and k_of_n(1, 3, 3) == 1.0 and k_of_n(0, 1, 3) == 0.0
    assert replicas(1, 1) == 1 and replicas(0.5, 0) == 1 and replicas(0.99, 0.99) == 1


@given(st.lists(SHARES, max_size=6))
def test_series_and_parallel(shares):
    assert series(*shares) == pytest.approx(prod(shares), abs=1e-12)
    assert parallel(*shares) == pytest.approx(1 - prod(1 - share for share in shares), abs=1e-12)


@given(SHARES, st.integers(1, 7), st.data())
def test_k_of_n_by_enumeration(share, n, data):
    k = data.draw(st.integers(0, n))
    expected = sum(prod(share if up else 1 - share for up in states)
                   for states in product((True, False), repeat=n) if sum(states) >= k)
    assert k_of_n(share, k, n) == pytest.approx(expected, abs=1e-12)


def test_parts_in_parallel_are_one_of_n():
    assert parallel(*[0.9] * 5) == k_of_n(0.9, 1, 5) == 0.99999
    assert series(*[0.9] * 5) == k_of_n(0.9, 5, 5) == 0.59049


@pytest.mark.parametrize("each", [0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.001])
@pytest.mark.parametrize("target", [0.6, 0.9, 0.99, 0.999, 0.9999, 0.999999])
def test_replicas_are_just_enough(each, target):
    count = replicas(each, target)
    if count <= 1000:
        assert k_of_n(each, 1, count) >= target
    if 1 < count <= 1000:
        assert k_of_n(each, 1, count - 1) < target


@pytest.mark.parametrize(("each", "nines_wanted"), [(0.9, 9), (0.99, 6), (0.999, 3)])
def test_replicas_add_their_nines_exactly(each, nines_wanted):
    """0.1 ** n is not 1e-n in binary; nobody should buy a replica for that."""
    for count in range(1, nines_wanted + 1):
        target = float("0." + "9" * round(count * nines(each)))
        assert replicas(each, target) == count


def test_very_many_replicas():
    assert replicas(1e-9, 0.999) == pytest.approx(6.9e9, rel=0.01)
    assert k_of_n(0.999, 990, 1000) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: nines(99.9), ValueError, "availability must be from 0 to 1, got 99.9; 99.9 % is 0.999"),
    (lambda: nines(-0.1), ValueError, "availability must be from 0 to 1, got -0.1"),
    (lambda: nines(float("nan")), ValueError, "availability must be from 0 to 1, got nan"),
    (lambda: nines("0.9"), TypeError, "availability must be a number, got '0.9'"),
    (lambda: downtime(0.9, "fortnight"), ValueError,
     "period must be a duration such as \"30 d\" or \"5 min\", got 'fortnight'"),
    (lambda: series(0.9, 2000), ValueError, "availability must be from 0 to 1, got 2000"),
    (lambda: parallel(*[0.9] * 1001), ValueError, "availabilities must be at most 1000, got 1001"),
    (lambda: k_of_n(0.9, 4, 3), ValueError, "k must be from 0 to n = 3, got 4"),
    (lambda: k_of_n(0.9, -1, 3), ValueError, "k must be from 0 to n = 3, got -1"),
    (lambda: k_of_n(0.9, 1, 0), ValueError, "n must be from 1 to 1000, got 0"),
    (lambda: k_of_n(0.9, 1.0, 2), TypeError, "k must be an int, got 1.0"),
    (lambda: replicas(0, 0.9), ValueError, "availability must be above 0, got 0"),
    (lambda: replicas(0.9, 1), ValueError, "target must be less than 1 with an availability of less, got 1"),
    (lambda: replicas(0.9, 99), ValueError, "target must be from 0 to 1, got 99; 99 % is 0.99"),
])
def test_what_is_refused(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert str(raised.value) == message
