"""The ``headgate`` command; each subcommand is a module with ``add_parser``."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

import headgate
from headgate._base.texts import escaped
from headgate.cli.errors import CommandError

_COMMANDS = (
    "bench.command", "simulate.command", "limit.command", "ring.command", "slo.command", "config.command",
    "shm.command", "top.command", "doctor",
)
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit status of the process."""
    try:
        args = _parser().parse_args(argv)
    except KeyboardInterrupt:  # the imports of all commands take a while
        print("headgate: interrupted", file=sys.stderr)
        return _INTERRUPTED
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except CommandError as error:
        print(escaped(f"headgate {args.command}: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"headgate {args.command}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return _BROKEN_PIPE
    except OSError as error:
        print(escaped(f"headgate {args.command}: {error}"), file=sys.stderr)
        _silence_stdout()
        return 1
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headgate", description="Traffic primitives for Python services.")
    parser.add_argument("--version", action="version", version=f"headgate {headgate.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _COMMANDS:  # imported here, as processes that measure import this package too
        import_module(f"headgate.cli.{name}").add_parser(commands)
    return parser


def _silence_stdout() -> None:
    """Send the flush at interpreter exit to the null device: the pipe has no reader, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
