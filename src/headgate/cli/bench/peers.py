"""The peers: installed libraries that headgate is compared with."""

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
    """Ignore these peers in this process, even if they are installed."""
    _left_out.update(names)


def available(distribution: str) -> bool:
    """Whether a peer is installed and was not left out; it is not imported."""
    return distribution not in _left_out and find_spec(_MODULES[distribution]) is not None


def load(distribution: str, submodule: str = "") -> Any:
    """The module of a peer, or a submodule such as ".func".

    Raises RuntimeError if importing it enables the GIL, as all others would then be measured with the GIL.
    """
    free_threaded = not gil_enabled()
    module = import_module(_MODULES[distribution] + submodule)
    if free_threaded and gil_enabled():
        raise RuntimeError("importing it enables the GIL")
    return module


def peer_versions() -> dict[str, str]:
    """The installed peers and their versions."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and not needed by workers

    versions = {}
    for name in PEERS:
        if available(name):
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # a module of the same name from another library
                versions[name] = "of unknown version"
    return versions


def missing_peers() -> list[str]:
    return [name for name in PEERS if not available(name)]
