"""Many processes on one limit: together they are allowed what one would be, even if some are killed."""

import os
import subprocess
import sys
from pathlib import Path

import crowd
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes share a limit through fcntl")

CROWD = Path(crowd.__file__)
DECISIONS = {"compiled": 2_000_000, "pure": 40_000}
KILLS = {"compiled": 50, "pure": 20}


@pytest.fixture
def crowd(twin, tmp_path):
    """Runs a program of the crowd on a file, and reads the numbers that it prints."""
    def crowd(name, *arguments):
        command = [sys.executable, CROWD, name, twin.name, tmp_path / "limit", *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return list(map(int, done.stdout.split()))
    return crowd


@pytest.fixture
def kills(twin, exhaustive):
    return KILLS[twin.name] * (4 if exhaustive else 1)


@pytest.mark.parametrize("what", ["key", "bucket"])
def test_processes_are_admitted_what_one_would_be(crowd, twin, what):
    decisions = DECISIONS[twin.name]
    admitted = crowd(what, decisions // 4, decisions)
    assert sum(admitted) == decisions // 4
    assert sum(count > 0 for count in admitted) > 1


def test_processes_are_admitted_what_a_strict_one_would_be(crowd, twin):
    limit = {"compiled": 2000, "pure": 400}[twin.name]
    admitted = crowd("log", limit, 40 * limit)
    assert sum(admitted) == limit


def test_no_window_of_processes_has_more_than_the_limit(crowd):
    assert crowd("windows", 20, 20, 25) == [20]


@pytest.mark.parametrize("what", ["key", "bucket"])
def test_processes_that_are_interrupted_admit_no_more(crowd, twin, what):
    admitted, most = crowd(f"timed-{what}", {"compiled": 1_000_000, "pure": 20_000}[twin.name], 100, 0.5)
    assert 0 < admitted <= most


def test_processes_that_sweep_at_once_forget_nothing(crowd, twin):
    rounds = {"compiled": 100, "pure": 1}[twin.name]
    assert crowd("rested", rounds) == [20] * rounds


@pytest.mark.parametrize("rate", ["500/week", "501/week; 500/week"])
def test_a_kill_loses_one_token_at_most(crowd, kills, rate):
    """Where the second tier is the smaller one, what the first one took is given back, unless by a kill."""
    deaths, keys, most, lost, evictions, afterwards = crowd("killed", rate, kills)
    assert deaths >= kills
    assert keys > 1
    assert evictions == 0
    assert most == 500
    assert 0 <= lost <= deaths
    assert afterwards == 500


def test_a_kill_loses_one_entry_of_a_log_at_most(crowd, twin, kills):
    limit, max_keys = {"compiled": (2000, 1000), "pure": (100, 4000)}[twin.name]
    deaths, keys, most, lost, evictions, afterwards = crowd(
        "killed", f"{limit}/week", kills, max_keys, "strict"
    )
    assert deaths >= kills
    assert keys > 1
    assert evictions == 0
    assert most == limit
    assert 0 <= lost <= deaths
    assert afterwards == limit
