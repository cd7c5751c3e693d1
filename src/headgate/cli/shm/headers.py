"""Parsing of the headers of shared limits' files, which may contain any bytes."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from headgate._base.sizes import checked_size
from headgate.limit import _files, _ledger
from headgate.limit._rate import checked_rates
from headgate.limit._tables import checked_overflow, checked_windows, count_lines
from headgate.limit._units import checked_positive
from headgate.slo import _files as _objectives

_VALUE = re.compile(r"""(?P<bool>True|False) | (?P<int>-?\d{1,20}) | (?P<float>-?\d+(\.\d+)?(e[-+]?\d{1,3})?)
                        | '(?P<single>[^'\\]*)' | "(?P<double>[^"\\]*)" """, re.VERBOSE)
HEADER_SIZE = max(_files.HEADER, _ledger.SIZE)


class DamagedHeaderError(ValueError):
    """A header that no limiter has written."""


def parse_header(content: bytes) -> dict[str, Any] | None:
    """The settings in the first `HEADER_SIZE` bytes of a file, or None if it is not a file of a shared limit.

    The settings are valid arguments of the limiter, by name; for an unknown layout there is only its number.
    Raises DamagedHeaderError, and nothing else, for any other contents.
    """
    try:
        if header := _files.header_of(content):
            return _table_settings(header)
        if objective := _objectives.header_of(content):
            return _objective_settings(objective)
        return _ledger.settings_of(content) if _ledger.is_ledger(content) else None
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedHeaderError(f"a damaged header: {error}") from error


def _table_settings(header: _files.Header) -> dict[str, Any]:
    if header.version != _files.VERSION:
        return {"limiter": f"of layout {header.version}"}
    settings = {name: _value(text) for name, text in header.settings.items()}
    _CHECKS[settings["limiter"]](settings)
    return settings


def _objective_settings(header: _objectives.Header) -> dict[str, Any]:
    if header.version != _objectives.VERSION:
        return {"limiter": f"of layout {header.version}"}
    terms = _objectives.terms_of(header)
    twin = header.settings["twin"]
    if not twin.isidentifier():
        raise ValueError(f"not a twin: {twin!r}")
    return {"limiter": "SLO", "twin": twin, "window": terms.window, "latency": terms.latency}


def _value(text: str) -> str | float:
    """The value of `text`: settings are of simple types, without escapes."""
    match = _VALUE.fullmatch(text)
    if match is None:
        raise ValueError(f"not a value: {text!r}")
    if match["bool"]:
        return text == "True"
    if match["int"]:
        return int(text)
    return float(text) if match["float"] else text[1:-1]


def _check_rate_limiter(settings: Mapping[str, Any]) -> None:
    if not isinstance(settings["rate"], str):
        raise TypeError(f"not a rate: {settings['rate']!r}")
    rates = checked_rates(settings["rate"], None)
    if settings["strict"]:
        checked_windows(rates)
    checked_overflow(settings["on_full"])
    count_lines(settings["max_keys"])


def _check_bucket(settings: Mapping[str, Any]) -> None:
    for name in ("capacity", "refill_rate"):
        checked_positive(name, settings[name])


def _check_storage(settings: Mapping[str, Any]) -> None:
    checked_size("size", settings["size"])


_CHECKS: dict[Any, Callable[[Mapping[str, Any]], None]] = {
    "HeadgateStorage": _check_storage,
    "RateLimiter": _check_rate_limiter,
    "TokenBucket": _check_bucket,
}
