"""The libraries that stand beside headgate, as far as they are installed."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

_MODULES = {
    "cachebox": "cachebox",
    "cachetools": "cachetools",
    "lru-dict": "lru",
    "uhashring": "uhashring",
    "limits": "limits",
    "throttled-py": "throttled",
}


def peer(distribution: str) -> Any | None:
    """The peer's module, or None where it is not installed."""
    module = _MODULES[distribution]
    return import_module(module) if find_spec(module) else None


def peer_versions() -> dict[str, str]:
    """The installed peers and their versions."""
    from importlib.metadata import version  # slow to import, and workers do without

    return {name: version(name) for name, module in _MODULES.items() if find_spec(module)}


def missing_peers() -> list[str]:
    return [name for name, module in _MODULES.items() if not find_spec(module)]
