"""The rate of a `RateLimiter` in a shared file, which a process may switch while others decide.

    block  | checksum | generation | text of the rate |   one for each parity of a generation, in the header
    words  | generation in force | generation of all cells |                      the end of the header

A switch writes the block that is not in force, then the first word, converts all cells, and then writes the
second word. So a process that finds two different words has cells of two generations before it, and both
blocks are valid; a process that was killed amid a switch has switched the rate or has not.
"""

from __future__ import annotations

from headgate.limit._rate import checked_rates

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.limit._rate import Rate

BLOCKS = 2048
SWITCHES = 4032
_SIZE = (SWITCHES - BLOCKS) // 2
_TEXT = 16
_WORD = 2**64
_SPREAD = 0x9E3779B97F4A7C15
_SPREAD_BITS = 40


def text_of_rates(rates: Sequence[Rate]) -> str:
    """The rate in one text, of less than 800 characters: a limit has at most 37, and eight tiers are most."""
    return "; ".join(map(str, rates))


def block_at(generation: int) -> slice:
    """The place of the block of a generation in the header."""
    start = BLOCKS + generation % 2 * _SIZE
    return slice(start, start + _SIZE)


def block_of(generation: int, text: str) -> bytes:
    """The block of a generation."""
    content = generation.to_bytes(8, "little") + text.encode().ljust(_SIZE - _TEXT, b"\0")
    return _checksum(content).to_bytes(8, "little") + content


def text_in(block: bytes, generation: int) -> str | None:
    """The rate in a block, None if it is of another generation or damaged."""
    content = block[8:]
    if _checksum(content) != int.from_bytes(block[:8], "little"):
        return None
    if generation != int.from_bytes(content[:8], "little"):
        return None
    return content[8:].rstrip(b"\0").decode(errors="replace")


def _checksum(content: bytes) -> int:
    from zlib import crc32  # only shared limits need it

    return crc32(content)


def in_force(header: bytes) -> tuple[int, str | None]:
    """The generation in a header and its rate, None if that is damaged."""
    generation = memoryview(header)[SWITCHES : SWITCHES + 8].cast("Q")[0]
    return generation, text_in(header[block_at(generation)], generation)


def is_settled(header: bytes) -> bool:
    """Whether all cells behind a header are of the generation that is in force."""
    generation, settled = memoryview(header)[SWITCHES : SWITCHES + 16].cast("Q")
    return generation == settled


def epoch_of(epoch: int, generation: int, strict: bool) -> int:
    """The epoch of the times of a generation: up to 18 minutes before that of the file, so that no time in a
    cell has the same number twice. Entries of logs are not converted, so a strict limiter keeps its epoch.
    """
    return epoch if strict else epoch - (generation * _SPREAD % _WORD >> 64 - _SPREAD_BITS)


def checked_switch(path: str, old: Sequence[Rate], rates: Sequence[Rate], entries: int) -> None:
    """Raise if the rate of a file cannot be switched to another one; `entries` are those of a log, or 0."""
    remedy = f"in {path!r}, another path begins another limit"
    if len(rates) != len(old):
        raise ValueError(f"rate must have {len(old)} tiers, got {len(rates)} for the limit {remedy}")
    most = max([rate.limit for rate in rates])
    if entries and most > entries:
        raise ValueError(f"rate must have a limit of at most {entries}, got {most!r} for the limit {remedy}")


def rates_in(block: bytes, generation: int) -> tuple[Rate, ...] | None:
    """The tiers in a block, None if it is of another generation or damaged."""
    text = text_in(block, generation)
    try:
        return None if text is None else checked_rates(text, None)
    except ValueError:
        return None
