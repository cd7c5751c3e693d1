"""Django's own tests of caches, from its source distribution, with CacheBackend in place of LocMemCache."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import django_upstream
import pytest
from watchdog import PATIENCE


def is_wanted(member):
    parts = Path(member.name).parts
    return parts[1:3] in [("tests", "cache"), ("tests", "templates")]


@pytest.fixture(scope="session")
def upstream_tests(django_sdist, tmp_path_factory):
    """The folder of tests."""
    where = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(django_sdist.archive()) as opened:
        members = [member for member in opened if is_wanted(member)]
        opened.extractall(where, members, filter="data")
    return next(where.iterdir()) / "tests"


def test_their_tests_pass(twin, upstream_tests):
    environment = os.environ | {"HEADGATE_PURE": "1" if twin.name == "pure" else "0"}
    command = [sys.executable, "-W", "error", django_upstream.__file__, upstream_tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"Ran (\d+) tests", done.stderr)[1]) >= 100
