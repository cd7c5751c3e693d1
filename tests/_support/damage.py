"""Damage to the files of shared limits."""

import struct


def overwrite(path, *changes):
    """Write words into a file; each change is the index of a word, and its new value."""
    with path.open("r+b") as file:
        for at, word in changes:
            file.seek(8 * at)
            file.write(struct.pack("=Q", word))
