"""Lines of a log that cannot be parsed."""

import sys
from pathlib import Path

from headgate.cli.errors import CommandError

_REPORTED = 5


class BadLines:
    """Counts the lines that cannot be parsed and reports the first few; the first is fatal if `strict`."""

    def __init__(self, command: str, log: Path, *, strict: bool, silent: bool = False) -> None:
        self.count = 0
        self._command = command
        self._log = log
        self._strict = strict
        self._silent = silent

    def __call__(self, number: int, problem: str) -> None:
        if self._strict:
            raise CommandError(f"{self._log}, line {number}: {problem}")
        self.count += 1
        if not self._silent and self.count <= _REPORTED:
            print(f"headgate {self._command}: line {number} skipped: {problem}", file=sys.stderr)
