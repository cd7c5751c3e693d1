"""Types and checks of options."""

import argparse
import math
import re
from collections.abc import Collection

from headgate.cli.errors import CommandError


def positive_int(text: str) -> int:
    try:
        found = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text}") from None
    if found < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return found


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text}") from None


def positive_float(text: str) -> float:
    if not 0 < (found := number(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return found


def check_needs(args: argparse.Namespace, needed: str, *options: str) -> None:
    """Refuse options that have an effect only with another one, if that is not given."""
    if getattr(args, needed) is None:
        for option in options:
            if getattr(args, option.replace("-", "_")) is not None:
                raise CommandError(f"--{option} needs --{needed}")


def check_excludes(args: argparse.Namespace, given: str, *options: str) -> None:
    """Refuse options that have no effect with another one, if that is given."""
    if getattr(args, given) is not None:
        for option in options:
            if getattr(args, option) is not None:
                raise CommandError(f"--{option} has no effect with --{given}")


def known_names(text: str, known: Collection[str]) -> list[str]:
    """A comma-separated list of names, each one of `known`."""
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (choose from {', '.join(known)})")
    return names


def delimiter(text: str) -> str:
    r"""One character between columns; ``\t`` is a tab."""
    character = "\t" if text == r"\t" else text
    if len(character) != 1 or character in '"\r\n':
        raise argparse.ArgumentTypeError(f"must be one character other than a quote, got {text!r}")
    return character


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"not a regular expression: {error}") from error
