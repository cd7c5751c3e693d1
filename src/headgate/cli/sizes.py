"""Cache sizes as options: 500, 10k, 2m, or a percentage of the distinct keys."""

import argparse
import re

from headgate._base.texts import shortened

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([km%]?)", re.IGNORECASE)
_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "%": 1.0}
_MOST = 2**63
_SHOWN = 40


def size(text: str) -> str:
    """`text` if it is a size; the type of an argparse option."""
    match = _SIZE.fullmatch(text)
    if match is None or not 0 < float(match[1]) * _FACTORS[match[2].lower()] < _MOST:
        raise argparse.ArgumentTypeError(
            f"a size is a positive number less than 2**63, 10k, 2m or 5%, got {shortened(text, _SHOWN)!r}"
        )
    return text


def entries(text: str, distinct: int) -> int:
    """The number of entries of a valid size, for a log of `distinct` keys.

    >>> entries("10k", 500), entries("2.5%", 1000)
    (10000, 25)
    """
    match = _SIZE.fullmatch(text)
    assert match is not None
    number, unit = float(match[1]), match[2].lower()
    return max(1, round(distinct * number / 100 if unit == "%" else number * _FACTORS[unit]))
