"""The time that ``import headgate`` adds to the start of an interpreter, ``import json`` for comparison."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("statement", ["pass", "import json", "import headgate"])
def test_interpreter_start(benchmark, statement):
    benchmark.group = "interpreter start"
    command = [sys.executable, "-c", statement]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, warmup_rounds=2, rounds=15)
