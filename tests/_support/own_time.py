"""How long a call takes by itself: without the time in which the machine runs something else instead."""

import os
import time
from contextlib import suppress
from pathlib import Path

TASKS = Path("/proc/self/task")
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def delayed():
    """The seconds for which threads of this process were ready and did not run; 0.0 where that is not told.

    Those that the host of a virtual machine took count too.
    """
    if not TASKS.exists():
        return 0.0
    total = 0.0
    for task in TASKS.iterdir():
        with suppress(OSError):  # it has ended
            total += int((task / "schedstat").read_text().split()[1]) / 1e9
    with suppress(OSError, IndexError):
        total += int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / TICKS
    return total


class Stopwatch:
    """The time since it was made, without that in which the machine did not let this process run."""

    def __init__(self):
        self._delayed, self._start = delayed(), time.monotonic()

    def seconds(self):
        elapsed = time.monotonic() - self._start
        return elapsed - max(0.0, delayed() - self._delayed)
