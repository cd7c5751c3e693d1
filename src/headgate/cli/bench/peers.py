"""The libraries that stand beside headgate, as far as they are installed."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from headgate.cli.machine import gil_enabled

_MODULES = {
    "cachebox": "cachebox",
    "cachetools": "cachetools",
    "lru-dict": "lru",
    "uhashring": "uhashring",
    "limits": "limits",
    "throttled-py": "throttled",
}
PEERS = tuple(_MODULES)
_left_out: set[str] = set()


def leave_out(names: Iterable[str]) -> None:
    """Do without these peers in this process, though they are installed."""
    _left_out.update(names)


def takes_part(distribution: str) -> bool:
    """Whether a peer is installed and was not left out; it is not imported."""
    return distribution not in _left_out and find_spec(_MODULES[distribution]) is not None


def load(distribution: str, submodule: str = "") -> Any:
    """The module of a peer, or one of its submodules, as ".func"; RuntimeError if it turns the GIL on, as all
    others would be measured with the GIL then."""
    free_threaded = not gil_enabled()
    module = import_module(_MODULES[distribution] + submodule)
    if free_threaded and gil_enabled():
        raise RuntimeError("importing it turns the GIL on")
    return module


def peer_versions() -> dict[str, str]:
    """The installed peers and their versions."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and workers do without

    versions = {}
    for name in PEERS:
        if takes_part(name):
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # another library's module of the same name
                versions[name] = "of unknown version"
    return versions


def missing_peers() -> list[str]:
    return [name for name in PEERS if not takes_part(name)]
