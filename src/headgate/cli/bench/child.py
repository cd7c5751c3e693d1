"""Processes that measure."""

import subprocess
import sys

_PREAMBLE = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); "


def output_of(code: str) -> str:
    """What an interpreter of its own prints; an interrupt ends it without a traceback."""
    command = [sys.executable, "-c", _PREAMBLE + code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
