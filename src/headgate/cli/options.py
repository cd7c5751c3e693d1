"""Types of options."""

import argparse
import math
import re
from collections.abc import Collection

from headgate.cli.errors import CommandError


def positive_int(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return number


def positive_float(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return number


def check_about(args: argparse.Namespace, about: str, *options: str) -> None:
    """Refuses options that are given without the one that they are about."""
    if getattr(args, about) is None:
        for option in options:
            if getattr(args, option.replace("-", "_")) is not None:
                raise CommandError(f"--{option} is about --{about}, which is not given")


def check_instead(args: argparse.Namespace, chosen: str, *options: str) -> None:
    """Refuses options that are given beside one that makes them void."""
    if getattr(args, chosen) is not None:
        for option in options:
            if getattr(args, option) is not None:
                raise CommandError(f"--{option} does nothing with --{chosen}")


def known_names(text: str, known: Collection[str]) -> list[str]:
    """A comma-separated list of names out of `known`."""
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
        raise argparse.ArgumentTypeError(f"no regular expression: {error}") from error
