"""The checked arguments of an HTTPCache."""

from __future__ import annotations

from headgate._base.checks import checked_int, checked_number
from headgate._base.sizes import checked_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal

_TOKEN = frozenset("!#$%&'*+-.^_`|~:/0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_SET_COOKIE = ("explicit", "store", "never")


class Settings:
    """What the rules need to know of a cache. Times are in seconds, sizes in bytes."""

    __slots__ = (
        "_arguments", "default_ttl", "fill_timeout", "heuristic", "max_filling", "max_object",
        "max_variants", "maxsize", "name", "set_cookie", "shared", "stale_if_error",
        "stale_while_revalidate", "tag_headers", "wait",
    )

    def __init__(
        self,
        *,
        maxsize: int | str,
        shared: bool,
        default_ttl: float | None,
        set_cookie: Literal["explicit", "store", "never"],
        max_object: int | str,
        max_filling: int | str,
        max_variants: int,
        wait: float,
        fill_timeout: float,
        stale_while_revalidate: float | None,
        stale_if_error: float | None,
        heuristic: float,
        tag_headers: Iterable[str],
        name: str,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "maxsize": maxsize, "shared": shared, "default_ttl": default_ttl, "set_cookie": set_cookie,
            "max_object": max_object, "max_filling": max_filling, "max_variants": max_variants, "wait": wait,
            "fill_timeout": fill_timeout, "stale_while_revalidate": stale_while_revalidate,
            "stale_if_error": stale_if_error, "heuristic": heuristic, "name": name,
        }
        self.maxsize = checked_size("maxsize", maxsize)
        self.shared = bool(shared)
        self.default_ttl = _seconds_or_none("default_ttl", default_ttl)
        if set_cookie not in _SET_COOKIE:
            raise ValueError(f"set_cookie must be one of {', '.join(_SET_COOKIE)}, got {set_cookie!r}")
        self.set_cookie = set_cookie
        self.max_object = min(checked_size("max_object", max_object), self.maxsize)
        self.max_filling = checked_size("max_filling", max_filling)
        self.max_variants = checked_int("max_variants", max_variants)
        if self.max_variants < 1:
            raise ValueError(f"max_variants must be 1 or more, got {max_variants!r}")
        self.wait = _seconds("wait", wait)
        self.fill_timeout = _seconds("fill_timeout", fill_timeout)
        self.stale_while_revalidate = _seconds_or_none("stale_while_revalidate", stale_while_revalidate)
        self.stale_if_error = _seconds_or_none("stale_if_error", stale_if_error)
        self.heuristic = checked_number("heuristic", heuristic)
        if not 0 <= self.heuristic <= 1:
            raise ValueError(f"heuristic must be a fraction from 0 to 1, got {heuristic!r}")
        self.tag_headers = _names("tag_headers", tag_headers)
        self._arguments["tag_headers"] = [name.decode() for name in self.tag_headers]
        if not isinstance(name, str) or not name or not name[0].isalpha() or not _TOKEN.issuperset(name):
            raise ValueError(f"name must be a token of RFC 9651 such as headgate, got {name!r}")
        self.name = name

    def changed(self, changes: dict[str, Any]) -> Settings:
        """Those of a cache to which some of the arguments are given anew."""
        for name in changes:
            if name not in self._arguments:
                raise TypeError(f"settings must be among {', '.join(self._arguments)}, got {name!r}")
        return Settings(**{**self._arguments, **changes})


def _seconds(name: str, value: Any) -> float:
    seconds = checked_number(name, value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} must be finite seconds and not negative, got {value!r}")
    return seconds


def _seconds_or_none(name: str, value: Any) -> float | None:
    return None if value is None else _seconds(name, value)


def _names(name: str, value: Iterable[str]) -> tuple[bytes, ...]:
    """Names of header fields in lower case."""
    names = () if isinstance(value, str) else tuple(value)
    if isinstance(value, str) or not all(isinstance(field, str) and field.isascii() for field in names):
        raise TypeError(f"{name} must be names of header fields, got {value!r}")
    return tuple(field.lower().encode() for field in names)
