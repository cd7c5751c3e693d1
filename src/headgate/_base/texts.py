"""Foreign text as one line that does nothing to where it is shown."""

from __future__ import annotations


def escaped(text: str) -> str:
    """`text` with unprintable characters escaped, control sequences of terminals included."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else ascii(each)[1:-1] for each in text])


def shortened(text: str, most: int) -> str:
    """`text`, escaped, with dots in place of its middle if it has more than `most` characters.

    >>> shortened("/search", 8), shortened("/search?q=12", 8), shortened("\\x1b[2J", 8)
    ('/search', '/se...12', '\\\\x1b[2J')
    """
    text = escaped(text)
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[-tail:]}"
