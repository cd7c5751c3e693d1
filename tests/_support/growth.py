"""By how much a process grows that does the same again and again, in bytes."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import gc, sys
from headgate.cli.bench.memory import _resident_bytes
from headgate.cli.twins import twin_module

module = twin_module(sys.argv[1], sys.argv[2])
exec(sys.argv[3])
sizes = []
for rounds in (5, 25):
    for _ in range(rounds):
        work(module)
    gc.collect()
    sizes.append(_resident_bytes())
print(sizes[1] - sizes[0])
"""


def growth(twin, idea, work):
    """Of 25 calls of ``work(module)`` after five; `work` is the text of that function.

    One arena of Python's allocator, of a MiB, may be used for the first time by any call.
    """
    if os.name != "posix":
        pytest.skip("only POSIX reports how much of a process is resident")
    options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"  # what it keeps is no growth
    done = subprocess.run([sys.executable, "-c", PROGRAM, twin.name, idea, work],
                          env=os.environ | {"ASAN_OPTIONS": options}, stdout=subprocess.PIPE, check=True)
    return int(done.stdout)
