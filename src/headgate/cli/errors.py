"""Errors that a command reports without a traceback."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any


class CommandError(Exception):
    """The command cannot be carried out; the message says why."""


def require(module: str, option: str) -> Any:
    """The optional module that `option` needs. Raises CommandError, naming the extra, if it is missing."""
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise CommandError(f"{option} needs {package}: pip install 'headgate[cli]'")
    return import_module(module)
