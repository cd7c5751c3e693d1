"""Reports which twin is active and why, how it was built, and whether both twins agree."""

import argparse
import json
import os
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import headgate
from headgate._base.backend import backend
from headgate.cli import selfcheck
from headgate.cli.machine import free_threaded_build, gil_enabled, machine
from headgate.cli.twins import IDEAS, twin_module

_EXTRAS = {"rich": "rich", "matplotlib": "matplotlib", "pyyaml": "yaml", "zstandard": "zstandard"}
_CLOCK_READINGS = 2_000
_PACKAGE = Path(headgate.__file__).parent


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor", help="report which twin is active, and check it", description=__doc__
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the findings; return 1 if the twins disagree."""
    problems = selfcheck.disagreements() if backend == "compiled" else []
    findings = diagnose() | {"problems": problems}
    if args.json:
        print(json.dumps(findings, indent=1))
    else:
        _show(findings)
    for problem in problems:
        print(f"headgate doctor: {problem}", file=sys.stderr)
    return 1 if problems else 0


def diagnose() -> dict[str, Any]:
    """All findings but the self-check."""
    from importlib.metadata import version  # slow to import, and needed only here

    return {
        **machine(),
        "HEADGATE_PURE": os.environ.get("HEADGATE_PURE"),
        "modules": {idea: str(twin_module(backend, idea).__file__) for idea in IDEAS},
        "build": _build(),
        "free_threaded_build": free_threaded_build(),
        "gil_enabled": gil_enabled(),
        "clock": _clock(),
        "optional": {name: version(name) if find_spec(module) else None for name, module in _EXTRAS.items()},
    }


def _build() -> dict[str, Any] | None:
    """How the compiled twin was built, even if it is not active; None if it is not installed."""
    if find_spec("headgate._base.buildinfo") is None:
        return None
    info: dict[str, Any] = import_module("headgate._base.buildinfo").build_info()
    return info


def _clock() -> dict[str, Any]:
    info = time.get_clock_info("monotonic")
    return {
        "implementation": info.implementation,
        "resolution_ns": round(info.resolution * 1e9),
        "smallest_step_ns": _smallest_step(),
    }


def _smallest_step() -> int:
    readings = [time.monotonic_ns() for _ in range(_CLOCK_READINGS)]
    return min((later - earlier for earlier, later in pairwise(readings) if later > earlier), default=0)


def _show(findings: dict[str, Any]) -> None:
    lines = _lines(findings)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")


def _lines(findings: dict[str, Any]) -> list[tuple[str, str]]:
    pure = findings["HEADGATE_PURE"]
    clock = findings["clock"]
    return [
        ("headgate", findings["headgate"]),
        ("backend", f"{findings['backend']} ({findings['backend_reason']})"),
        ("HEADGATE_PURE", "unset" if pure is None else pure),
        ("package", str(_PACKAGE)),
        *((f"module {name}", _relative(origin)) for name, origin in findings["modules"].items()),
        *_build_lines(findings["build"]),
        ("Python", f"{findings['python']} ({findings['python_build']})"),
        ("free threading", _threading(findings)),
        ("machine", f"{findings['cpu']}, {findings['cores']} cores, {findings['system']}"),
        (
            "clock",
            f"{clock['implementation']}, resolution {clock['resolution_ns']} ns, "
            f"smallest observed step {clock['smallest_step_ns']} ns",
        ),
        *(
            (name, found or "not installed (extra: headgate[cli])")
            for name, found in findings["optional"].items()
        ),
        ("self-check", _self_check(findings)),
    ]


def _relative(origin: str) -> str:
    """The path of a module below the package."""
    path = Path(origin)
    return str(path.relative_to(_PACKAGE) if path.is_relative_to(_PACKAGE) else path)


def _build_lines(build: dict[str, Any] | None) -> list[tuple[str, str]]:
    if build is None:
        return [("build", "no compiled twin is installed")]
    return [
        ("compiler", f"{build['compiler']}, Cython {build['cython']}, for Python {build['python']}"),
        ("compiler flags", build["flags"]),
        ("64-bit atomics", "lock-free" if build["atomics_lock_free"] else "with a lock"),
    ]


def _threading(findings: dict[str, Any]) -> str:
    if not findings["free_threaded_build"]:
        return "no, this Python is built with the GIL"
    return f"yes, the GIL is {'on' if findings['gil_enabled'] else 'off'} in this process"


def _self_check(findings: dict[str, Any]) -> str:
    if findings["backend"] == "pure":
        return "skipped, as only the pure twin is active"
    return "; ".join(findings["problems"]) or "both twins agree"
