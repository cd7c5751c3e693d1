"""Processes that measure, and what becomes of those that fail."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import headgate
from headgate.cli.bench.peers import PEERS
from headgate.cli.errors import CommandError

_TURN, _RESULT = "turn of ", "result "
_SOURCE = str(Path(headgate.__file__).parents[1])
_PATH = f"import sys; sys.path.insert(0, {_SOURCE!r}); "
_PREAMBLE = (
    "from headgate.cli.bench.peers import leave_out; import signal; del sys.path[0]; "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "
)


class ChildError(Exception):
    """A child failed; `running` is the contestant whose turn it was, "" before the first."""

    def __init__(self, running: str, problem: str) -> None:
        super().__init__(f"{running}: {problem}" if running else problem)
        self.running = running
        self.problem = problem


class Failures(dict[str, str]):
    """The peers that failed, and how: each is left out from then on, and the others go on."""

    def add(self, error: ChildError) -> None:
        """Leave the peer out; CommandError if what failed is no peer."""
        if error.running not in PEERS or error.running in self:
            raise CommandError(f"a process that measures failed: {error}") from error
        self[error.running] = error.problem

    def report(self) -> None:
        for name, problem in self.items():
            print(f"headgate bench: {name} is left out: {problem}", file=sys.stderr)


def command(code: str) -> list[str]:
    """Runs `code` in an interpreter of its own, with this headgate first on the path and, by -P, without the
    working directory there, whose files may have the names of peers and of modules."""
    return [sys.executable, "-P", "-c", _PATH + code]


def output_without_failures(code: str, failures: Failures) -> str:
    """What `code` hands to `give_back` without the peers that failed, now or before."""
    while True:
        try:
            return output_of(code, failures)
        except ChildError as error:
            failures.add(error)


def output_of(code: str, left_out: Iterable[str] = ()) -> str:
    """What `code` hands to `give_back`; an interrupt ends it without a traceback. ChildError if it fails."""
    code = f"{_PREAMBLE}leave_out({list(left_out)!r}); {code}"
    done = subprocess.run(command(code), capture_output=True, text=True, errors="backslashreplace")
    result = _last(done.stdout, _RESULT)
    if done.returncode or result is None:
        problems = done.stderr.split("\n") if done.stderr else []
        problem = next(filter(None, reversed(problems)), f"it ended with status {done.returncode}")
        raise ChildError(_last(done.stdout, _TURN) or "", problem)
    return result


def announce(name: str) -> None:
    """Let the parent know whose turn it is, in case this process fails.

    Peers may print too: what is meant for the parent stands on lines of its own, with a prefix.
    """
    print(f"\n{_TURN}{name}", flush=True)


def give_back(result: str) -> None:
    """Hand a line to the parent."""
    print(f"\n{_RESULT}{result}", flush=True)


def _last(text: str, prefix: str) -> str | None:
    lines = [line for line in text.splitlines() if line.startswith(prefix)]
    return lines[-1].removeprefix(prefix) if lines else None
