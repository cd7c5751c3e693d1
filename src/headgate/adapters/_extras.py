"""What to install if the package of an adapter is missing."""

from __future__ import annotations

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def extra(name: str) -> Iterator[None]:
    """For imports of packages that come with an extra, which the error names if one is missing.

    >>> with extra("prometheus"):
    ...     import no_such_package
    Traceback (most recent call last):
    ModuleNotFoundError: No module named 'no_such_package': pip install 'headgate[prometheus]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        hint = f"{error.msg}: pip install 'headgate[{name}]'"
        raise ModuleNotFoundError(hint, name=error.name, path=error.path) from error
