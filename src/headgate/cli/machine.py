"""The machine and the interpreter that a measurement ran on."""

import os
import platform
import sys
import sysconfig
from pathlib import Path

import headgate
from headgate._base.backend import reason


def machine() -> dict[str, str | int | None]:
    """The machine, the interpreter and the active twin, in types of JSON."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": _python_build(),
        "headgate": headgate.__version__,
        "backend": headgate.backend,
        "backend_reason": reason,
    }


def load_average() -> float | None:
    """The load average of the last minute, or None where the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def gil_enabled() -> bool:
    """Whether this process runs with the global interpreter lock."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())


def free_threaded_build() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _python_build() -> str:
    threading = "free-threaded build, " if free_threaded_build() else ""
    return f"{threading}{platform.python_compiler()}"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine() or "unknown CPU"
