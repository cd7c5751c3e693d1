"""Counts of events, and snapshots of them in three rings: the pure twin of rings.h, which has the layout.

A lock takes the place of the compare-and-swap: ``move`` is called while it is held.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple, TypeAlias

    Words: TypeAlias = "memoryview[int]"
    Events: TypeAlias = "tuple[int, int]"

    class Ring(NamedTuple):
        step: int
        snapshots: int
        at: int
else:
    Ring = namedtuple("Ring", "step snapshots at")

GOOD, BAD, CURRENT, FIRST, WALL = range(5)
WORDS = 5849
SLOTS = 43_200
RINGS = Ring(1, 361, 8), Ring(5, 865, 1091), Ring(60, 721, 3686)
_ENTRY = 3
_WORD = 2**64
_STAMPED = 2**40 - 1


def stamp_of(slot: int, good: int, bad: int) -> int:
    """The stamp of a valid snapshot.

    >>> stamp_of(0, 0, 0) >> 24
    1
    """
    mixed = (good * 0x9E3779B97F4A7C15 + bad * 0xC2B2AE3D27D4EB4F + slot) % _WORD
    mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 % _WORD
    return ((slot + 1) << 24 | mixed >> 40 | 1) % _WORD


def _snap(words: Words, ring: Ring, slot: int) -> None:
    at = ring.at + _ENTRY * (slot % ring.snapshots)
    if words[at] >> 24 == slot + 1:
        return
    words[at] = slot + 1 << 24
    good, bad = words[GOOD], words[BAD]
    words[at + 1], words[at + 2] = good, bad
    words[at] = stamp_of(slot, good, bad)


def move(words: Words, slot: int) -> int:
    """Move on to a slot. The current slot afterwards: a later one, unless it is later by more than the
    window, as after a step of the clock or in a damaged file.

    >>> move(memoryview(bytearray(8 * WORDS)).cast("Q"), 5)
    5
    """
    current = words[CURRENT]
    if 0 <= current - slot <= SLOTS:
        return current
    for ring in RINGS:
        next_slot, ended = slot // ring.step, current // ring.step
        for passed in range(max(ended, next_slot - ring.snapshots), next_slot):
            _snap(words, ring, passed)
    words[CURRENT] = slot
    return slot


def read(words: Words, ring: Ring, slot: int, most: Events) -> Events | None:
    """The counts at the end of a slot, None if its snapshot is not valid or has more than `most`.

    >>> read(memoryview(bytearray(8 * WORDS)).cast("Q"), RINGS[0], 0, (9, 9)) is None
    True
    """
    at = ring.at + _ENTRY * (slot % ring.snapshots)
    stamp, good, bad = words[at], words[at + 1], words[at + 2]
    if stamp == stamp_of(slot, good, bad) and good <= most[0] and bad <= most[1]:
        return good, bad
    return None


def _counts_at(words: Words, ring: Ring, slot: int, now: int, most: Events) -> Events:
    """The counts at the end of a slot of a ring: those of its snapshot or the next older one, or of the next
    later one if those are overwritten. `now` is the current slot of the ring, `most` the counts now.
    """
    first = (words[FIRST] & _STAMPED) // ring.step
    oldest = max(first, now - ring.snapshots)
    older = (read(words, ring, at, most) for at in range(slot, oldest - 1, -1))
    counts = next(filter(None, older), None)
    if counts is not None:
        return counts
    if slot < first or oldest == first:
        return 0, 0
    later = (read(words, ring, at, most) for at in range(slot + 1, now))
    return next(filter(None, later), most)


def events_of(words: Words, now: int, slots: int) -> Events:
    """The good and bad events of the current slot and of the whole slots that `slots` before it span, by the
    finest ring that has them.

    >>> words = memoryview(bytearray(8 * WORDS)).cast("Q")
    >>> words[GOOD] = 3
    >>> events_of(words, 0, 5)
    (3, 0)
    """
    ring = next((ring for ring in RINGS[:-1] if slots <= ring.step * (ring.snapshots - 1)), RINGS[-1])
    good, bad = counted = words[GOOD], words[BAD]
    now //= ring.step
    before = _counts_at(words, ring, now - -(-slots // ring.step) - 1, now, counted)
    return good - before[0], bad - before[1]
