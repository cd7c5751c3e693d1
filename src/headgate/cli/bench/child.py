"""Child processes that measure, and the handling of those that fail."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import headgate
from headgate.cli.bench.peers import PEERS
from headgate.cli.errors import CommandError

_RUNNING, _RESULT = "running ", "result "
_SOURCE = str(Path(headgate.__file__).parents[1])
_PATH = f"import sys; sys.path.insert(0, {_SOURCE!r}); "
_PREAMBLE = (
    "from headgate.cli.bench.peers import leave_out; import signal; del sys.path[0]; "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "
)


class ChildError(Exception):
    """A child failed; `running` is the candidate that ran, "" before the first."""

    def __init__(self, running: str, problem: str) -> None:
        super().__init__(f"{running}: {problem}" if running else problem)
        self.running = running
        self.problem = problem


class Failures(dict[str, str]):
    """The peers that failed and their errors; each is left out from then on, the others continue."""

    def add(self, error: ChildError) -> None:
        """Leave the peer out. Raises CommandError if it was not a peer that failed."""
        if error.running not in PEERS or error.running in self:
            raise CommandError(f"a process that measures failed: {error}") from error
        self[error.running] = error.problem

    def report(self) -> None:
        for name, problem in self.items():
            print(f"headgate bench: {name} is left out: {problem}", file=sys.stderr)


def command(code: str) -> list[str]:
    """The command that runs `code` in a new interpreter, with this headgate first on the path.

    -P keeps the working directory off the path, as its files may have the names of peers or of modules.
    """
    return [sys.executable, "-P", "-c", _PATH + code]


def output_without_failures(code: str, failures: Failures) -> str:
    """The result of `code`, run again without each peer that fails."""
    while True:
        try:
            return output_of(code, failures)
        except ChildError as error:
            failures.add(error)


def output_of(code: str, left_out: Iterable[str] = ()) -> str:
    """The string that `code` passes to `give_back`. An interrupt ends the child without a traceback.

    Raises ChildError if the child fails.
    """
    code = f"{_PREAMBLE}leave_out({list(left_out)!r}); {code}"
    done = subprocess.run(command(code), capture_output=True, text=True, errors="backslashreplace")
    result = _last(done.stdout, _RESULT)
    if done.returncode or result is None:
        problems = done.stderr.split("\n") if done.stderr else []
        problem = next(filter(None, reversed(problems)), f"it ended with status {done.returncode}")
        raise ChildError(_last(done.stdout, _RUNNING) or "", problem)
    return result


def announce(name: str) -> None:
    """Report to the parent which candidate runs next, in case this process fails.

    Peers may print too, so messages to the parent are whole lines with a prefix.
    """
    print(f"\n{_RUNNING}{name}", flush=True)


def give_back(result: str) -> None:
    """Send the result, one line, to the parent."""
    print(f"\n{_RESULT}{result}", flush=True)


def _last(text: str, prefix: str) -> str | None:
    lines = [line for line in text.splitlines() if line.startswith(prefix)]
    return lines[-1].removeprefix(prefix) if lines else None
