"""Which requests are exempt from limits and shedding."""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import isawaitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from headgate.adapters.keys import Request

    Exempt: TypeAlias = "Iterable[str] | Callable[[Request], Any]"


_DOT_SEGMENT = re.compile(r"[/\\]\.\.?(?:[/\\]|\Z)")


def exempting(exempt: Exempt) -> Callable[[Request], Any] | None:
    """A predicate over request views for paths and patterns of paths, where ``*`` is any text, or for a
    callable, whose result may be awaitable; None if no request is exempt.

    No pattern with ``*`` matches a path with a segment ``.`` or ``..``, since what serves it may resolve that
    to another path: ``/static/../admin`` is none of ``/static/*``.

    Raises ValueError if a pattern does not begin with ``/`` or ``*``, TypeError if `exempt` is neither.

    >>> from headgate.adapters.asgi import ASGIRequest
    >>> exempt = exempting(["/healthz", "/static/*"])
    >>> [exempt(ASGIRequest({"path": path})) for path in ("/healthz", "/static/a/b.css", "/healthz/", "/")]
    [True, True, False, False]
    """
    if callable(exempt):
        return exempt
    if isinstance(exempt, (str, bytes)) or not isinstance(exempt, Iterable):
        raise TypeError(f"exempt must be an iterable of paths or a callable, got {exempt!r}")
    patterns = list(exempt)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
            raise ValueError(f"exempt must be paths or patterns such as '/static/*', got {pattern!r}")
    exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
    globs = [".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns if "*" in pattern]
    if not globs:
        return (lambda request: request.path in exact) if exact else None
    matches = re.compile("|".join(globs), re.DOTALL).fullmatch

    def is_exempt(request: Request) -> bool:
        path = request.path
        return path in exact or (matches(path) is not None and _DOT_SEGMENT.search(path) is None)

    return is_exempt


def is_exempt(exempt: Callable[[Request], Any], request: Request, name: str = "exempt") -> bool:
    """Whether a request is exempt, where nothing awaits what the callable, the argument `name`, returns.

    Raises TypeError if that is awaitable: it would count as true, and every request as exempt.

    >>> is_exempt(lambda request: 1, None)
    True
    """
    found = exempt(request)
    return found if isinstance(found, bool) else bool(unawaited(name, found))


def unawaited(name: str, found: Any) -> Any:
    """What the callable, the argument `name`, has returned where nothing awaits it.

    Raises TypeError if that is awaitable.

    >>> unawaited("priority", "batch")
    'batch'
    """
    if isawaitable(found):
        if hasattr(found, "close"):
            found.close()
        raise TypeError(f"{name} must not return an awaitable, as nothing awaits it here, got {found!r}")
    return found
