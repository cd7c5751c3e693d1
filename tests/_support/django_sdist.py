"""The source distribution of the Django that is installed, which pip downloads while tests run."""

import os
import subprocess
import sys
from pathlib import Path

import django
import pytest

WANTED = f"django=={django.__version__}"
NAME = f"[dD]jango-{django.__version__}.tar.gz"
DOWNLOAD = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-binary", "django",
            "--no-deps", "--no-build-isolation", "--retries", "1", "--timeout", "10", WANTED]


class Sdist:
    """The archive in the folder HEADGATE_DJANGO, or else from the index, in the folder `where`."""

    def __init__(self, where):
        self._folder = Path(os.environ.get("HEADGATE_DJANGO", where))
        self._pip = None
        if not list(self._folder.glob(NAME)):  # or there is that of another version
            self._folder = where
            self._pip = self._download()

    def _download(self):
        alien = {"HEADGATE_PURE", "LD_PRELOAD", "PYTHONPATH"}
        environment = {name: value for name, value in os.environ.items() if name not in alien}
        return subprocess.Popen([sys.executable, *DOWNLOAD, "-d", self._folder], env=environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def archive(self):
        """The path of the archive, once it is there."""
        if self._pip is not None:
            _, errors = self._pip.communicate(timeout=600)
            if self._pip.returncode:
                pytest.skip(f"pip cannot download {WANTED}: {errors.strip().splitlines()[-1]}")
        (archive,) = self._folder.glob(NAME)
        return archive

    def close(self):
        if self._pip is not None:
            self._pip.kill()
            self._pip.wait()
            self._pip.stderr.close()
