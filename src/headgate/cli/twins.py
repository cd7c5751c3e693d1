"""The compiled and pure modules of each package with twins."""

from importlib import import_module
from pathlib import Path
from typing import Any

import headgate

_PACKAGE = Path(headgate.__file__).parent
IDEAS = {
    path.parent.name: ".".join(("headgate", *path.parent.relative_to(_PACKAGE).parts))
    for path in sorted(_PACKAGE.rglob("_pure.py"))
}


def twin_module(twin: str, idea: str) -> Any:
    """The module of a twin, "compiled" or "pure", in a package such as "cache".

    >>> twin_module("pure", "cache").__name__
    'headgate.cache._pure'
    """
    return import_module(f"{IDEAS[idea]}._{twin}")
