"""Durations as people write them."""

import pytest

from headgate._base.durations import checked_duration, written_duration


@pytest.mark.parametrize(("text", "seconds"), [
    ("30 d", 2_592_000), ("30d", 2_592_000), (" 1.5 hours ", 5400), ("5 MIN", 300), ("250 ms", 0.25),
    ("week", 604_800), ("2 weeks", 1_209_600), ("5m", 300), ("1 year", 31_557_600), ("10 Secs", 10),
    (5, 5), (0.5, 0.5),
])
def test_what_is_read(text, seconds):
    assert checked_duration("window", text) == seconds


@pytest.mark.parametrize("text", [
    "", "5", "d d", "1 month", "5 M", "1e5", "-5 s", "0 s", "inf d", "nan s", "5,5 s",
])
def test_what_is_not(text):
    with pytest.raises(ValueError, match="window must be "):
        checked_duration("window", text)


def test_other_types():
    for value in (None, [], b"5 s"):
        with pytest.raises(TypeError, match="window must be a number, got "):
            checked_duration("window", value)


def test_what_is_written():
    assert [written_duration(seconds) for seconds in (2_592_000, 43_200, 90, 300, 0.25)] == [
        "30 d", "12 h", "90 s", "5 min", "0.25 s"]
