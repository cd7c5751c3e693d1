"""Django's own tests of caches, from its source distribution, with CacheBackend in place of LocMemCache."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import django
import django_upstream
import pytest
from watchdog import PATIENCE

WANTED = f"django=={django.__version__}"
DOWNLOAD = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-binary", "django",
            "--no-deps", "--no-build-isolation", "--retries", "1", "--timeout", "10", WANTED]


def download(where):
    alien = {"HEADGATE_PURE", "LD_PRELOAD", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in alien}
    done = subprocess.run([sys.executable, *DOWNLOAD, "-d", where], env=environment, capture_output=True,
                          text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"pip cannot download {WANTED}: {done.stderr.strip().splitlines()[-1]}")


def is_wanted(member):
    parts = Path(member.name).parts
    return parts[1:3] in [("tests", "cache"), ("tests", "templates")]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of tests, from the archive in the folder HEADGATE_DJANGO, or else from the index."""
    where = tmp_path_factory.mktemp("django")
    name = f"[dD]jango-{django.__version__}.tar.gz"
    archives = list(Path(os.environ.get("HEADGATE_DJANGO", where)).glob(name))
    if not archives:  # or there is that of another version
        download(where)
        archives = list(where.glob(name))
    (archive,) = archives
    with tarfile.open(archive) as opened:
        members = [member for member in opened if is_wanted(member)]
        opened.extractall(where / "unpacked", members, filter="data")
    return next((where / "unpacked").iterdir()) / "tests"


def test_their_tests_pass(twin, folder):
    environment = os.environ | {"HEADGATE_PURE": "1" if twin.name == "pure" else "0"}
    done = subprocess.run([sys.executable, "-W", "error", django_upstream.__file__, folder], env=environment,
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"Ran (\d+) tests", done.stderr)[1]) >= 100
