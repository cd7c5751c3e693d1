"""The names of keys in the store: of one length, and the same for every process."""

from __future__ import annotations

from hashlib import blake2b

_MOST = 200


class Prefix:
    """The name of a limit, which all its keys start with.

    A prefix with a hash tag of its own, such as ``"{api}"``, puts all keys of a limit on one server of a
    cluster; otherwise each key has a slot of its own.
    """

    __slots__ = ("_end", "_start", "has_tag", "text")

    def __init__(self, prefix: str) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a str, got {prefix!r}")
        if not 0 < len(prefix) <= _MOST or not (prefix.isascii() and prefix.isprintable()) or " " in prefix:
            wanted = f"1 to {_MOST} printable ASCII characters without spaces"
            raise ValueError(f"prefix must be {wanted}, got {prefix!r}")
        start, end = prefix.find("{"), prefix.find("}")
        if (start >= 0 and end <= start + 1) or start < 0 <= end:
            raise ValueError(f"prefix must have a whole hash tag or no braces, got {prefix!r}")
        self.text = prefix
        self.has_tag = start >= 0
        self._start = f"{prefix}:".encode() if self.has_tag else f"{prefix}:{{".encode()
        self._end = b"" if self.has_tag else b"}"

    def key(self, name: bytes) -> bytes:
        """The key in the store for the name of a key."""
        return self._start + blake2b(name, digest_size=16).hexdigest().encode() + self._end
