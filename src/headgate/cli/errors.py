"""What a command tells its user instead of a traceback."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


class CommandError(Exception):
    """The command cannot do what was asked; the message says why."""


def require(module: str, option: str) -> Any:
    """The optional module that `option` needs, or a CommandError naming the extra that brings it."""
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise CommandError(f"{option} needs {package}: pip install 'headgate[cli]'")
    return import_module(module)
